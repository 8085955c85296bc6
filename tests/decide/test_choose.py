"""The choice on validation: what is kept and refused and why, who fits what, and the report before and after."""

import json
from dataclasses import replace

import numpy as np
import pytest

from decide.data import AB, ABC, BASE, SIX, multi, single
from headrace import metrics
from headrace.data.examples import LabelSet
from headrace.decide.choose import DecideSettings, choose_decision, cross_fitted, cross_fitted_scores
from headrace.decide.decision import Decision
from headrace.decide.report import decide_report
from headrace.errors import DataError, RecipeError
from headrace.metrics import log_loss

TWO = LabelSet(("p", "q"))
TWO_BASE = np.array([0.0, -1.5])


def chosen(logits, targets, labels, **settings):
    task = "multi_label" if targets.ndim == 2 else "single_label"
    return choose_decision(logits, targets, labels=labels, task=task, settings=DecideSettings(**settings))


def test_an_overconfident_model_is_cooled_and_new_rows_gain():
    found = chosen(*single(1500, temperature=2.0), ABC)
    assert found.calibration.is_kept
    assert found.calibration.reason.startswith("kept: the log loss of a row falls")
    assert found.decision.calibration.parameters["temperature"] == pytest.approx(2.0, rel=0.15)
    assert found.thresholds is None
    logits, targets = single(5000, temperature=2.0, seed=7)
    plain = Decision.plain(ABC.names, task="single_label")
    assert log_loss(targets, found.decision.scores(logits)) < log_loss(targets, plain.scores(logits)) - 0.05


@pytest.mark.slow
def test_a_calibrated_model_is_mostly_left_as_it_is():
    kept = [chosen(*single(400, seed=seed), ABC).calibration.is_kept for seed in range(40)]
    assert sum(kept) <= 6
    kept = [
        chosen(*multi(300, base=TWO_BASE, seed=seed), TWO, threshold="default").calibration.is_kept
        for seed in range(20)
    ]
    assert sum(kept) <= 3


def test_auto_takes_isotonic_only_where_it_is_better():
    logits, targets = multi(4000, slope=2.0, shift=1.0, base=TWO_BASE)
    line = chosen(logits, targets, TWO, threshold="default")
    assert set(line.calibration.gains) == {"platt", "isotonic"}
    assert line.decision.calibration.method == "platt"
    bent = (np.sign(logits) * np.abs(logits) ** 3).astype(np.float32)
    assert chosen(bent, targets, TWO, threshold="default").decision.calibration.method == "isotonic"
    assert set(chosen(logits[:600], targets[:600], TWO).calibration.gains) == {"platt"}
    assert chosen(bent, targets, TWO, threshold="default", calibrate="platt").decision.calibration.method == "platt"


def test_too_few_rows_fit_nothing_and_say_so():
    few = chosen(*multi(49, slope=3.0), SIX)
    assert few.decision == Decision.plain(SIX.names, task="multi_label")
    assert "49 rows are too few" in few.calibration.reason
    assert "49 rows are too few" in few.thresholds.reason
    logits, targets = single(200, temperature=4.0)
    targets[:] = 0
    targets[:4] = 1
    one_kind = chosen(logits, targets, ABC)
    assert one_kind.calibration.method == "none"
    assert "no label has 5 rows" in one_kind.calibration.reason
    nobody = chosen(logits[:0], targets[:0], ABC, error_rate=0.1)
    assert nobody.decision.abstain_below is None
    assert "0 rows cannot certify" in nobody.certificate.reason


def test_what_is_not_asked_for_is_not_done():
    found = chosen(*multi(300, slope=3.0), SIX, calibrate="none", threshold="default")
    assert found.decision == Decision.plain(SIX.names, task="multi_label")
    assert found.calibration.reason == found.thresholds.reason == "not asked for"
    assert found.certificate is None


def test_the_seed_alone_decides():
    logits, targets = multi(400, slope=2.0)
    assert chosen(logits, targets, SIX) == chosen(logits, targets, SIX)


def test_abstention_is_certified_by_rows_that_fitted_nothing():
    two = chosen(*single(1000, n_labels=2, temperature=2.0), AB, error_rate=0.1)
    assert (two.n_fitted, two.certificate.n_rows) == (1000, 800)  # a temperature keeps the order of two labels
    three = chosen(*single(1000, temperature=2.0), ABC, error_rate=0.2)
    assert (three.n_fitted, three.certificate.n_rows) == (500, 500)
    assert three.decision.abstain_below == three.certificate.threshold
    assert three.decision.error_rate == 0.2
    fixed = chosen(*single(1000, temperature=2.0), ABC, error_rate=0.2, calibrate="none")
    assert (fixed.n_fitted, fixed.certificate.n_rows) == (1000, 800)
    hopeless = chosen(*single(1000, temperature=2.0, spread=0.3), ABC, error_rate=0.01)
    assert hopeless.decision.abstain_below is None
    assert hopeless.n_fitted == 1000  # nothing to certify: all rows fit
    assert hopeless.certificate.reason


def test_a_certified_half_was_not_looked_at_by_the_fit():
    """Other targets in the certifying half change the certificate, and nothing that was fitted."""
    logits, targets = single(1000, temperature=2.0)
    before = chosen(logits, targets, ABC, error_rate=0.25)
    half = np.random.default_rng(0).permutation(1000)[500:]
    changed = targets.copy()
    changed[half[:20]] = (changed[half[:20]] + 1) % 3
    after = chosen(logits, changed, ABC, error_rate=0.25)
    assert before.decision.abstain_below is not None
    assert after.decision.abstain_below is not None
    assert before.decision.calibration == after.decision.calibration
    assert before.certificate != after.certificate


def test_out_of_fold_scores_come_from_other_rows():
    logits, targets = multi(600, slope=2.0, base=TWO_BASE)
    scores = cross_fitted_scores(logits, targets, method="platt")
    changed = targets.copy()
    changed[0] = 1 - changed[0]
    moved = cross_fitted_scores(logits, changed, method="platt")
    assert scores.shape == logits.shape
    assert scores.dtype == np.float32
    assert not np.array_equal(scores, moved)
    plain = Decision.plain(TWO.names, task="multi_label").scores(logits)
    assert np.array_equal(cross_fitted_scores(logits, targets, method="none"), plain)
    choice = chosen(logits - 2, targets, TWO)
    held_out = cross_fitted(logits - 2, targets, choice=choice)
    assert held_out.thresholds.shape == scores.shape
    assert len(np.unique(held_out.thresholds[:, 0])) == 5  # one for each fold
    assert (
        cross_fitted(logits - 2, targets, choice=chosen(logits - 2, targets, TWO, threshold="default")).thresholds
        is None
    )


def test_the_report_shows_before_and_after_and_is_plain_json():
    logits, targets = multi(1500, slope=2.0, shift=-1.0)
    choice = chosen(logits, targets, SIX, error_rate=0.4)
    new_logits, new = multi(2000, slope=2.0, shift=-1.0, seed=5)
    found = decide_report(choice, new_logits, new, resamples=100)
    assert json.loads(json.dumps(found)) == found
    assert found["out_of_fold"] is False
    calibration = found["calibration"]
    assert calibration["kept"]
    assert calibration["after"]["ece"]["value"] < calibration["before"]["ece"]["low"]
    assert calibration["after"]["log_loss"]["value"] < calibration["before"]["log_loss"]["value"]
    assert set(calibration["before"]["reliability"][0]) == {
        *("low", "high", "mean_score", "share", "n", "share_low", "share_high")
    }
    made = found["thresholds"]
    assert made["values"] == choice.decision.threshold
    assert made["gain"]["f1_macro"]["low"] > 0
    assert made["after"]["f1_macro"]["value"] - made["before"]["f1_macro"]["value"] == pytest.approx(
        made["gain"]["f1_macro"]["value"]
    )
    assert made["after"]["objective"] == made["after"]["f1_macro"]
    assert made["before"] != made["calibrated"]
    stop = found["abstain"]
    assert stop["threshold"] == choice.decision.abstain_below
    assert stop["error"]["value"] < 0.4
    assert 0 < stop["coverage"]["value"] < 1
    assert len(stop["curve"]) <= 100


@pytest.mark.parametrize("rule", ["f1", {"cost": {"false_positive": 1, "false_negative": 5}}])
@pytest.mark.parametrize(("n_rare", "outcome"), [(9, "no interval"), (12, "the interval is approximate"), (20, None)])
def test_a_mean_over_labels_is_gated_by_the_rarest_as_among_the_metrics(rule, n_rare, outcome):
    logits, targets = multi(1500, slope=2.0, shift=-1.0)
    choice = chosen(logits, targets, SIX, threshold=rule)
    logits, targets = multi(1000, slope=2.0, shift=-1.0, seed=5)
    targets[np.flatnonzero(targets[:, 2])[n_rare:], 2] = 0
    found = decide_report(choice, logits, targets, resamples=50)["thresholds"]
    told = outcome and f"fewer than 20 rows with the label {SIX.names[2]!r} ({n_rare}): {outcome}"
    for side in ("before", "after", "gain"):
        macro, objective = found[side]["f1_macro"], found[side]["objective"]
        assert (macro["low"] is None) == (outcome == "no interval")
        assert macro.get("note") == told
        assert objective.get("note") == (told if rule == "f1" else None)
        assert found[side]["f1_micro"]["low"] is not None


def test_the_gain_is_over_the_model_s_own_answers():
    """A calibration alone moves answers across 0.5; the report must not hide that behind the calibrated scores."""
    logits, targets = multi(3000, shift=1.5, base=BASE)
    choice = chosen(logits, targets, SIX, threshold="default")
    assert choice.calibration.is_kept
    found = decide_report(choice, logits, targets, resamples=50)["thresholds"]
    assert not found["kept"]
    assert found["after"] == found["calibrated"]
    difference = found["after"]["f1_macro"]["value"] - found["before"]["f1_macro"]["value"]
    assert found["gain"]["f1_macro"]["value"] == pytest.approx(difference)
    assert difference != 0


def test_thresholds_that_were_refused_are_told_with_what_they_would_have_done():
    logits, targets = multi(3000, shift=0.0, base=BASE)
    choice = chosen(logits, targets, SIX)
    assert choice.thresholds is not None
    assert choice.thresholds.tried
    refused = replace(choice, thresholds=replace(choice.thresholds, is_kept=False))
    found = decide_report(refused, logits, targets, resamples=50)["thresholds"]
    scores = refused.decision.scores(logits) if refused.calibration.is_kept else 1 / (1 + np.exp(-logits))
    expected = metrics.f1_macro(targets, scores >= np.array(choice.thresholds.tried))
    assert found["refused"]["f1_macro"]["value"] == pytest.approx(expected)
    change = expected - found["before"]["f1_macro"]["value"]
    assert found["refused_gain"]["f1_macro"]["value"] == pytest.approx(change)
    assert decide_report(choice, logits, targets, resamples=50)["thresholds"]["refused"] is None or not (
        choice.thresholds.is_kept
    )
    own = cross_fitted(logits, targets, choice=refused)
    assert decide_report(refused, logits, targets, held_out=own, resamples=50)["thresholds"]["refused"] is None


def test_the_report_of_nothing_has_no_after():
    logits, targets = multi(40)
    found = decide_report(chosen(logits, targets, SIX), logits, targets, resamples=50)
    assert found["calibration"]["after"] is None
    assert found["calibration"]["parameters"] == {}
    assert found["thresholds"]["after"] is None
    assert found["thresholds"]["values"] == dict.fromkeys(SIX.names, 0.5)
    assert found["abstain"] is None
    logits, targets = single(300, n_labels=2)
    choice = chosen(logits, targets, AB, error_rate=0.001)
    found = decide_report(choice, logits, targets, held_out=cross_fitted(logits, targets, choice=choice), resamples=50)
    assert found["thresholds"] is None
    assert found["out_of_fold"] is True
    assert found["abstain"]["threshold"] is None
    assert found["abstain"]["coverage"] is None
    assert found["abstain"]["reason"]
    empty = decide_report(chosen(*multi(100), SIX), *multi(0), resamples=50)
    assert empty["thresholds"]["before"]["f1_macro"]["value"] is None


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("single_label", {"calibrate": "platt"}, "single_label has no calibration 'platt'"),
        ("multi_label", {"calibrate": "temperature"}, "multi_label has no calibration 'temperature'"),
        ("single_label", {"threshold": "f1"}, "takes no thresholds"),
        ("ranking", {}, "no task named 'ranking'"),
    ],
)
def test_settings_that_do_not_suit_the_task_are_refused(task, settings, message):
    with pytest.raises(RecipeError, match=message):
        choose_decision(np.zeros((60, 2)), np.zeros(60, int), labels=AB, task=task, settings=DecideSettings(**settings))


@pytest.mark.parametrize(
    "wrong",
    [
        {"calibrate": "plat"},
        {"error_rate": 0.0},
        {"error_rate": 1.0},
        {"error_rate": "5%"},
        {"error_rate": True},
        {"confidence": 1.0},
        {"confidence": None},
        {"threshold": "best"},
        {"error_rate": float("nan")},
    ],
)
def test_impossible_settings_are_refused_with_their_place(wrong):
    with pytest.raises(RecipeError) as caught:
        DecideSettings(**wrong)
    assert caught.value.where.startswith("decide.")
    assert caught.value.next


def test_logits_that_are_no_numbers_are_refused():
    logits, targets = single(60)
    logits[3, 1] = np.nan
    with pytest.raises(DataError, match="validation row 3"):
        chosen(logits, targets, ABC)
    with pytest.raises(DataError, match="with 2 labels"):
        chosen(logits, targets, AB)


def test_the_base_has_a_label_for_each_name():
    assert len(BASE) == len(SIX)


@pytest.mark.slow
def test_a_calibration_alone_changes_no_answer():
    """Where thresholds do not beat the model's own answers, calibrated scores are cut where its score is 0.5."""
    n_seen = 0
    for seed in range(6):
        logits, targets = multi(400, slope=1.6, shift=1.0, seed=seed)
        choice = choose_decision(logits, targets, labels=SIX, task="multi_label", seed=seed)
        if choice.thresholds.is_kept or not choice.calibration.is_kept:
            continue
        n_seen += 1
        new, _ = multi(2_000, slope=1.6, shift=1.0, seed=100 + seed)
        decided = choice.decision.decided(choice.decision.scores(new))
        assert (decided == (new >= 0)).mean() > 0.999
        held_out = cross_fitted(logits, targets, choice=choice, seed=seed)
        assert ((held_out.scores >= held_out.thresholds) == (logits >= 0)).mean() > 0.999
    assert n_seen >= 1


def test_costs_by_label_reach_the_thresholds_and_the_report():
    costs = {"cost": {"q": {"false_positive": 1, "false_negative": 9}}}
    logits, targets = multi(1500, base=TWO_BASE)
    found = chosen(logits, targets, TWO, threshold=costs)
    assert found.thresholds.is_kept
    assert found.decision.threshold == pytest.approx({"p": 0.5, "q": 0.1}, abs=0.1)
    report = decide_report(found, *multi(800, base=TWO_BASE, seed=1), resamples=50)["thresholds"]
    assert report["rule"] == "cost of a false positive and a false negative: q 1 and 9"
    assert report["gain"]["objective"]["value"] > 0
    crossed = cross_fitted(logits, targets, choice=found)
    assert crossed.thresholds.mean(axis=0) == pytest.approx([0.5, 0.1], abs=0.1)
    with pytest.raises(RecipeError, match="there is no label 'q'"):
        chosen(logits, targets, LabelSet(("p", "r")), threshold=costs)
