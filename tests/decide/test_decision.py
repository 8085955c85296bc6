"""A decision: from logits to answers, its place in JSON, and what is refused."""

import json

import numpy as np
import pytest

from decide.data import multi
from headrace.decide.calibration import Calibration
from headrace.decide.decision import Decision
from headrace.predict import answers, thresholds

PLATT = Calibration("platt", "multi_label", {"slopes": [0.7, 1 / 3], "intercepts": [0.1, -2.0]})
MULTI = Decision(("x", "y"), PLATT, (0.1 + 0.2, 2 / 3), 0.7 + 1e-16, 0.05, 0.9)
SINGLE = Decision(
    ("a", "b", "c"), Calibration("temperature", "single_label", {"temperature": 1.7}), None, 0.6, 0.05, 0.9
)


@pytest.mark.parametrize("decision", [MULTI, SINGLE, Decision.plain(("p", "q"), task="multi_label")])
def test_a_decision_comes_back_from_json_to_the_bit(decision):
    raw = json.loads(json.dumps(decision.as_dict()))
    again = Decision.from_dict(raw, labels=decision.labels, task=decision.task)
    assert again == decision
    logits = np.random.default_rng(0).normal(0, 2, (100, len(decision.labels))).astype(np.float32)
    assert np.array_equal(again.scores(logits), decision.scores(logits))
    assert np.array_equal(again.is_unsure(again.scores(logits)), decision.is_unsure(decision.scores(logits)))


def test_predict_takes_its_thresholds_and_gives_its_answers():
    logits, _ = multi(500, base=np.array([0.0, -1.0]))
    scores = MULTI.scores(logits)
    found = answers(scores, MULTI.labels, task="multi_label", threshold=MULTI.threshold)
    decided = MULTI.decided(scores)
    assert [one.indices for one in found] == [tuple(np.flatnonzero(row)) for row in decided]
    assert np.array_equal(thresholds(MULTI.threshold, MULTI.labels, multi_label=True), MULTI.limits())
    assert SINGLE.threshold is None
    assert SINGLE.limits() is None


def test_the_unsure_rows_are_those_below():
    scores = np.array([[0.6, 0.3, 0.1], [0.59, 0.31, 0.1], [np.nan] * 3], dtype=np.float64)
    assert SINGLE.is_unsure(scores).tolist() == [False, True, True]
    assert not Decision.plain(("a", "b", "c"), task="single_label").is_unsure(scores).any()
    assert SINGLE.is_unsure(scores[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"thresholds": {"x": 0.5}}, "one number for each label"),
        ({"thresholds": {"x": 0.5, "z": 0.5}}, "one number for each label"),
        ({"thresholds": {"x": 0.5, "y": float("nan")}}, "threshold of 'y' is nan"),
        ({"thresholds": {"x": 0.5, "y": 1.5}}, "not in"),
        ({"thresholds": {"x": 0.5, "y": True}}, "not a finite number"),
        ({"thresholds": [0.5, 0.5]}, "mapping"),
        ({"abstain": {"below": 0.5}}, "abstain is not"),
        ({"abstain": {"below": 0.5, "error_rate": None, "confidence": 0.9}}, "lacks"),
        ({"abstain": {"below": float("inf"), "error_rate": 0.1, "confidence": 0.9}}, "abstain.below"),
        ({"abstain": 0.5}, "abstain is not"),
        ({"calibration": {**PLATT.as_dict(), "parameters": {"slopes": [1.0], "intercepts": [0.0]}}}, "1 labels"),
        ({"calibration": Calibration("none", "single_label").as_dict()}, "is for single_label"),
        ({"calibration": None}, "a mapping"),
        ({"more": 1}, "a mapping of"),
    ],
)
def test_a_damaged_decision_is_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        Decision.from_dict(MULTI.as_dict() | change, labels=("x", "y"), task="multi_label")


def test_thresholds_and_logits_must_fit_the_labels():
    with pytest.raises(ValueError, match="thresholds do not suit"):
        Decision(("a", "b"), Calibration("none", "single_label"), (0.5, 0.5))
    with pytest.raises(ValueError, match="do not suit 3 labels"):
        SINGLE.scores(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="one number for each label"):
        Decision.from_dict(MULTI.as_dict(), labels=("x", "z"), task="multi_label")
