"""One label a text, of two or many; texts may be pairs. Cross-entropy over softmax."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from headrace.errors import RecipeError

MULTI_LABEL = False


def loss(
    logits: Tensor,
    targets: Tensor,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Return the cross-entropy of each text, [texts] float32; not averaged, so that micro-batches add up.

    Args:
        logits: [texts, labels], any floating type; computed in float32.
        targets: [texts] int64.
        label_smoothing: Share of the target that is spread over all labels, in [0, 1), as torch defines it.
        class_weights: [labels] float32; a text's loss counts with the weight of its label.
        pos_weight: Not for this task.

    Raises:
        RecipeError: `pos_weight` is given.
    """
    if pos_weight is not None:
        raise RecipeError(
            "pos_weight has no meaning for single_label", where="fit.pos_weight", next="use fit.class_weights"
        )
    return functional.cross_entropy(
        logits.float(), targets, weight=class_weights, label_smoothing=label_smoothing, reduction="none"
    )


def scores(logits: Tensor) -> Tensor:
    """Return probabilities that add up to one a text, [texts, labels] float32."""
    return torch.softmax(logits.float(), dim=-1)


def decode(scores: np.ndarray, *, threshold: float | np.ndarray | None = None) -> list[int]:
    """Return the index of each text's label; the first one where several are equal.

    Args:
        scores: [texts, labels].
        threshold: For two labels only: [2], the number of the one that is named and NaN for the other; the named one is
            the answer if its score is at least that. By default the highest wins.

    Raises:
        RecipeError: The threshold does not suit.
    """
    if threshold is None:
        return [int(index) for index in np.argmax(scores, axis=1)]
    given = np.flatnonzero(~np.isnan(threshold))
    if scores.shape[1] != 2 or np.shape(threshold) != (2,) or len(given) != 1:
        raise RecipeError(
            f"one of {scores.shape[1]} labels is the answer: a threshold suits two labels",
            where="threshold",
            next="leave the threshold out: the label with the highest score is the answer",
        )
    named = int(given[0])
    # a plain number is compared at the precision of the scores
    is_named = scores[:, named] >= float(np.asarray(threshold)[named])
    return [named if yes else 1 - named for yes in is_named.tolist()]
