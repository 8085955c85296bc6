"""What the doctor looks at, and what it says: plain figures in, named diagnoses out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from headrace.evaluation import Interval
from headrace.metrics import MULTI_LABEL, SINGLE_LABEL, decisions

HEAD = "head"
SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Diagnosis:
    """Something that went wrong in a training, or could go better.

    Attributes:
        code: A word for machines that stays the same between versions.
        severity: `error` where the model is of no use, `warning` where it falls short of what the data allow, `note` for
            what is good to know.
        what: What was seen, with the numbers, and the likely cause.
        next: The edit of the recipe or the command to try.
    """

    code: str
    severity: str
    what: str
    next: str

    def as_dict(self) -> dict[str, str]:
        """Return `code`, `severity`, `what` and `next`, as report.json holds them."""
        return asdict(self)


@dataclass(frozen=True)
class Facts:
    """The figures of one run. All may be missing: what is not known gives no diagnosis.

    Attributes:
        task: `single_label` or `multi_label`.
        labels: Names of the labels, in the order of the scores.
        split: What the evaluated rows are: `test` or `valid`.
        targets, scores: Of the evaluated rows: int64 [rows] or 0/1 [rows, labels]; [rows, labels] in [0, 1].
        valid_targets, valid_scores: Of the validation rows, in the same form.
        thresholds: Of multi-label: label -> from which score on it is decided; 0.5 where there is none.
        monitor, larger_is_better: The figure that picked the best epoch.
        history: Of each epoch: `train_loss`, `train` and `valid` (figures by name, `loss` among them).
        n_epochs: Epochs that were planned.
        curve: `loss` and `norm` (of the gradient) over the steps, as in report.json's `training_curve`.
        learning_rate: Peak rate of the top group; `layer_decay` its factor for each group further down.
        changes: Parameter group -> norm of the change of its weights / norm of the weights before training.
        fixed: Groups that were meant to stay as they were.
        figure: The headline metric on the evaluated rows, called `figure_name`; `majority` is that of always giving the
            same answer. Larger is better.
        verdict: The paired comparison with the baseline, as report.json holds it; `a` is the run, `b` the baseline.
        stopped: What ended the training by an error: the error's text.
    """

    task: str = SINGLE_LABEL
    labels: Sequence[str] = ()
    split: str = "test"
    targets: np.ndarray | None = None
    scores: np.ndarray | None = None
    valid_targets: np.ndarray | None = None
    valid_scores: np.ndarray | None = None
    thresholds: Mapping[str, float] | None = None
    monitor: str = "accuracy"
    larger_is_better: bool = True
    history: Sequence[Mapping[str, Any]] = ()
    n_epochs: int | None = None
    curve: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float | None = None
    layer_decay: float | None = None
    changes: Mapping[str, float] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()
    figure: Interval | None = None
    figure_name: str = "accuracy"
    majority: float | None = None
    verdict: Mapping[str, Any] | None = None
    stopped: str | None = None

    @property
    def is_multi_label(self) -> bool:
        """Whether a row may have any number of labels."""
        return self.task == MULTI_LABEL

    def scored(self, *, of_validation: bool = False) -> tuple[np.ndarray, np.ndarray] | None:
        """Return targets and scores that fit each other, or None."""
        given = (self.valid_targets, self.valid_scores) if of_validation else (self.targets, self.scores)
        if given[0] is None or given[1] is None:
            return None
        targets, scores = np.asarray(given[0]), np.asarray(given[1], dtype=np.float64)
        fits = scores.ndim == 2 and targets.shape == (scores.shape if self.is_multi_label else scores.shape[:1])
        return (targets, scores) if fits and len(targets) and scores.shape[1] else None

    def decided(self, scores: np.ndarray) -> np.ndarray:
        """Return the decided labels: int64 [rows], or bool [rows, labels] by the thresholds."""
        if not self.is_multi_label:
            return decisions(scores, multi_label=False)
        given = self.thresholds or {}
        default = np.full(scores.shape[1], 0.5)
        for i, name in enumerate(self.labels[: len(default)]):
            default[i] = given.get(name, 0.5)
        return decisions(scores, multi_label=True, threshold=default)

    def name(self, label: int) -> str:
        """Return a label's name, or its number where there is no name."""
        return repr(self.labels[label]) if label < len(self.labels) else f"number {label}"

    def losses(self) -> np.ndarray:
        """Return the training losses in their order, float64: of the steps if there are ten, else of the epochs."""
        of_steps = numbers(self.curve.get("loss", ()))
        return of_steps if len(of_steps) >= 10 else self.of_epochs("train_loss")

    def of_epochs(self, *path: str) -> np.ndarray:
        """Return a figure of each epoch, float64, NaN where an epoch has none: `of_epochs("valid", "loss")`."""
        found = []
        for record in self.history:
            value: Any = record
            for key in path:
                value = value.get(key) if isinstance(value, Mapping) else None
            found.append(value)
        return numbers(found)


def numbers(values: Iterable[Any]) -> np.ndarray:
    """Return float64 with NaN for what is no number."""
    return np.array([float(v) if isinstance(v, int | float | np.number) else math.nan for v in values])


def rate(value: float) -> str:
    """Return a learning rate as a recipe writes it: two digits."""
    return f"{value:.1e}"
