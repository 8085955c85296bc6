"""Attention inside packed texts, a cache's worth of scores at a time.

The scores of a micro-batch, [texts, heads, tokens, tokens], are by far its largest tensors. Written out for autograd
they cost more memory than all the rest together, and most of their time is spent on fetching new pages. Here a piece
of them is made, used and forgotten while it is in the processor's cache, and the backward pass makes it again, as
FlashAttention does on a GPU (Dao et al. 2022, arXiv 2205.14135, section 3.1 and appendix B). The dropout mask is
kept, one byte an element; in 16 bits the weights are, too, for to read two bytes is cheaper than to make them again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from headrace.backbones._drawn import Draws, drop
from headrace.backbones._packed import Group, Packed

# Scores of a 16-bit row that fill a register: torch's softmax takes up to six times as long for a short row that ends
# inside one (bfloat16, AVX-512: 2.9 ns a score in rows of 30, 0.5 in rows of 32).
EVEN_ROW = 32
# Scores that are held at a time: 4 MB of float32. A quarter or a half of it was slower (short probes, not benchmarks).
PIECE_CELLS = 1 << 20


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, packed: Packed, *, scale: float, dropout: float, window: int | None
) -> Tensor:
    """Return the attention of each text to itself, [1, packed tokens, heads, head width].

    Args:
        query, key, value: [1, heads, packed tokens, head width], on the CPU.
        packed: Where the texts lie.
        scale: Of the scores.
        dropout: Rate on the attention weights, drawn anew for each.
        window: A token sees the tokens that are less than so many away; None for all of its text.
    """
    rows = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
    if torch.is_autocast_enabled("cpu"):
        rows = [tensor.to(torch.get_autocast_dtype("cpu")) for tensor in rows]
    draws = Draws(dropout) if dropout > 0.0 else None
    found: Tensor = _PackedAttention.apply(*rows, packed, scale, draws, window)  # type: ignore[no-untyped-call]
    return found.unsqueeze(0)


class _PackedAttention(torch.autograd.Function):
    """[tokens, heads, head width] of queries, keys and values of the same shape.

    With P the weights, M the mask (0 or `draws.scale`) and O = (P * M) V: dV = (P * M)' dO, dP = (dO V') * M, and
    dS = P * (dP - D), where D, the sum of dP * P over a row, is that of dO * O.
    """

    @staticmethod
    def forward(
        context: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        packed: Packed,
        scale: float,
        draws: Draws | None,
        window: int | None,
    ) -> Tensor:
        output, room = torch.empty(query.shape, dtype=query.dtype), _room(packed, query)
        masks: list[Tensor] = []
        kept_weights: list[Tensor] = []
        keeps = query.dtype.itemsize == 2 and any(context.needs_input_grad[:3])
        for group in packed.groups:
            inside = _Inside(group, query, key, value, scale, window)
            mixed = torch.empty_like(inside.query)
            for piece in inside.pieces():
                weights = inside.weights(piece, room, anew=keeps)
                if keeps:
                    kept_weights.append(weights)
                if draws is not None:
                    masks.append(draws.kept(weights.shape))
                    weights = drop(weights, masks[-1], out=_view(room[1], weights.shape))
                torch.bmm(weights, inside.value[piece], out=mixed[piece])
            if draws is not None:
                mixed *= draws.scale
            output[group.start : group.stop] = _by_token(mixed, group, query.shape[1])
        context.save_for_backward(query, key, value, output, *kept_weights, *masks)
        context.n_kept = len(kept_weights)
        context.packed, context.scale, context.window = packed, scale, window
        context.kept_scale = 1.0 if draws is None else draws.scale
        return output

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, *kept = context.saved_tensors
        n_heads = query.shape[1]
        found = [torch.empty(query.shape, dtype=query.dtype) for _ in range(3)]
        # the gradients of the weights are those of the kept ones times the scale: the scale is given to the output's
        above = gradients[0] * context.kept_scale
        means = (gradients[0] * output).sum(dim=-1, keepdim=True)
        made, masks, room = iter(kept[: context.n_kept]), iter(kept[context.n_kept :]), _room(context.packed, query)
        for group in context.packed.groups:
            inside = _Inside(group, query, key, value, context.scale, context.window)
            d_output, mean = (_by_head(rows[group.start : group.stop], group, pads=True) for rows in (above, means))
            d_query, d_key, d_value = (torch.empty_like(inside.query) for _ in range(3))
            for piece in inside.pieces():
                weights, mask = next(made, None), next(masks, None)
                if weights is None:
                    weights = inside.weights(piece, room)
                d_scores = _view(room[0], weights.shape)  # the scores are not needed any more
                dropped = weights if mask is None else drop(weights, mask, out=d_scores)
                torch.bmm(dropped.transpose(1, 2), d_output[piece], out=d_value[piece])
                torch.bmm(d_output[piece], inside.value[piece].transpose(1, 2), out=d_scores)
                if mask is not None:
                    drop(d_scores, mask, out=d_scores)
                d_scores -= mean[piece]
                d_scores *= weights
                torch.bmm(d_scores, inside.key[piece], out=d_query[piece])
                torch.bmm(d_scores.transpose(1, 2), inside.query[piece], out=d_key[piece])
            d_query *= context.scale
            for rows, by_head in zip(found, (d_query, d_key, d_value), strict=True):
                rows[group.start : group.stop] = _by_token(by_head, group, n_heads)
        return (*found, None, None, None, None)


class _Inside:
    """Queries, keys and values of a group, [texts * heads, width, head width] each, and its weights piece by piece."""

    def __init__(
        self, group: Group, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None
    ) -> None:
        here = slice(group.start, group.stop)
        self.query = _by_head(query[here], group) * scale
        self.key, self.value = _by_head(key[here], group), _by_head(value[here], group)
        self._lowest = torch.finfo(query.dtype).min
        self._ended: Tensor | None = None
        if group.ended is not None:
            ended = torch.zeros(group.ended.shape, dtype=query.dtype).masked_fill_(group.ended, self._lowest)
            self._ended = ended.expand(-1, query.shape[1], -1, -1).reshape(-1, 1, group.width)
        self._far: Tensor | None = None
        if window is not None and group.width > window:
            places = torch.arange(group.width)
            self._far = (places[:, None] - places[None, :]).abs() >= window

    def pieces(self) -> Iterator[slice]:
        """Cut the texts' heads into even pieces of at most PIECE_CELLS scores, of one head at least."""
        n, width = self.query.shape[:2]
        n_pieces = -(-n // _heads_at_a_time(width))
        borders = [n * k // n_pieces for k in range(n_pieces + 1)]
        return (slice(first, last) for first, last in itertools.pairwise(borders))

    def weights(self, piece: slice, room: Tensor, *, anew: bool = False) -> Tensor:
        """Return the attention weights before dropout, [heads of the piece, width, width].

        Args:
            piece: Which heads.
            room: From `_room`; the scores are left in its first part, the weights in its second.
            anew: The weights are to last, in memory of their own.
        """
        query, key = self.query[piece], self.key[piece].transpose(1, 2)
        shape = torch.Size((len(query), query.shape[1], query.shape[1]))
        scores = torch.bmm(query, key, out=_view(room[0], shape))
        # Not -inf: a place beyond its text's end that sees no token at all must stay finite for the gradient.
        if self._ended is not None:
            scores += self._ended[piece]
        if self._far is not None:
            scores.masked_fill_(self._far, self._lowest)
        return torch.softmax(scores, dim=-1, out=torch.empty_like(scores) if anew else _view(room[1], shape))


def _heads_at_a_time(width: int) -> int:
    return max(1, PIECE_CELLS // width**2)


def _view(part: Tensor, shape: torch.Size) -> Tensor:
    return part[: shape.numel()].view(shape)


def _room(packed: Packed, like: Tensor) -> Tensor:
    """Return room for the scores and the weights of the largest piece, [2, cells]: fetched once, then in the cache."""
    n_heads = like.shape[1]
    cells = (min(_heads_at_a_time(g.width), g.n_texts * n_heads) * g.width**2 for g in packed.groups)
    return like.new_empty(2, max(cells))


def _by_head(rows: Tensor, group: Group, *, pads: bool = False) -> Tensor:
    """Return [texts * heads, width, head width] of [tokens, heads, head width].

    Args:
        rows: The group's packed tokens.
        group: Where its texts lie.
        pads: Whether places where a text has ended are zero; otherwise some token stands in for them.
    """
    n_heads, head_width = rows.shape[1:]
    if group.spread is not None and group.real is not None:
        flat = rows.reshape(len(rows), -1)
        if pads:
            rows = flat.new_zeros(group.n_texts * group.width, flat.shape[1]).index_copy_(0, group.real, flat)
        else:
            rows = flat.index_select(0, group.spread)
    by_text = rows.reshape(group.n_texts, group.width, n_heads, head_width).transpose(1, 2)
    return by_text.reshape(group.n_texts * n_heads, group.width, head_width)


def _by_token(by_head: Tensor, group: Group, n_heads: int) -> Tensor:
    """Return [tokens, heads, head width] of [texts * heads, width, head width]; places without a token are left out."""
    head_width = by_head.shape[-1]
    rows = by_head.view(group.n_texts, n_heads, group.width, head_width).transpose(1, 2)
    rows = rows.reshape(group.n_texts * group.width, n_heads, head_width)
    return rows if group.real is None else rows.index_select(0, group.real)
