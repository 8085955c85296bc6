"""How often the 95 % intervals hold the truth, and how often the paired tests see a difference where there is none.

    python benchmarks/coverage.py [--draws 4000] [--only SHARE]     (about an hour on one slow core)

Every regime draws data sets from a distribution whose true value is known, and calls what Headrace calls. Bounds are
asked of regimes with 1,000 rows and 100 rows of the rarer kind or more: coverage 93 to 97 %, false differences 3.5 to
6.5 %. The others are recorded as they are. One JSON line per regime goes to benchmarks/results/coverage.jsonl.

The bootstrap of `evaluate` and `compare` takes the same resamples for every data set with n rows (its seed is 0), so a
simulation may take them, too: all data sets of a regime are then resampled by one matrix product, and each of them gets
the interval that Headrace would give it. Where a ranking is resampled, only the number of rows between two
positives counts, and these numbers are multinomial: drawing them costs little and has the same distribution.
"""

from __future__ import annotations

import argparse
import itertools
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from headrace.compare import compare_scores
from headrace.compare.paired import paired_areas, paired_means, paired_resamples, paired_shares, rows_for_shares
from headrace.compare.pooled import pooled_values
from headrace.data.examples import LabelSet
from headrace.intervals import (
    Area,
    corrected_percentiles,
    counts_of,
    f1_influence,
    hall,
    mean_area,
    mean_influence,
    percentiles,
    resampled_rows,
    wilson,
)
from headrace.metrics import mean_of_defined
from record import append, facts

ROWS = (200, 1_000, 10_000)
ACCURACIES = (0.5, 0.9, 0.98)
AREAS = (0.7, 0.9, 0.98)
POSITIVES = (20, 100)
RESAMPLES = 1_000
BANDS = {"coverage": (0.93, 0.97), "false differences": (0.035, 0.065), "power": (0.77, 0.83)}
CELLS = 4_000_000  # of data in memory at once


@dataclass
class Tally:
    """Counts over the draws of a regime."""

    truth: float = 0.0
    counts: dict[str, list[int]] = field(default_factory=dict)

    def span(self, method: str, span: tuple[float, float] | None) -> None:
        """Count an interval: it holds the truth, lies below, lies above, or is none."""
        kind = 3 if span is None else 1 if span[1] < self.truth else 2 if span[0] > self.truth else 0
        self.counts.setdefault(method, [0, 0, 0, 0])[kind] += 1

    def rejected(self, method: str, p_value: float | None) -> None:
        """Count a test: it rejects, or not."""
        self.counts.setdefault(method, [0, 0])[0 if p_value is not None and p_value < 0.05 else 1] += 1


@dataclass(frozen=True)
class Regime:
    """What is simulated: `figure` is coverage, false differences or power."""

    figure: str
    of: str
    settings: dict
    run: Callable[[np.random.Generator, int], Tally]
    required: bool

    @property
    def name(self) -> str:
        return f"{self.figure} of {self.of}: " + ", ".join(f"{key} {value:,}" for key, value in self.settings.items())

    def lines(self, draws: int) -> Iterator[dict]:
        """Yield a record for each method."""
        tally = self.run(np.random.default_rng(zlib.crc32(self.name.encode())), draws)
        for method, counts in tally.counts.items():
            figure = "coverage" if len(counts) == 4 else self.figure
            low, high = BANDS[figure]
            total = sum(counts[:3])
            share = counts[0] / total if total else math.nan
            required = self.required and "(before)" not in method
            line = {"figure": figure, "of": self.of, "method": method, **self.settings, "draws": sum(counts)}
            line |= {"share": share, "required": required, "within": bool(low <= share <= high)}
            if len(counts) == 4:
                line |= {"below": counts[1] / total, "above": counts[2] / total, "none": counts[3]} if total else {}
            yield line


@lru_cache(maxsize=2)
def resample_counts(n: int) -> np.ndarray:
    """Return [rows, resamples] float32: how often each row stands in each of Headrace's resamples of n rows."""
    return np.concatenate([counts_of(drawn) for drawn in resampled_rows(n, resamples=RESAMPLES, seed=0)], axis=1)


def chunks(draws: int, n: int) -> Iterator[int]:
    size = max(1, CELLS // n)
    for start in range(0, draws, size):
        yield min(size, draws - start)


# -- intervals of one classifier ------------------------------------------------------------------------------------


def shares(random: np.random.Generator, draws: int, *, n: int, accuracy: float) -> Tally:
    tally = Tally(accuracy)
    for successes in random.binomial(n, accuracy, draws):
        tally.span("wilson", wilson(int(successes), n))
    return tally


def slope_of(accuracy: float) -> float:
    """How sure the classifier is: right in the mean where it is good, too sure of itself where it is not."""
    return max(2.0 * float(norm.ppf(accuracy)), 1.0)


def losses(random: np.random.Generator, draws: int, *, n: int, accuracy: float) -> Tally:
    centre, slope = float(norm.ppf(accuracy)), slope_of(accuracy)
    truth = quad(lambda x: norm.pdf(x - centre) * np.logaddexp(0, -slope * x), centre - 9, centre + 9, limit=200)[0]
    tally = Tally(truth)
    for size in chunks(draws, n):
        found = np.logaddexp(0, -slope * (random.normal(size=(size, n)) + centre))
        drawn = found.astype(np.float32) @ resample_counts(n) / n
        for values, resampled in zip(found, drawn, strict=True):
            tally.span("hall", hall(float(values.mean()), mean_influence(values), df=n - 1))
            tally.span("percentile bootstrap (before)", percentiles(resampled))
    return tally


def f1_of(true: np.ndarray, said: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Return the macro F1 of two labels: of [data sets, rows], float64 [data sets] or [data sets, resamples]."""
    n = true.shape[1]
    cells = [(true & said), said, true]
    hits, decided, support = (c.sum(1) if counts is None else c.astype(np.float32) @ counts for c in cells)
    second = np.divide(2 * hits, decided + support, out=np.zeros(hits.shape), where=decided + support > 0)
    first = 2 * (n - decided - support + hits) / (2 * n - decided - support)
    return 0.5 * (second + first)


def f1(random: np.random.Generator, draws: int, *, n: int, accuracy: float, positives: int) -> Tally:
    share = positives / n
    parts = [(p * accuracy, p + p * accuracy + (1 - p) * (1 - accuracy)) for p in (share, 1 - share)]
    tally = Tally(sum(2 * hit / both for hit, both in parts) / 2)
    for size in chunks(draws, n):
        true = random.random((size, n)) < share
        said = true ^ (random.random((size, n)) >= accuracy)
        values, drawn = f1_of(true, said), f1_of(true, said, resample_counts(n))
        for row, value in enumerate(values):
            both = [np.stack([~one[row], one[row]], axis=1) for one in (true, said)]
            influence = mean_of_defined(f1_influence(*both))
            tally.span("bootstrap", corrected_percentiles(drawn[row], float(value), influence))
            tally.span("percentile bootstrap (before)", percentiles(drawn[row]))
    return tally


def ranked(random: np.random.Generator, n: int, positives: int, distance: float) -> tuple[np.ndarray, np.ndarray]:
    has_label = np.arange(n) < positives
    return has_label, random.normal(size=n) + distance * has_label


def areas(random: np.random.Generator, draws: int, *, n: int, positives: int, area: float) -> Tally:
    tally, distance = Tally(area), float(norm.ppf(area)) * math.sqrt(2)
    for draw in range(draws):
        has_label, scores = ranked(random, n, positives, distance)
        found = Area.of(has_label, scores)
        tally.span("delong", hall(found.value, found.influence, df=found.df, bounds=(0, 1)))
        if draw < draws // 4:
            drawn = resampled_ranking(random, has_label, scores, 400)[0]
            tally.span("percentile bootstrap (before)", percentiles(drawn))
    return tally


def precisions(random: np.random.Generator, draws: int, *, n: int, positives: int, area: float) -> Tally:
    share, distance = positives / n, float(norm.ppf(area)) * math.sqrt(2)

    def at(x: float) -> float:
        hit = share * norm.sf(x - distance)
        return float(norm.pdf(x - distance) * hit / (hit + (1 - share) * norm.sf(x)))

    tally = Tally(quad(at, distance - 8, distance + 8, limit=300)[0])
    for draw in range(draws):
        has_label, scores = ranked(random, n, int(random.binomial(n, share)), distance)
        found = Area.of_precision(has_label, scores)
        tally.span("hall", hall(found.value, found.influence, df=found.df, bounds=(0, 1)))
        if draw < draws // 4:
            drawn = resampled_ranking(random, has_label, scores, 400)[1]
            tally.span("percentile bootstrap (before)", percentiles(drawn))
    return tally


def resampled_ranking(
    random: np.random.Generator, has_label: np.ndarray, scores: np.ndarray, resamples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return ROC AUC and average precision on resamples, from the rows between two positives (no equal scores)."""
    places = np.flatnonzero(has_label[np.argsort(-scores)])
    n, m = len(scores), len(places)
    cells = np.ones(2 * m + 1)
    cells[0::2] = np.diff(np.concatenate([[-1], places, [n]])) - 1
    drawn = random.multinomial(n, cells / n, size=resamples).astype(np.float64)
    hits, misses = drawn[:, 1::2], drawn[:, 0::2]
    hits_so_far, misses_so_far = np.cumsum(hits, axis=1), np.cumsum(misses, axis=1)[:, :-1]
    n_hits, n_misses = hits.sum(axis=1), misses.sum(axis=1)
    area = 1 - (hits * misses_so_far).sum(axis=1) / (n_hits * n_misses)
    precision = hits_so_far / np.maximum(hits_so_far + misses_so_far, 1)
    return area, (hits * precision).sum(axis=1) / n_hits


# -- two classifiers on the same rows -------------------------------------------------------------------------------


def two(random: np.random.Generator, shape: tuple[int, ...], correlation: float) -> np.ndarray:
    """Return [2, …] standard normal values of this correlation."""
    common = random.normal(size=shape)
    return math.sqrt(correlation) * common + math.sqrt(1 - correlation) * random.normal(size=(2, *shape))


def pairs(
    random: np.random.Generator, draws: int, *, n: int, accuracy: float, correlation: float, gain: float = 0.0
) -> Tally:
    """Two classifiers whose accuracies differ by `gain`; with 0 the paired tests should reject 5 of 100."""
    slope, tally = slope_of(accuracy), Tally(gain)
    centres = norm.ppf([accuracy, accuracy + gain])[:, None, None]
    for size in chunks(draws, 3 * n):
        margins = two(random, (size, n), correlation) + centres
        correct = margins > 0
        if gain == 0:
            lost = np.logaddexp(0, -slope * margins)
            true = random.random((size, n)) < 0.3
            said = [true ^ ~one for one in correct]
            value = f1_of(true, said[1]) - f1_of(true, said[0])
            drawn = [f1_of(true, one, resample_counts(n)) for one in said]
        for row in range(size):
            shares_found = paired_shares(correct[0, row], correct[1, row])
            if gain == 0:
                tally.rejected("accuracy: mid-p McNemar", shares_found.p_value)
                tally.rejected("log loss: paired t", paired_means(lost[0, row], lost[1, row]).p_value)
                f1_found = paired_resamples(float(value[row]), drawn[0][row], drawn[1][row], n)
                tally.rejected("macro F1: paired bootstrap", f1_found.p_value)
            else:
                tally.span("accuracy: Tango", (shares_found.difference.low, shares_found.difference.high))
    return tally


def pairs_of_areas(
    random: np.random.Generator,
    draws: int,
    *,
    n: int,
    positives: int,
    area: float,
    correlation: float,
    gain: float = 0.0,
) -> Tally:
    tally = Tally(gain)
    has_label = np.arange(n) < positives
    distances = norm.ppf([area, area + gain])[:, None] * math.sqrt(2)
    for _ in range(draws):
        a, b = two(random, (n,), correlation) + distances * has_label
        found = paired_areas(has_label, a, b)
        if gain == 0:
            tally.rejected("DeLong", found.p_value)
        else:
            low, high = found.difference.low, found.difference.high
            tally.span("DeLong", None if low is None else (low, high))
    return tally


def means_of_areas(random: np.random.Generator, draws: int, *, n: int, rarest: int, correlation: float) -> Tally:
    """Three labels of which a row may have any, two classifiers alike; by `compare_scores` and `mean_area` themselves."""
    support, area = np.array([rarest, 2 * rarest, 4 * rarest]), 0.9
    labels, tally = LabelSet(("a", "b", "c")), Tally(area)
    for _ in range(draws):
        targets = (random.random((n, 3)) < support / n).astype(np.int64)
        scores = 1 / (1 + np.exp(-two(random, (n, 3), correlation) - norm.ppf(area) * math.sqrt(2) * targets))
        found = compare_scores(targets, *scores, labels=labels, task="multi_label", names=("a", "b"))
        tally.rejected("mean ROC AUC: paired bootstrap", found.p_value)
        mean = mean_area([Area.of(targets[:, i] == 1, scores[0][:, i]) for i in range(3)])
        tally.span("delong", hall(mean.value, mean.influence, df=mean.df, bounds=(0, 1)))
    return tally


def power(random: np.random.Generator, draws: int, *, accuracy: float, gain: float, correlation: float) -> Tally:
    """As many rows as `rows_for_shares` asks for: the difference should be told 80 times of 100."""
    centres = norm.ppf([accuracy, accuracy + gain])[:, None]
    # the shares of all rows that one alone has right, not those of a sample: 1 % of it would move the power by 1 %
    both = float(multivariate_normal([0, 0], [[1, correlation], [correlation, 1]]).cdf(centres[:, 0]))
    only = [round(1_000_000_000 * (share - both)) for share in (accuracy, accuracy + gain)]
    n, tally = rows_for_shares(only[0], only[1], 1_000_000_000) or 0, Tally()
    for _ in range(draws):
        a, b = two(random, (n,), correlation) + centres > 0
        tally.rejected("mid-p McNemar at the needed rows", paired_shares(a, b).p_value)
    return tally


def seeds(random: np.random.Generator, draws: int, *, n: int, runs: int, spread: float) -> Tally:
    """Two recipes of one quality: rows are hard for all, for one recipe, or for one run; and a run may be lucky."""
    tally, counts = Tally(), resample_counts(n)[:, :400]
    for _ in range(draws):
        hard, correct = 0.8 * random.normal(size=n), []
        for _ in range(2):
            own = hard + 0.25 * random.normal(size=n)
            luck = spread * random.normal(size=(runs, 1)) + 0.5 * random.normal(size=(runs, n))
            correct.append((1.3 + own + luck > 0).astype(np.float32))
        values = [one.mean(axis=1, dtype=np.float64) for one in correct]
        found = pooled_values(values, [one @ counts / n for one in correct], n)
        tally.rejected("t over rows and seeds", found.p_value)
    return tally


# -- all of them ------------------------------------------------------------------------------------------------------


def regime(figure: str, of: str, run: Callable[..., Tally], *, required: bool, **settings: float) -> Regime:
    return Regime(figure, of, settings, lambda random, draws: run(random, draws, **settings), required)


def regimes() -> Iterator[Regime]:
    """Yield all regimes, the cheap ones first."""
    for n, accuracy in itertools.product(ROWS, ACCURACIES):
        yield regime("coverage", "accuracy", shares, required=n >= 1000, n=n, accuracy=accuracy)
    for n, accuracy in itertools.product(ROWS, ACCURACIES):
        yield regime("coverage", "log loss", losses, required=n >= 1000, n=n, accuracy=accuracy)
    for n, accuracy in itertools.product(ROWS, ACCURACIES):
        for positives in (n // 10, n // 2):
            required = n >= 1000 and positives >= 100
            yield regime("coverage", "macro F1", f1, required=required, n=n, accuracy=accuracy, positives=positives)
    for n, accuracy, correlation in itertools.product(ROWS, ACCURACIES, (0.5, 0.9)):
        settings = {"n": n, "accuracy": accuracy, "correlation": correlation}
        yield regime("false differences", "pairs", pairs, required=n >= 1000, **settings)
        if accuracy < 0.98:
            yield regime("coverage", "difference", pairs, required=n >= 1000, gain=0.02, **settings)
    for accuracy, gain, correlation in ((0.9, 0.02, 0.5), (0.9, 0.01, 0.9), (0.8, 0.03, 0.8)):
        yield regime("power", "pairs", power, required=True, accuracy=accuracy, gain=gain, correlation=correlation)
    for runs, spread in itertools.product((2, 3, 5), (0.0, 0.05, 0.15)):
        yield regime("false differences", "recipes", seeds, required=False, n=1000, runs=runs, spread=spread)
    for n, positives, area in itertools.product(ROWS, POSITIVES, AREAS):
        settings = {"n": n, "positives": positives, "area": area}
        required = n >= 1000 and positives >= 100
        yield regime("coverage", "ROC AUC", areas, required=required, **settings)
        for correlation in (0.5, 0.9):
            both = {**settings, "correlation": correlation}
            yield regime("false differences", "pairs of ROC AUC", pairs_of_areas, required=required, **both)
        if area < 0.98:
            both = {**settings, "correlation": 0.5, "gain": 0.03}
            yield regime("coverage", "difference of ROC AUC", pairs_of_areas, required=required, **both)
    for correlation in (0.5, 0.9):
        settings = {"n": 1000, "rarest": 100, "correlation": correlation}
        yield regime("false differences", "means of 3 labels' ROC AUC", means_of_areas, required=True, **settings)
    for n, positives, area in itertools.product(ROWS, POSITIVES, AREAS):
        required = n >= 1000 and positives >= 100
        settings = {"n": n, "positives": positives, "area": area}
        yield regime("coverage", "average precision", precisions, required=required, **settings)


def main() -> int:
    """Return the number of required regimes outside their band."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--only", default="", help="a part of a regime's name, such as 'ROC AUC'")
    arguments = parser.parse_args()
    about, outside = facts(), 0
    for found in regimes():
        if arguments.only not in found.name:
            continue
        for line in found.lines(arguments.draws):
            append("coverage", {**line, **about})
            outside += line["required"] and not line["within"]
            verdict = ("within" if line["within"] else "OUTSIDE") if line["required"] else "-"
            print(f"{line['share']:.4f}  {verdict:8}{found.name}: {line['method']}", flush=True)
    print(f"{outside} of the required regimes are outside their band")
    return outside


if __name__ == "__main__":
    raise SystemExit(main() > 0)
