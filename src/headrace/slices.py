"""Metrics on parts of the rows: where the model is worse than it is overall, and whether that is more than chance.

A part is flagged only if its 95 % interval lies on the worse side of the overall value, and by more than looking at so
many parts explains: the two-sided p-value of its distance to the overall value is adjusted by Holm's method over all
parts that have an interval, and must not exceed 0.05. So if all parts were alike, the chance of one false flag or more
would be at most 5 %. The interval that is shown is the plain one, not adjusted.

In multi-label the parts by true label are shown and not judged. A row with a label has more to get wrong than a row
without any, whatever the model: where nine in ten rows have none, every label's rows are worse than overall. The
figures of each label say how well it is found.

Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979),
65-70. The p-value of a share of rows is the binomial distribution's, twice the smaller tail; of other metrics it comes
from the standard deviation of the bootstrap under a normal distribution. The overall value counts the part's own rows
too, which makes the test err on the side of no flag.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack

import numpy as np

from headrace.data.examples import LabelSet
from headrace.errors import DataError, RecipeError, suggestion
from headrace.evaluation import Interval
from headrace.intervals import BOOTSTRAP, MIN_ROWS, WILSON, percentiles, resample_metric, wilson
from headrace.metrics import METRICS, REGISTERED, Metric, decisions, is_correct

LABEL = "true label"
LENGTH = "length in tokens"
CUT = "cut at max_length"
MISSING = "(missing)"
#: Of a column of the data: values with a part of their own, those with the most rows.
MOST_VALUES = 20
LEVEL = 0.05
#: A standard deviation from 200 resamples is known to 5 %.
RESAMPLES = 200
_MAX_VALUE_CHARACTERS = 80


class Options(TypedDict, total=False):
    """What `slices` takes besides its subject.

    Attributes:
        threshold: As in `metrics.decisions`.
        metric: A metric of the task; `accuracy` by default (multi-label: all labels of the row must be right).
        seed: Of the resamples, 0 by default; accuracy draws none.
    """

    threshold: float | np.ndarray | None
    metric: str | None
    seed: int


@dataclass(frozen=True)
class Slice:
    """A metric on a part of the rows.

    Attributes:
        column: What the rows were parted by.
        value: Which part: a value of the column, or a range.
        n_rows: Rows of the part.
        metric: The metric's name.
        interval: Its value on the part, with its 95 % interval from 20 rows on.
        overall: Its value on all rows; None if they do not define it.
        p_value: Of the distance to the overall value, adjusted for the number of parts; None without an interval, and
            for a part that is not judged.
        is_flagged: Whether the part is worse than overall, beyond chance.
    """

    column: str
    value: str
    n_rows: int
    metric: str
    interval: Interval
    overall: float | None
    p_value: float | None = None
    is_flagged: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return `column`, `value`, `n_rows`, `metric`, `value_of_metric` (an interval), `overall`, `p_value`, `is_flagged`."""
        return {
            "column": self.column,
            "value": self.value,
            "n_rows": self.n_rows,
            "metric": self.metric,
            "value_of_metric": self.interval.as_dict(),
            "overall": self.overall,
            "p_value": self.p_value,
            "is_flagged": self.is_flagged,
        }


def token_columns(lengths: Sequence[int] | np.ndarray, full_lengths: Sequence[int] | np.ndarray) -> dict[str, Any]:
    """Return the two columns that every run has: the length of each text in tokens, and whether it was cut.

    Args:
        lengths: [rows] tokens after the cut.
        full_lengths: [rows] tokens before it.
    """
    kept, full = np.asarray(lengths), np.asarray(full_lengths)
    return {LENGTH: full, CUT: ["cut" if was_cut else "not cut" for was_cut in (full > kept).tolist()]}


def slices(
    columns: Mapping[str, Sequence[Any] | np.ndarray],
    targets: np.ndarray,
    scores: np.ndarray,
    *,
    task: str,
    labels: LabelSet,
    **options: Unpack[Options],
) -> list[Slice]:
    """Return a metric on parts of the rows, the worst part first; parts under 20 rows come last, without an interval.

    Rows are parted by true label (multi-label: the rows with each label, and those with none; these are not judged, and
    come after those that are) and by each column.
    A column of numbers with more than 20 different values is parted at its quartiles; of other columns the 20 values
    with the most rows are parts (those of at least 20 rows), and the rest are one part together.

    Args:
        columns: Name -> [rows] values: texts, numbers, or None for a missing value. See `token_columns`.
        targets: int64 [rows], or 0/1 [rows, labels] for multi-label.
        scores: [rows, labels] in [0, 1].
        task: `single_label` or `multi_label`.
        labels: The names of the labels.
        **options: See `Options`.

    Returns:
        An empty list without rows.

    Raises:
        RecipeError: There is no such metric; offers the nearest name.
        DataError: A column has another number of values than there are rows.
    """
    targets, scores = np.asarray(targets), np.asarray(scores)
    for name, values in columns.items():
        if len(values) != len(targets):
            raise DataError(
                f"the column {name!r} has {len(values):,} values for {len(targets):,} rows",
                where="columns",
                next="give one value for each row",
            )
    measure = _Measure.of(targets, scores, task=task, options=options)
    found = [measure.on(LABEL, value, rows) for value, rows in _by_label(targets, labels)]
    if targets.ndim == 2:
        found = [replace(one, p_value=None) for one in found]
    for name, values in columns.items():
        found += [measure.on(name, value, rows) for value, rows in _by_values(values)]
    larger_is_better = measure.metric.larger_is_better
    found = _flagged(found, larger_is_better=larger_is_better)
    return _ordered(found, larger_is_better=larger_is_better)


@dataclass(frozen=True)
class _Measure:
    """One metric on any choice of rows."""

    metric: Metric
    targets: np.ndarray
    second: np.ndarray  # scores or decided labels, whichever the metric uses
    is_share: bool
    overall: float | None
    seed: int

    @classmethod
    def of(cls, targets: np.ndarray, scores: np.ndarray, *, task: str, options: Options) -> _Measure:
        """Look the metric up and take its value on all rows."""
        name = options.get("metric") or "accuracy"
        known = REGISTERED.get(task, {})
        if name not in known:
            raise RecipeError(
                f"there is no metric named {name!r} of {task}",
                where="metric",
                next=suggestion(name, known or METRICS),
            )
        metric, threshold = known[name], options.get("threshold")
        second = scores
        if metric.uses == "decided":
            second = decisions(scores, multi_label=targets.ndim == 2, threshold=threshold)
        overall = metric.function(targets, second) if len(targets) else None
        is_share = name == "accuracy" or (name == "f1_micro" and targets.ndim == 1)
        return cls(metric, targets, second, is_share, overall, options.get("seed", 0))

    def on(self, column: str, value: str, rows: np.ndarray) -> Slice:
        """Return the metric on some rows, with the p-value of its distance to the overall value, not yet adjusted."""
        targets, second = self.targets[rows], self.second[rows]
        found, n_rows = self.metric.function(targets, second), len(rows)
        p_value = None
        if found is None:
            interval = Interval(None, note="these rows do not define the metric")
        elif n_rows < MIN_ROWS:
            interval = Interval(found, note=f"no interval from fewer than {MIN_ROWS} rows")
        elif self.is_share:
            n_right = int(is_correct(targets, second).sum())
            low, high = wilson(n_right, n_rows) or (None, None)
            interval = Interval(found, low, high, method=WILSON)
            p_value = _binomial(n_right, n_rows, self.overall)
        else:
            drawn = resample_metric(self.metric.function, targets, second, resamples=RESAMPLES, seed=self.seed)
            interval = _bootstrapped(found, drawn)
            p_value = _normal(found - self.overall, drawn) if interval.method and self.overall is not None else None
        return Slice(column, value, n_rows, self.metric.name, interval, self.overall, p_value)


def _bootstrapped(value: float, drawn: np.ndarray) -> Interval:
    span = percentiles(drawn)
    if span is None:
        return Interval(value, note="no interval: most resamples have no value, or all have the same")
    return Interval(value, *span, BOOTSTRAP)


def _binomial(successes: int, n: int, share: float | None) -> float | None:
    """Return twice the smaller tail of the binomial distribution, at most 1."""
    if share is None:
        return None
    from scipy.special import bdtr  # loads slowly

    below = float(bdtr(successes, n, share))
    above = 1.0 if successes == 0 else 1 - float(bdtr(successes - 1, n, share))
    return max(0.0, min(1.0, 2 * min(below, above)))


def _normal(distance: float, drawn: np.ndarray) -> float:
    """Return the two-sided p-value of a distance whose standard deviation is that of the resamples."""
    return math.erfc(abs(distance) / float(np.nanstd(drawn, ddof=1)) / math.sqrt(2))


def _flagged(found: Sequence[Slice], *, larger_is_better: bool) -> list[Slice]:
    """Adjust the p-values by Holm's method; flag what stays within the level and is surely worse than overall."""
    tested = sorted((p, place) for place, one in enumerate(found) if (p := one.p_value) is not None)
    flagged, largest = list(found), 0.0
    for rank, (p_value, place) in enumerate(tested):
        largest = max(largest, min(1.0, p_value * (len(tested) - rank)))
        is_worse = _is_worse(found[place].interval, found[place].overall, larger_is_better)
        flagged[place] = replace(found[place], p_value=largest, is_flagged=largest <= LEVEL and is_worse)
    return flagged


def _is_worse(interval: Interval, overall: float | None, larger_is_better: bool) -> bool:
    """Tell whether the whole interval lies on the worse side of the overall value."""
    if interval.low is None or interval.high is None or overall is None:
        return False
    return interval.high < overall if larger_is_better else interval.low > overall


def _ordered(found: Sequence[Slice], *, larger_is_better: bool) -> list[Slice]:
    def rank(one: Slice) -> tuple[bool, bool, bool, float]:
        value = one.interval.value
        signed = 0.0 if value is None else value if larger_is_better else -value
        return one.interval.low is None, one.p_value is None, value is None, signed

    return sorted(found, key=rank)


def _by_label(targets: np.ndarray, labels: LabelSet) -> Iterator[tuple[str, np.ndarray]]:
    for i, name in enumerate(labels.names):
        rows = np.flatnonzero(targets[:, i] if targets.ndim == 2 else targets == i)
        if len(rows):
            yield name, rows
    if targets.ndim == 2:
        rows = np.flatnonzero(~(targets != 0).any(axis=1))
        if len(rows):
            yield "(no label)", rows


def _by_values(values: Sequence[Any] | np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    names = np.array([_name(value) for value in values], dtype=object)
    numbers = _numbers(names)
    if numbers is not None:
        yield from _by_quartile(numbers)
        names[~np.isnan(numbers)] = None  # the missing values are a part of their own
    counts = Counter(name for name in names if name is not None).most_common()
    own = [name for name, count in counts[:MOST_VALUES] if count >= MIN_ROWS] or [name for name, _ in counts[:1]]
    if len(counts) <= len(own) + 1:  # a part for all the rest would hold one value: name it
        own = [name for name, _ in counts]
    for name in own:
        yield name, np.flatnonzero(names == name)
    rest = {name for name, _ in counts} - set(own)
    if rest:
        yield f"other ({len(rest):,} values)", np.flatnonzero([name in rest for name in names])


def _name(value: Any) -> str:
    if value is None or (isinstance(value, float) and value != value) or not str(value).strip():
        return MISSING
    text = str(value)
    return text if len(text) <= _MAX_VALUE_CHARACTERS else f"{text[: _MAX_VALUE_CHARACTERS - 1]}…"


def _numbers(names: np.ndarray) -> np.ndarray | None:
    """Return float64 [rows], NaN where a value is missing, if all others are finite and many; else None."""
    is_given = names != MISSING
    found = np.full(len(names), np.nan)
    try:
        found[is_given] = names[is_given].astype(np.float64)
    except ValueError:
        return None
    given = found[is_given]
    return found if np.isfinite(given).all() and len(np.unique(given)) > MOST_VALUES else None


def _by_quartile(numbers: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield up to four parts of about equal size, named by the least and the largest number in them; no NaN."""
    borders = np.unique(np.quantile(numbers[~np.isnan(numbers)], [0.25, 0.5, 0.75], method="lower"))
    part_of = np.searchsorted(borders, numbers, side="left")  # a border belongs to the part below it
    for part in np.unique(part_of).tolist():
        rows = np.flatnonzero((part_of == part) & ~np.isnan(numbers))
        if len(rows):
            low, high = float(numbers[rows].min()), float(numbers[rows].max())
            yield f"{low:,.6g}" if low == high else f"{low:,.6g} to {high:,.6g}", rows
