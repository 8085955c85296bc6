"""Metrics against scikit-learn and by hand; intervals against their definition and by simulation."""

import math
import subprocess
import sys

import numpy as np
import pytest
from sklearn import metrics as reference

from headrace import intervals, metrics

TOLERANCE = 1e-12


def single(n_labels, *, n_rows=400, seed=0):
    """Return targets and rounded probabilities, so that scores tie."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, n_labels, n_rows)
    scores = random.dirichlet(np.ones(n_labels), n_rows)
    scores[np.arange(n_rows), targets] += 0.3
    scores = np.round(scores / scores.sum(axis=1, keepdims=True), 1)
    scores[:, -1] = np.clip(1 - scores[:, :-1].sum(axis=1), 0, 1)
    return targets, scores


def multi(n_labels=5, *, n_rows=400, seed=0):
    random = np.random.default_rng(seed)
    targets = (random.random((n_rows, n_labels)) < 0.3).astype(np.float32)
    scores = np.round(np.clip(0.3 * targets + random.random(targets.shape) * 0.7, 0, 1), 1).astype(np.float32)
    return targets, scores


# ---------------------------------------------------------------------------------------------- by hand


def test_single_label_metrics_equal_those_worked_out_by_hand():
    targets = np.array([0, 0, 1, 1, 1])
    scores = np.array([[0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.4, 0.6], [0.9, 0.1]])
    decided = metrics.decisions(scores, multi_label=False)
    assert decided.tolist() == [0, 1, 1, 1, 0]
    assert metrics.accuracy(targets, decided) == 3 / 5
    assert metrics.confusion_matrix(targets, decided, 2).tolist() == [[1, 1], [1, 2]]
    counts = metrics.LabelCounts.of(targets, decided, 2)
    assert counts.precision().tolist() == [1 / 2, 2 / 3]
    assert counts.recall().tolist() == [1 / 2, 2 / 3]
    assert metrics.f1_macro(targets, decided) == pytest.approx((1 / 2 + 2 / 3) / 2, abs=TOLERANCE)
    assert metrics.f1_micro(targets, decided) == 3 / 5
    assert metrics.log_loss(targets, scores) == pytest.approx(-math.log(0.8 * 0.4 * 0.7 * 0.6 * 0.1) / 5, abs=TOLERANCE)
    # pairs (with, without): 0.7 beats both, 0.6 beats 0.2 and ties with 0.6, 0.1 loses to both -> 3.5 of 6
    assert metrics.roc_auc(targets, scores) == pytest.approx(3.5 / 6, abs=TOLERANCE)
    # from the top: 0.7 (1 of 1), then 0.6 (2 of 3 rows), then 0.2, then 0.1 (3 of 5), a third of the recall each
    assert metrics.average_precision(targets, scores) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3, abs=TOLERANCE)


def test_multi_label_metrics_equal_those_worked_out_by_hand():
    targets = np.array([[1, 0], [0, 0], [1, 1]])
    scores = np.array([[0.9, 0.6], [0.2, 0.1], [0.4, 0.5]])
    decided = metrics.decisions(scores, multi_label=True)
    assert decided.tolist() == [[True, True], [False, False], [False, True]]  # 0.5 counts as yes
    assert metrics.accuracy(targets, decided) == 1 / 3  # all labels of the row
    assert metrics.hamming_loss(targets, decided) == 2 / 6
    assert metrics.f1_macro(targets, decided) == pytest.approx((2 / 3 + 2 / 3) / 2, abs=TOLERANCE)
    assert metrics.f1_micro(targets, decided) == pytest.approx(2 * 2 / (3 + 3), abs=TOLERANCE)
    assert metrics.roc_auc_macro(targets, scores) == pytest.approx((1.0 + 0.5) / 2, abs=TOLERANCE)
    expected = -math.log(0.9 * 0.4 * 0.8 * 0.9 * 0.4 * 0.5) / 6
    assert metrics.log_loss(targets, scores) == pytest.approx(expected, abs=TOLERANCE)


def test_a_threshold_per_label_decides_each_column_by_its_own():
    scores = np.array([[0.3, 0.3], [0.2, 0.9]])
    decided = metrics.decisions(scores, multi_label=True, threshold=np.array([0.25, 0.5]))
    assert decided.tolist() == [[True, False], [False, True]]


def test_a_float32_score_equal_to_the_threshold_is_a_yes():
    assert metrics.decisions(np.array([[0.7]], dtype=np.float32), multi_label=True, threshold=0.7).tolist() == [[True]]


def test_a_tie_between_labels_is_decided_for_the_first():
    assert metrics.decisions(np.array([[0.4, 0.4, 0.2]]), multi_label=False).tolist() == [0]


# ---------------------------------------------------------------------------------------------- scikit-learn


@pytest.mark.parametrize("n_labels", [2, 3, 7])
def test_single_label_metrics_equal_scikit_learn_with_ties(n_labels):
    targets, scores = single(n_labels)
    decided = metrics.decisions(scores, multi_label=False)
    columns = metrics.one_column_per_label(targets, n_labels)
    assert metrics.accuracy(targets, decided) == reference.accuracy_score(targets, decided)
    for average, ours in (("macro", metrics.f1_macro), ("micro", metrics.f1_micro)):
        expected = reference.f1_score(targets, decided, average=average)
        assert ours(targets, decided) == pytest.approx(expected, abs=TOLERANCE)
    assert (metrics.confusion_matrix(targets, decided, n_labels) == reference.confusion_matrix(targets, decided)).all()
    counts = metrics.LabelCounts.of(targets, decided, n_labels)
    expected = reference.precision_recall_fscore_support(targets, decided)
    for ours, theirs in zip((counts.precision(), counts.recall(), counts.f1(), counts.support), expected, strict=True):
        assert ours == pytest.approx(theirs, abs=TOLERANCE)
    roc_auc, average_precision = metrics.areas_per_label(targets, scores)
    assert roc_auc == pytest.approx(reference.roc_auc_score(columns, scores, average=None), abs=TOLERANCE)
    theirs = reference.average_precision_score(columns, scores, average=None)
    assert average_precision == pytest.approx(theirs, abs=TOLERANCE)
    assert len(np.unique(scores)) < len(scores) / 10  # there were ties


def test_multi_label_metrics_equal_scikit_learn_with_ties():
    targets, scores = multi()
    decided = metrics.decisions(scores, multi_label=True, threshold=0.45)
    assert metrics.accuracy(targets, decided) == reference.accuracy_score(targets, decided)
    assert metrics.hamming_loss(targets, decided) == pytest.approx(reference.hamming_loss(targets, decided))
    for average, ours in (("macro", metrics.f1_macro), ("micro", metrics.f1_micro)):
        expected = reference.f1_score(targets, decided, average=average)
        assert ours(targets, decided) == pytest.approx(expected, abs=TOLERANCE)
    expected = reference.roc_auc_score(targets, scores, average="macro")
    assert metrics.roc_auc_macro(targets, scores) == pytest.approx(expected, abs=TOLERANCE)
    assert metrics.roc_auc(targets, scores) == pytest.approx(expected, abs=TOLERANCE)
    expected = reference.average_precision_score(targets, scores, average="macro")
    assert metrics.average_precision_macro(targets, scores) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_loss_equals_scikit_learn_where_a_sure_answer_is_wrong(dtype):
    targets = np.array([0, 1, 1])
    scores = np.array([[0.0, 1.0], [0.25, 0.75], [0.5, 0.5]], dtype=dtype)
    expected = reference.log_loss(targets, scores)
    assert metrics.log_loss(targets, scores) == pytest.approx(expected, rel=1e-6)
    assert metrics.log_loss(np.eye(2)[targets], scores) == pytest.approx(expected, rel=1e-6)


def test_the_log_loss_of_whole_number_scores_is_finite():
    assert metrics.log_loss(np.array([0]), np.array([[0, 1]])) == pytest.approx(-math.log(np.finfo(float).eps))


def test_float32_scores_give_an_exact_area_for_many_rows():
    random = np.random.default_rng(3)
    has_label = random.random(50_000) < 0.5
    scores = random.random(50_000).astype(np.float32)
    ours = metrics.roc_auc(has_label.astype(int), np.stack([1 - scores, scores], axis=1))
    assert ours == pytest.approx(reference.roc_auc_score(has_label, scores), abs=TOLERANCE)


# ---------------------------------------------------------------------------------------------- 0/0


def test_what_is_0_of_0_has_no_value_and_is_left_out_of_means():
    targets = np.array([0, 0, 1, 1])
    decided = np.array([0, 0, 1, 3])  # label 2: neither true nor decided; label 3: decided, never true
    counts = metrics.LabelCounts.of(targets, decided, 4)
    assert np.isnan(counts.precision()).tolist() == [False, False, True, False]
    assert np.isnan(counts.recall()).tolist() == [False, False, True, True]
    assert np.isnan(counts.f1()).tolist() == [False, False, True, False]
    assert metrics.f1_macro(targets, decided) == pytest.approx((1 + 2 / 3 + 0) / 3)
    nothing = np.zeros((3, 2))
    assert metrics.f1_macro(nothing, nothing) is None
    assert metrics.f1_micro(nothing, nothing) is None
    assert metrics.accuracy(nothing, nothing) == 1.0


def test_a_true_label_that_is_never_decided_has_an_f1_of_0():
    assert metrics.f1_macro(np.array([0, 1]), np.array([0, 0])) == pytest.approx((2 / 3 + 0) / 2)


def test_a_label_with_rows_of_one_kind_has_no_area_and_is_left_out_of_the_mean():
    targets = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 1]])
    scores = np.array([[0.9, 0.3, 0.5], [0.1, 0.2, 0.6], [0.8, 0.1, 0.7]])
    roc_auc, average_precision = metrics.areas_per_label(targets, scores)
    assert np.isnan(roc_auc).tolist() == np.isnan(average_precision).tolist() == [False, True, True]
    assert metrics.roc_auc_macro(targets, scores) == 1.0
    assert metrics.roc_auc(np.array([1, 1]), np.array([[0.5, 0.5], [0.2, 0.8]])) is None


def test_no_rows_have_no_metrics():
    targets, scores = np.empty(0, dtype=np.int64), np.empty((0, 2))
    for name, metric in metrics.REGISTERED["single_label"].items():
        second = scores if metric.uses == "scores" else targets
        assert metric.function(targets, second) is None, name


# ---------------------------------------------------------------------------------------------- the list of metrics


def test_each_task_lists_its_metrics_and_their_direction():
    assert set(metrics.METRICS) == {"single_label", "multi_label"}
    for names in metrics.METRICS.values():
        assert {"accuracy", "log_loss", "f1_macro", "f1_micro", "roc_auc", "average_precision"} <= set(names)
        assert [name for name, larger in names.items() if not larger] == [n for n in names if n.endswith("_loss")]
    assert "hamming_loss" not in metrics.METRICS["single_label"]


def test_metrics_need_no_torch():
    code = "import sys, headrace.metrics, headrace.intervals, headrace.evaluate, headrace.report; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# ---------------------------------------------------------------------------------------------- intervals


def test_wilson_equals_the_published_formula_and_covers_95_percent():
    low, high = intervals.wilson(81, 263)  # Newcombe (1998), Statistics in Medicine 17, table I
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert intervals.wilson(0, 20) == (0.0, pytest.approx(0.1611, abs=1e-4))
    assert intervals.wilson(20, 20)[1] == 1.0
    assert intervals.wilson(0, 0) is None
    n, spans = 60, [intervals.wilson(successes, 60) for successes in range(61)]
    coverage = []
    for truth in np.linspace(0.05, 0.95, 91):
        chances = [math.comb(n, k) * truth**k * (1 - truth) ** (n - k) for k in range(n + 1)]
        coverage.append(sum(p for p, (low, high) in zip(chances, spans, strict=True) if low <= truth <= high))
    assert 0.945 < np.mean(coverage) < 0.96
    assert min(coverage) > 0.91


def test_each_draw_has_as_many_rows_as_the_data_and_depends_on_the_seed_alone():
    first, again, other = (
        np.concatenate(list(intervals.resampled_rows(50, resamples=130, seed=seed)), axis=1) for seed in (1, 1, 2)
    )
    assert first.shape == (50, 130)
    assert (first == again).all()
    assert (first != other).any()
    counts = intervals.counts_of(first)
    assert (counts.sum(axis=0) == 50).all()
    assert (counts[:, 7] == np.bincount(first[:, 7], minlength=50)).all()


@pytest.mark.parametrize("make", [lambda: single(2), lambda: single(4), multi])
def test_counting_rows_gives_what_taking_them_gives(make):
    targets, scores = make()
    decided = metrics.decisions(scores, multi_label=targets.ndim == 2)
    counted = intervals.resample(targets, scores, decided, resamples=70, seed=5)
    task = "multi_label" if targets.ndim == 2 else "single_label"
    compared = 0
    for name, metric in metrics.REGISTERED[task].items():
        if name == "accuracy":
            continue  # a share of rows: Wilson's
        second = scores if metric.uses == "scores" else decided
        taken = intervals.resample_metric(metric.function, targets, second, resamples=70, seed=5)
        assert counted.metrics[name] == pytest.approx(taken, abs=1e-6), name
        compared += 1
    assert compared >= 7


def test_the_area_of_a_resample_is_scikit_learns_on_the_rows_drawn():
    targets, scores = single(2, n_rows=300)
    drawn = next(intervals.resampled_rows(300, resamples=40, seed=9))
    ranking = metrics.Ranking.of(targets == 1, scores[:, 1])
    roc_auc, average_precision = ranking.areas(intervals.counts_of(drawn))
    for column, rows in enumerate(drawn.T):
        expected = reference.roc_auc_score(targets[rows], scores[rows, 1])
        assert roc_auc[column] == pytest.approx(expected, abs=1e-6)
        expected = reference.average_precision_score(targets[rows], scores[rows, 1])
        assert average_precision[column] == pytest.approx(expected, abs=1e-6)


def test_a_resample_without_one_kind_of_row_has_no_area():
    ranking = metrics.Ranking.of(np.array([True, False]), np.array([0.8, 0.3]))
    roc_auc, average_precision = ranking.areas(np.array([[2, 1, 0], [0, 1, 2]], dtype=np.float32))
    assert np.isnan(roc_auc).tolist() == np.isnan(average_precision).tolist() == [True, False, True]
    assert roc_auc[1] == average_precision[1] == 1.0


def test_the_bootstrap_interval_of_the_roc_auc_covers_the_truth_about_95_times_of_100():
    distance = 1.0  # two normal distributions one apart: the true area is Phi(1 / sqrt 2)
    truth = 0.5 * (1 + math.erf(distance / 2))
    random = np.random.default_rng(11)
    n_rows, covered, n_trials = 200, 0, 300
    for trial in range(n_trials):
        has_label = random.random(n_rows) < 0.4
        scores = random.normal(size=n_rows) + distance * has_label
        ranking = metrics.Ranking.of(has_label, scores)
        drawn = intervals.resampled_rows(n_rows, resamples=200, seed=trial)
        low, high = intervals.percentiles(np.concatenate([ranking.areas(intervals.counts_of(d))[0] for d in drawn]))
        covered += low <= truth <= high
    assert 0.90 <= covered / n_trials <= 0.985


def test_percentiles_are_none_where_they_would_say_nothing():
    assert intervals.percentiles(np.array([np.nan, np.nan, 0.5])) is None
    assert intervals.percentiles(np.full(100, 0.7)) is None
    assert intervals.percentiles(np.empty(0)) is None
    assert intervals.percentiles(np.arange(101.0)) == (2.5, 97.5)


def test_many_labels_get_fewer_ranked_resamples_and_in_the_end_none():
    assert intervals.ranked_resamples(25_000, 6, 1000) == 1000
    assert 200 <= intervals.ranked_resamples(100_000, 100, 1000) < 1000
    assert intervals.ranked_resamples(1_000_000, 1000, 1000) == 0


def test_resampling_many_labels_in_blocks_counts_each_label_once():
    targets, scores = single(150, n_rows=600, seed=2)
    decided = metrics.decisions(scores, multi_label=False)
    counted = intervals.resample(targets, scores, decided, resamples=3, seed=0)
    taken = intervals.resample_metric(metrics.f1_macro, targets, decided, resamples=3, seed=0)
    assert counted.f1.shape == (3, 150)
    assert counted.metrics["f1_macro"] == pytest.approx(taken, abs=1e-9)


@pytest.mark.parametrize(
    ("threshold", "n_labels"), [(0.5, 2), (np.array([0.5, 0.5]), 2), (np.array([np.nan, np.nan]), 2), (0.5, 3)]
)
def test_a_threshold_that_does_not_suit_single_labels_is_refused(threshold: object, n_labels: int) -> None:
    with pytest.raises(ValueError, match="is no threshold of one of two labels"):
        metrics.decisions(np.full((4, n_labels), 1 / n_labels), multi_label=False, threshold=threshold)
