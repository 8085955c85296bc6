"""What is asked of a decision, and what was chosen and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from headrace.decide.abstain import Certificate
from headrace.decide.calibration import ISOTONIC, METHODS, NONE, PLATT, TEMPERATURE
from headrace.decide.decision import Decision
from headrace.decide.thresholds import Gain, Rule
from headrace.errors import RecipeError, suggestion
from headrace.metrics import MULTI_LABEL, TASKS

AUTO = "auto"
DEFAULT_RULE = "default"


@dataclass(frozen=True)
class DecideSettings:
    """What a recipe asks of a decision.

    Attributes:
        calibrate: `auto`, `none`, `temperature` (single label), `platt` or `isotonic` (multi-label).
        threshold: `auto` (as `f1`), `default` (0.5), or a rule, see `Rule.of`; multi-label alone.
        error_rate: The wished share of wrong answers, above 0 and below 1; None for no abstention.
        confidence: How sure that error rate must be, above 0 and below 1.

    Raises:
        RecipeError: A value is none of these.
    """

    calibrate: str = AUTO
    threshold: str | Mapping[str, object] = AUTO
    error_rate: float | None = None
    confidence: float = 0.9

    def __post_init__(self) -> None:
        known = (AUTO, NONE, TEMPERATURE, PLATT, ISOTONIC)
        if self.calibrate not in known:
            raise RecipeError(
                f"there is no calibration {self.calibrate!r}",
                where="decide.calibrate",
                next=suggestion(str(self.calibrate), known),
            )
        if self.threshold != DEFAULT_RULE:
            Rule.of(self.threshold)
        for name in ("error_rate", "confidence"):
            value = getattr(self, name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (is_number and 0 < value < 1) and not (name == "error_rate" and value is None):
                raise RecipeError(
                    f"{name} is {value!r}", where=f"decide.abstain.{name}", next="give a number above 0 and below 1"
                )

    def suited(self, task: str, labels: Sequence[str]) -> None:
        """Check that the settings have a meaning for the task and its labels.

        Raises:
            RecipeError: They have not.
        """
        if task not in TASKS:
            raise RecipeError(f"there is no task named {task!r}", where="task", next=suggestion(task, TASKS))
        if self.calibrate != AUTO and self.calibrate not in METHODS[task]:
            raise RecipeError(
                f"{task} has no calibration {self.calibrate!r}",
                where="decide.calibrate",
                next=f"available: {', '.join((AUTO, *METHODS[task]))}",
            )
        if task != MULTI_LABEL and self.threshold not in (AUTO, DEFAULT_RULE):
            raise RecipeError(
                f"{task} takes no thresholds: the label with the highest score is the answer",
                where="decide.threshold",
                next="leave it out",
            )
        if self.threshold != DEFAULT_RULE:
            Rule.of(self.threshold, labels)


@dataclass(frozen=True)
class CalibrationChoice:
    """Which calibration was tried, and what came of it.

    Attributes:
        method: The one that was tried (the better one of several); `none` if none was.
        is_kept: Whether it is used.
        reason: Why, in one sentence.
        gains: By method tried: how much the log loss of a row falls, out of fold.
    """

    method: str
    is_kept: bool
    reason: str
    gains: Mapping[str, Gain] = field(default_factory=dict)


@dataclass(frozen=True)
class ThresholdChoice:
    """Which thresholds were tried, and what came of it.

    Attributes:
        rule: What they are best at.
        is_kept: Whether they are used; otherwise 0.5 is.
        reason: Why, in one sentence.
        tried: One per label; empty if nothing was fitted.
        gain: In the rule's objective over 0.5, out of fold.
    """

    rule: str
    is_kept: bool
    reason: str
    tried: tuple[float, ...] = ()
    gain: Gain | None = None


@dataclass(frozen=True)
class Choice:
    """A decision and how it was come by.

    Attributes:
        decision: For the bundle.
        calibration: How its calibration was chosen.
        thresholds: How its thresholds were chosen; None for a single label.
        certificate: How its abstention was chosen; None if none was asked for.
        settings: What was asked for.
        n_rows: Validation rows.
        n_fitted: Of those, rows that fitted calibration and thresholds.
    """

    decision: Decision
    calibration: CalibrationChoice
    thresholds: ThresholdChoice | None
    certificate: Certificate | None
    settings: DecideSettings
    n_rows: int
    n_fitted: int


@dataclass(frozen=True)
class CrossFitted:
    """What validation rows get from decisions that other validation rows fitted.

    Attributes:
        scores: [rows, labels] float32, calibrated.
        thresholds: float64 [rows, labels], of each row; None where the decision has none.
    """

    scores: np.ndarray
    thresholds: np.ndarray | None
