"""The verdict between recipes that were trained with several seeds: both the rows and the seeds vary.

The runs of one recipe are drawn from all the runs it could give, and the rows from all rows like these; every run
scores every row. What a mean over seeds would vary by, if both were drawn again, is the sum of

- what the rows move all runs of a recipe by together (from the bootstrap: the covariance of different runs), and
- what the runs differ by on the same rows, over their number (the sample variance over the seeds), which holds both
  the seeds' own effect and what a run and a row have to themselves.

The second part rests on few seeds, so Student's t with Satterthwaite's degrees of freedom is taken instead of the
normal distribution. With two or three seeds the interval is wide, and rightly so. A recipe with a single run has no
second part: the verdict then holds for that run, not for its recipe.

Source: S. R. Searle, G. Casella, C. E. McCulloch, "Variance Components" (1992), crossed random effects; F. E.
Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics Bulletin 2 (1946), 110-114.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headrace.compare.paired import POWER_QUANTILE, Paired, two_sided
from headrace.compare.scores import TOO_MANY, Scored
from headrace.evaluation import Interval
from headrace.intervals import t_quantile

SEEDS = "rows and seeds"
POOLED_TEST = "t over rows and seeds"


@dataclass(frozen=True)
class Parts:
    """What the variance of an estimate over rows and seeds is made of.

    Attributes:
        rows: By what the rows do to all runs alike.
        seeds: For each recipe: by what its runs differ in, over their number; 0 for a single run.
        n_seeds: For each recipe.
    """

    rows: float
    seeds: tuple[float, ...]
    n_seeds: tuple[int, ...]

    @property
    def error(self) -> float:
        """The standard error."""
        return math.sqrt(self.rows + sum(self.seeds))

    @property
    def df(self) -> float:
        """Satterthwaite's degrees of freedom; infinite without a part that rests on seeds."""
        spent = sum(part**2 / (n - 1) for part, n in zip(self.seeds, self.n_seeds, strict=True) if part > 0)
        return (self.rows + sum(self.seeds)) ** 2 / spent if spent > 0 else math.inf


def pooled(metric: str, a: Sequence[Scored], b: Sequence[Scored]) -> Paired:
    """Compare the mean of a metric over the runs of two recipes.

    Args:
        metric: Registered for the task; all runs have a value.
        a, b: Runs that were scored on the same rows, with the same seed of the bootstrap.
    """
    groups = [np.stack([run.drawn(metric) for run in runs]) for runs in (a, b)]
    values = [np.array([run.value(metric) for run in runs], dtype=np.float64) for runs in (a, b)]
    return pooled_values(values, groups, len(a[0].targets))


def pooled_values(values: Sequence[np.ndarray], drawn: Sequence[np.ndarray], n_rows: int) -> Paired:
    """Compare two recipes by their runs' values and resamples.

    Args:
        values: Of a and b, float64 [runs].
        drawn: Of a and b, float64 [runs, resamples], all of the same resamples of the rows.
        n_rows: Rows that were resampled.
    """
    value = float(values[1].mean() - values[0].mean())
    if drawn[0].shape[1] < 2:
        return Paired(Interval(value, note=TOO_MANY), None, POOLED_TEST, None)
    parts = variance_parts(values, drawn)
    if not parts.error > 1e-12:
        note = "no interval: all runs are equal on every row"
        return Paired(Interval(value, note=note), 1.0 if abs(value) < 1e-12 else None, POOLED_TEST, None)
    half = t_quantile(parts.df) * parts.error
    interval = Interval(value, value - half, value + half, method=SEEDS)
    needed = _needed(value, parts, n_rows)
    if needed is None and value != 0:
        interval = Interval(
            value, value - half, value + half, SEEDS, "more rows alone would not tell it, more seeds are needed"
        )
    return Paired(interval, two_sided(value / parts.error, df=parts.df), POOLED_TEST, needed)


def mean_over_seeds(values: np.ndarray, drawn: np.ndarray) -> Interval:
    """Return the mean of a recipe's runs with its interval over rows and seeds.

    Args:
        values: float64 [runs].
        drawn: float64 [runs, resamples].
    """
    value = float(values.mean())
    if drawn.shape[1] < 2:
        return Interval(value, note=TOO_MANY)
    parts = variance_parts([values], [drawn])
    if not parts.error > 1e-12:
        return Interval(value, note="no interval: all runs are equal on every row")
    half = t_quantile(parts.df) * parts.error
    return Interval(value, value - half, value + half, method=SEEDS)


def variance_parts(values: Sequence[np.ndarray], drawn: Sequence[np.ndarray]) -> Parts:
    """Return what the variance of the mean of one recipe, or of the difference of two, is made of."""
    sizes = [len(one) for one in values]
    together = np.concatenate(drawn)
    covariance = np.atleast_2d(np.cov(together[:, ~np.isnan(together).any(axis=0)]))
    rows, start = 0.0, 0
    for size in sizes:
        block = covariance[start : start + size, start : start + size]
        # of several runs: what different ones share; what each has to itself is in the variance over the seeds
        rows += float(block.sum() - np.trace(block)) / (size * (size - 1)) if size > 1 else float(block[0, 0])
        start += size
    if len(sizes) == 2:
        rows -= 2.0 * float(covariance[: sizes[0], sizes[0] :].mean())
    seeds = tuple(float(one.var(ddof=1)) / len(one) if len(one) > 1 else 0.0 for one in values)
    return Parts(max(rows, 0.0), seeds, tuple(sizes))


def _needed(value: float, parts: Parts, n_rows: int) -> int | None:
    """Return the rows that would tell the difference with these seeds; None if no number of rows would."""
    if value == 0 or parts.rows <= 0:
        return None
    allowed = (value / (t_quantile(parts.df) + POWER_QUANTILE)) ** 2 - sum(parts.seeds)
    return math.ceil(n_rows * parts.rows / allowed) if allowed > 0 else None
