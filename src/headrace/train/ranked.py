"""How well the scores of each label rank the rows: the points of its ROC and precision-recall curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.metrics import is_binary, one_column_per_label

N_CURVE_POINTS = 100


def curves_of(targets: np.ndarray, scores: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Return `roc` ([false positive rate, true positive rate]) and `pr` ([recall, precision]) by label.

    At most 100 points each; of two exclusive labels the second alone; a label without rows of both kinds has none.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    has_label = one_column_per_label(targets, len(names))
    judged = [1] if is_binary(targets, len(names)) else range(len(names))
    roc, pr = {}, {}
    for label in judged:
        truth = has_label[:, label]
        if truth.all() or not truth.any():
            continue
        false_share, true_share, _ = roc_curve(truth, scores[:, label])
        precision, recall, _ = precision_recall_curve(truth, scores[:, label])
        roc[names[label]] = _thinned(false_share, true_share)
        pr[names[label]] = _thinned(recall[::-1], precision[::-1])
    return {"roc": roc, "pr": pr}


def _thinned(x: np.ndarray, y: np.ndarray) -> list[list[float]]:
    """Return at most 100 points, equally far apart along the curve."""
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    wanted = np.linspace(0.0, along[-1], min(N_CURVE_POINTS, len(x)))
    kept = np.unique(np.searchsorted(along, wanted).clip(max=len(x) - 1))
    return [[round(float(a), 5), round(float(b), 5)] for a, b in zip(x[kept], y[kept], strict=True)]
