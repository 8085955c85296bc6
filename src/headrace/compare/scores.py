"""The verdict between two classifiers from their scores of the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypedDict, Unpack

import numpy as np

from headrace.compare.paired import (
    Paired,
    holm,
    paired_areas,
    paired_means,
    paired_resamples,
    paired_shares,
)
from headrace.compare.verdict import Comparison, compared
from headrace.data.examples import LabelSet
from headrace.errors import RecipeError, suggestion
from headrace.evaluate.few import mean_note
from headrace.evaluate.scored import checked, fitting
from headrace.evaluation import Interval
from headrace.intervals import MIN_ROWS, MIN_ROWS_IN_MACRO, Area, Resampled, resample, resample_metric, resampled_rows
from headrace.metrics import (
    MULTI_LABEL,
    REGISTERED,
    decisions,
    is_binary,
    is_correct,
    one_column_per_label,
    row_losses,
)

TOO_MANY = "no interval: too many rows and labels to resample a ranking in reasonable time"
RANKED = ("roc_auc", "average_precision", "roc_auc_macro", "average_precision_macro")


class Options(TypedDict, total=False):
    """What `compare_scores` takes besides its subject.

    Attributes:
        metric: What the verdict is about; by default accuracy, in multi-label the mean ROC AUC.
        threshold_a, threshold_b: As in `metrics.decisions`.
        seed: Of the resamples, 0 by default.
        resamples: Of the bootstrap, 1,000 by default.
        whole: Also compare all other metrics and each label's ROC AUC; False by default.
    """

    metric: str | None
    threshold_a: float | np.ndarray | None
    threshold_b: float | np.ndarray | None
    seed: int
    resamples: int
    whole: bool


@dataclass(frozen=True)
class Scored:
    """One classifier's scores of the rows, and what it decided.

    Attributes:
        name: What the reader knows it by.
        targets: int64 [rows] or 0/1 [rows, labels].
        scores: [rows, labels].
        decided: In the form of the targets.
        seed, resamples: Of the bootstrap; equal for those that are compared, so that their resamples are the same.
    """

    name: str
    targets: np.ndarray
    scores: np.ndarray
    decided: np.ndarray
    seed: int = 0
    resamples: int = 1000

    @cached_property
    def resampled(self) -> Resampled:
        """The built-in metrics on the resamples."""
        return resample(self.targets, self.scores, self.decided, resamples=self.resamples, seed=self.seed)

    def value(self, metric: str) -> float | None:
        """Return a metric on the rows."""
        known = REGISTERED[_task(self.targets)][metric]
        return known.function(self.targets, self.scores if known.uses == "scores" else self.decided)

    def drawn(self, metric: str) -> np.ndarray:
        """Return a metric on each resample: float64 [resamples], NaN where it has no value."""
        if metric == "accuracy":
            correct = is_correct(self.targets, self.decided)
            drawn = resampled_rows(len(correct), resamples=self.resamples, seed=self.seed)
            return np.concatenate([correct[rows].mean(axis=0) for rows in drawn])
        found = self.resampled.metrics.get(metric)
        return self._drawn_by_rows(metric) if found is None else found

    def _drawn_by_rows(self, metric: str) -> np.ndarray:
        known = REGISTERED[_task(self.targets)][metric]
        second = self.scores if known.uses == "scores" else self.decided
        return resample_metric(known.function, self.targets, second, resamples=self.resamples, seed=self.seed)


def _task(targets: np.ndarray) -> str:
    return MULTI_LABEL if targets.ndim == 2 else "single_label"


def compare_scores(
    targets: np.ndarray,
    scores_a: np.ndarray,
    scores_b: np.ndarray,
    *,
    labels: LabelSet,
    task: str,
    names: tuple[str, str],
    **options: Unpack[Options],
) -> Comparison:
    """Return the verdict between two classifiers that scored the same rows.

    Shares of right rows are compared by the mid-p McNemar test, a label's ROC AUC by DeLong's, means over the rows by
    the paired t test, and everything else by the paired bootstrap.

    Args:
        targets: int64 [rows], or 0/1 [rows, labels] for multi-label.
        scores_a, scores_b: [rows, labels], each in [0, 1].
        labels: The names of the columns.
        task: `single_label` or `multi_label`.
        names: Of a and b.
        **options: See `Options`.

    Raises:
        RecipeError: There is no such task or metric.
        DataError: There are no rows, the shapes do not fit, or a score is not in [0, 1].
    """
    pair = []
    for name, scores, threshold in zip(
        names, (scores_a, scores_b), (options.get("threshold_a"), options.get("threshold_b")), strict=True
    ):
        targets, scores = checked(targets, scores, labels=labels, task=task)
        multi_label = task == MULTI_LABEL
        given = fitting(threshold, len(labels), multi_label=multi_label)
        decided = decisions(scores, multi_label=multi_label, threshold=given)
        seed, resamples = options.get("seed", 0), options.get("resamples", 1000)
        pair.append(Scored(name, targets, scores, decided, seed, resamples))
    return compare_scored(pair[0], pair[1], labels, metric=options.get("metric"), whole=options.get("whole", False))


def compare_scored(
    a: Scored, b: Scored, labels: LabelSet, *, metric: str | None = None, whole: bool = False
) -> Comparison:
    """Return the verdict between two that were scored on the same rows, see `compare_scores`."""
    name = metric_named(metric, a.targets, len(labels))
    main = _verdict(a, b, labels, name)
    if not whole:
        return main
    others = [_verdict(a, b, labels, other) for other in shown_metrics(a.targets, len(labels)) if other != name]
    per_label = {label: _label_verdict(a, b, labels, i) for i, label in enumerate(labels.names)}
    corrected = holm([found.p_value for found in per_label.values()])
    adjusted = zip(per_label.items(), corrected, strict=True)
    return Comparison(
        **{
            **main.__dict__,
            "others": tuple(others),
            "per_label": {label: found.corrected(p) for (label, found), p in adjusted},
        }
    )


def shown_metrics(targets: np.ndarray, n_labels: int) -> list[str]:
    """Return the metrics that a report shows: of two labels the second's ranking, of others the means."""
    binary = is_binary(targets, n_labels)
    task = _task(targets)
    left_out = {name for name in RANKED if name.endswith("_macro") == binary}
    if task != MULTI_LABEL:
        left_out.add("f1_micro")  # is the accuracy
    return [name for name in REGISTERED[task] if name not in left_out]


def metric_named(name: str | None, targets: np.ndarray, n_labels: int) -> str:
    """Return the metric of the verdict by the name that a report shows it under.

    Raises:
        RecipeError: There is no such metric; offers the nearest name.
    """
    known = shown_metrics(targets, n_labels)
    if name is None:
        return "roc_auc_macro" if targets.ndim == 2 else "accuracy"
    aliases = (name, f"{name}_macro", name.removesuffix("_macro"), "accuracy" if name == "f1_micro" else name)
    for alias in aliases:
        if alias in known:
            return alias
    raise RecipeError(f"there is no metric named {name!r}", where="metric", next=suggestion(name, known))


def _verdict(a: Scored, b: Scored, labels: LabelSet, metric: str) -> Comparison:
    values = a.value(metric), b.value(metric)
    return compared(metric, (a.name, b.name), values, _paired(a, b, labels, metric), len(a.targets))


def _paired(a: Scored, b: Scored, labels: LabelSet, metric: str) -> Paired:
    first, second = a.value(metric), b.value(metric)
    if first is None or second is None:
        return _untold(None, f"the rows do not define {metric}")
    why = too_few(a.targets, labels, metric, (a.decided, b.decided))
    if why is not None:
        return _untold(second - first, why)
    if metric == "accuracy":
        return paired_shares(is_correct(a.targets, a.decided), is_correct(b.targets, b.decided))
    if metric == "log_loss":
        return paired_means(row_losses(a.targets, a.scores), row_losses(b.targets, b.scores))
    if metric == "hamming_loss":
        wrong = [((one.targets != 0) != (one.decided != 0)).mean(axis=1) for one in (a, b)]
        return paired_means(wrong[0], wrong[1])
    if metric == "roc_auc" and is_binary(a.targets, len(labels)):
        return paired_areas(a.targets == 1, a.scores[:, 1], b.scores[:, 1])
    drawn = a.drawn(metric), b.drawn(metric)
    if not len(drawn[0]):
        return _untold(second - first, TOO_MANY)
    found = paired_resamples(second - first, *drawn, len(a.targets))
    note = _approximate(a.targets, labels, metric)
    if note is None or found.difference.low is None:
        return found
    return replace(found, difference=replace(found.difference, note=note))


def _approximate(targets: np.ndarray, labels: LabelSet, metric: str) -> str | None:
    """Return what to know of the interval of a mean over labels of which some have few rows, or None."""
    if not metric.endswith("_macro") or (is_binary(targets, len(labels)) and metric != "f1_macro"):
        return None
    support = one_column_per_label(targets, len(labels)).sum(axis=0)
    is_f1 = metric == "f1_macro"
    counts = support if is_f1 else np.minimum(support, len(targets) - support)
    judged = np.flatnonzero(counts)
    return mean_note(
        [labels.names[i] for i in judged], counts[judged], "with the label" if is_f1 else "with or without the label"
    )[0]


def _untold(value: float | None, why: str) -> Paired:
    return Paired(Interval(value, note=why), None, "", None)


def too_few(targets: np.ndarray, labels: LabelSet, metric: str, decided: Sequence[np.ndarray]) -> str | None:
    """Return why the rows are too few for an interval of a metric or of its difference, or None.

    Args:
        targets: int64 [rows], or 0/1 [rows, labels].
        labels: The names of the columns.
        metric: The metric.
        decided: What each side decided, in the form of the targets: a label that no row has counts where one was given.
    """
    if len(targets) < MIN_ROWS:
        return f"no interval from fewer than {MIN_ROWS} rows: there are {len(targets)}"
    support = one_column_per_label(targets, len(labels)).sum(axis=0)
    least = MIN_ROWS if len(labels) == 1 else MIN_ROWS_IN_MACRO
    if metric == "f1_macro":
        given = sum(one_column_per_label(one, len(labels)).sum(axis=0) for one in decided)
        few = np.flatnonzero((support + given > 0) & (support < least))
        return _few_rows(labels.names[few[0]], "with", int(support[few[0]]), least) if len(few) else None
    if metric == "f1_micro" and targets.ndim == 2:
        predicted = [int((one != 0).sum()) for one in decided]
        n = min([int(support.sum()), *filter(None, predicted)])  # a side that gave no label at all has an F1 of 0
        return f"no interval: {n} labels given or predicted in all, {MIN_ROWS} are needed" if n < MIN_ROWS else None
    if metric not in RANKED:
        return None
    binary = is_binary(targets, len(labels))
    least = MIN_ROWS if binary else least
    rarer = np.minimum(support, len(targets) - support)
    judged = range(1, 2) if binary else range(len(labels))
    rare = [i for i in judged if 0 < rarer[i] < least]
    return _few(labels.names[rare[0]], int(support[rare[0]]), len(targets), least) if rare else None


def _few(label: str, support: int, n_rows: int, needed: int) -> str:
    kind, n = ("with", support) if support <= n_rows - support else ("without", n_rows - support)
    return _few_rows(label, kind, n, needed)


def _few_rows(label: str, kind: str, n: int, needed: int) -> str:
    return f"no interval: {n} rows {kind} the label {label!r}, {needed} are needed"


def _label_verdict(a: Scored, b: Scored, labels: LabelSet, label: int) -> Comparison:
    """Return the verdict on the ROC AUC of one label against the rest."""
    has_label = one_column_per_label(a.targets, len(labels))[:, label]
    support, n_rows = int(has_label.sum()), len(has_label)
    name = labels.names[label]
    values: tuple[float | None, float | None] = (None, None)
    if 0 < support < n_rows:
        paired = paired_areas(has_label, a.scores[:, label], b.scores[:, label])
        first, second = (Area.of(has_label, one.scores[:, label]).value for one in (a, b))
        values = first, second
        if min(support, n_rows - support) < MIN_ROWS:
            paired = _untold(second - first, _few(name, support, n_rows, MIN_ROWS))
    else:
        paired = _untold(None, f"{'no row has' if support == 0 else 'every row has'} the label {name!r}")
    return compared("roc_auc", (a.name, b.name), values, paired, n_rows)
