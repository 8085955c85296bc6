"""Abstention: its guarantee by simulation, its certificate, its curve, and the reason where there is none."""

import math
from itertools import pairwise

import numpy as np
import pytest

from decide.data import AB, ABC, multi, single
from headrace.data.examples import LabelSet
from headrace.decide.abstain import (
    certify,
    confidence_of,
    coverage_and_error,
    fewest_rows,
    risk_coverage,
)
from headrace.decide.choose import DecideSettings, choose_decision
from headrace.metrics import is_correct

CERTAINTY = 0.9
#: Name -> (error of an answer by its place u in [0, 1] from unsure to sure, wished rate, steps of confidence).
WORLDS = {
    "falling": (lambda u: 0.5 * (1 - u) ** 2, 0.10, None),
    "strict": (lambda u: 0.3 * (1 - u), 0.05, None),
    # the surest fifth is wrong more often than allowed, so is the bottom
    "sure and wrong": (lambda u: np.where(u > 0.8, 0.25, np.where(u > 0.2, 0.02, 0.6)), 0.10, None),
    "few steps": (lambda u: 0.5 * (1 - u) ** 2, 0.10, 7),
    # the risk is above the rate by a hair everywhere: any threshold is a violation
    "flat": (lambda u: np.full_like(u, 0.1001), 0.10, None),
}


def world(name, n_rows, random):
    error, rate, steps = WORLDS[name]
    place = random.random(n_rows)
    return (place if steps is None else np.floor(place * steps) / steps), random.random(n_rows) < error(place), rate


def true_risk(name):
    """Return a function from a threshold to the true share of errors among answers at or above it."""
    error, _, _ = WORLDS[name]
    place = (np.arange(200_000) + 0.5) / 200_000
    above = np.cumsum(error(place)[::-1])[::-1] / np.arange(200_000, 0, -1)
    return lambda threshold: above[min(math.ceil(threshold * 200_000 - 1e-6), 199_999)]


def violations(name, *, n_rows, draws):
    random, risk, found, certified = np.random.default_rng(hash_of(name, n_rows)), true_risk(name), 0, 0
    for _ in range(draws):
        confidence, is_wrong, rate = world(name, n_rows, random)
        scout = np.arange(n_rows) < n_rows // 5
        threshold = certify(confidence, is_wrong, scout=scout, error_rate=rate, certainty=CERTAINTY).threshold
        certified += threshold is not None
        found += threshold is not None and risk(threshold) > rate + 1e-9
    return found, certified


def hash_of(name, n_rows):
    return [sum(map(ord, name)), n_rows]


def most_allowed(draws):
    """Return the 99.9 % quantile of the violations that a chance of exactly 1 - CERTAINTY would give."""
    from scipy.stats import binom

    return int(binom.ppf(0.999, draws, 1 - CERTAINTY))


@pytest.mark.parametrize("name", WORLDS)
def test_the_guarantee_holds_in_400_draws(name):
    found, certified = violations(name, n_rows=1000, draws=400)
    assert found <= most_allowed(400)
    if name in ("falling", "few steps"):
        assert certified >= 300


@pytest.mark.simulation
@pytest.mark.parametrize("n_rows", [200, 1000, 10_000])
@pytest.mark.parametrize("name", WORLDS)
def test_the_guarantee_holds_in_4000_draws(name, n_rows):
    found, certified = violations(name, n_rows=n_rows, draws=4000)
    print(f"{name}, {n_rows} rows: {found} violations, {certified} certified of 4000 draws")
    assert found <= most_allowed(4000)


def test_the_simulation_would_see_a_rule_without_a_guarantee():
    random, risk, found = np.random.default_rng(0), true_risk("falling"), 0
    for _ in range(400):
        confidence, is_wrong, rate = world("falling", 1000, random)
        kept = [one["threshold"] for one in risk_coverage(confidence, is_wrong) if one["risk"] <= rate]
        found += bool(kept) and risk(kept[-1]) > rate
    assert found > 2 * most_allowed(400)


def chosen_violations(task, *, n_rows, draws, labels, rate):
    """Count draws in which the whole choice, fitting included, answers wrongly too often on a large population."""
    make = (
        (lambda n, seed: multi(n, seed=seed, slope=2.0, shift=1.0, base=np.array([-3.0, -4.0]), spread=3.5))
        if task == ("multi_label")
        else (lambda n, seed: single(n, n_labels=len(labels), temperature=2.0, seed=seed, spread=2.5))
    )
    population, truth = make(100_000, 10**6)
    found = certified = 0
    for seed in range(draws):
        logits, targets = make(n_rows, seed)
        settings = DecideSettings(error_rate=rate, confidence=CERTAINTY)
        decision = choose_decision(logits, targets, labels=labels, task=task, settings=settings, seed=seed).decision
        if decision.abstain_below is None:
            continue
        scores = decision.scores(population)
        sure = ~decision.is_unsure(scores)
        certified += 1
        found += (~is_correct(truth, decision.decided(scores)))[sure].mean() > rate
    return found, certified


@pytest.mark.simulation
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("task", "labels"),
    [("single_label", AB), ("single_label", ABC), ("multi_label", LabelSet(("p", "q")))],
    ids=["two labels", "three labels", "multi-label"],
)
def test_the_guarantee_holds_for_the_whole_choice(task, labels):
    found, certified = chosen_violations(task, n_rows=400, draws=400, labels=labels, rate=0.1)
    print(f"{task}, {len(labels)} labels: {found} violations, {certified} certified of 400 draws")
    assert found <= most_allowed(400)
    assert certified >= 40


def test_the_certificate_counts_the_rows_that_did_not_choose():
    random = np.random.default_rng(0)
    confidence, is_wrong, rate = world("falling", 2000, random)
    scout = random.random(2000) < 0.2
    found = certify(confidence, is_wrong, scout=scout, error_rate=rate)
    assert found.reason == ""
    answered = (confidence >= found.threshold) & ~scout
    assert (found.n_rows, found.n_answered) == ((~scout).sum(), answered.sum())
    assert found.n_wrong == is_wrong[answered].sum()
    assert found.threshold in confidence[scout]
    stricter = certify(confidence, is_wrong, scout=scout, error_rate=0.05)
    surer = certify(confidence, is_wrong, scout=scout, error_rate=rate, certainty=0.99)
    assert stricter.threshold > found.threshold
    assert surer.threshold >= found.threshold


def test_without_a_certificate_there_is_a_reason_with_the_rows_needed():
    random = np.random.default_rng(1)
    few = certify(random.random(30), np.zeros(30, bool), scout=np.arange(30) < 6, error_rate=0.05)
    assert few.threshold is None
    assert "45 answers without an error are needed" in few.reason
    assert fewest_rows(0.05, 0.1) == 45
    assert 0.95**45 <= 0.1 < 0.95**44
    confidence = random.random(1000)
    hopeless = certify(confidence, random.random(1000) < 0.3, scout=np.arange(1000) < 200, error_rate=0.05)
    assert hopeless.threshold is None
    assert "wrong about as often" in hopeless.reason
    close = certify(
        confidence, random.random(1000) < 0.047, scout=np.arange(1000) < 200, error_rate=0.05, certainty=0.999
    )
    assert close.threshold is None
    assert "validation rows would be needed" in close.reason
    assert certify(confidence, confidence < 0.5, scout=np.zeros(1000, bool), error_rate=0.1).threshold is None


def test_confidence_is_the_score_or_the_distance_from_the_nearest_threshold():
    scores = np.array([[0.2, 0.8], [0.5, 0.5]])
    assert confidence_of(scores).tolist() == [0.8, 0.5]
    multi_label = np.array([[0.9, 0.3], [0.5, 0.05], [1.0, 0.0]])
    assert confidence_of(multi_label, [0.5, 0.5]) == pytest.approx([0.7, 0.5, 1.0])
    # 0.9 is half of the room above 0.8; 0.3 three quarters of the way from 0.4 to... 0: a quarter below
    assert confidence_of(multi_label[:1], [0.8, 0.4]) == pytest.approx([0.5 + 0.5 * 0.25])
    assert confidence_of(np.array([[1.0, 0.0]]), [1.0, 0.0]) == pytest.approx([0.5])
    assert confidence_of(scores[:0]).shape == confidence_of(scores[:0], [0.5, 0.5]).shape == (0,)


def test_the_curve_goes_from_few_answers_to_all():
    confidence, is_wrong, _ = world("falling", 5000, np.random.default_rng(2))
    curve = risk_coverage(confidence, is_wrong)
    assert len(curve) == 100
    assert curve[-1] == {"threshold": confidence.min(), "coverage": 1.0, "risk": is_wrong.mean()}
    assert all(a["coverage"] < b["coverage"] for a, b in pairwise(curve))
    assert curve[0]["risk"] < curve[-1]["risk"]
    assert len(risk_coverage(np.full(50, 0.7), np.zeros(50, bool))) == 1
    assert risk_coverage(np.empty(0), np.empty(0, bool)) == []


def test_coverage_and_error_are_shares_with_wilson_s_intervals():
    confidence = np.array([0.9] * 60 + [0.4] * 40)
    is_wrong = np.arange(100) % 10 == 0
    coverage, error = coverage_and_error(confidence, is_wrong, 0.9)
    assert (coverage.value, error.value) == (0.6, 0.1)
    assert coverage.method == error.method == "wilson"
    assert error.low < 0.1 < error.high
    nobody = coverage_and_error(confidence, is_wrong, 0.95)
    assert nobody[0].value == 0.0
    assert nobody[1].value is None
    assert "no row was answered" in nobody[1].note
