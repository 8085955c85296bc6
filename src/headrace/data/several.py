"""Divides texts that come from several files together, by their content: an equal text is never on both sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headrace.data.examples import Examples
from headrace.data.split import exact_keys, seeded, text_keys
from headrace.errors import DataError

Rows = list[np.ndarray]


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
