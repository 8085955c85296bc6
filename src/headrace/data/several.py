"""Texts that come from several files: as one, or divided by their content, an equal text never on both sides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from headrace.data.examples import BadRow, Examples
from headrace.data.split import exact_keys, seeded, text_keys
from headrace.errors import DataError

Rows = list[np.ndarray]


@dataclass(frozen=True, eq=False)
class Joined:
    """The rows of several files, one file after the other; nothing is copied, and labels are not looked at."""

    files: tuple[Examples, ...]

    def __len__(self) -> int:
        return int(self._borders[-1])

    @property
    def is_pair(self) -> bool:
        """Whether each row is a pair of texts."""
        return any(file.is_pair for file in self.files)

    @property
    def bad_rows(self) -> tuple[BadRow, ...]:
        """The first of the rows that were left out."""
        return tuple(bad for file in self.files for bad in file.bad_rows)

    @property
    def n_bad_rows(self) -> int:
        """How many were left out."""
        return sum(file.n_bad_rows for file in self.files)

    def take(self, positions: np.ndarray | Sequence[int]) -> Joined:
        """Return the view of these positions, which ascend."""
        positions = np.asarray(positions, dtype=np.int64)
        parts = np.split(positions, np.searchsorted(positions, self._borders[1:-1]))
        ends = zip(self.files, parts, self._borders[:-1], strict=True)
        return Joined(tuple(file.take(part - begin) for file, part, begin in ends))

    def column(self, name: str, start: int = 0, stop: int | None = None) -> list[Any]:
        """Return a column's values of rows [start, stop) as Python objects."""
        stop = len(self) if stop is None else stop
        found: list[Any] = []
        for file, begin in zip(self.files, self._borders[:-1].tolist(), strict=True):
            if start < begin + len(file) and begin < stop:
                found += file.column(name, max(start - begin, 0), stop - begin)
        return found

    def batches(self, size: int = 8192) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of consecutive rows, so that a pass over the texts holds few of them at a time."""
        for start in range(0, len(self), size):
            yield start, min(start + size, len(self))

    def where(self, position: int) -> str:
        """Return `file:row` of one row, for messages."""
        number = int(np.searchsorted(self._borders, position, side="right")) - 1
        return self.files[number].where(position - int(self._borders[number]))

    @cached_property
    def _borders(self) -> np.ndarray:
        return np.cumsum([0, *map(len, self.files)])


def choose(files: Sequence[Examples], *, n: int, seed: int) -> Rows:
    """Choose `n` rows of all files together; depends on content and seed alone, not on the order of files or rows.

    Returns:
        The positions in each file, int64, sorted; all rows if there are not more than `n`.
    """
    total = sum(map(len, files))
    if n >= total:
        return [np.arange(len(file)) for file in files]
    order = np.argsort(seeded(np.concatenate([exact_keys(file) for file in files]), seed), kind="stable")
    chosen = np.zeros(total, dtype=bool)
    chosen[order[:n]] = True
    return _by_file(chosen, files)


def divide(files: Sequence[Examples], *, share: float, seed: int) -> tuple[Rows, Rows]:
    """Divide the rows of all files together into a training and a validation part.

    Rows with equal folded texts stay together, whichever files they stand in; the validation part has `share` of the
    rows, or a few more for that.

    Args:
        files: Labels are not looked at.
        share: Part of the rows for validation, above 0 and below 1.
        seed: Another seed gives another division.

    Returns:
        The positions of the training and of the validation rows in each file, int64, sorted.

    Raises:
        DataError: One of the parts would be empty.
    """
    keys = np.concatenate([text_keys(file) for file in files])
    unique, group_of_row, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.argsort(seeded(unique, seed), kind="stable")
    before = np.cumsum(sizes[order]) - sizes[order]
    in_valid = np.zeros(len(unique), dtype=bool)
    in_valid[order[before < max(1, round(share * len(keys)))]] = True
    chosen = in_valid[group_of_row]
    if chosen.all() or not chosen.any():
        raise DataError(
            f"{len(keys):,} rows with {len(unique):,} different texts cannot be divided with a share of {share:g} "
            "for validation",
            where=", ".join(file.source for file in files),
            next="give more rows, another share as data.valid, or a file of its own",
        )
    return _by_file(~chosen, files), _by_file(chosen, files)


def _by_file(chosen: np.ndarray, files: Sequence[Examples]) -> Rows:
    borders = np.cumsum([len(file) for file in files])[:-1]
    return [np.flatnonzero(part) for part in np.split(chosen, borders)]
