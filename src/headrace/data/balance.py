"""Evens out rare and frequent labels: fewer rows of a frequent one, or weights for the loss."""

from __future__ import annotations

from typing import Literal

import numpy as np

from headrace.data.examples import Examples, LabelSet
from headrace.data.labels import label_sets
from headrace.data.split import exact_keys, seeded
from headrace.errors import DataError, suggestion

NO_LABEL = "no_label"
# A label with 1 positive in 10,000 rows would weigh 9,999 and drown the rest; beyond 100 the gradient is mostly noise.
MAX_POS_WEIGHT = 100.0


def downsample(
    examples: Examples, labels: LabelSet, *, rows: str, to: int | Literal["labelled"], seed: int
) -> tuple[np.ndarray, str | None]:
    """Keep only `to` of the rows of one kind, and all others.

    Which rows are kept depends on content and seed alone, not on the rows' order.

    Args:
        examples: Training rows.
        labels: The label set.
        rows: The rows to thin out: `no_label` (multi-label rows without a label) or those that have this label.
        to: How many to keep, or `labelled`: as many as there are rows with any label.
        seed: Another seed keeps other rows.

    Returns:
        Positions of the rows kept, int64, sorted; and a sentence if fewer than `to` exist, so that all were kept.

    Raises:
        DataError: There is no such label, or `to` does not fit it.
    """
    if rows not in labels.names and (rows != NO_LABEL or not examples.is_multi_label):
        _refuse_rows(examples, labels, rows)
    codes, sets = label_sets(examples)
    by_label = rows in labels.names
    matches = np.array([rows in names if by_label else not names for names in sets], dtype=bool)
    thinned = np.flatnonzero(matches[codes])
    n_kept = _number(to, n_labelled=len(examples) - len(thinned), by_label=by_label)
    if n_kept >= len(thinned):
        kind = f"with the label {rows!r}" if by_label else "without a label"
        exceeded = f"data.downsample asks for {n_kept:,} rows {kind}, but there are {len(thinned):,}; all were kept"
        return np.arange(len(examples), dtype=np.int64), exceeded if n_kept > len(thinned) else None
    keys = seeded(exact_keys(examples.take(thinned)), seed)
    kept = thinned[np.lexsort((codes[thinned], keys))[:n_kept]]
    chosen = ~matches[codes]
    chosen[kept] = True
    return np.flatnonzero(chosen), None


def class_weights(targets: np.ndarray, n_labels: int) -> np.ndarray:
    """Return a weight per class that is inverse to its rows: rows / (classes with rows * rows of the class).

    The mean over the rows is 1, so the learning rate keeps its meaning.

    Args:
        targets: [rows] int64.
        n_labels: Number of classes.

    Returns:
        [labels] float32; 1 for a class without rows, which no target ever asks for.

    Source:
        King and Zeng 2001, "Logistic Regression in Rare Events Data", section 3; scikit-learn's `balanced`.
    """
    counts = np.bincount(targets, minlength=n_labels)
    present = counts > 0
    weights = np.ones(n_labels, dtype=np.float64)
    weights[present] = len(targets) / (max(int(present.sum()), 1) * counts[present])
    return weights.astype(np.float32)


def pos_weight(targets: np.ndarray) -> np.ndarray:
    """Return the weight of each label's positive rows: negatives / positives, clipped to [1, 100].

    Args:
        targets: [rows, labels] float32 of 0 and 1.

    Returns:
        [labels] float32; 100 for a label without positive rows, 1 if there are no rows at all.
    """
    if len(targets) == 0:
        return np.ones(targets.shape[1], dtype=np.float32)
    positives = targets.sum(axis=0, dtype=np.float64)
    ratio = (len(targets) - positives) / np.maximum(positives, 1e-9)
    return np.asarray(np.clip(ratio, 1.0, MAX_POS_WEIGHT), dtype=np.float32)


def _refuse_rows(examples: Examples, labels: LabelSet, rows: str) -> None:
    if rows == NO_LABEL:
        raise DataError(
            "data.downsample names 'no_label', but each row of single-label data has a label",
            where="data.downsample.rows",
            next=f"name a label; available: {', '.join(labels.names)}",
        )
    known = (*labels.names, NO_LABEL) if examples.is_multi_label else labels.names
    raise DataError(
        f"there is no label named {rows!r} to downsample", where="data.downsample.rows", next=suggestion(rows, known)
    )


def _number(to: int | Literal["labelled"], *, n_labelled: int, by_label: bool) -> int:
    if to == "labelled":
        if by_label:
            raise DataError(
                "'to: labelled' goes with 'rows: no_label' only", where="data.downsample.to", next="write a number"
            )
        return n_labelled
    least = 1 if by_label else 0  # a label without any row could not be learnt
    if to < least:
        raise DataError(
            f"data.downsample.to is {to}; it must be at least {least}",
            where="data.downsample.to",
            next="write the number of rows to keep",
        )
    return to
