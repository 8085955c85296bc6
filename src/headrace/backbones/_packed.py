"""Texts of a batch laid end to end: token-wise work on real tokens alone, attention inside each text.

A padded batch spends a fifth to a half of its arithmetic on padding. Here the real tokens of all texts stand in one
row, the longest text first; linear layers, norms and dropout see no padding, and attention runs inside groups of texts
that are about equally long (`_attention`). The model's own code runs unchanged: positions are given explicitly, and its
attention is exchanged through transformers' attention interface.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headrace.compiled import Texts

# One more group costs as much as about 2,000 cells of scores: a handful of small operations.
# An estimate from the overhead of some twenty operations of 2 to 5 µs each, not a benchmark.
_GROUP_CELLS = 2_000
# Packed tokens are filled up to one of so many sizes between a power of two and the next. oneDNN compiles a kernel of
# about half a megabyte for each matrix product of a new size and keeps a thousand of them: with a size for each
# micro-batch a process grew by more than a gigabyte in some hundred steps. One token in a hundred is idle now.
_SIZES_AN_OCTAVE = 32


@dataclass(frozen=True)
class Group:
    """Texts that share matrix products in attention: neighbours among the packed tokens.

    Attributes:
        start, stop: Their packed tokens.
        n_texts: How many texts.
        width: Tokens of the longest of them.
        spread: [n_texts * width] int64, the packed token (from `start`) of each place, 0 where a text has ended; None
            where all texts are equally long.
        real: [stop - start] int64, the place of each packed token; None like `spread`.
        ended: [n_texts, 1, 1, width] bool, true where a text has ended; None like `spread`.
    """

    start: int
    stop: int
    n_texts: int
    width: int
    spread: Tensor | None
    real: Tensor | None
    ended: Tensor | None


@dataclass(frozen=True)
class Packed:
    """How the real tokens of a padded batch are laid end to end.

    Attributes:
        tokens: [packed tokens] int64, the place of each in the flattened batch; behind the real tokens a few that are
            padding, if the batch has any.
        places: [texts * width] int64, the packed token of each place of the flattened batch; 0 for padding.
        positions: [packed tokens] int64, each token's position in its text, from 0; of padding 1.
        lengths: [texts] int64, the tokens of each text, the longest first.
        groups: The texts' attention; padding has none.
    """

    tokens: Tensor
    places: Tensor
    positions: Tensor
    lengths: Tensor
    groups: tuple[Group, ...]

    @cached_property
    def texts(self) -> Texts:
        """The texts as the compiled loops know them, for an attention that drops nothing."""
        return Texts(self.lengths)

    @classmethod
    def of(cls, attention_mask: Tensor, *, even: int = 1) -> Packed:
        """Return the layout of a batch that is padded at the right.

        Args:
            attention_mask: [texts, width]; 1 for real tokens, of which each text has at least one.
            even: The widths of groups are multiples of it.
        """
        n_texts, width = attention_mask.shape
        lengths = attention_mask.sum(dim=1).cpu().numpy()
        order = np.argsort(-lengths, kind="stable")
        ordered = lengths[order]
        ends = np.cumsum(ordered)
        starts = ends - ordered
        widths = -(-ordered // even) * even
        positions = np.arange(int(ends[-1])) - np.repeat(starts, ordered)
        tokens = np.repeat(order * width, ordered) + positions
        places = np.zeros(n_texts * width, dtype=np.int64)
        places[tokens] = np.arange(len(tokens))
        # a single text is as wide already as few texts are
        filled = (_filled(len(tokens)) if n_texts > 1 else width) - len(tokens)
        padding = np.flatnonzero(lengths < width)
        if filled and len(padding):
            first = int(padding[0])
            tokens = np.append(tokens, np.full(filled, first * width + lengths[first]))
            positions = np.append(positions, np.ones(filled, dtype=np.int64))
        groups = [
            _group(ordered[first:last], int(widths[first]), int(starts[first]), attention_mask.device)
            for first, last in group_borders(widths)
        ]
        device = attention_mask.device
        laid = [torch.from_numpy(array).to(device) for array in (tokens, places, positions, ordered)]
        return cls(laid[0], laid[1], laid[2], laid[3], tuple(groups))

    def take(self, values: Tensor) -> Tensor:
        """Return the packed tokens' values, [1, packed tokens], of a batch's, [texts, width]."""
        return values.reshape(-1)[self.tokens].unsqueeze(0)

    def take_rows(self, values: Tensor) -> Tensor:
        """Return the packed tokens' vectors, [1, packed tokens, vector], of a batch's, [texts, width, vector]."""
        return values.flatten(0, 1)[self.tokens].unsqueeze(0)

    def take_first(self, hidden: Tensor) -> Tensor:
        """Return each text's first vector, [1, texts, width], of packed [1, packed tokens, width]; the longest first."""
        return hidden[:, self.positions == 0]

    def put_first(self, first: Tensor, attention_mask: Tensor) -> Tensor:
        """Return [texts, tokens, width] of what `take_first` gave; all but each text's first token is zero."""
        places = self.tokens[self.positions == 0]
        spread = first.new_zeros(attention_mask.numel(), first.shape[-1]).index_copy(0, places, first[0])
        return spread.view(*attention_mask.shape, -1)

    def put(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Return [texts, tokens, width] of packed [1, packed tokens, width]; padding is zero."""
        spread = rows_of(hidden[0], self.places, self.tokens)
        return spread.view(*attention_mask.shape, -1) * attention_mask.unsqueeze(-1).to(hidden.dtype)


def _filled(n_tokens: int) -> int:
    """Return the next size that packed tokens are filled up to."""
    step = max(1, (1 << (n_tokens - 1).bit_length()) // (2 * _SIZES_AN_OCTAVE))
    return -(-n_tokens // step) * step


def group_borders(lengths: np.ndarray) -> list[tuple[int, int]]:
    """Cut texts into the groups whose attention costs least; the cut is exact.

    Args:
        lengths: [texts] tokens of each text, or the width that is made of them; the longest first.

    Returns:
        (first, last) positions of each group, last excluded.
    """
    n = len(lengths)
    squares = lengths.astype(np.int64) ** 2
    cost = np.zeros(n + 1, dtype=np.int64)
    start = np.zeros(n + 1, dtype=np.int64)
    for stop in range(1, n + 1):
        # the first of a group is its longest
        totals = cost[:stop] + np.arange(stop, 0, -1) * squares[:stop] + _GROUP_CELLS
        start[stop] = int(np.argmin(totals))
        cost[stop] = totals[start[stop]]
    found = []
    stop = n
    while stop:
        found.append((int(start[stop]), stop))
        stop = int(start[stop])
    return found[::-1]


def _group(lengths: np.ndarray, width: int, start: int, device: torch.device) -> Group:
    n_texts, n_tokens = len(lengths), int(lengths.sum())
    if n_texts * width == n_tokens:
        return Group(start, start + n_tokens, n_texts, width, None, None, None)
    ended = np.arange(width) >= lengths[:, None]
    real = np.flatnonzero(~ended.reshape(-1))
    spread = np.zeros(n_texts * width, dtype=np.int64)
    spread[real] = np.arange(n_tokens)
    laid = (torch.from_numpy(array).to(device) for array in (spread, real, ended[:, None, None, :]))
    return Group(start, start + n_tokens, n_texts, width, *laid)


def rows_of(rows: Tensor, chosen: Tensor, back: Tensor) -> Tensor:
    """Return the chosen rows; each row is chosen once, and by places whose gradient is zero besides.

    Args:
        rows: [rows, width].
        chosen: [places] int64, a row each.
        back: [rows] int64, the place whose gradient is the row's; of a row that is padding, one whose gradient is zero.
    """
    found: Tensor = _Rows.apply(rows, chosen, back)  # type: ignore[no-untyped-call]
    return found


class _Rows(torch.autograd.Function):
    """Rows chosen by index, whose gradient is another choice of rows instead of torch's slow scattered addition."""

    @staticmethod
    def forward(context: Any, rows: Tensor, chosen: Tensor, back: Tensor) -> Tensor:
        context.save_for_backward(back)
        return rows.index_select(0, chosen)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (back,) = context.saved_tensors
        return gradients[0].index_select(0, back), None, None
