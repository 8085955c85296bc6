"""How often the 95 % intervals hold the truth, and how often the paired tests see a difference where there is none.

    python benchmarks/interval_coverage.py [--draws 4000] [--only PART PART …]     (an hour and a half on one slow core)

Every regime draws data sets from a distribution whose true value is known, and calls what Headrace calls. Bounds are
asked of regimes with 1,000 rows and 100 rows of the rarer kind or more: coverage 93 to 97 %, false differences 3.5 to
6.5 %; and the promise of abstention may be broken 10 times of 100, on any number of rows. The others are recorded as
they are. One JSON line per regime goes to benchmarks/results/coverage.jsonl. `coverage_scores.py` has the regimes of
calibration, of micro F1 and of more differences, `coverage_decisions.py` those of abstention and thresholds.

The bootstrap of `evaluate` and `compare` takes the same resamples for every data set with n rows (its seed is 0), so a
simulation may take them, too: all data sets of a regime are then resampled by one matrix product, and each of them gets
the interval that Headrace would give it. Where a ranking is resampled, only the number of rows between two
positives counts, and these numbers are multinomial: drawing them costs little and has the same distribution.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator

import numpy as np
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

import coverage_decisions
import coverage_scores
from headrace.compare import compare_scores
from headrace.compare.paired import paired_areas, paired_means, paired_resamples, paired_shares, rows_for_shares
from headrace.compare.pooled import pooled_values
from headrace.data.examples import LabelSet
from headrace.intervals import (
    Area,
    corrected_percentiles,
    f1_influence,
    hall,
    mean_area,
    mean_influence,
    percentiles,
    wilson,
)
from headrace.metrics import mean_of_defined
from record import append, facts
from simulated import (
    ACCURACIES,
    AREAS,
    POSITIVES,
    ROWS,
    Regime,
    Tally,
    chunks,
    f1_of,
    regime,
    resample_counts,
    slope_of,
    two,
)

# -- intervals of one classifier ------------------------------------------------------------------------------------


def shares(random: np.random.Generator, draws: int, *, n: int, accuracy: float) -> Tally:
    tally = Tally(accuracy)
    for successes in random.binomial(n, accuracy, draws):
        tally.span("wilson", wilson(int(successes), n))
    return tally


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


def regimes() -> Iterator[Regime]:
    """Yield all regimes: those of this file, the cheap ones first, then those of the two others."""
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
    for rarest, correlation in ((100, 0.5), (100, 0.9), (14, 0.5)):
        settings = {"n": 1000, "rarest": rarest, "correlation": correlation}
        required = rarest >= 100
        yield regime("false differences", "means of 3 labels' ROC AUC", means_of_areas, required=required, **settings)
    for n, positives, area in itertools.product(ROWS, POSITIVES, AREAS):
        required = n >= 1000 and positives >= 100
        settings = {"n": n, "positives": positives, "area": area}
        yield regime("coverage", "average precision", precisions, required=required, **settings)
    yield from coverage_scores.regimes()
    yield from coverage_decisions.regimes()


def main() -> int:
    """Return the number of required regimes outside their band."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the regimes' names, such as 'ROC AUC'")
    arguments = parser.parse_args()
    about, outside = facts(), 0
    for found in regimes():
        if not any(part in found.name for part in arguments.only):
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
