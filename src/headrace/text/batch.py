"""How a step's rows become tensors, and how many rows go together. Which rows make which step is in `plan`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from headrace.errors import RecipeError
from headrace.text.plan import Plan, order

__all__ = ["Batch", "Plan", "Tokens", "batches_by_length", "collate", "micro_batches", "order", "token_batches"]


@dataclass(frozen=True)
class Batch:
    """Texts of one forward pass, padded to the longest of them.

    Attributes:
        input_ids: [texts, tokens] int64, padded at the right with the tokenizer's padding id.
        attention_mask: [texts, tokens] int64; 1 for real tokens.
        token_type_ids: [texts, tokens] int64, or None where the family has no segments.
        rows: [texts] int64, the row of each text in its data set.
        targets: [texts] int64 (single label) or [texts, labels] float32 (multi-label), or None when predicting.
        states: [texts, tokens, width] float32, hidden states computed before, 0 for padding, or None: the backbone
            goes on from them.
        depth: How many of the backbone's layers lie below `states`.
        features: [texts, width] float32, what the head gets, computed before, or None: the backbone has nothing to do.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor | None
    rows: Tensor
    targets: Tensor | None = None
    states: Tensor | None = None
    depth: int = 0
    features: Tensor | None = None

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])

    def parts(self, n_texts: int) -> list[Batch]:
        """Return the texts in batches of at most so many, from 1, each padded to its own longest."""
        if len(self) <= n_texts:
            return [self]
        return [self._of_rows(slice(first, first + n_texts)) for first in range(0, len(self), n_texts)]

    def _of_rows(self, rows: slice) -> Batch:
        width = int(self.attention_mask[rows].sum(dim=1).max())
        found: dict[str, Tensor] = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, Tensor):
                by_token = name in ("input_ids", "attention_mask", "token_type_ids", "states")
                found[name] = value[rows, :width] if by_token else value[rows]
        return replace(self, **found)  # type: ignore[arg-type]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch on another device."""

        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **{name: t.to(device, non_blocking=non_blocking) for name, t in tensors.items()})  # type: ignore[arg-type]


class Tokens(Protocol):
    """What `collate` needs of a token store: the lengths of all rows, and the tokens of one."""

    @property
    def lengths(self) -> np.ndarray:
        """[rows] int32, tokens of each row."""

    def ids(self, row: int) -> np.ndarray:
        """Return the tokens of one row."""

    def first_length(self, row: int) -> int:
        """Return how many tokens of one row belong to segment 0."""


def collate(
    store: Tokens,
    rows: np.ndarray,
    targets: np.ndarray | None,
    *,
    pad_id: int,
    uses_token_types: bool,
    multiple_of: int = 1,
) -> Batch:
    """Return the batch of these rows, padded at the right to the longest of them.

    Args:
        store: Tokens of the whole data set.
        rows: [texts] int64, positions in the store; none give a batch of no texts.
        targets: [rows] int64 or [rows, labels] float32 of the whole data set, or None when predicting.
        pad_id: What stands where a text has ended.
        uses_token_types: Whether the family wants `token_type_ids`: 0 up to the first text's end, then 1.
        multiple_of: The number of tokens is rounded up to a multiple of it (8 suits tensor cores).
    """
    rows = np.asarray(rows, dtype=np.int64)
    lengths = store.lengths[rows]
    longest = int(lengths.max()) if len(rows) else 0
    width = -(-longest // multiple_of) * multiple_of
    input_ids = np.full((len(rows), width), pad_id, dtype=np.int64)
    for line, row, length in zip(input_ids, rows.tolist(), lengths.tolist(), strict=True):
        line[:length] = store.ids(row)
    columns = np.arange(width)
    real = columns < lengths[:, None]
    token_types: Tensor | None = None
    if uses_token_types:
        first = np.array([store.first_length(row) for row in rows.tolist()], dtype=np.int64)
        token_types = torch.from_numpy((real & (columns >= first[:, None])).astype(np.int64))
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        attention_mask=torch.from_numpy(real.astype(np.int64)),
        token_type_ids=token_types,
        rows=torch.from_numpy(rows.copy()),
        targets=None if targets is None else torch.from_numpy(targets[rows]),
    )


def micro_batches(lengths: np.ndarray, *, max_texts: int, pass_tokens: int) -> list[np.ndarray]:
    """Cut one batch into the micro-batches that cost least, of texts that are about equally long, the longest first.

    Each pass through the model costs as much as some tokens do (embedding gradients, weight casts), and padding costs
    its tokens; the cut that makes their sum smallest is found exactly, over the texts in order of length.

    Args:
        lengths: [texts] tokens of each text of the batch.
        max_texts: At most so many texts each, from 1.
        pass_tokens: What one more pass costs, in tokens, from 0. A large number gives as few passes as can be.

    Returns:
        Positions in `lengths`, each exactly once.
    """
    _at_least_one("max_texts", max_texts)
    by_length = np.argsort(np.asarray(lengths, dtype=np.int64), kind="stable")
    ordered = np.asarray(lengths, dtype=np.int64)[by_length]
    n = len(ordered)
    cost = np.zeros(n + 1, dtype=np.int64)  # of the first k texts
    start = np.zeros(n + 1, dtype=np.int64)  # where the last of their micro-batches begins
    for stop in range(1, n + 1):
        first = max(0, stop - max_texts)
        sizes = np.arange(stop - first, 0, -1)
        totals = cost[first:stop] + sizes * ordered[stop - 1] + pass_tokens
        chosen = int(np.argmin(totals))
        cost[stop], start[stop] = totals[chosen], first + chosen
    found = []
    stop = n
    while stop:  # from the longest down: what runs out of memory does so at the first micro-batch
        found.append(by_length[start[stop] : stop])
        stop = int(start[stop])
    return found


def token_batches(lengths: np.ndarray, *, max_texts: int, max_tokens: int) -> list[np.ndarray]:
    """Cut one batch into as few micro-batches as hold at most so many real tokens each, about equally full.

    For texts that are laid end to end: padding costs nothing there, so only their tokens count.

    Args:
        lengths: [texts] tokens of each text of the batch.
        max_texts: At most so many texts each, from 1.
        max_tokens: At most so many tokens each; a longer text goes alone.

    Returns:
        Positions in `lengths`, each exactly once; the longest texts first.
    """
    _at_least_one("max_texts", max_texts)
    by_length = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    total = int(np.sum(lengths))
    n_passes = max(1, -(-total // max_tokens), -(-len(by_length) // max_texts))
    aim = total / n_passes
    found: list[np.ndarray] = []
    start, tokens = 0, 0
    for place, position in enumerate(by_length.tolist()):
        length = int(lengths[position])
        is_full = tokens + length > max_tokens or place - start >= max_texts or tokens + length / 2 > aim
        if place > start and is_full:
            found.append(by_length[start:place])
            start, tokens = place, 0
        tokens += length
    if start < len(by_length):
        found.append(by_length[start:])
    return found


def batches_by_length(lengths: np.ndarray, max_tokens: int, max_texts: int) -> list[np.ndarray]:
    """Cut a data set into batches for prediction: longest texts first, so that padding stays small.

    Args:
        lengths: [rows] tokens of each row.
        max_tokens: At most so many tokens a batch, padding included; a text that is longer goes alone.
        max_texts: At most so many texts a batch, from 1.

    Returns:
        Rows, each exactly once.
    """
    _at_least_one("max_texts", max_texts)
    by_length = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    found: list[np.ndarray] = []
    start = 0
    while start < len(by_length):
        longest = max(1, int(lengths[by_length[start]]))
        stop = start + min(max_texts, max(1, max_tokens // longest))
        found.append(by_length[start:stop])
        start = stop
    return found


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise RecipeError(f"{name} must be at least 1, not {value}", where=name, next=f"set {name} to 1 or more")
