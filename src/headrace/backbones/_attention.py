"""Attention inside packed texts, a cache's worth of scores at a time.

The scores of a micro-batch, [texts, heads, tokens, tokens], are by far its largest tensors. Written out for autograd
they cost more memory than all the rest together, and most of their time is spent on fetching new pages. Here a piece
of them is made, used and forgotten while it is in the processor's cache, and the backward pass makes it again, as
FlashAttention does on a GPU (Dao et al. 2022, arXiv 2205.14135, section 3.1 and appendix B), the dropout mask too. In
16 bits the weights are kept, for to read two bytes is cheaper than to make them again; the sign bit of a weight, which
is never negative, says that it was dropped.

All of it is one compiled loop where there is one (`_compiled_attention`); what stands here are torch's operations.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from headrace.backbones import _compiled_attention
from headrace.backbones._drawn import Draws
from headrace.backbones._packed import Group, Packed

# Scores of a 16-bit row that fill a register: torch's softmax takes up to six times as long for a short row that ends
# inside one (bfloat16, AVX-512: 2.9 ns a score in rows of 30, 0.5 in rows of 32).
EVEN_ROW = 32
# Scores that are held at a time: 4 MB of float32. A quarter or a half of it was slower (short probes, not benchmarks).
PIECE_CELLS = 1 << 20
_SIGN_BIT = -(1 << 15)


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
    is_learning = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in rows)
    is_compiled = _compiled_attention.is_for(rows[0], draws, is_learning=is_learning)
    if is_compiled and not is_learning:
        return _compiled_attention.answered(rows[0], rows[1], rows[2], packed, scale, window).unsqueeze(0)
    kind = _compiled_attention.CompiledAttention if is_compiled else _PackedAttention
    found: Tensor = kind.apply(*rows, packed, scale, draws, window)  # type: ignore[no-untyped-call]
    return found.unsqueeze(0)


class _PackedAttention(torch.autograd.Function):
    """[tokens, heads, head width] of queries, keys and values of the same shape.

    With P the weights, M the mask (0 or `draws.scale`) and O = (P * M) V: dV = (P * M)' dO, dP = (dO V') * M, and
    dS = P * (dP - D), where D is the sum of dP * P over a row.
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
        output, room = torch.empty(query.shape, dtype=query.dtype), _room(packed, query, n_parts=2)
        is_learning = any(context.needs_input_grad[:3])
        keeps = is_learning and query.dtype.itemsize == 2
        heads: list[Tensor] = []
        made: list[Tensor] = []
        scaled = query * scale
        for group in packed.groups:
            here = slice(group.start, group.stop)
            by_head = [_by_head(rows[here], group) for rows in (scaled, key, value)]
            heads += by_head if is_learning else []
            inside = _Inside(group, by_head, query.shape[1], window)
            mixed = torch.empty_like(inside.query)
            for piece in inside.pieces():
                weights, whole = inside.weigh(piece, draws, room, keeps=keeps)
                if keeps:
                    made.append(whole)
                torch.bmm(weights, inside.value[piece], out=mixed[piece])
            if draws is not None:
                mixed *= draws.scale
            output[here] = _by_token(mixed, group, query.shape[1])
        output[packed.groups[-1].stop :] = 0.0  # of padding: any other number would reach the weights' gradients
        context.save_for_backward(*heads, *made)
        context.n_heads_saved, context.draws = len(heads), None if draws is None else draws.again()
        context.packed, context.scale, context.window = packed, scale, window
        context.shape = query.shape
        return output

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        heads, made = iter(context.saved_tensors), iter(context.saved_tensors[context.n_heads_saved :])
        draws = None if context.draws is None else context.draws.again()
        packed, n_heads = context.packed, context.shape[1]
        found = [gradients[0].new_empty(context.shape) for _ in range(3)]
        room = _room(packed, gradients[0], n_parts=3)
        # the gradients of the weights are those of the kept ones times the scale: the scale is given to the output's
        above = gradients[0] if draws is None else gradients[0] * draws.scale
        for group in packed.groups:
            inside = _Inside(group, list(itertools.islice(heads, 3)), n_heads, context.window)
            d_output = _by_head(above[group.start : group.stop], group, pads=True)
            d_heads = [torch.empty_like(inside.query) for _ in range(3)]
            for piece in inside.pieces():
                inside.put_gradients(piece, next(made, None), draws, d_output[piece], d_heads, room)
            d_heads[0] *= context.scale
            for rows, by_head in zip(found, d_heads, strict=True):
                rows[group.start : group.stop] = _by_token(by_head, group, n_heads)
        for rows in found:
            rows[packed.groups[-1].stop :] = 0.0
        return (*found, None, None, None, None)


class _Inside:
    """Queries (scaled), keys and values of a group, [texts * heads, width, head width] each, and its weights by pieces."""

    def __init__(self, group: Group, by_head: list[Tensor], n_heads: int, window: int | None) -> None:
        self.query, self.key, self.value = by_head
        self._n_heads = n_heads
        self._lowest = torch.finfo(self.query.dtype).min
        self._ended: Tensor | None = None
        if group.ended is not None:
            ended = torch.zeros(group.ended.shape, dtype=self.query.dtype).masked_fill_(group.ended, self._lowest)
            self._ended = ended.expand(-1, n_heads, -1, -1).reshape(-1, 1, group.width)
        self._far: Tensor | None = None
        if window is not None and group.width > window:
            places = torch.arange(group.width)
            self._far = (places[:, None] - places[None, :]).abs() >= window

    def pieces(self) -> Iterator[slice]:
        """Cut the texts' heads into pieces of few sizes, each of at most PIECE_CELLS scores or one head."""
        n, width = self.query.shape[:2]
        start = 0
        for size in _piece_sizes(n // self._n_heads, self._n_heads, width):
            yield slice(start, start + size)
            start += size

    def weigh(self, piece: slice, draws: Draws | None, room: Tensor, *, keeps: bool) -> tuple[Tensor, Tensor]:
        """Return the weights that a piece's values are multiplied by, not scaled, and the weights before dropout.

        Args:
            piece: Which heads.
            draws: Of the dropout.
            room: From `_room`, of two parts; both answers may lie in it.
            keeps: The weights before dropout are to last, in memory of their own; a dropped one has the sign bit.
        """
        weights = self._softmax(piece, room, anew=keeps)
        if draws is None:
            return weights, weights
        free = _view(room[0], weights.shape)
        if keeps:
            return _drop_and_mark(weights, draws, out=free), weights
        return torch.mul(weights, draws.kept(weights.shape).to(weights.dtype), out=free), weights

    def put_gradients(
        self,
        piece: slice,
        made: Tensor | None,
        draws: Draws | None,
        d_output: Tensor,
        found: list[Tensor],
        room: Tensor,
    ) -> None:
        """Put the gradients of a piece's queries, keys and values into `found`.

        Args:
            piece: Which heads.
            made: The weights before dropout as `weigh` left them; None where they were not kept.
            draws: Of the dropout, in the order of the pieces.
            d_output: Of the piece, times the scale of the dropout.
            found: What is filled.
            room: From `_room`, of three parts.
        """
        d_query, d_key, d_value = (by_head[piece] for by_head in found)
        d_weights, spare, d_scores = (_view(part, self._shape(piece)) for part in room)
        weights = self._softmax(piece, room) if made is None else made
        kept: Tensor | None = None
        if draws is None:
            dropped = weights
        elif made is None:
            kept = draws.kept(weights.shape).to(weights.dtype)
            dropped = torch.mul(weights, kept, out=d_weights)
        else:
            dropped = _without_marked(made, out=d_weights)
        torch.bmm(dropped.transpose(1, 2), d_output, out=d_value)
        torch.bmm(d_output, self.value[piece].transpose(1, 2), out=d_weights)
        if kept is not None:
            d_weights *= kept
        elif draws is not None and made is not None:
            _bits(d_weights).mul_(torch.ge(_bits(made), 0, out=_bits(spare)))
            torch.bitwise_and(_bits(made), 0x7FFF, out=_bits(spare))
            weights = spare
        torch._softmax_backward_data(d_weights, weights, -1, weights.dtype, grad_input=d_scores)
        torch.bmm(d_scores, self.key[piece], out=d_query)
        torch.bmm(d_scores.transpose(1, 2), self.query[piece], out=d_key)

    def _softmax(self, piece: slice, room: Tensor, *, anew: bool = False) -> Tensor:
        """Return the weights before dropout; the scores are left in the first part of the room, the weights in its second.

        Args:
            piece: Which heads.
            room: From `_room`.
            anew: The weights are to last, in memory of their own.
        """
        scores = _view(room[0], self._shape(piece))
        torch.bmm(self.query[piece], self.key[piece].transpose(1, 2), out=scores)
        # Not -inf: a place beyond its text's end that sees no token at all must stay finite for the gradient.
        if self._ended is not None:
            scores += self._ended[piece]
        if self._far is not None:
            scores.masked_fill_(self._far, self._lowest)
        return torch.softmax(scores, dim=-1, out=torch.empty_like(scores) if anew else _view(room[1], scores.shape))

    def _shape(self, piece: slice) -> torch.Size:
        width = self.query.shape[1]
        return torch.Size((piece.stop - piece.start, width, width))


def _drop_and_mark(weights: Tensor, draws: Draws, *, out: Tensor) -> Tensor:
    """Return `out` with the weights that are kept and zeros; a weight that is dropped gets the sign bit in its place.

    Args:
        weights: Of a 16-bit type, none negative. Their bits are a whole number's, whose arithmetic is the fastest.
        draws: Say which are dropped.
        out: Like the weights.
    """
    # A NaN's sign bit means nothing: where scores were not finite, nor is anything that comes of them. Its row is all NaN.
    if bool(weights[..., 0].isnan().any()):
        return out.fill_(torch.nan)
    _bits(weights).add_(draws.dropped(weights.shape), alpha=_SIGN_BIT)
    return _without_marked(weights, out=out)


def _without_marked(weights: Tensor, *, out: Tensor) -> Tensor:
    torch.clamp_min(_bits(weights), 0, out=_bits(out))
    return out


def _bits(values: Tensor) -> Tensor:
    return values.view(torch.int16)


def _piece_sizes(n_texts: int, n_heads: int, width: int) -> Iterator[int]:
    """Yield the heads of each piece: 1, 2, 4, 8 ... whole texts, or an even share of a text's heads.

    oneDNN compiles a kernel for each number of heads in a product, see `_packed._SIZES_AN_OCTAVE`.
    """
    most = max(1, PIECE_CELLS // width**2)
    if most < n_heads:
        share = max(size for size in range(1, most + 1) if n_heads % size == 0)
        yield from itertools.repeat(share, n_texts * (n_heads // share))
        return
    while n_texts:
        size = 1 << (min(most // n_heads, n_texts).bit_length() - 1)
        yield size * n_heads
        n_texts -= size


def _view(part: Tensor, shape: torch.Size) -> Tensor:
    return part[: shape.numel()].view(shape)


def _room(packed: Packed, like: Tensor, *, n_parts: int) -> Tensor:
    """Return room for the scores of the largest piece, [n_parts, cells]: its pages are fetched once, then in the cache."""
    n_heads = like.shape[1]
    cells = (next(_piece_sizes(g.n_texts, n_heads, g.width)) * g.width**2 for g in packed.groups)
    return like.new_empty(n_parts, max(cells))


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
    return by_text.reshape(group.n_texts * n_heads, group.width, head_width).contiguous()


def _by_token(by_head: Tensor, group: Group, n_heads: int) -> Tensor:
    """Return [tokens, heads, head width] of [texts * heads, width, head width]; places without a token are left out."""
    head_width = by_head.shape[-1]
    rows = by_head.view(group.n_texts, n_heads, group.width, head_width).transpose(1, 2)
    rows = rows.reshape(group.n_texts * group.width, n_heads, head_width)
    return rows if group.real is None else rows.index_select(0, group.real)
