"""Simulations of what is chosen on validation: the promise of abstention, and what thresholds gain.

A part of `interval_coverage.py`, which runs them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from scipy.stats import norm

from headrace.data.examples import LabelSet
from headrace.decide.calibration import sigmoid, softmax
from headrace.decide.choices import DecideSettings
from headrace.decide.choose import choose_decision
from headrace.decide.decision import Decision
from headrace.decide.thresholds import DEFAULT, Rule, fit_thresholds
from headrace.intervals import percentiles
from headrace.metrics import MULTI_LABEL, SINGLE_LABEL
from simulated import BROKEN, Regime, Tally, chunks, regime, resample_counts

POPULATION = 20_000
VALIDATIONS = 40  # of thresholds: each set is judged on its share of the draws


# -- abstention -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """All rows there are: validation is drawn from them with replacement, so the true share of errors is known exactly.

    Attributes:
        logits: float32 [rows, labels], what the model says.
        chances: float64 [rows, labels], how likely each label is.
        task: `single_label` or `multi_label`.
        calibrate, threshold: What the recipe asks for besides abstention.
    """

    logits: np.ndarray
    chances: np.ndarray
    task: str = SINGLE_LABEL
    calibrate: str = "auto"
    threshold: str = "auto"

    @property
    def labels(self) -> LabelSet:
        return LabelSet(tuple("abc"[: self.logits.shape[1]]))

    def validation(self, random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        rows = random.integers(0, len(self.logits), n)
        chances = self.chances[rows]
        if self.task == MULTI_LABEL:
            return self.logits[rows], (random.random(chances.shape) < chances).astype(np.int64)
        drawn = chances.cumsum(axis=1) > random.random((n, 1))
        drawn[:, -1] = True  # rounding may leave the last sum under 1
        return self.logits[rows], drawn.argmax(axis=1)

    def answered(self, decision: Decision) -> tuple[float, float]:
        """Return the share of all rows that get an answer, and the share of wrong ones among those."""
        scores = decision.scores(self.logits)
        is_sure, said = ~decision.is_unsure(scores), decision.decided(scores)
        if self.task == MULTI_LABEL:
            right = np.where(said, self.chances, 1 - self.chances).prod(axis=1)
        else:
            right = self.chances[np.arange(len(said)), said]
        return float(is_sure.mean()), float(1 - right[is_sure].mean()) if is_sure.any() else 0.0


@lru_cache(maxsize=1)
def world(name: str) -> World:
    """Return a world by its name; all models are twice as sure as they should be."""
    random = np.random.default_rng(0)
    if name == "three labels":
        true = random.normal(0, 2.5, (POPULATION, 3))
        return World((2 * true).astype(np.float32), softmax(true))
    if name == "several labels":
        true = random.normal((-3.0, -4.0), 3.5, (POPULATION, 2))
        return World((2 * true + 1).astype(np.float32), sigmoid(true), task=MULTI_LABEL)
    # of two labels no temperature changes an answer or the order of the confidences: none is fitted, to be quick
    centre = float(norm.ppf(0.9))
    true = 2 * centre * (random.normal(size=POPULATION) + np.where(random.random(POPULATION) < 0.5, centre, -centre))
    if name == "two labels":
        chance = sigmoid(true)
    elif name == "two labels, all by chance":
        chance = np.full(POPULATION, 0.5)
    else:  # "two labels, a hair too many errors": 0.1001 of the answers are wrong, however sure they are
        chance = np.where(true > 0, 0.8999, 0.1001)
    logits = np.stack([np.zeros(POPULATION), 2 * true], axis=1).astype(np.float32)
    return World(logits, np.stack([1 - chance, chance], axis=1), calibrate="none")


def promises(random: np.random.Generator, draws: int, *, of: str, n: int, error_rate: float) -> Tally:
    """How often the whole choice on n validation rows answers too many rows wrongly: at most 10 times of 100.

    The line also says how often there was a threshold at all, and which share of the rows it answers.
    """
    found, tally, given = world(of), Tally(), []
    settings = DecideSettings(calibrate=found.calibrate, threshold=found.threshold, error_rate=error_rate)
    method = "learn then test"
    for draw in range(draws):
        logits, targets = found.validation(random, n)
        choice = choose_decision(logits, targets, labels=found.labels, task=found.task, settings=settings, seed=draw)
        has_threshold = choice.decision.abstain_below is not None
        share, error = found.answered(choice.decision) if has_threshold else (1.0, 0.0)
        given += [share] if has_threshold else []
        tally.met(method, has_threshold and error > error_rate)
    tally.notes[method] = {"certified": len(given) / draws} | ({"answered": float(np.mean(given))} if given else {})
    return tally


# -- thresholds -----------------------------------------------------------------------------------------------------


def gains(random: np.random.Generator, draws: int, *, n: int, rarest: int) -> Tally:
    """What thresholds for the best F1 gain over 0.5, on test rows: three labels, exact probabilities, an AUC of 0.9."""
    support, distance = rarest * np.array([1, 2, 4]) / n, float(norm.ppf(0.9)) * math.sqrt(2)
    offset = np.log(support / (1 - support)) - distance**2 / 2
    tally = Tally()

    def rows(size: int) -> tuple[np.ndarray, np.ndarray]:
        true = random.random((size, 3, n)) < support[:, None]
        return true, random.normal(size=true.shape) + distance * true

    for _ in range(VALIDATIONS):
        true, places = (values[0].T for values in rows(1))
        limits = fit_thresholds(sigmoid(distance * places + offset), true.astype(np.int64), rule=Rule.of("f1"))
        cuts = [(np.log(one / (1 - one)) - offset) / distance for one in (np.full(3, DEFAULT), limits)]
        truth = true_f1s(support, distance, cuts[1]) - true_f1s(support, distance, cuts[0])
        for size in chunks(math.ceil(draws / VALIDATIONS), 3 * n):
            true, places = rows(size)
            drawn = f1s_of(true, [places >= cut[:, None] for cut in cuts], resample_counts(n))
            for name, before, after, gain in zip(("macro F1", "micro F1"), *drawn, truth, strict=True):
                for row in range(size):
                    tally.span(f"{name}: percentile bootstrap", percentiles(after[row] - before[row]), float(gain))
    return tally


def true_f1s(support: np.ndarray, distance: float, cuts: np.ndarray) -> np.ndarray:
    """Return macro and micro F1 on all rows there are."""
    hits = support * norm.sf(cuts - distance)
    both = support + hits + (1 - support) * norm.sf(cuts)
    return np.array([(2 * hits / both).mean(), 2 * hits.sum() / both.sum()])


def f1s_of(true: np.ndarray, decided: list[np.ndarray], counts: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return of each way to decide [data sets, labels, rows] macro and micro F1 on resamples, [data sets, resamples]."""
    support, found = true.astype(np.float32) @ counts, []
    for said in decided:
        hits, both = 2 * ((true & said).astype(np.float32) @ counts), support + said.astype(np.float32) @ counts
        each = np.divide(hits, both, out=np.full(hits.shape, np.nan), where=both > 0)
        found.append((np.nanmean(each, axis=1), hits.sum(axis=1) / np.maximum(both.sum(axis=1), 1)))
    return found


# -- all of them ----------------------------------------------------------------------------------------------------


def regimes() -> Iterator[Regime]:
    """Yield the regimes of this file, the cheap ones first."""
    sizes = {"two labels, a hair too many errors": (200, 1_000, 10_000), "two labels, all by chance": (1_000,)}
    for of, n in [(of, n) for of, rows in sizes.items() for n in rows]:
        yield promised(of, n, 0.1)
    for n, error_rate in itertools.product((200, 1_000, 10_000), (0.02, 0.05, 0.1)):
        yield promised("two labels", n, error_rate)
    for n, rarest in ((200, 20), (1_000, 100), (10_000, 100)):
        yield regime("coverage", "gain of thresholds", gains, required=n >= 1000, n=n, rarest=rarest)
    for n, error_rate in ((200, 0.1), (1_000, 0.05), (1_000, 0.1)):
        yield promised("three labels", n, error_rate)
    yield promised("several labels", 1_000, 0.1)


def promised(of: str, n: int, error_rate: float) -> Regime:
    run = partial(promises, of=of)
    return regime(BROKEN, f"abstention, {of}", run, required=True, n=n, error_rate=error_rate)
