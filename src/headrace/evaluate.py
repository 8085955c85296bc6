"""From all targets and scores at once to an Evaluation; from those of a validation to the one number watched."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

import numpy as np

from headrace.data.examples import LabelSet
from headrace.errors import DataError, RecipeError, suggestion
from headrace.evaluation import Evaluation, Interval
from headrace.intervals import (
    BOOTSTRAP,
    MIN_ROWS,
    MIN_ROWS_IN_MACRO,
    WILSON,
    Resampled,
    percentiles,
    resample,
    resample_metric,
    wilson,
)
from headrace.metrics import (
    METRICS,
    MULTI_LABEL,
    REGISTERED,
    SINGLE_LABEL,
    LabelCounts,
    areas_per_label,
    confusion_matrix,
    decisions,
    is_binary,
    is_correct,
    number,
    one_column_per_label,
)

__all__ = ["METRICS", "Evaluation", "Interval", "evaluate", "monitor_value"]

_RANKED = ("roc_auc", "average_precision", "roc_auc_macro", "average_precision_macro")


class Options(TypedDict, total=False):
    """What `evaluate` takes besides its subject.

    Attributes:
        threshold: Multi-label alone: one number or one per label, 0.5 by default.
        seed: Of the resamples, 0 by default.
        resamples: Of the bootstrap, 1,000 by default.
    """

    threshold: float | np.ndarray | None
    seed: int
    resamples: int


@dataclass(frozen=True)
class _Scored:
    """Checked input of an evaluation, and what its intervals are drawn with."""

    targets: np.ndarray
    scores: np.ndarray
    decided: np.ndarray
    names: tuple[str, ...]
    resamples: int
    seed: int
    has_label: np.ndarray = field(repr=False)  # bool [rows, labels]

    @property
    def n_rows(self) -> int:
        """How many rows are evaluated."""
        return len(self.targets)

    def rows_of_rarer_kind(self) -> np.ndarray:
        """Return int [labels]: rows with the label or without it, whichever are fewer."""
        support = self.has_label.sum(axis=0)
        return np.asarray(np.minimum(support, self.n_rows - support))


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
    threshold = options.get("threshold")
    given = 0.5 if threshold is None else threshold
    targets, scores = _checked(targets, scores, labels=labels, task=task)
    multi_label = targets.ndim == 2
    scored = _Scored(
        targets=targets,
        scores=scores,
        decided=decisions(scores, multi_label=multi_label, threshold=_fitting(given, len(labels))),
        names=labels.names,
        resamples=options.get("resamples", 1000),
        seed=options.get("seed", 0),
        has_label=one_column_per_label(targets, len(labels)),
    )
    resampled = resample(targets, scores, scored.decided, resamples=scored.resamples, seed=scored.seed)
    kept = [float(one) for one in np.atleast_1d(given)]
    return Evaluation(
        task=task,
        labels=labels.names,
        n_rows=len(targets),
        split=split,
        metrics=_metrics(scored, resampled),
        per_label=_per_label(scored, resampled),
        confusion=None if multi_label else confusion_matrix(targets, scored.decided, len(labels)).tolist(),
        notes=tuple(_notes(scored)),
        threshold=None if not multi_label else kept[0] if len(kept) == 1 else tuple(kept),
    )


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
        threshold: Multi-label alone; 0.5 by default.

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
    given = 0.5 if threshold is None else threshold
    return metric.function(targets, decisions(scores, multi_label=targets.ndim == 2, threshold=given))


def _checked(targets: np.ndarray, scores: np.ndarray, *, labels: LabelSet, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays that fit each other, the labels and the task."""
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


def _fitting(threshold: float | np.ndarray, n_labels: int) -> float | np.ndarray:
    values = threshold if np.ndim(threshold) == 0 else np.asarray(threshold)
    if np.shape(values) not in ((), (n_labels,)):
        raise DataError(
            f"{np.size(values)} thresholds for {n_labels} labels", where="threshold", next="give one, or one per label"
        )
    return values


def _metrics(scored: _Scored, resampled: Resampled) -> dict[str, Interval]:
    multi_label = scored.targets.ndim == 2
    binary = is_binary(scored.targets, len(scored.names))
    found = {}
    for name, metric in REGISTERED[MULTI_LABEL if multi_label else SINGLE_LABEL].items():
        if name in _RANKED and name.endswith("_macro") == binary:
            continue  # of two labels the second is reported, of others the mean
        second = scored.scores if metric.uses == "scores" else scored.decided
        value = metric.function(scored.targets, second)
        if name == "accuracy" or (name == "f1_micro" and not multi_label):
            found[name] = _share(int(is_correct(scored.targets, scored.decided).sum()), scored.n_rows, "")
        elif value is None:
            found[name] = Interval(None, note="no label has what it takes: see the notes")
        elif name in _RANKED:
            note, enough = _ranked_note(scored)
            found[name] = _bootstrapped(value, resampled.metrics[name] if enough else None, note, scored.n_rows)
        else:
            drawn = resampled.metrics.get(name)
            if drawn is None:
                drawn = resample_metric(
                    metric.function, scored.targets, second, resamples=scored.resamples, seed=scored.seed
                )
            found[name] = _bootstrapped(value, drawn, None, scored.n_rows)
    return found


def _ranked_note(scored: _Scored) -> tuple[str | None, bool]:
    """Return what to know of a ranked metric over labels, and whether it gets an interval."""
    rarer = scored.rows_of_rarer_kind()
    judged = [1] if is_binary(scored.targets, len(scored.names)) else range(len(scored.names))
    few = [i for i in judged if 0 < rarer[i] < MIN_ROWS]
    if not few:
        return None, True
    named = ", ".join(f"{scored.names[i]!r} ({rarer[i]})" for i in few[:5]) + (", …" if len(few) > 5 else "")
    enough = min(rarer[i] for i in few) >= MIN_ROWS_IN_MACRO and len(judged) > 1
    outcome = "the interval is approximate" if enough else "no interval"
    return f"fewer than {MIN_ROWS} rows with or without the label {named}: {outcome}", enough


def _bootstrapped(value: float | None, drawn: np.ndarray | None, note: str | None, n_rows: int) -> Interval:
    if value is None or drawn is None:
        return Interval(value, note=note)
    if n_rows < MIN_ROWS:
        return Interval(value, note=f"no interval from fewer than {MIN_ROWS} rows")
    if len(drawn) == 0:
        return Interval(value, note="no interval: too many rows and labels to resample a ranking in reasonable time")
    span = percentiles(drawn)
    if span is None:
        return Interval(value, note="no interval: all resamples gave the same value")
    return Interval(value, *span, method=BOOTSTRAP, note=note)


def _share(successes: int, n: int, why_none: str) -> Interval:
    span = wilson(successes, n)
    return Interval(None, note=why_none) if span is None else Interval(successes / n, *span, method=WILSON)


def _per_label(scored: _Scored, resampled: Resampled) -> dict[str, dict[str, Any]]:
    counts = LabelCounts.of(scored.targets, scored.decided, len(scored.names))
    areas = areas_per_label(scored.targets, scored.scores)
    rarer, f1 = scored.rows_of_rarer_kind(), counts.f1()
    found: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(scored.names):
        hits, decided, support = int(counts.hits[i]), int(counts.decided[i]), int(counts.support[i])
        missing = "no row has the label" if support == 0 else "every row has the label"
        few = None if rarer[i] >= MIN_ROWS else _few(support, scored.n_rows)
        ranked = {}
        for key, values, drawn in zip(_RANKED, areas, (resampled.roc_auc, resampled.average_precision), strict=False):
            kept = drawn[:, i] if few is None else None
            note = missing if rarer[i] == 0 else few
            ranked[key] = _bootstrapped(number(values[i]), kept, note, scored.n_rows)
        found[name] = {
            "precision": _share(hits, decided, "the label was never predicted"),
            "recall": _share(hits, support, "no row has the label"),
            "f1": Interval(None, note="no row has the label and it was never predicted")
            if support + decided == 0
            else _bootstrapped(float(f1[i]), resampled.f1[:, i], None, scored.n_rows),
            "support": support,
            "n_predicted": decided,
            **ranked,
        }
    return found


def _few(support: int, n_rows: int) -> str:
    kind, n = ("with", support) if support <= n_rows - support else ("without", n_rows - support)
    return f"no interval: {n} rows {kind} the label, {MIN_ROWS} are needed"


def _notes(scored: _Scored) -> list[str]:
    notes = []
    if scored.n_rows < MIN_ROWS:
        notes.append(f"{scored.n_rows} rows are too few for bootstrap intervals; {MIN_ROWS} are needed")
    for name, support, rarer in zip(
        scored.names, scored.has_label.sum(axis=0), scored.rows_of_rarer_kind(), strict=True
    ):
        if rarer == 0:
            which = "no row has" if support == 0 else "every row has"
            notes.append(
                f"{which} the label {name!r}: it has no ROC AUC and no average precision; their means leave it out"
            )
        elif rarer < MIN_ROWS:
            why = _few(int(support), scored.n_rows).removeprefix("no interval: ")
            notes.append(f"the ROC AUC and average precision of {name!r} have no interval: {why}")
    return notes
