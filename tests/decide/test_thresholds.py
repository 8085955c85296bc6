"""Thresholds: each rule's optimum, what rare labels get, and when they are worth keeping."""

import numpy as np
import pytest

from decide.data import multi
from headrace.decide import thresholds
from headrace.decide.calibration import logit, sigmoid
from headrace.decide.folds import parts, stratified_folds
from headrace.decide.thresholds import Rule, fit_thresholds, out_of_fold_thresholds, thresholds_gain
from headrace.errors import RecipeError
from headrace.metrics import LabelCounts

BETA_2 = {"f_beta": 2.0}
COST = {"cost": {"false_positive": 1, "false_negative": 5}}


def objective(scores, targets, limits, rule):
    counts = LabelCounts.of(targets, scores >= limits, targets.shape[1])
    return float(rule.objective(counts, len(targets)))


@pytest.mark.parametrize("given", ["f1", BETA_2, COST, {"cost": {"false_positive": 3, "false_negative": 1}}])
def test_fitted_thresholds_are_near_the_best_on_new_rows(given):
    rule = Rule.of(given)
    logits, targets = multi(6000, base=np.array([0.0, -2.0, -3.0]))
    fitted = fit_thresholds(sigmoid(logits), targets, rule=rule)
    new_logits, new = multi(40_000, base=np.array([0.0, -2.0, -3.0]), seed=1)
    scores = sigmoid(new_logits)
    found = objective(scores, new, fitted, rule)
    best = [
        max(objective(scores[:, [i]], new[:, [i]], np.array([t]), rule) for t in np.linspace(0.02, 0.98, 97))
        for i in range(3)
    ]
    default = objective(scores, new, np.full(3, 0.5), rule)
    assert found > default
    assert np.mean(best) - found < 0.25 * (np.mean(best) - default) + 0.002


def test_the_cost_of_calibrated_scores_has_the_threshold_of_elkan():
    logits, targets = multi(20_000, base=np.array([0.0, -1.0]))
    assert fit_thresholds(sigmoid(logits), targets, rule=Rule.of(COST)) == pytest.approx([1 / 6, 1 / 6], abs=0.05)


OF_LABELS = {"cost": {"q": {"false_positive": 3, "false_negative": 1}, "p": {"false_positive": 1, "false_negative": 5}}}


def test_each_label_has_the_threshold_of_its_own_costs():
    logits, targets = multi(20_000, base=np.array([0.0, 0.0, -1.0]))
    rule = Rule.of(OF_LABELS, ("p", "q", "r"))
    # of r nothing is said: an error costs 1, whichever it is
    assert fit_thresholds(sigmoid(logits), targets, rule=rule) == pytest.approx([1 / 6, 3 / 4, 1 / 2], abs=0.05)
    assert rule.name == "cost of a false positive and a false negative: p 1 and 5; q 3 and 1"
    nobody = fit_thresholds(sigmoid(logits), np.zeros_like(targets), rule=rule)
    assert nobody == pytest.approx([1 / 6, 3 / 4, 1 / 2], abs=1e-6)


def test_the_objective_counts_each_labels_errors_at_their_own_cost():
    targets = np.array([[1, 0], [1, 1], [0, 0], [0, 1]])
    said = np.array([[1, 1], [0, 1], [1, 0], [0, 0]])
    counts = LabelCounts.of(targets, said, 2)
    # p: one of each kind, 1 + 5; q: one of each kind, 3 + 1; by rows and labels
    assert Rule.of(OF_LABELS, ("p", "q")).objective(counts, 4) == pytest.approx(-(6 + 4) / (4 * 2))


def test_costs_of_a_label_that_does_not_exist_are_refused():
    with pytest.raises(RecipeError) as caught:
        Rule.of(OF_LABELS, ("p", "quiet"))
    assert (caught.value.what, caught.value.where) == ("there is no label 'q'", "decide.threshold.cost")
    assert "available: p, quiet" in caught.value.next


def test_thresholds_decide_alike_in_both_precisions():
    logits, targets = multi(500)
    scores = sigmoid(logits).astype(np.float32)
    fitted = fit_thresholds(scores, targets, rule=Rule.of("f1"))
    assert np.array_equal(fitted, fitted.astype(np.float32))
    assert np.array_equal(scores >= fitted, scores >= fitted.astype(np.float32))


def test_a_rare_label_is_shrunk_toward_the_common_threshold():
    """Two labels alike in all but their number of rows, whose own best threshold is far from that of four others."""
    logits, targets = multi(4000, base=np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), seed=5)
    scores = sigmoid(logits)
    scores[:, 4:] = sigmoid(logits[:, 4:] + 3.0)  # these are too sure: their best threshold is higher
    many = fit_thresholds(scores, targets, rule=Rule.of("f1"))
    few = targets.copy()
    rows = np.flatnonzero(few[:, 5])
    few[rows[6:], 5] = 0
    thinned = np.delete(np.arange(4000), rows[6:])  # the label keeps 6 rows, the others lose their share of all
    rare = fit_thresholds(scores[thinned], few[thinned], rule=Rule.of("f1"))
    common = logit(many[:4]).mean()
    assert logit(many[4]) - common > 1.5
    assert logit(many[5]) - common > 1.5
    own = [
        t
        for t in np.linspace(0.01, 0.999, 500)
        if objective(scores[thinned][:, [5]], few[thinned][:, [5]], np.array([t]), Rule.of("f1"))
    ]
    best = max(
        own, key=lambda t: objective(scores[thinned][:, [5]], few[thinned][:, [5]], np.array([t]), Rule.of("f1"))
    )
    # 6 / (6 + 20) of the way from the common threshold to its own
    assert abs(logit(rare[5]) - logit(rare[:4]).mean()) < 0.6 * abs(logit(best) - logit(rare[:4]).mean())


def test_the_weight_of_a_labels_own_threshold_is_its_rows_over_rows_plus_twenty(monkeypatch):
    targets = np.zeros((200, 2), dtype=int)
    targets[:60, 0] = 1
    targets[:20, 1] = 1
    monkeypatch.setattr(thresholds, "_best_of_each", lambda *_: np.array([2.0, 2.0, -1.0]))
    found = logit(fit_thresholds(np.full((200, 2), 0.5), targets, rule=Rule.of("f1")))
    assert found == pytest.approx([0.75 * 2 - 0.25, 0.5 * 2 - 0.5], abs=1e-5)


def test_a_label_without_rows_gets_the_common_threshold():
    logits, targets = multi(600, base=np.array([0.0, 0.0, -1.0]))
    targets[:, 2] = 0
    found = fit_thresholds(sigmoid(logits), targets, rule=Rule.of("f1"))
    assert 0.2 < found[2] < 0.6
    nobody = fit_thresholds(sigmoid(logits), np.zeros_like(targets), rule=Rule.of("f1"))
    assert nobody == pytest.approx([0.5] * 3)


def test_a_wished_precision_holds_on_new_rows():
    rule = Rule.of({"precision": 0.9})
    new_logits, new = multi(100_000, base=np.array([0.0, -2.0]), seed=10_000)
    scores = sigmoid(new_logits)
    missed, recalls = 0, []
    for seed in range(150):
        logits, targets = multi(1500, base=np.array([0.0, -2.0]), seed=seed)
        said = scores >= fit_thresholds(sigmoid(logits), targets, rule=rule)
        hits = (said & (new == 1)).sum(axis=0)
        missed += (hits / said.sum(axis=0) < 0.9).sum()
        recalls.append((hits / new.sum(axis=0)).mean())
    assert missed / 300 <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 300)
    assert np.mean(recalls) > 0.3  # and it is no empty promise


def test_a_precision_that_nothing_shows_is_not_promised():
    random = np.random.default_rng(0)
    found = fit_thresholds(random.random((400, 2)), random.random((400, 2)) < 0.3, rule=Rule.of({"precision": 0.9}))
    assert found == pytest.approx([thresholds.HIGHEST] * 2)


def test_thresholds_that_help_are_kept_and_those_of_noise_are_not():
    def gain(scores, targets, seed):
        repeats = [
            (scores, out_of_fold_thresholds(scores, targets, rule=Rule.of("f1"), seed=seed + repeat))
            for repeat in range(2)
        ]
        return thresholds_gain(repeats, scores >= 0.5, targets, rule=Rule.of("f1"), seed=seed)

    logits, targets = multi(1000)
    assert gain(sigmoid(logits - 2.0), targets, 0).is_kept
    kept = 0
    for seed in range(25):
        # scores at which 0.5 is the best threshold: rows of either kind stand apart as far as they can
        random = np.random.default_rng(seed)
        wanted = random.random((300, 3)) < 0.4
        kept += gain(sigmoid(random.normal(np.where(wanted, 1.5, -1.5), 1.0)), wanted, seed).is_kept
    assert kept <= 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("best", "no rule for thresholds 'best'"),
        ({"f_betta": 2.0}, "did you mean 'f_beta'"),
        ({"f_beta": 0}, "f_beta is 0"),
        ({"f_beta": "two"}, "not a finite number"),
        ({"precision": 1.0}, "below 1"),
        ({"precision": True}, "not a finite number"),
        ({"cost": {"false_positive": 1}}, "are not two numbers"),
        ({"cost": {"a": {"false_positive": 1}}}, "are not two numbers"),
        ({"cost": {"a": {"false_positive": 0, "false_negative": 1}}}, "cost.a.false_positive is 0"),
        ({"cost": {"a": {"false_positive": 1, "false_negative": 1}, "b": 3}}, "are not two numbers"),
        ({"cost": {}}, "are not two numbers"),
        ({"cost": {"false_positive": 1, "false_negative": -1}}, "cost.false_negative is -1"),
        ({"f_beta": 1, "precision": 0.5}, "no rule"),
        (None, "no rule"),
    ],
)
def test_a_wrong_rule_says_what_is_right(given, message):
    with pytest.raises(RecipeError) as caught:
        Rule.of(given)
    assert message in str(caught.value)
    assert "decide.threshold" in caught.value.where


def test_folds_give_each_label_its_share():
    _, targets = multi(997)
    folds = stratified_folds(targets, 6, n_folds=5, seed=3)
    assert np.array_equal(folds, stratified_folds(targets, 6, n_folds=5, seed=3))
    assert not np.array_equal(folds, stratified_folds(targets, 6, n_folds=5, seed=4))
    for label in range(6):
        each = np.bincount(folds[targets[:, label] == 1], minlength=5)
        assert np.ptp(each) <= max(2, 0.1 * each.mean())
    one = np.random.default_rng(0).integers(0, 3, 500)
    dealt = stratified_folds(one, 3, n_folds=5, seed=0)
    for label in range(3):
        assert np.ptp(np.bincount(dealt[one == label], minlength=5)) <= 1
    assert sorted(np.concatenate([held for _, held in parts(dealt)])) == list(range(500))
    assert list(parts(stratified_folds(one[:1], 3, n_folds=5, seed=0))) == []
