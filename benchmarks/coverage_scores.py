"""Simulations of the ECE, Brier's score, micro F1, the average precision of two, and differences of log loss and F1.

A part of `interval_coverage.py`, which runs them. Rows are right where a normal margin is above 0, and scored by the sigmoid of
the margin: with the slope `slope_of` gives, a score is exactly the probability that the answer is right (but for an
accuracy of 0.5, where the scores know nothing).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from scipy.integrate import quad
from scipy.sparse import csr_matrix
from scipy.stats import norm

from headrace.compare.paired import paired_means, paired_resamples
from headrace.decide.calibration import sigmoid
from headrace.decide.fitting import fit_temperature
from headrace.decide.reliability import N_BINS, Claims, binned_gaps, ece_interval
from headrace.evaluate import mean_interval
from headrace.intervals import corrected_percentiles, f1_influence, percentiles
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

BEFORE = "percentile bootstrap (before)"
N_LABELS = 3
_PLACES = 200  # of each bin, where the true ECE is computed


# -- calibration ----------------------------------------------------------------------------------------------------


def eces(random: np.random.Generator, draws: int, *, n: int, accuracy: float, sharpness: float) -> Tally:
    """The ECE of scores that are `sharpness` times as sure as they should be, and of the same after a temperature.

    The temperature is fitted on n other rows, and each has its own truth: the ECE that it leaves on all rows there are.
    """
    tally, slope, centre = Tally(), sharpness * slope_of(accuracy), float(norm.ppf(accuracy))
    for draw in range(draws):
        margins = random.normal(size=n) + centre
        cases = [("own scores", 1.0)]
        if sharpness > 1:
            others = slope * (random.normal(size=n) + centre)
            temperature = fit_temperature(np.stack([np.zeros(n), others], axis=1), np.ones(n, dtype=np.int64))
            cases.append(("after the temperature", temperature))
        for name, temperature in cases:
            tops = sigmoid(slope / temperature * np.abs(margins))
            gaps, chance = binned_gaps(Claims(tops[:, None], (margins > 0)[:, None]), N_BINS)
            truth = true_ece(accuracy, slope / temperature)
            found = ece_interval(gaps, chance)
            tally.span(name, (found.low, found.high), truth)
            if sharpness > 1 and draw < draws // 8:
                tally.span(f"{name}: {BEFORE}", resampled_ece(gaps, chance), truth)
    return tally


@lru_cache(maxsize=1)
def sure_places(accuracy: float) -> tuple[np.ndarray, np.ndarray]:
    """Return how far from 0 the margins of all rows lie, at equal steps of rows, and how often the answer is right there."""
    centre = float(norm.ppf(accuracy))
    far = np.linspace(0, centre + 9, 20_001)
    below = norm.cdf(far - centre) - norm.cdf(-far - centre)
    found = np.interp((np.arange(N_BINS * _PLACES) + 0.5) / (N_BINS * _PLACES), below, far)
    return found, sigmoid(2 * centre * found)


def true_ece(accuracy: float, slope: float) -> float:
    far, right = sure_places(accuracy)
    return float(np.abs((sigmoid(slope * far) - right).reshape(N_BINS, _PLACES).mean(axis=1)).mean())


def resampled_ece(gaps: np.ndarray, chance: np.ndarray) -> tuple[float, float] | None:
    """Return the interval that the ECE had before: the bootstrap's percentiles less the resamples' own lift."""
    n = len(gaps)
    value = float(np.abs(gaps.sum(axis=0)).sum()) / n
    drawn = np.abs(gaps.T.astype(np.float32) @ resample_counts(n)).sum(axis=0) / n
    span, lift = percentiles(drawn), max(float(drawn.mean()) - value, 0.0)
    if span is None:
        return None
    low = 0.0 if value * n <= np.percentile(chance, 97.5) else max(span[0] - lift, 0.0)
    return min(low, value), max(span[1] - lift, value)


def briers(random: np.random.Generator, draws: int, *, n: int, accuracy: float) -> Tally:
    centre, slope = float(norm.ppf(accuracy)), slope_of(accuracy)
    tally = Tally(expected(lambda x: 2 * sigmoid(np.asarray(-slope * x)) ** 2, centre))
    for size in chunks(draws, n):
        found = 2 * sigmoid(-slope * (random.normal(size=(size, n)) + centre)) ** 2
        drawn = found.astype(np.float32) @ resample_counts(n) / n
        for values, resampled in zip(found, drawn, strict=True):
            interval = mean_interval(values, (0.0, 2.0))
            tally.span("hall", (interval.low, interval.high))
            tally.span(BEFORE, percentiles(resampled))
    return tally


def expected(function: Callable[[float], np.ndarray | float], centre: float) -> float:
    """Return the mean of a function of a normal margin around `centre`."""
    return float(
        quad(lambda x: norm.pdf(x - centre) * float(function(x)), centre - 9, centre + 9, limit=200, points=[0.0])[0]
    )


# -- F1 -------------------------------------------------------------------------------------------------------------


def micro_f1s(random: np.random.Generator, draws: int, *, n: int, accuracy: float, positives: int) -> Tally:
    """Micro F1 of three labels; a row that is hard for one is hard for the others, too."""
    share, tally = positives / n, Tally()
    hit, said_or_true = share * accuracy, share + share * accuracy + (1 - share) * (1 - accuracy)
    tally.truth = 2 * hit / said_or_true
    border = math.sqrt(2) * float(norm.ppf(1 - accuracy))
    for size in chunks(draws, N_LABELS * n):
        true = random.random((size, n, N_LABELS)) < share
        hardness = random.normal(size=(size, n, 1)) + random.normal(size=true.shape)
        said = true ^ (hardness < border)
        twice_hits = 2.0 * (true & said).sum(axis=2, dtype=np.float32)
        both = true.sum(axis=2, dtype=np.float32) + said.sum(axis=2, dtype=np.float32)
        drawn = (twice_hits @ resample_counts(n)) / np.maximum(both @ resample_counts(n), 1)
        for row, value in enumerate(twice_hits.sum(axis=1, dtype=np.float64) / np.maximum(both.sum(axis=1), 1)):
            pooled = f1_influence(true[row].reshape(-1, 1), said[row].reshape(-1, 1)).reshape(n, N_LABELS).sum(axis=1)
            tally.span("bootstrap", corrected_percentiles(drawn[row], float(value), pooled))
            tally.span(BEFORE, percentiles(drawn[row]))
    return tally


def differences(
    random: np.random.Generator, draws: int, *, n: int, accuracy: float, gain: float, correlation: float
) -> Tally:
    """Intervals of the differences of log loss and macro F1 between two classifiers of which the second is better."""
    slope, tally, share = slope_of(accuracy), Tally(), 0.3
    centres = norm.ppf([accuracy, accuracy + gain])
    losses = [expected(lambda x: np.logaddexp(0, -slope * x), float(centre)) for centre in centres]
    f1s = [
        sum(2 * p * a / (p + p * a + (1 - p) * (1 - a)) for p in (share, 1 - share)) / 2
        for a in (accuracy, accuracy + gain)
    ]
    for size in chunks(draws, 3 * n):
        margins = two(random, (size, n), correlation) + centres[:, None, None]
        lost = np.logaddexp(0, -slope * margins)
        true = random.random((size, n)) < share
        said = [true ^ ~(one > 0) for one in margins]
        value = f1_of(true, said[1]) - f1_of(true, said[0])
        drawn = [f1_of(true, one, resample_counts(n)) for one in said]
        for row in range(size):
            loss = paired_means(lost[0, row], lost[1, row]).difference
            tally.span("log loss: Student's t", (loss.low, loss.high), losses[1] - losses[0])
            f1 = paired_resamples(float(value[row]), drawn[0][row], drawn[1][row], n).difference
            tally.span("macro F1: paired bootstrap", (f1.low, f1.high), f1s[1] - f1s[0])
    return tally


# -- two rankings ---------------------------------------------------------------------------------------------------


def pairs_of_precisions(
    random: np.random.Generator, draws: int, *, n: int, positives: int, area: float, correlation: float
) -> Tally:
    """Two rankings of one quality: the paired bootstrap of their average precisions should reject 5 of 100."""
    tally, distance, plain = Tally(), float(norm.ppf(area)) * math.sqrt(2), np.ones((n, 1), dtype=np.float32)
    for _ in range(draws):
        has_label = random.random(n) < positives / n
        both = two(random, (n,), correlation) + distance * has_label
        values = [float(precisions_of(has_label, one, plain)[0]) for one in both]
        drawn = [precisions_of(has_label, one, resample_counts(n)) for one in both]
        tally.rejected("paired bootstrap", paired_resamples(values[1] - values[0], drawn[0], drawn[1], n).p_value)
    return tally


def precisions_of(has_label: np.ndarray, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the average precision on resamples, float64 [resamples], for scores of which no two are equal.

    Only the rows above each positive count, so they are summed up from one positive to the next.
    """
    order = np.argsort(-scores)
    places = np.flatnonzero(has_label[order])
    if len(places) == 0:
        return np.full(counts.shape[1], np.nan)
    within = order[: places[-1] + 1]
    segments = csr_matrix(
        (np.ones(len(within), dtype=counts.dtype), within, np.append(0, places + 1)), shape=(len(places), len(scores))
    )
    rows_so_far = np.cumsum(segments @ counts, axis=0)
    hits = counts[order[places]]
    hits_so_far = np.cumsum(hits, axis=0)
    gained = (hits * (hits_so_far / np.maximum(rows_so_far, 1))).sum(axis=0, dtype=np.float64)
    return np.divide(gained, hits_so_far[-1], out=np.full(counts.shape[1], np.nan), where=hits_so_far[-1] > 0)


# -- all of them ----------------------------------------------------------------------------------------------------


def regimes() -> Iterator[Regime]:
    """Yield the regimes of this file, the cheap ones first."""
    for n, accuracy in itertools.product(ROWS, ACCURACIES):
        yield regime("coverage", "Brier score", briers, required=n >= 1000, n=n, accuracy=accuracy)
    for n, accuracy in itertools.product(ROWS, ACCURACIES):
        for positives in (n // 10, n // 2):
            required, settings = n >= 1000, {"n": n, "accuracy": accuracy, "positives": positives}
            yield regime("coverage", "micro F1 of 3 labels", micro_f1s, required=required, **settings)
    for n, positives, area, correlation in itertools.product(ROWS, POSITIVES, AREAS, (0.5, 0.9)):
        if n == 10_000 and (positives < 100 or correlation > 0.5):
            continue  # a minute and a half each
        settings = {"n": n, "positives": positives, "area": area, "correlation": correlation}
        required = n >= 1000 and positives >= 100
        yield regime(
            "false differences", "pairs of average precision", pairs_of_precisions, required=required, **settings
        )
    for n, accuracy, sharpness in itertools.product(ROWS, ACCURACIES, (1, 2)):
        settings = {"n": n, "accuracy": accuracy, "sharpness": sharpness}
        yield regime("coverage", "ECE", eces, required=n >= 1000, **settings)
    for n, (accuracy, gain), correlation in itertools.product(
        ROWS, ((0.5, 0.02), (0.9, 0.02), (0.98, 0.01)), (0.5, 0.9)
    ):
        if n == 10_000 and correlation > 0.5:
            continue
        settings = {"n": n, "accuracy": accuracy, "gain": gain, "correlation": correlation}
        yield regime("coverage", "differences of log loss and F1", differences, required=n >= 1000, **settings)
