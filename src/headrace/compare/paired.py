"""Tests and intervals of the difference of two classifiers on the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.evaluation import Interval
from headrace.intervals import (
    BOOTSTRAP,
    DELONG,
    NORMAL_QUANTILE,
    Area,
    mean_influence,
    percentiles,
    t_quantile,
)

TANGO = "tango"
STUDENT = "student"
MCNEMAR_TEST = "mid-p McNemar"
DELONG_TEST = "DeLong"
BOOTSTRAP_TEST = "paired bootstrap"
STUDENT_TEST = "paired t"
#: The standard normal's 0.8 quantile: eight of ten repetitions shall tell the difference.
POWER_QUANTILE = 0.8416212335729143
_IDENTICAL = "no interval: the two are equal on every row"


@dataclass(frozen=True)
class Paired:
    """What a test says of the difference b - a of two numbers from the same rows.

    Attributes:
        difference: With its 95 % interval.
        p_value: Two-sided; None without a test, `difference.note` says why.
        test: What was used.
        needed_rows: Rows like these that would tell a difference as large as this one in 80 of 100 repetitions; None
            if there is no difference or no test.
    """

    difference: Interval
    p_value: float | None
    test: str
    needed_rows: int | None


def paired_shares(correct_a: np.ndarray, correct_b: np.ndarray) -> Paired:
    """Compare two shares of right rows: mid-p McNemar and Tango's interval.

    Args:
        correct_a, correct_b: bool [rows].
    """
    n_rows = len(correct_a)
    only_a, only_b = int((correct_a & ~correct_b).sum()), int((~correct_a & correct_b).sum())
    value = (only_b - only_a) / n_rows
    low, high = tango(only_b, only_a, n_rows)
    return Paired(
        Interval(value, low, high, method=TANGO),
        mcnemar_mid_p(only_a, only_b),
        MCNEMAR_TEST,
        rows_for_shares(only_a, only_b, n_rows),
    )


def mcnemar_mid_p(only_a: int, only_b: int) -> float:
    """Return the two-sided mid-p value of McNemar's test.

    The exact test never rejects too often, and by far too rarely where few rows tell the two apart; counting half of
    the observed table's chance mends that without exceeding the level by more than a little.

    Args:
        only_a, only_b: Rows that only the first, and only the second, has right.

    Source: M. W. Fagerland, S. Lydersen, P. Laake, "The McNemar test for binary matched-pairs data: mid-p and
        asymptotic are better than exact conditional", BMC Medical Research Methodology 13 (2013), 91.
    """
    n = only_a + only_b
    if n == 0:
        return 1.0
    from scipy.stats import binom

    chance = float(binom.pmf(only_a, n, 0.5))
    if only_a == only_b:
        return 1.0 - 0.5 * chance
    return min(1.0, 2.0 * float(binom.cdf(min(only_a, only_b), n, 0.5)) - chance)


def tango(more: int, less: int, n_rows: int) -> tuple[float, float]:
    """Return Tango's score interval of the difference (more - less) / n_rows of two paired shares.

    It holds the differences that the score test does not reject; the one of no difference is McNemar's, so interval
    and test agree but for rows near the border.

    Args:
        more, less: Rows that count for the first share alone, and for the second alone.
        n_rows: All rows, 1 at least.

    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
        paired-sample design", Statistics in Medicine 17 (1998), 891-908.
    """
    value = (more - less) / n_rows

    def statistic(difference: float) -> float:
        middle = (2 * n_rows - more + less) * difference - more - less
        rest = -less * difference * (1.0 - difference)
        # the share of rows that count for the second alone, fitted under this difference
        fitted = (math.sqrt(max(middle * middle - 8 * n_rows * rest, 0.0)) - middle) / (4 * n_rows)
        variance = n_rows * (2.0 * fitted + difference * (1.0 - difference))
        away = more - less - n_rows * difference
        return 0.0 if abs(away) < 1e-12 else away / math.sqrt(variance) if variance > 0 else math.copysign(1e9, away)

    # at -1 and 1 the statistic is at its largest and smallest, and between them it falls
    low = _where(lambda d: statistic(d) <= NORMAL_QUANTILE, -1.0, value)
    high = _where(lambda d: statistic(d) < -NORMAL_QUANTILE, value, 1.0)
    return low, high


def _where(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return where a condition begins to hold between two ends, to 1e-10."""
    while high - low > 1e-10:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if holds(middle) else (middle, high)
    return 0.5 * (low + high)


def paired_areas(has_label: np.ndarray, scores_a: np.ndarray, scores_b: np.ndarray) -> Paired:
    """Compare the ROC AUCs that two scores of the same rows give one label, by DeLong's test.

    Args:
        has_label: bool [rows]; both kinds of rows must be there.
        scores_a, scores_b: [rows].

    Source: see `headrace.intervals.Area`.
    """
    a, b = Area.of(has_label, scores_a), Area.of(has_label, scores_b)
    value = b.value - a.value
    error = math.sqrt(float(np.sum((b.influence - a.influence) ** 2)))
    return _from_error(value, error, len(has_label), (DELONG, DELONG_TEST))


def paired_means(values_a: np.ndarray, values_b: np.ndarray) -> Paired:
    """Compare the means of two values per row by Student's paired t test.

    Args:
        values_a, values_b: float64 [rows].
    """
    change = np.asarray(values_b - values_a, dtype=np.float64)
    error = math.sqrt(float(np.sum(mean_influence(change) ** 2)))
    return _from_error(float(change.mean()), error, len(change), (STUDENT, STUDENT_TEST), df=len(change) - 1)


def _from_error(value: float, error: float, n_rows: int, names: tuple[str, str], *, df: float = math.inf) -> Paired:
    """Return the difference with the interval and the test that its standard error gives."""
    if error < 1e-12:
        return Paired(Interval(value, note=_IDENTICAL), 1.0 if abs(value) < 1e-12 else None, names[1], None)
    half = t_quantile(df) * error
    interval = Interval(value, value - half, value + half, method=names[0])
    return Paired(interval, two_sided(value / error, df=df), names[1], rows_for_error(value, error, n_rows))


def two_sided(statistic: float, *, df: float = math.inf) -> float:
    """Return the two-sided p-value of Student's t; of the normal distribution for infinitely many degrees."""
    if not math.isfinite(df):
        return math.erfc(abs(statistic) / math.sqrt(2.0))
    from scipy.special import stdtr

    return 2.0 * float(stdtr(max(df, 1.0), -abs(statistic)))


def paired_resamples(value: float, drawn_a: np.ndarray, drawn_b: np.ndarray, n_rows: int) -> Paired:
    """Compare any two numbers by their values on the same resamples of the rows.

    Args:
        value: The difference on the rows themselves.
        drawn_a, drawn_b: float64 [resamples], both of the same resamples; NaN where there is no value.
        n_rows: Rows that were resampled.

    Source: B. Efron and R. J. Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 13 and 15.4; the p-value
        is the level at which the percentile interval just touches 0.
    """
    change = drawn_b - drawn_a
    span = percentiles(change)
    if span is None:
        equal = abs(value) < 1e-12 and len(change) > 0
        note = _IDENTICAL if equal else "no interval: the resamples do not tell how far the difference may vary"
        return Paired(Interval(value, note=note), 1.0 if equal else None, BOOTSTRAP_TEST, None)
    defined = change[~np.isnan(change)]
    tail = min(int((defined <= 0).sum()), int((defined >= 0).sum()))
    p_value = min(1.0, 2.0 * (tail + 1) / (len(defined) + 1))  # a finite number of resamples proves no p of 0
    interval = Interval(value, *span, method=BOOTSTRAP)
    return Paired(interval, p_value, BOOTSTRAP_TEST, rows_for_error(value, float(defined.std()), n_rows))


def rows_for_shares(only_a: int, only_b: int, n_rows: int) -> int | None:
    """Return how many rows would tell the difference of two paired shares in 80 of 100 repetitions, at the 5 % level.

    Args:
        only_a, only_b: Rows of these that only the first, and only the second, has right.
        n_rows: Rows of these.

    Source: R. J. Connor, "Sample size for testing differences in proportions for the paired-sample design", Biometrics
        43 (1987), 207-211, which is the sample size of McNemar's test without a correction for continuity.
    """
    difference, differing = (only_b - only_a) / n_rows, (only_a + only_b) / n_rows
    if difference == 0:
        return None
    spread = math.sqrt(max(differing - difference**2, 0.0))
    root = NORMAL_QUANTILE * math.sqrt(differing) + POWER_QUANTILE * spread
    return math.ceil(root**2 / difference**2)


def rows_for_error(value: float, error: float, n_rows: int) -> int | None:
    """Return how many rows would tell a difference in 80 of 100 repetitions; its error falls by the root of the rows.

    Args:
        value: The difference.
        error: Its standard error on `n_rows` rows.
        n_rows: Rows of these.
    """
    if abs(value) < 1e-12:
        return None
    return math.ceil(n_rows * ((NORMAL_QUANTILE + POWER_QUANTILE) * error / value) ** 2)


def holm(p_values: Sequence[float | None], *, family: int | None = None) -> list[float | None]:
    """Return the p-values of a family of tests, corrected so that one false finding in all of them is held to the level.

    Args:
        p_values: None stays None and counts for nothing.
        family: How many tests the family has, if it has more than those given.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
        (1979), 65-70.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    n = max(family or 0, len(known))
    found: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (n - rank) * p))
        found[place] = largest
    return found
