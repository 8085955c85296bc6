"""Deals rows to folds so that each label has its share in every fold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from headrace.metrics import one_column_per_label

N_FOLDS = 5


def stratified_folds(targets: np.ndarray, n_labels: int, *, n_folds: int, seed: int) -> np.ndarray:
    """Return the fold of each row, int64 [rows], 0 to `n_folds` - 1.

    The rarest label is dealt first, each time to the folds that have the fewest of its rows (of equals, the fewest rows).
    So the folds of a single label differ by at most one row a label. The seed decides which row goes where.

    Source: Sechidis, Tsoumakas and Vlahavas 2011, "On the Stratification of Multi-Label Data", the idea of algorithm 1;
        we deal all rows of a label at once instead of looking for the next rarest label after each row.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(targets))
    has_label = one_column_per_label(targets, n_labels)[order]
    folds = np.full(len(targets), -1, dtype=np.int64)
    for label in np.argsort(has_label.sum(axis=0), kind="stable"):
        waiting = np.flatnonzero(has_label[:, label] & (folds < 0))
        placed = folds[has_label[:, label] & (folds >= 0)]
        folds[waiting] = _fewest_first(np.bincount(placed, minlength=n_folds), _sizes(folds, n_folds), len(waiting))
    waiting = np.flatnonzero(folds < 0)
    sizes = _sizes(folds, n_folds)
    folds[waiting] = _fewest_first(sizes, sizes, len(waiting))
    dealt = np.empty_like(folds)
    dealt[order] = folds
    return dealt


def parts(folds: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows to fit on, rows held out), int64 positions, of each fold that has rows and leaves some."""
    for fold in range(int(folds.max(initial=-1)) + 1):
        held_out = folds == fold
        if held_out.any() and not held_out.all():
            yield np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _sizes(folds: np.ndarray, n_folds: int) -> np.ndarray:
    return np.bincount(folds[folds >= 0], minlength=n_folds)


def _fewest_first(counts: np.ndarray, sizes: np.ndarray, n_rows: int) -> np.ndarray:
    """Return the fold of each of `n_rows` rows, dealt one by one to the fold with the lowest count, then size."""
    n_folds = len(counts)
    # no fold can take more than all rows, nor more than brings it to the level where all folds are even
    depth = min(n_rows, int(n_rows + counts.sum() - n_folds * counts.min()) // n_folds + 1)
    level = counts[:, None] + np.arange(depth)
    fold = np.broadcast_to(np.arange(n_folds)[:, None], level.shape)
    size = np.broadcast_to(sizes[:, None] + np.arange(depth), level.shape)
    first = np.lexsort((fold.ravel(), size.ravel(), level.ravel()))[:n_rows]
    return np.asarray(fold.ravel()[first])
