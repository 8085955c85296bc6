"""Targets and scores that were checked, and what the intervals of their metrics are drawn with."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from headrace.data.examples import LabelSet
from headrace.errors import DataError, RecipeError, suggestion
from headrace.intervals import Area, f1_influence
from headrace.metrics import MULTI_LABEL, REGISTERED, SINGLE_LABEL, one_column_per_label


@dataclass(frozen=True)
class Scored:
    """Checked input of an evaluation, and what its intervals are drawn with."""

    targets: np.ndarray
    scores: np.ndarray
    decided: np.ndarray
    names: tuple[str, ...]
    resamples: int
    seed: int
    has_label: np.ndarray = field(repr=False)  # bool [rows, labels]

    @cached_property
    def has_decided(self) -> np.ndarray:
        """The decided labels as bool [rows, labels]."""
        return one_column_per_label(self.decided, len(self.names))

    @cached_property
    def f1_influence(self) -> np.ndarray:
        """Of each label's F1, float64 [rows, labels]."""
        return f1_influence(self.has_label, self.has_decided)

    def precision(self, label: int) -> Area:
        """Return the average precision of one label."""
        return Area.of_precision(self.has_label[:, label], self.scores[:, label])

    @cached_property
    def areas(self) -> list[Area | None]:
        """The labels' ROC AUCs; None where all rows are of one kind."""
        columns = zip(self.has_label.T, self.scores.T, strict=True)
        return [Area.of(has, scores) if 0 < has.sum() < self.n_rows else None for has, scores in columns]

    @property
    def n_rows(self) -> int:
        """How many rows are evaluated."""
        return len(self.targets)

    def rows_of_rarer_kind(self) -> np.ndarray:
        """Return int [labels]: rows with the label or without it, whichever are fewer."""
        support = self.has_label.sum(axis=0)
        return np.asarray(np.minimum(support, self.n_rows - support))


def checked(targets: np.ndarray, scores: np.ndarray, *, labels: LabelSet, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays that fit each other, the labels and the task.

    Raises:
        RecipeError: There is no such task.
        DataError: There are no rows, the shapes do not fit, or a value is none of a target or a score.
    """
    targets, scores = np.asarray(targets), np.asarray(scores)
    if task not in REGISTERED:
        raise RecipeError(f"there is no task named {task!r}", where="task", next=suggestion(task, REGISTERED))
    if len(targets) == 0:
        raise DataError("there are no rows to evaluate", where="targets", next="give at least one row with labels")
    expected = (len(targets), len(labels))
    fits = targets.shape == (expected if task == MULTI_LABEL else expected[:1]) and scores.shape == expected
    if not fits:
        raise DataError(
            f"targets of shape {targets.shape} and scores of shape {scores.shape} are not those of {task} "
            f"with {len(labels)} labels",
            where="targets, scores",
            next="give one row of scores per row of targets, one column per label",
        )
    bad = ~((scores >= 0) & (scores <= 1)).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{int(bad.sum()):,} of {len(scores):,} rows have a score that is no number in [0, 1], "
            f"the first is {scores[row].tolist()}",
            where=f"scores:{row}",
            next="give probabilities, not logits; NaN comes from a training that went wrong",
        )
    allowed = np.isin(targets, (0, 1)) if task == MULTI_LABEL else (targets >= 0) & (targets < len(labels))
    if not allowed.all() or (task == SINGLE_LABEL and not np.issubdtype(targets.dtype, np.integer)):
        found = targets[~allowed].ravel()[0] if not allowed.all() else targets.dtype
        wanted = "0 and 1" if task == MULTI_LABEL else f"whole numbers from 0 to {len(labels) - 1}"
        raise DataError(f"targets hold {found}", where="targets", next=f"give {wanted}")
    return targets, scores


def fitting(threshold: float | np.ndarray | None, n_labels: int, *, multi_label: bool) -> float | np.ndarray | None:
    """Return a threshold as `metrics.decisions` takes it.

    Raises:
        DataError: It does not suit the labels.
    """
    if threshold is None:
        return None
    if not multi_label and (n_labels != 2 or np.shape(threshold) != (2,) or np.isnan(threshold).sum() != 1):
        raise DataError(
            f"{threshold} is no threshold for {n_labels} labels of which each row has one",
            where="threshold",
            next="of two labels give [number, NaN] or [NaN, number]; else leave it out: the highest score wins",
        )
    values = threshold if np.ndim(threshold) == 0 else np.asarray(threshold)
    if np.shape(values) not in ((), (n_labels,)):
        raise DataError(
            f"{np.size(values)} thresholds for {n_labels} labels", where="threshold", next="give one, or one per label"
        )
    return values
