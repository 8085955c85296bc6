"""What always giving the same answer is worth."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.data.examples import LabelSet
from headrace.metrics import REGISTERED, is_binary

_RANKED = ("roc_auc", "average_precision", "roc_auc_macro", "average_precision_macro")


def majority(train_targets: np.ndarray, targets: np.ndarray, labels: LabelSet, task: str) -> dict[str, Any]:
    """Return the figures of always answering the commonest label (single label) or no label (multi-label).

    Metrics of scores take the labels' shares of the training rows as the scores of each row; so ROC AUC is 0.5.

    Args:
        train_targets: int64 [rows] or 0/1 [rows, labels]: says which label is the commonest (the first of equals).
        targets: Of the evaluated rows, in the same form.
        labels: The names of the labels.
        task: `single_label` or `multi_label`.

    Returns:
        {"metrics": {name: value or None}, "label": the label's name, or None for no label}. The names are those of
        `evaluate`; a metric that these rows do not define is None.
    """
    train_targets, targets = np.asarray(train_targets), np.asarray(targets)
    n_labels, n_train = len(labels), len(train_targets)
    n_with: np.ndarray
    decided: np.ndarray
    if targets.ndim == 2:
        n_with = (train_targets != 0).sum(axis=0)
        decided, name = np.zeros(targets.shape, dtype=np.int64), None
    else:
        n_with = np.bincount(train_targets, minlength=n_labels)[:n_labels]
        commonest = int(n_with.argmax())
        decided, name = np.full(len(targets), commonest, dtype=np.int64), labels.names[commonest]
    shares = (n_with / max(1, n_train)).astype(np.float32)
    scores = np.broadcast_to(shares, (len(targets), n_labels))
    found = {}
    for metric in REGISTERED[task].values():
        if metric.name in _RANKED and metric.name.endswith("_macro") == is_binary(targets, n_labels):
            continue  # of two labels the second is reported, of others the mean
        second = scores if metric.uses == "scores" else decided
        found[metric.name] = metric.function(targets, second) if len(targets) else None
    return {"metrics": found, "label": name}
