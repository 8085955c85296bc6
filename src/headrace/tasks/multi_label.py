"""None, one or several labels a text. Binary cross-entropy over a sigmoid for each label."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from headrace.errors import RecipeError

MULTI_LABEL = True
DEFAULT_THRESHOLD = 0.5


def loss(
    logits: Tensor,
    targets: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Return the binary cross-entropy of each text, mean over the labels, [texts] float32.

    It is not averaged over the texts, so that micro-batches add up.

    Args:
        logits: [texts, labels], any floating type; computed in float32.
        targets: [texts, labels], 0 or 1.
        label_smoothing: s in [0, 1): a target y becomes y (1 - s) + s / 2.
        class_weights: Not for this task.
        pos_weight: [labels] float32; the weight of a label's positive targets.

    Raises:
        RecipeError: `class_weights` is given.
    """
    if class_weights is not None:
        raise RecipeError(
            "class_weights has no meaning for multi_label", where="fit.class_weights", next="use fit.pos_weight"
        )
    smoothed = targets.float() * (1.0 - label_smoothing) + label_smoothing / 2.0
    each = functional.binary_cross_entropy_with_logits(
        logits.float(), smoothed, pos_weight=pos_weight, reduction="none"
    )
    return each.mean(dim=-1)


def scores(logits: Tensor) -> Tensor:
    """Return a probability for each label, [texts, labels] float32."""
    return torch.sigmoid(logits.float())


def decode(scores: np.ndarray, *, threshold: float | np.ndarray | None = None) -> list[list[int]]:
    """Return the indices of each text's labels, in their order; an empty list for a clean text.

    Args:
        scores: [texts, labels].
        threshold: A label is given if its score is at least this: one for all, or [labels]. Default 0.5.

    Raises:
        RecipeError: There are not as many thresholds as labels.
    """
    chosen = DEFAULT_THRESHOLD if threshold is None else threshold
    if np.ndim(chosen) != 0 and np.shape(chosen) != (scores.shape[1],):
        raise RecipeError(
            f"there are {np.size(chosen)} thresholds for {scores.shape[1]} labels",
            where="threshold",
            next="give one threshold, or one for each label in the order of the labels",
        )
    return [[int(index) for index in np.flatnonzero(row)] for row in scores >= chosen]
