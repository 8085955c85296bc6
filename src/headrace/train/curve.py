"""The loss over the steps of a training in a few hundred points, however long it is."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_POINTS = 400


@dataclass
class Curve:
    """Means over as many steps as it takes to stay under 400 points; a pure function of what was added.

    Attributes:
        stride: Optimizer steps of a point, a power of two.
        steps: Last step of each point, from 1.
        loss: Mean training loss of its steps, dropout on.
        norm: Mean norm of the gradient before clipping.
        rate: Learning rate of the top group at its last step.
        pending: Steps, sums of loss and of norm that make no point yet.
    """

    stride: int = 1
    steps: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    norm: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    pending: tuple[int, float, float] = (0, 0.0, 0.0)

    def add(self, step: int, *, loss: float, norm: float, rate: float) -> None:
        """Add one optimizer step; steps come in order, from 1."""
        n, losses, norms = self.pending
        n, losses, norms = n + 1, losses + loss, norms + norm
        if n < self.stride:
            self.pending = (n, losses, norms)
            return
        self.pending = (0, 0.0, 0.0)
        self.steps.append(step)
        self.loss.append(losses / n)
        self.norm.append(norms / n)
        self.rate.append(rate)
        if len(self.steps) >= MAX_POINTS:
            self._halve()

    def _halve(self) -> None:
        self.stride *= 2
        self.steps = self.steps[1::2]
        self.rate = self.rate[1::2]
        self.loss, self.norm = _pair_means(self.loss), _pair_means(self.norm)

    def as_dict(self, scales: Sequence[tuple[int, dict[str, float]]]) -> dict[str, Any]:
        """Return steps, loss, norm and the learning rate of each group, as report.json shows them.

        Args:
            scales: Of each stage the step before its first, and each group's share of the top group's rate, by name.
        """
        firsts = [first for first, _ in scales]
        stages = [max(0, bisect_left(firsts, step) - 1) for step in self.steps]
        names = scales[0][1] if scales else {}
        rates = {
            name: [scales[stage][1][name] * rate for stage, rate in zip(stages, self.rate, strict=True)]
            for name in names
        }
        return {"steps": list(self.steps), "loss": list(self.loss), "norm": list(self.norm), "rates": rates}


def _pair_means(values: Sequence[float]) -> list[float]:
    return [(first + second) / 2 for first, second in zip(values[::2], values[1::2], strict=True)]
