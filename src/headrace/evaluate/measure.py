"""From all targets and scores at once to an Evaluation; from those of a validation to the one number watched."""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

import numpy as np

from headrace.data.examples import LabelSet
from headrace.errors import RecipeError, suggestion
from headrace.evaluate.few import FEW_ROWS, few_of_kind, few_predicted, few_with, label_notes, mean_note
from headrace.evaluate.scored import Scored, checked, fitting
from headrace.evaluation import Evaluation, Interval
from headrace.intervals import (
    BOOTSTRAP,
    HALL,
    MIN_ROWS,
    WILSON,
    Area,
    Resampled,
    corrected_percentiles,
    f1_influence,
    hall,
    mean_area,
    mean_influence,
    percentiles,
    resample,
    resample_metric,
    wilson,
)
from headrace.metrics import (
    MULTI_LABEL,
    REGISTERED,
    SINGLE_LABEL,
    LabelCounts,
    Metric,
    areas_per_label,
    confusion_matrix,
    decisions,
    is_binary,
    is_correct,
    mean_of_defined,
    number,
    one_column_per_label,
    row_losses,
)

#: An ROC AUC above the first, from fewer rows of the rarer kind than the second, is told to have a narrow interval:
#: a label's few worst rows decide it, and most samples have none (coverage in docs/results.md, made by
#: benchmarks/interval_coverage.py).
NEAR_ONE = 0.95
ENOUGH_NEAR_ONE = 100
_RANKED = ("roc_auc", "average_precision", "roc_auc_macro", "average_precision_macro")


class Options(TypedDict, total=False):
    """What `evaluate` takes besides its subject.

    Attributes:
        threshold: Multi-label: one number or one per label, 0.5 by default. Two single labels: [2], NaN for the one that
            has none; by default the higher score wins.
        seed: Of the resamples, 0 by default.
        resamples: Of the bootstrap, 1,000 by default.
    """

    threshold: float | np.ndarray | None
    seed: int
    resamples: int


def evaluate(
    targets: np.ndarray, scores: np.ndarray, *, labels: LabelSet, task: str, split: str, **options: Unpack[Options]
) -> Evaluation:
    """Return all metrics of the task with intervals.

    Args:
        targets: int64 [rows], or 0/1 [rows, labels] for multi-label.
        scores: [rows, labels], each in [0, 1]; of a single label they are probabilities.
        labels: The names of the columns.
        task: `single_label` or `multi_label`.
        split: What the rows are: `test`, `valid`, or a file's name.
        **options: See `Options`.

    Raises:
        DataError: There are no rows, the shapes do not fit, or a score is not in [0, 1].
    """
    targets, scores = checked(targets, scores, labels=labels, task=task)
    multi_label = targets.ndim == 2
    threshold = fitting(options.get("threshold"), len(labels), multi_label=multi_label)
    scored = Scored(
        targets=targets,
        scores=scores,
        decided=decisions(scores, multi_label=multi_label, threshold=threshold),
        names=labels.names,
        resamples=options.get("resamples", 1000),
        seed=options.get("seed", 0),
        has_label=one_column_per_label(targets, len(labels)),
    )
    resampled = resample(targets, scores, scored.decided, resamples=scored.resamples, seed=scored.seed, ranked=False)
    counts = scored.has_label.sum(axis=0), scored.has_decided.sum(axis=0)
    notes = label_notes(scored.names, *counts, scored.n_rows)
    return Evaluation(
        task=task,
        labels=labels.names,
        n_rows=len(targets),
        split=split,
        metrics=_metrics(scored, resampled),
        per_label=_per_label(scored, resampled),
        confusion=None if multi_label else confusion_matrix(targets, scored.decided, len(labels)).tolist(),
        notes=tuple(notes),
        threshold=_plain(0.5 if threshold is None and multi_label else threshold),
    )


def _plain(threshold: float | np.ndarray | None) -> float | tuple[float | None, ...] | None:
    if threshold is None or np.ndim(threshold) == 0:
        return None if threshold is None else float(threshold)
    return tuple(None if np.isnan(one) else float(one) for one in np.asarray(threshold))


def monitor_value(
    targets: np.ndarray,
    scores: np.ndarray,
    name: str,
    *,
    task: str | None = None,
    threshold: float | np.ndarray | None = None,
) -> float | None:
    """Return one metric without an interval, cheaply, as validation in training watches it.

    Args:
        targets: int64 [rows], or 0/1 [rows, labels] for multi-label.
        scores: [rows, labels] in [0, 1].
        name: One of `METRICS[task]`.
        task: Told by the form of the targets if it is not given.
        threshold: As in `metrics.decisions`.

    Returns:
        The value; None if the rows do not define it (an ROC AUC where all rows have the same label, or no rows).

    Raises:
        RecipeError: There is no such metric; offers the nearest name.
    """
    known = REGISTERED[task or (MULTI_LABEL if targets.ndim == 2 else SINGLE_LABEL)]
    if name not in known:
        raise RecipeError(f"there is no metric named {name!r}", where="fit.monitor", next=suggestion(name, known))
    if len(targets) == 0:
        return None
    metric = known[name]
    if metric.uses == "scores":
        return metric.function(targets, scores)
    return metric.function(targets, decisions(scores, multi_label=targets.ndim == 2, threshold=threshold))


def _metrics(scored: Scored, resampled: Resampled) -> dict[str, Interval]:
    multi_label = scored.targets.ndim == 2
    binary = is_binary(scored.targets, len(scored.names))
    found = {}
    for name, metric in REGISTERED[MULTI_LABEL if multi_label else SINGLE_LABEL].items():
        if name in _RANKED and name.endswith("_macro") == binary:
            continue  # of two labels the second is reported, of others the mean
        value = metric.function(scored.targets, scored.scores if metric.uses == "scores" else scored.decided)
        if name == "accuracy" or (name == "f1_micro" and not multi_label):
            right = int(is_correct(scored.targets, scored.decided).sum())
            low, high = wilson(right, scored.n_rows) or (None, None)
            found[name] = Interval(right / scored.n_rows, low, high, method=WILSON)
        elif value is None:
            found[name] = Interval(None, note="no label has what it takes: see the notes")
        elif name in _RANKED:
            found[name] = _ranked(scored, name, value)
        elif name == "log_loss":
            found[name] = mean_interval(row_losses(scored.targets, scored.scores), (0.0, np.inf))
        elif name == "hamming_loss":
            found[name] = mean_interval((scored.has_label != scored.has_decided).mean(axis=1), (0.0, 1.0))
        else:
            found[name] = _resampled(scored, resampled, metric, value)
    return found


def mean_interval(values: np.ndarray, bounds: tuple[float, float]) -> Interval:
    """Return the mean of what each row says, with its 95 % interval.

    Args:
        values: float64 [rows], at least one.
        bounds: What a mean cannot leave.
    """
    value = float(values.mean())
    if len(values) < MIN_ROWS:
        return Interval(value, note=FEW_ROWS)
    span = hall(value, mean_influence(values), df=len(values) - 1, bounds=bounds)
    if span is None:
        return Interval(value, note="no interval: all rows have the same value")
    return Interval(value, *span, method=HALL)


def _resampled(scored: Scored, resampled: Resampled, metric: Metric, value: float) -> Interval:
    """Return any other metric; one that is not built in is computed on the rows of each resample."""
    drawn = resampled.metrics.get(metric.name)
    if drawn is None:
        second = scored.scores if metric.uses == "scores" else scored.decided
        drawn = resample_metric(metric.function, scored.targets, second, resamples=scored.resamples, seed=scored.seed)
    influence, note = None, None
    if metric.name == "f1_macro":
        note, enough = _f1_note(scored)
        if not enough and scored.n_rows >= MIN_ROWS:
            return Interval(value, note=note)
        influence = mean_of_defined(scored.f1_influence)
    elif metric.name == "f1_micro":
        n = min(int(scored.has_label.sum()), int(scored.has_decided.sum()))
        if n < MIN_ROWS <= scored.n_rows:
            return Interval(value, note=f"no interval: {n} labels given or predicted in all, {MIN_ROWS} are needed")
        pooled = f1_influence(scored.has_label.reshape(-1, 1), scored.has_decided.reshape(-1, 1))
        influence = pooled.reshape(scored.scores.shape).sum(axis=1)  # the rows of all labels taken for one label
    return bootstrapped(value, drawn, scored.n_rows, influence=influence, note=note)


def _f1_note(scored: Scored) -> tuple[str | None, bool]:
    """Return what to know of the mean F1, and whether it gets an interval; labels without an F1 are not in it."""
    support = scored.has_label.sum(axis=0)
    judged = np.flatnonzero(support + scored.has_decided.sum(axis=0))
    return mean_note([scored.names[i] for i in judged], support[judged], "with the label")


def _ranked(scored: Scored, name: str, value: float) -> Interval:
    """Return a ranked metric: the mean over the labels, or that of the second of two."""
    note, enough = _ranked_note(scored)
    if not enough:
        return Interval(value, note=note)
    binary = is_binary(scored.targets, len(scored.names))
    judged = [i for i in range(1 if binary else 0, len(scored.names)) if scored.areas[i] is not None]
    if name.startswith("roc_auc"):
        estimate = mean_area([area for area in scored.areas[judged[0] :] if area is not None])
    else:
        estimate = mean_area([scored.precision(i) for i in judged])
    return _ranked_interval(value, estimate, int(scored.rows_of_rarer_kind()[judged].min()), note)


def _ranked_interval(value: float, estimate: Area, n_rarer: int, note: str | None) -> Interval:
    if note is None and value > NEAR_ONE and n_rarer < ENOUGH_NEAR_ONE:
        note = f"from {n_rarer} rows of the rarer kind an interval so near 1 tends to be too narrow"
    span = hall(value, estimate.influence, df=estimate.df, bounds=(0.0, 1.0))
    if span is None:
        why = "no interval: no row is ranked better or worse than another, so nothing tells how far the value may vary"
        return Interval(value, note=why)
    return Interval(value, *span, method=estimate.method, note=note)


def _ranked_note(scored: Scored) -> tuple[str | None, bool]:
    """Return what to know of a ranked metric over labels, and whether it gets an interval."""
    rarer = scored.rows_of_rarer_kind()
    first = 1 if is_binary(scored.targets, len(scored.names)) else 0
    judged = [i for i in range(first, len(scored.names)) if rarer[i]]
    return mean_note([scored.names[i] for i in judged], rarer[judged], "with or without the label")


def bootstrapped(
    value: float, drawn: np.ndarray, n_rows: int, *, influence: np.ndarray | None = None, note: str | None = None
) -> Interval:
    """Return an estimate with the 95 % interval of its resamples.

    Args:
        value: The estimate.
        drawn: float64 [resamples].
        n_rows: Fewer than `MIN_ROWS` get no interval.
        influence: float64 [rows], see `headrace.intervals.influence`; without it the percentiles are taken as they are.
        note: What to know of the interval.
    """
    if n_rows < MIN_ROWS:
        return Interval(value, note=FEW_ROWS)
    span = percentiles(drawn) if influence is None else corrected_percentiles(drawn, value, influence)
    if span is None:
        return Interval(value, note="no interval: all resamples gave the same value")
    return Interval(value, *span, method=BOOTSTRAP, note=note)


def _share(successes: int, n: int, why_none: str, why_few: str) -> Interval:
    """Return a share of a label's rows; of fewer than 20 Wilson's interval would hold, but say next to nothing."""
    span = wilson(successes, n)
    if span is None:
        return Interval(None, note=why_none)
    return Interval(successes / n, note=why_few) if n < MIN_ROWS else Interval(successes / n, *span, method=WILSON)


def _per_label(scored: Scored, resampled: Resampled) -> dict[str, dict[str, Any]]:
    counts = LabelCounts.of(scored.targets, scored.decided, len(scored.names))
    ranked = areas_per_label(scored.targets, scored.scores)
    f1 = counts.f1()
    found: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(scored.names):
        hits, decided, support = int(counts.hits[i]), int(counts.decided[i]), int(counts.support[i])
        roc_auc, average_precision = _ranked_label(scored, i, [number(values[i]) for values in ranked])
        found[name] = {
            "precision": _share(hits, decided, "the label was never predicted", few_predicted(decided)),
            "recall": _share(hits, support, "no row has the label", few_with(support)),
            "f1": _f1(scored, i, float(f1[i]), resampled.f1[:, i], support=support, decided=decided),
            "support": support,
            "n_predicted": decided,
            "roc_auc": roc_auc,
            "average_precision": average_precision,
        }
    return found


def _f1(scored: Scored, label: int, value: float, drawn: np.ndarray, *, support: int, decided: int) -> Interval:
    """Return the F1 of one label: no surer than the recall and the precision that it is made of."""
    if support + decided == 0:
        return Interval(None, note="no row has the label and it was never predicted")
    if min(support, decided) < MIN_ROWS:
        return Interval(value, note=few_with(support) if support < MIN_ROWS else few_predicted(decided))
    return bootstrapped(value, drawn, scored.n_rows, influence=scored.f1_influence[:, label])


def _ranked_label(scored: Scored, label: int, values: list[float | None]) -> tuple[Interval, Interval]:
    """Return the ROC AUC and the average precision of one label, from their values."""
    support, area = int(scored.has_label[:, label].sum()), scored.areas[label]
    roc_auc, precision = values
    rarer = min(support, scored.n_rows - support)
    if area is None or roc_auc is None or precision is None or rarer < MIN_ROWS:
        missing = "no row has the label" if support == 0 else "every row has the label"
        why = missing if area is None else few_of_kind(support, scored.n_rows)
        return Interval(roc_auc, note=why), Interval(precision, note=why)
    return (
        _ranked_interval(roc_auc, area, rarer, None),
        _ranked_interval(precision, scored.precision(label), rarer, None),
    )
