"""Each diagnosis has figures that call for it, and healthy ones are left in peace."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from headrace.doctor import Diagnosis, Facts, diagnose
from headrace.doctor.diagnose import CHECKS
from headrace.evaluation import Interval

RANDOM = np.random.default_rng(0)
N = 2000


def epoch(train_loss: float, valid_loss: float, accuracy: float, train_accuracy: float) -> dict[str, Any]:
    return {
        "train_loss": train_loss,
        "valid": {"loss": valid_loss, "accuracy": accuracy},
        "train": {"loss": train_loss, "accuracy": train_accuracy},
    }


def answers(n: int, accuracy: float) -> tuple[np.ndarray, np.ndarray]:
    targets = np.arange(n) % 2
    score = np.where(RANDOM.random(n) < accuracy, targets, 1 - targets) * 0.8 + 0.1 + RANDOM.normal(0, 0.02, n)
    return targets, np.stack([1 - score, score], axis=1).astype(np.float32)


TARGETS, SCORES = answers(N, 0.9)
HEALTHY = Facts(
    labels=("neg", "pos"),
    targets=TARGETS,
    scores=SCORES,
    valid_targets=TARGETS,
    valid_scores=SCORES,
    history=(epoch(0.45, 0.30, 0.89, 0.80), epoch(0.25, 0.27, 0.902, 0.92), epoch(0.18, 0.28, 0.901, 0.95)),
    n_epochs=3,
    curve={
        "loss": (0.15 + 0.55 * np.exp(-np.arange(100) / 30) + RANDOM.normal(0, 0.02, 100)).tolist(),
        "norm": [1.0] * 100,
    },
    learning_rate=2e-5,
    layer_decay=1.0,
    changes={"embeddings": 0.01, "layer 1": 0.02, "head": 0.4},
    figure=Interval(0.9, 0.887, 0.913, "wilson"),
    majority=0.5,
    verdict={"winner": "a", "sentence": "A is better by 3 points"},
)

MULTI_TARGETS = (RANDOM.random((N, 2)) < 0.2).astype(np.float32)
MULTI_SCORES = np.clip(MULTI_TARGETS * 0.7 + 0.1 + RANDOM.normal(0, 0.05, (N, 2)), 0, 1).astype(np.float32)
HEALTHY_MULTI = replace(
    HEALTHY,
    task="multi_label",
    targets=MULTI_TARGETS,
    scores=MULTI_SCORES,
    valid_targets=MULTI_TARGETS,
    valid_scores=MULTI_SCORES,
    thresholds={"neg": 0.4, "pos": 0.55},
    monitor="roc_auc_macro",
    history=tuple(
        {**record, "valid": {"loss": record["valid"]["loss"], "roc_auc_macro": record["valid"]["accuracy"]}}
        for record in HEALTHY.history
    ),
)

SMALL = answers(60, 0.8)
#: Code -> figures that call for it, each differing from healthy ones in one thing.
SICK: dict[str, list[Facts]] = {
    "not_finite": [
        replace(HEALTHY, curve={"loss": [0.7] * 50 + [math.nan] * 50}),
        replace(HEALTHY, stopped="the loss is not a finite number at step 12\n  where: step 12"),
        replace(HEALTHY, scores=np.where(np.arange(N)[:, None] == 5, np.nan, SCORES)),
        replace(HEALTHY, history=(*HEALTHY.history[:2], epoch(0.2, math.inf, 0.9, 0.9))),
    ],
    "loss_never_moved": [
        replace(HEALTHY, curve={"loss": (0.693 + RANDOM.normal(0, 0.005, 100)).tolist()}),
        replace(HEALTHY, curve={}, history=(epoch(0.693, 0.693, 0.51, 0.5), epoch(0.692, 0.693, 0.51, 0.5))),
    ],
    "learning_rate_too_high": [
        replace(HEALTHY, curve={"loss": [0.7 - 0.01 * i for i in range(50)] + [0.2 + 0.01 * i for i in range(50)]}),
        replace(HEALTHY, curve={"loss": [0.7] * 20 + [1.6] * 20 + [0.68] * 60}),
        replace(HEALTHY, curve={}, history=(epoch(0.4, 0.3, 0.9, 0.9), epoch(0.7, 0.7, 0.5, 0.5))),
    ],
    "constant_predictions": [
        replace(HEALTHY, scores=np.tile(np.float32([[0.4, 0.6]]), (N, 1))),
        replace(HEALTHY, scores=np.stack([SCORES[:, 0] * 0.4, 1 - SCORES[:, 0] * 0.4], axis=1)),
        replace(HEALTHY_MULTI, scores=MULTI_SCORES * 0.3),
    ],
    "no_better_than_majority": [
        replace(HEALTHY, figure=Interval(0.51, 0.488, 0.532, "wilson")),
        replace(HEALTHY, figure=Interval(0.5, note="no interval from fewer than 20 rows")),
    ],
    "no_better_than_baseline": [
        replace(HEALTHY, verdict={"winner": "b", "sentence": "the baseline is better by 2 points"}),
        replace(HEALTHY, verdict={"winner": None, "sentence": "no difference can be told on 2,000 rows"}),
    ],
    "overfitting": [
        replace(
            HEALTHY,
            history=(epoch(0.5, 0.30, 0.90, 0.85), epoch(0.2, 0.35, 0.89, 0.95), epoch(0.05, 0.5, 0.89, 0.99)),
        ),
        replace(HEALTHY, history=(epoch(0.5, 0.6, 0.70, 0.75), epoch(0.1, 0.59, 0.702, 0.97))),
    ],
    "still_improving": [
        replace(
            HEALTHY,
            history=(epoch(0.6, 0.55, 0.75, 0.7), epoch(0.45, 0.44, 0.82, 0.8), epoch(0.35, 0.36, 0.87, 0.86)),
        ),
    ],
    "frozen_head": [
        replace(HEALTHY, changes={**HEALTHY.changes, "head": 0.0}),
    ],
    "frozen_backbone": [
        replace(HEALTHY, changes={"embeddings": 0.0, "layer 1": 0.0, "head": 0.4}),
        replace(HEALTHY, changes={"embeddings": 1e-9, "layer 1": 0.02, "head": 0.4}, layer_decay=0.1),
    ],
    "threshold_at_border": [
        replace(HEALTHY_MULTI, thresholds={"neg": 0.999, "pos": 0.5}, valid_scores=None),
        replace(HEALTHY_MULTI, thresholds={"neg": 0.5, "pos": 0.995}, valid_scores=MULTI_SCORES * 0.9),
        replace(HEALTHY_MULTI, thresholds={"neg": 0.5, "pos": 0.0}),
    ],
    "validation_too_small": [
        replace(HEALTHY, valid_targets=SMALL[0], valid_scores=SMALL[1]),
        replace(HEALTHY_MULTI, valid_targets=MULTI_TARGETS * (np.arange(N)[:, None] < 50)),
    ],
}
CASES = [(code, number, facts) for code, some in SICK.items() for number, facts in enumerate(some)]


@pytest.mark.parametrize("healthy", [HEALTHY, HEALTHY_MULTI])
def test_a_healthy_run_has_no_diagnosis(healthy: Facts) -> None:
    assert diagnose(healthy) == []


@pytest.mark.parametrize(("code", "number", "facts"), CASES, ids=[f"{code}-{number}" for code, number, _ in CASES])
def test_a_sick_run_gets_its_diagnosis(code: str, number: int, facts: Facts) -> None:
    found = {diagnosis.code: diagnosis for diagnosis in diagnose(facts)}
    assert code in found
    one = found[code]
    assert one.severity in ("error", "warning", "note")
    assert re.search(r"\d", one.what + one.next), "a diagnosis tells its numbers"
    assert len(one.next) > 15


def test_every_diagnosis_has_a_run_that_calls_for_it() -> None:
    assert len(CHECKS) == len(SICK) == 12
    assert set(SICK) == {check.__name__ for check in CHECKS}


def test_one_fault_alone_is_said_where_nothing_else_follows_from_it() -> None:
    for code in ("frozen_head", "frozen_backbone", "no_better_than_baseline", "validation_too_small", "overfitting"):
        assert [diagnosis.code for diagnosis in diagnose(SICK[code][0])] == [code]


@pytest.mark.parametrize(
    ("difference", "words"),
    [({"value": 0.004, "low": -0.01, "high": 0.02}, "to tell a small gain"), ({"value": 0.1}, "large or small")],
)
def test_a_gain_is_called_small_only_where_an_interval_says_so(difference: dict[str, float], words: str) -> None:
    (found,) = diagnose(replace(HEALTHY, verdict={"winner": None, "difference": difference}))
    assert words in found.next


def test_the_worst_stands_first() -> None:
    found = diagnose(
        replace(
            HEALTHY,
            changes={"embeddings": 0.0, "head": 0.0},
            valid_targets=SMALL[0],
            valid_scores=SMALL[1],
            verdict={"winner": "b", "sentence": ""},
        )
    )
    assert [one.severity for one in found] == ["error", "warning", "warning", "note"]
    assert found[0].code == "frozen_head"


def test_the_advice_is_an_edit_with_this_runs_numbers() -> None:
    def advice(code: str, facts: Facts) -> str:
        return next(one.next for one in diagnose(facts) if one.code == code)

    assert "--set fit.learning_rate=6.7e-06" in advice("learning_rate_too_high", SICK["learning_rate_too_high"][0])
    assert "--set fit.learning_rate=1.0e-04" in advice("loss_never_moved", SICK["loss_never_moved"][0])
    assert "--set fit.epochs=1" in advice("overfitting", SICK["overfitting"][0])
    assert "--set fit.epochs=4" in advice("still_improving", SICK["still_improving"][0])
    assert "--set decide.threshold=default" in advice("threshold_at_border", SICK["threshold_at_border"][0])
    assert "fit.pos_weight=balanced" in advice("constant_predictions", SICK["constant_predictions"][2])


def test_the_advised_settings_are_accepted_by_recipes() -> None:
    from headrace.recipe import load_recipe

    advised = {
        (facts.task, edit)
        for _, _, facts in CASES
        for diagnosis in diagnose(facts)
        for edit in re.findall(r"--set (\S+=[^\s,;)]+)", diagnosis.next)
    }
    assert len(advised) >= 8
    for task, edit in advised:
        assert load_recipe({"task": task, "data": {"train": "x.csv"}}, overrides=[edit])


def test_a_little_more_loss_after_the_best_epoch_is_no_overfitting() -> None:
    history = (epoch(0.46, 0.223, 0.922, 0.77), epoch(0.16, 0.222, 0.944, 0.94), epoch(0.04, 0.259, 0.922, 0.99))
    assert diagnose(replace(HEALTHY, history=history)) == []


def test_what_was_meant_to_stay_is_no_fault() -> None:
    still = {"embeddings": 0.0, "layer 1": 0.0, "head": 0.0}
    assert diagnose(replace(HEALTHY, changes=still, fixed=frozenset(still))) == []


def test_lopsided_labels_make_a_lopsided_answer_no_fault() -> None:
    targets = (np.arange(N) % 200 == 0).astype(np.int64)
    sure = np.stack([1 - targets * 0.5 - 0.01, targets * 0.5 + 0.01], axis=1)
    codes = [one.code for one in diagnose(replace(HEALTHY, targets=targets, scores=sure * 0.9))]
    assert "constant_predictions" not in codes
    assert diagnose(replace(HEALTHY, targets=targets * 0, scores=np.tile([[0.9, 0.1]], (N, 1)))) == []


def test_training_that_a_limit_or_patience_ended_is_not_told_to_go_on() -> None:
    assert diagnose(replace(SICK["still_improving"][0], n_epochs=10)) == []


@pytest.mark.parametrize(
    "odd", [None, "text", 3, -1.0, math.nan, [], {}, [None], {"a": None}, np.zeros((0, 2)), np.array([[1, 2]])]
)
def test_odd_figures_give_no_error(odd: Any) -> None:
    for one in fields(Facts):
        for facts in (HEALTHY, HEALTHY_MULTI):
            found = diagnose(replace(facts, **{one.name: odd}))
            assert all(isinstance(diagnosis, Diagnosis) for diagnosis in found)
    for record in ({"valid": odd}, {"train_loss": odd, "valid": {"loss": odd, "accuracy": odd}}, odd):
        assert isinstance(diagnose(replace(HEALTHY, history=[record, record])), list)


def test_nothing_known_is_nothing_said() -> None:
    assert diagnose(Facts()) == []


def test_the_report_gets_plain_texts() -> None:
    shown = json.loads(json.dumps([one.as_dict() for one in diagnose(SICK["overfitting"][0])]))
    assert [set(one) for one in shown] == [{"code", "severity", "what", "next"}]
