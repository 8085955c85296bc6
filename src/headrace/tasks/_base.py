"""What a task is: a module with a loss, scores and answers. Each task is one file here."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch import Tensor


class Task(Protocol):
    """The functions that a task's module has."""

    @staticmethod
    def loss(
        logits: Tensor,
        targets: Tensor,
        *,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
        pos_weight: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of each text, [texts] float32; not averaged, so that micro-batches add up."""
        ...

    @staticmethod
    def scores(logits: Tensor) -> Tensor:
        """Return probabilities, [texts, labels] float32."""
        ...

    @staticmethod
    def decode(scores: np.ndarray, *, threshold: float | np.ndarray | None = None) -> list[int] | list[list[int]]:
        """Return the answers: an index a text, or the indices of its labels."""
        ...
