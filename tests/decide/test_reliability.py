"""Reliability, ECE and Brier: their definitions, their intervals, and what thin data give."""

from itertools import pairwise

import numpy as np
import pytest

from decide.data import multi, single
from headrace.data.examples import LabelSet
from headrace.decide.calibration import sigmoid, softmax
from headrace.decide.reliability import brier, calibration_measures, compared, ece, reliability
from headrace.evaluate import evaluate


def test_reliability_has_bins_of_equal_mass_that_tell_what_held():
    logits, targets = single(3000)
    scores = softmax(logits)
    found = reliability(targets, scores, bins=10)
    assert [one["n"] for one in found] == [300] * 10
    top, right = scores.max(axis=1), scores.argmax(axis=1) == targets
    first = top <= found[0]["high"]
    assert found[0]["share"] == pytest.approx(right[first].mean())
    assert found[0]["mean_score"] == pytest.approx(top[first].mean())
    for one, following in pairwise(found):
        assert one["low"] <= one["mean_score"] <= one["high"] < following["low"]
        assert one["share_low"] < one["share"] < one["share_high"]


def test_the_diagram_of_several_labels_shows_the_high_scores_too():
    logits, targets = multi(2000)
    scores = sigmoid(logits - 3.0)  # most are near 0
    found = reliability(targets, scores, bins=10)
    assert 9 <= len(found) <= 10
    expected = [one["n"] * one["mean_score"] for one in found]
    assert max(expected) < 1.2 * min(expected)
    assert found[-1]["low"] > 0.5
    assert found[0]["n"] > 20 * found[-1]["n"]
    assert sum(one["n"] for one in found) == targets.size
    for one, following in pairwise(found):
        assert one["high"] < following["low"]
    nothing = reliability(targets, np.zeros_like(scores), bins=10)
    assert [one["n"] for one in nothing] == [targets.size]


def test_equal_scores_share_a_bin():
    targets = np.array([0, 1] * 50)
    found = reliability(targets, np.tile([0.6, 0.4], (100, 1)), bins=10)
    assert [(one["n"], one["share"]) for one in found] == [(100, 0.5)]
    assert ece(targets, np.tile([0.6, 0.4], (100, 1))).value == pytest.approx(0.1)


def test_ece_and_brier_follow_their_definitions():
    targets = np.array([0, 0, 1, 1])
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]])
    # top scores in order 0.6 (right), 0.7 (wrong), 0.8 (right), 0.9 (right): bins {0.6, 0.7} and {0.8, 0.9}
    assert ece(targets, scores, bins=2).value == pytest.approx((abs(0.65 - 0.5) + abs(0.85 - 1)) / 2)
    assert brier(targets, scores).value == pytest.approx(2 * (0.1**2 + 0.2**2 + 0.7**2 + 0.4**2) / 4)
    both = np.array([[1, 0], [0, 1]])
    values = np.array([[0.9, 0.2], [0.4, 0.7]])
    assert brier(both, values).value == pytest.approx((0.1**2 + 0.2**2 + 0.4**2 + 0.3**2) / 4)
    assert ece(both, values, bins=2).value == pytest.approx((abs(0.3 - 0) + abs(0.8 - 1)) / 2)


def test_under_twenty_rows_there_is_no_interval():
    logits, targets = single(19)
    for found in calibration_measures(targets, softmax(logits)).values():
        assert found.low is None
        assert "fewer than 20" in found.note
    nothing = calibration_measures(targets[:0], softmax(logits)[:0])
    assert all(one.value is None and one.note for one in nothing.values())
    assert reliability(targets[:0], softmax(logits)[:0]) == []


def test_the_intervals_follow_the_rows():
    logits, targets = multi(400)
    scores = sigmoid(2 * logits)
    found = calibration_measures(targets, scores)
    assert found == calibration_measures(targets, scores)
    squares = np.mean((scores - targets) ** 2, axis=1)
    error = 1.966 * squares.std(ddof=1) / np.sqrt(400)  # Student's quantile
    assert found["brier"].low == pytest.approx(squares.mean() - error, rel=0.02)
    assert found["brier"].high == pytest.approx(squares.mean() + error, rel=0.02)
    whole = evaluate(targets, scores, labels=LabelSet(tuple("abcdef")), task="multi_label", split="test", resamples=50)
    assert found["log_loss"] == whole.metrics["log_loss"]
    assert {one.method for one in found.values()} == {"hall"}
    shown = compared(targets, scores)
    assert set(shown) == {"ece", "brier", "log_loss", "reliability"}
    assert shown["ece"]["low"] < shown["ece"]["value"] < shown["ece"]["high"]


def test_certain_scores_that_are_right_have_no_interval():
    targets = np.array([0, 1] * 50)
    found = calibration_measures(targets, np.eye(2)[targets])
    assert [one.value for one in found.values()] == pytest.approx([0.0] * 3, abs=1e-12)
    assert all(one.low is None and one.note.startswith("no interval: all rows") for one in found.values())


@pytest.mark.parametrize(("temperature", "is_calibrated"), [(1.0, True), (2.0, False)])
def test_the_ece_of_exact_probabilities_begins_at_zero_and_that_of_others_does_not(temperature, is_calibrated):
    zeros = 0
    for seed in range(20):
        logits, targets = single(1000, temperature=temperature, seed=seed)
        zeros += ece(targets, softmax(logits)).low == 0.0
    assert zeros >= 18 if is_calibrated else zeros == 0


def binary(random, n_rows, *, slope, centre):
    """Rows of label 1 alone, and scores of two labels whose margin is normal around `centre`."""
    sure = sigmoid(slope * (random.normal(size=n_rows) + centre))
    return np.ones(n_rows, dtype=int), np.stack([1 - sure, sure], axis=1)


def test_the_ece_interval_holds_a_truth_that_noise_hides():
    """Gaps of about the size of their noise: the lift, of which a part is never seen, pushed the interval too high."""
    random, covered = np.random.default_rng(1), 0
    for _ in range(150):
        found = ece(*binary(random, 10_000, slope=0.1, centre=0.0))
        covered += found.low <= 0.01989 <= found.high  # E[sigmoid(0.1 |x|)] - 0.5 for a standard normal x
    assert covered >= 135


@pytest.mark.simulation
def test_the_ece_interval_covers_the_truth_of_overconfident_scores():
    population_logits, population = single(400_000, temperature=1.6, seed=99)
    truth = ece(population, softmax(population_logits)).value
    covered = 0
    for seed in range(400):
        logits, targets = single(1000, temperature=1.6, seed=seed)
        found = ece(targets, softmax(logits))
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / 400 <= 0.98
