"""The verdict between two classifiers: the numbers, and one sentence in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.compare.paired import Paired
from headrace.evaluation import Interval
from headrace.metrics import METRICS

LEVEL = 0.05
#: Metrics that are shares or like shares: their differences are told in points (hundredths).
IN_POINTS = {
    "accuracy": "accuracy",
    "f1_macro": "macro F1",
    "f1_micro": "micro F1",
    "roc_auc": "ROC AUC",
    "roc_auc_macro": "mean ROC AUC",
    "average_precision": "average precision",
    "average_precision_macro": "mean average precision",
    "hamming_loss": "Hamming loss",
}
#: More rows than this are told as such.
MOST_ROWS = 1_000_000_000


@dataclass(frozen=True)
class Comparison:
    """Which of two is better on the same rows, how sure that is, and what would tell it if it cannot be told.

    Attributes:
        metric: What is compared.
        names: Of a and b.
        values: Of a and b; None where the rows do not define the metric.
        difference: b - a with its 95 % interval; without one, `difference.note` says why.
        p_value: Of the two-sided test that there is no difference; None without a test.
        test: The test's name.
        n_rows: Rows on which both were scored.
        winner: `a` or `b` if the test rejects at the 5 % level (after the correction, if there is one) and the
            interval leaves out 0; else None.
        needed_rows: Rows like these that would tell the difference seen here in 80 of 100 repetitions; None if there is
            none, or no number of rows would.
        sentence: The verdict in plain words.
        p_corrected: The p-value corrected for several comparisons; None if there is one.
        others: The verdicts on the other metrics.
        per_label: Of each label's ROC AUC; corrected for the number of labels.
    """

    metric: str
    names: tuple[str, str]
    values: tuple[float | None, float | None]
    difference: Interval
    p_value: float | None
    test: str
    n_rows: int
    winner: str | None
    needed_rows: int | None
    sentence: str
    p_corrected: float | None = None
    others: tuple[Comparison, ...] = ()
    per_label: Mapping[str, Comparison] = field(default_factory=dict)

    def as_dict(self, *, whole: bool = False) -> dict[str, Any]:
        """Return plain values.

        Args:
            whole: Also `others` (a list of the same form) and `labels` (label -> the same form).

        Returns:
            `metric`, `a` and `b` (each `name`, `value`), `difference` (`Interval.as_dict()`), `p_value`, `test`,
            `n_rows`, `winner`, `needed_rows`, `sentence`, and `p_corrected` where there is one.
        """
        shown: dict[str, Any] = {
            "metric": self.metric,
            **{key: {"name": n, "value": v} for key, n, v in zip("ab", self.names, self.values, strict=True)},
            "difference": self.difference.as_dict(),
            "p_value": self.p_value,
            "test": self.test,
            "n_rows": self.n_rows,
            "winner": self.winner,
            "needed_rows": self.needed_rows,
            "sentence": self.sentence,
        }
        if self.p_corrected is not None:
            shown["p_corrected"] = self.p_corrected
        if whole:
            shown["others"] = [other.as_dict() for other in self.others]
            shown["labels"] = {label: found.as_dict() for label, found in self.per_label.items()}
        return shown

    def corrected(self, p_corrected: float | None) -> Comparison:
        """Return the comparison judged by a p-value that was corrected for several comparisons."""
        if p_corrected is None:
            return self
        return judged(replace(self, p_corrected=p_corrected))

    def __str__(self) -> str:
        return self.sentence


def compared(
    metric: str, names: tuple[str, str], values: tuple[float | None, float | None], paired: Paired, n_rows: int
) -> Comparison:
    """Return the verdict of one test."""
    return judged(
        Comparison(
            metric=metric,
            names=names,
            values=values,
            difference=paired.difference,
            p_value=paired.p_value,
            test=paired.test,
            n_rows=n_rows,
            winner=None,
            needed_rows=paired.needed_rows,
            sentence="",
        )
    )


def judged(comparison: Comparison) -> Comparison:
    """Return the comparison with its winner and its sentence."""
    p_value = comparison.p_value if comparison.p_corrected is None else comparison.p_corrected
    difference = comparison.difference
    winner = None
    leaves_out_0 = (
        difference.low is not None and difference.high is not None and not difference.low <= 0 <= difference.high
    )
    if p_value is not None and p_value < LEVEL and leaves_out_0:
        winner = "b" if _favours_b(comparison) else "a"
    found = replace(comparison, winner=winner)
    return replace(found, sentence=_sentence(found))


def _favours_b(comparison: Comparison) -> bool:
    return ((comparison.difference.value or 0.0) > 0) == larger_is_better(comparison.metric)


def larger_is_better(metric: str) -> bool:
    """Tell whether more of a registered metric is good."""
    return next((found[metric] for found in METRICS.values() if metric in found), True)


def _sentence(comparison: Comparison) -> str:
    value = comparison.difference.value
    if value is None:
        return f"no verdict: {comparison.difference.note}"
    rows = f"{comparison.n_rows:,} rows"
    if comparison.difference.low is None and comparison.p_value is None:
        return f"no verdict: {_amount(comparison)} apart on {rows}; {comparison.difference.note}"
    if abs(value) < 1e-12:
        shown = f"{comparison.values[0]:.4f}" if comparison.values[0] is not None else "equal"
        return f"no difference can be told on {rows}: both have the same {_title(comparison.metric)} ({shown})"
    better = comparison.names[1] if _favours_b(comparison) else comparison.names[0]
    if comparison.winner is not None:
        return f"{better} is better by {_amount(comparison)}, {_span(comparison)}"
    seen = f"({better} is ahead by {_amount(comparison)}, {_span(comparison)})"
    if comparison.p_corrected is not None and (comparison.p_value or 1.0) < LEVEL:
        return f"no difference can be told on {rows} after the correction for several comparisons {seen}"
    return f"no difference can be told on {rows}; {_needed(comparison)} {seen}"


def _needed(comparison: Comparison) -> str:
    needed = comparison.needed_rows
    if needed is None:
        difference = comparison.difference
        why = difference.note if difference.low is None else None
        return why or "no number of rows like these would tell it"
    if needed > MOST_ROWS:
        return f"more than {MOST_ROWS:,} would be needed"
    return f"about {_rounded(needed):,} would be needed"


def _rounded(number: int) -> int:
    """Return the number to two digits: it is an estimate."""
    size = int(10 ** max(0, len(str(number)) - 2))
    return math.ceil(number / size) * size


def _title(metric: str) -> str:
    return IN_POINTS.get(metric, metric.replace("_", " "))


def _amount(comparison: Comparison) -> str:
    scale, unit, digits = _units(comparison)
    return f"{abs(comparison.difference.value or 0.0) * scale:.{digits}f} {unit}"


def _span(comparison: Comparison) -> str:
    """Return the interval in the direction of the one that is ahead."""
    difference = comparison.difference
    if difference.low is None or difference.high is None:
        return difference.note or "no interval"
    scale, _, digits = _units(comparison)
    low, high = sorted((abs(difference.low), abs(difference.high)))
    if difference.low < 0 < difference.high:
        low, high = (
            (difference.low, difference.high) if (difference.value or 0) > 0 else (-difference.high, -difference.low)
        )
    return f"95 % interval {low * scale:.{digits}f} to {high * scale:.{digits}f}"


def _units(comparison: Comparison) -> tuple[float, str, int]:
    """Return scale, unit and decimals: as many as the interval's half width is worth."""
    in_points = comparison.metric in IN_POINTS
    scale = 100.0 if in_points else 1.0
    difference = comparison.difference
    size = abs(difference.value or 0.0)
    if difference.low is not None and difference.high is not None:
        size = 0.5 * (difference.high - difference.low)
    digits = 1 if size == 0 else min(6, max(1 if in_points else 3, math.ceil(-math.log10(size * scale))))
    return scale, f"points of {_title(comparison.metric)}" if in_points else f"of {_title(comparison.metric)}", digits
