"""Plain functions from (targets, decided labels or scores) to a number.

Targets are int64 [rows] (single label: the index of the label) or [rows, labels] of 0/1 (multi-label); scores are
[rows, labels] in [0, 1]; decided labels have the form of the targets. The number of axes tells the two apart.

One rule for every 0/0: it has no value. The function returns None (NaN inside arrays) and a macro mean leaves that
label out; if nothing is left, the mean is None too. So a label without a true and without a decided row has no F1, but
one with true rows that is never decided has an F1 of 0. (scikit-learn calls this `zero_division=nan`.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

SINGLE_LABEL = "single_label"
MULTI_LABEL = "multi_label"
TASKS = (SINGLE_LABEL, MULTI_LABEL)

MetricFunction = Callable[[np.ndarray, np.ndarray], float | None]
_Function = TypeVar("_Function", bound=MetricFunction)


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    Attributes:
        name: The function's name; what `fit.monitor` and the report call it.
        function: Takes (targets, scores) or (targets, decided), see `uses`; returns a float or None.
        uses: What the second argument is.
        larger_is_better: Whether more is good.
    """

    name: str
    function: MetricFunction
    uses: Literal["scores", "decided"]
    larger_is_better: bool


#: The registered metrics of each task by name, in the order in which a report shows them.
REGISTERED: dict[str, dict[str, Metric]] = {task: {} for task in TASKS}
#: Which metrics a task has and whether larger is better.
METRICS: dict[str, dict[str, bool]] = {task: {} for task in TASKS}


def metric(
    *, uses: Literal["scores", "decided"], larger_is_better: bool = True, tasks: tuple[str, ...] = TASKS
) -> Callable[[_Function], _Function]:
    """Register a function as a metric under its own name; this line is all that a new metric needs.

    It is then reported with an interval (by plain resampling of rows) and may be monitored in training.
    """

    def register(function: _Function) -> _Function:
        name = str(function.__name__)
        for task in tasks:
            REGISTERED[task][name] = Metric(name, function, uses, larger_is_better)
            METRICS[task][name] = larger_is_better
        return function

    return register


def decisions(scores: np.ndarray, *, multi_label: bool, threshold: float | np.ndarray | None = None) -> np.ndarray:
    """Return the decided labels.

    Args:
        scores: [rows, labels].
        multi_label: Whether a row may have any number of labels.
        threshold: Of multi-label: one number, or one per label; 0.5 by default. Of two single labels: [2], the number of
            the one that is named and NaN for the other. A score equal to it counts as yes.

    Returns:
        Single label: int64 [rows], the label with the highest score, the first of equals. Multi-label: bool
        [rows, labels].

    Raises:
        ValueError: The threshold is none of these.
    """
    if multi_label:
        threshold = 0.5 if threshold is None else threshold
        # as the tasks compare: NumPy takes a plain 0.7 at the precision of the scores, so a float32 0.7 is a yes
        return np.asarray(scores >= threshold)
    if threshold is not None:
        return by_named_threshold(scores, threshold)
    return np.asarray(scores.argmax(axis=1), dtype=np.int64)


def by_named_threshold(scores: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """Return int64 [rows]: the one of two labels that has a threshold where its score is at least that, else the other.

    Args:
        scores: [rows, 2].
        threshold: [2], NaN for the label that has none.

    Raises:
        ValueError: It is none.
    """
    given = np.flatnonzero(~np.isnan(threshold))
    if np.shape(threshold) != (2,) or scores.shape[1:] != (2,) or len(given) != 1:
        raise ValueError(f"{threshold} is no threshold of one of two labels, scores of shape {scores.shape}")
    named = int(given[0])
    # a plain number is taken at the precision of the scores
    is_named = scores[:, named] >= float(np.asarray(threshold)[named])
    return np.where(is_named, named, 1 - named).astype(np.int64)


def one_column_per_label(values: np.ndarray, n_labels: int) -> np.ndarray:
    """Return targets or decided labels as bool [rows, labels], one column per label, for either task."""
    if values.ndim == 2:
        return np.asarray(values != 0)
    return np.asarray(values[:, None] == np.arange(n_labels))


def is_correct(targets: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """Return bool [rows]: whether the row's decided label, or its whole set of labels, is right."""
    if targets.ndim == 2:
        return np.asarray(((targets != 0) == (decided != 0)).all(axis=1))
    return np.asarray(targets == decided)


@metric(uses="decided")
def accuracy(targets: np.ndarray, decided: np.ndarray) -> float | None:
    """Return the share of rows that are right; in multi-label all labels of the row must be (subset accuracy)."""
    return float(is_correct(targets, decided).mean()) if len(targets) else None


@metric(uses="decided", larger_is_better=False, tasks=(MULTI_LABEL,))
def hamming_loss(targets: np.ndarray, decided: np.ndarray) -> float | None:
    """Return the share of wrong yes-or-no decisions over all rows and labels."""
    return float(((targets != 0) != (decided != 0)).mean()) if targets.size else None


def row_losses(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return float64 [rows]: -ln of the score given to the truth; in multi-label the mean over the labels.

    Scores are kept one rounding step of their own type away from 0 and 1 (as scikit-learn does), so the loss of one
    surely wrong answer is at most 15.9 in float32 and 36.0 in float64.
    """
    step = float(np.finfo(scores.dtype).eps) if np.issubdtype(scores.dtype, np.floating) else float(np.finfo(float).eps)
    if targets.ndim == 1:
        given = scores[np.arange(len(targets)), targets].astype(np.float64)
        return np.asarray(-np.log(np.clip(given, step, 1 - step)))
    kept = np.clip(scores.astype(np.float64), step, 1 - step)
    return np.asarray(-np.where(targets != 0, np.log(kept), np.log1p(-kept)).mean(axis=1))


@metric(uses="scores", larger_is_better=False)
def log_loss(targets: np.ndarray, scores: np.ndarray) -> float | None:
    """Return the mean of `row_losses`: cross-entropy, or binary cross-entropy over rows and labels, in nats."""
    return float(row_losses(targets, scores).mean()) if len(targets) else None


@dataclass(frozen=True)
class LabelCounts:
    """What precision, recall and F1 are made of: arrays of one shape, the labels on the last axis.

    Attributes:
        hits: Rows with the label where it was decided.
        decided: Rows where the label was decided.
        support: Rows with the label.
    """

    hits: np.ndarray
    decided: np.ndarray
    support: np.ndarray

    @classmethod
    def of(cls, targets: np.ndarray, decided: np.ndarray, n_labels: int) -> LabelCounts:
        """Count int64 [labels] of each kind over all rows."""
        if targets.ndim == 1:
            hit = targets[targets == decided]
            arrays = [np.bincount(values, minlength=n_labels) for values in (hit, decided, targets)]
        else:
            true, said = targets != 0, decided != 0
            arrays = [values.sum(axis=0) for values in (true & said, said, true)]
        return cls(*arrays)

    def precision(self) -> np.ndarray:
        """Return hits / decided; NaN for a label that was never decided."""
        return _ratio(self.hits, self.decided)

    def recall(self) -> np.ndarray:
        """Return hits / support; NaN for a label that no row has."""
        return _ratio(self.hits, self.support)

    def f1(self) -> np.ndarray:
        """Return 2 hits / (decided + support), the harmonic mean of the two; NaN where both are 0."""
        return _ratio(2 * self.hits, self.decided + self.support)

    def f1_micro(self) -> np.ndarray:
        """Return the F1 of the counts summed over all labels; NaN without any true or decided label."""
        return _ratio(2 * self.hits.sum(axis=-1), (self.decided + self.support).sum(axis=-1))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    above, below = np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64)
    return np.asarray(np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0))


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis that leaves NaN out; NaN if nothing is left."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def _counts(targets: np.ndarray, decided: np.ndarray) -> LabelCounts:
    n_labels = int(max(targets.max(initial=0), decided.max(initial=0))) + 1 if targets.ndim == 1 else targets.shape[1]
    return LabelCounts.of(targets, decided, n_labels)


@metric(uses="decided")
def f1_macro(targets: np.ndarray, decided: np.ndarray) -> float | None:
    """Return the mean of the labels' F1; a label with neither true nor decided rows is left out."""
    return number(mean_of_defined(_counts(targets, decided).f1()))


@metric(uses="decided")
def f1_micro(targets: np.ndarray, decided: np.ndarray) -> float | None:
    """Return the F1 of the counts summed over labels; for a single label it equals the accuracy."""
    return number(_counts(targets, decided).f1_micro())


def confusion_matrix(targets: np.ndarray, decided: np.ndarray, n_labels: int) -> np.ndarray:
    """Return int64 [labels, labels] for a single label: the true label picks the row, the decided one the column."""
    cells = np.bincount(targets * n_labels + decided, minlength=n_labels * n_labels)
    return np.asarray(cells.reshape(n_labels, n_labels), dtype=np.int64)


@dataclass(frozen=True)
class Ranking:
    """Rows of one label sorted once by score, so that the areas of many resamples cost no sorting.

    Rows with equal scores form one group. Only groups that hold a row with the label matter for either area.

    Attributes:
        order: [rows], best score first.
        hits: [hits] places in `order` of the rows with the label.
        first_row, last_row: [groups] first and last place of the group in `order`.
        first_hit, last_hit: [groups] first and last place of the group's rows in `hits`.
    """

    order: np.ndarray
    hits: np.ndarray
    first_row: np.ndarray
    last_row: np.ndarray
    first_hit: np.ndarray
    last_hit: np.ndarray

    @classmethod
    def of(cls, has_label: np.ndarray, scores: np.ndarray) -> Ranking:
        """Sort rows: `has_label` bool [rows], `scores` [rows]."""
        order = np.argsort(-scores, kind="stable")
        ordered = scores[order]
        hits = np.flatnonzero(has_label[order])
        new_group = np.flatnonzero(np.diff(ordered, prepend=np.nan) != 0)
        ends = np.append(new_group[1:], len(ordered)) - 1
        group_of_hit = np.searchsorted(ends, hits)
        groups, first_hit, n_hits = np.unique(group_of_hit, return_index=True, return_counts=True)
        return cls(order, hits, new_group[groups], ends[groups], first_hit, first_hit + n_hits - 1)

    def areas(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the area under the ROC curve and the average precision of resamples.

        The first is the chance that a row with the label scores above one without it, half for a tie (Mann-Whitney).
        The second is the sum over distinct scores of (gain in recall x precision there), without interpolation.

        Args:
            counts: [rows, resamples], how often each row stands in each resample.

        Returns:
            Two float64 [resamples]; NaN where a resample has rows of one kind alone.
        """
        ordered = counts.take(self.order, axis=0)
        rows_so_far = np.cumsum(ordered, axis=0)
        own_hits = ordered.take(self.hits, axis=0)
        hits_so_far = np.cumsum(own_hits, axis=0)
        n_rows = rows_so_far[-1].astype(np.float64)
        n_hits = hits_so_far[-1].astype(np.float64) if len(self.hits) else np.zeros_like(n_rows)
        n_misses = n_rows - n_hits
        rows_at = rows_so_far.take(self.last_row, axis=0)
        hits_at = hits_so_far.take(self.last_hit, axis=0)
        hits_in = hits_at - hits_so_far.take(self.first_hit, axis=0) + own_hits.take(self.first_hit, axis=0)
        rows_in = rows_at - rows_so_far.take(self.first_row, axis=0) + ordered.take(self.first_row, axis=0)
        # of the misses: all, less those above the group, less half of those in it
        above_and_half = (rows_at - hits_at) - 0.5 * (rows_in - hits_in)
        lost = np.einsum("gr,gr->r", hits_in, above_and_half, dtype=np.float64, casting="unsafe")
        precision = hits_at / np.maximum(rows_at, 1)
        gained = np.einsum("gr,gr->r", hits_in, precision, dtype=np.float64, casting="unsafe")
        roc_auc = 1 - _ratio(lost, n_hits * n_misses)
        average_precision = np.where(n_misses > 0, _ratio(gained, n_hits), np.nan)
        return roc_auc, average_precision


def areas_per_label(targets: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ROC AUC and average precision, float64 [labels] each, of every label against the rest.

    NaN for a label that all rows or no row has.
    """
    n_labels = scores.shape[1]
    columns = one_column_per_label(targets, n_labels)
    ones = np.ones((len(targets), 1))
    areas = np.full((2, n_labels), np.nan)
    for label in range(n_labels):
        if 0 < columns[:, label].sum() < len(targets):
            roc_auc, precision = Ranking.of(columns[:, label], scores[:, label]).areas(ones)
            areas[:, label] = roc_auc[0], precision[0]
    return areas[0], areas[1]


@metric(uses="scores")
def roc_auc(targets: np.ndarray, scores: np.ndarray) -> float | None:
    """Return the ROC AUC of the second of two labels; with more labels, or in multi-label, `roc_auc_macro`."""
    return number(_second_or_mean(areas_per_label(targets, scores)[0], targets))


@metric(uses="scores")
def average_precision(targets: np.ndarray, scores: np.ndarray) -> float | None:
    """Return the average precision of the second of two labels; else `average_precision_macro`."""
    return number(_second_or_mean(areas_per_label(targets, scores)[1], targets))


@metric(uses="scores")
def roc_auc_macro(targets: np.ndarray, scores: np.ndarray) -> float | None:
    """Return the mean of the labels' ROC AUC, each against the rest; labels with rows of one kind are left out."""
    return number(mean_of_defined(areas_per_label(targets, scores)[0]))


@metric(uses="scores")
def average_precision_macro(targets: np.ndarray, scores: np.ndarray) -> float | None:
    """Return the mean of the labels' average precision; labels with rows of one kind are left out."""
    return number(mean_of_defined(areas_per_label(targets, scores)[1]))


def is_binary(targets: np.ndarray, n_labels: int) -> bool:
    """Tell whether each row has one of two labels, so that the second stands for both in a ranking."""
    return targets.ndim == 1 and n_labels == 2


def _second_or_mean(values: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return values[1] if is_binary(targets, len(values)) else mean_of_defined(values)


def number(value: np.ndarray | float) -> float | None:
    """Return a float, or None for NaN."""
    plain = float(value)
    return None if np.isnan(plain) else plain
