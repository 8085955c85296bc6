"""An Evaluation: what it holds, what it says of thin data, how it shows itself, and what it refuses."""

import json
import math
import time
from html.parser import HTMLParser

import numpy as np
import pytest

from headrace import metrics
from headrace.data.examples import LabelSet
from headrace.errors import DataError, RecipeError
from headrace.evaluate import METRICS, Evaluation, Interval, evaluate, monitor_value

THREE = LabelSet(("bad", "fair", "good"))


def single(labels=THREE, *, n_rows=300, seed=0, **options):
    random = np.random.default_rng(seed)
    targets = random.integers(0, len(labels), n_rows)
    scores = random.dirichlet(np.ones(len(labels)), n_rows)
    scores[np.arange(n_rows), targets] += 0.4
    scores /= scores.sum(axis=1, keepdims=True)
    evaluation = evaluate(targets, scores, labels=labels, task="single_label", split="test", resamples=100, **options)
    return targets, scores, evaluation


def multi(targets, *, names=None, seed=0, **options):
    scores = np.clip(0.4 * targets + 0.6 * np.random.default_rng(seed).random(targets.shape), 0, 1)
    labels = LabelSet(names or tuple("abcdefgh"[: targets.shape[1]]))
    options = {"resamples": 100, **options}
    return scores, evaluate(targets, scores, labels=labels, task="multi_label", split="valid", **options)


def test_every_value_stands_inside_its_interval_and_names_the_method():
    targets, scores, evaluation = single()
    assert list(evaluation.metrics) == [
        "accuracy",
        "log_loss",
        "f1_macro",
        "f1_micro",
        "roc_auc_macro",
        "average_precision_macro",
    ]
    for name, found in evaluation.metrics.items():
        assert found.low < found.value < found.high, name
        methods = {"accuracy": "wilson", "f1_micro": "wilson", "f1_macro": "bootstrap", "roc_auc_macro": "delong"}
        assert found.method == methods.get(name, "hall")
    assert evaluation.metrics["accuracy"].value == np.mean(scores.argmax(axis=1) == targets)
    assert evaluation.n_rows == 300
    assert evaluation.notes == ()
    assert sum(map(sum, evaluation.confusion)) == 300
    good = evaluation.per_label["good"]
    assert good["support"] == int((targets == 2).sum())
    assert good["n_predicted"] == int((scores.argmax(axis=1) == 2).sum())
    assert good["precision"].method == good["recall"].method == "wilson"
    assert [good[name].method for name in ("f1", "roc_auc", "average_precision")] == ["bootstrap", "delong", "hall"]


def test_two_labels_are_ranked_by_the_second():
    targets, scores, evaluation = single(LabelSet(("neg", "pos")))
    assert "roc_auc_macro" not in evaluation.metrics
    assert evaluation.metrics["roc_auc"].value == metrics.areas_per_label(targets, scores)[0][1]
    assert evaluation.metric("roc_auc_macro") == evaluation.metrics["roc_auc"]
    with pytest.raises(RecipeError, match=r"no metric named 'acuracy'[\s\S]*did you mean 'accuracy'"):
        evaluation.metric("acuracy")


def test_the_seed_alone_decides_the_bootstrap():
    assert single(seed=1)[2] == single(seed=1)[2]
    labels = LabelSet(("n", "p"))
    targets, scores, first = single(labels)
    other = evaluate(targets, scores, labels=labels, task="single_label", split="test", resamples=100, seed=1)
    assert other.metrics["f1_macro"].value == first.metrics["f1_macro"].value
    assert other.metrics["f1_macro"].low != first.metrics["f1_macro"].low
    assert other.metrics["roc_auc"] == first.metrics["roc_auc"]  # is not resampled


def test_multi_label_reports_means_over_labels_and_no_confusion_matrix():
    targets = np.random.default_rng(1).random((400, 3)) < 0.3
    _, evaluation = multi(targets)
    assert evaluation.confusion is None
    assert evaluation.threshold == 0.5
    assert list(evaluation.metrics)[:3] == ["accuracy", "hamming_loss", "log_loss"]
    per_label = [evaluation.per_label[name]["roc_auc"].value for name in "abc"]
    assert evaluation.metrics["roc_auc_macro"].value == pytest.approx(np.mean(per_label))
    assert evaluation.metric("roc_auc") == evaluation.metrics["roc_auc_macro"]
    assert evaluation.metrics["roc_auc_macro"].note is None


def test_a_threshold_per_label_is_used_and_kept():
    targets = np.random.default_rng(1).random((200, 2)) < 0.3
    scores, evaluation = multi(targets, threshold=np.array([0.3, 0.9]))
    assert evaluation.threshold == (0.3, 0.9)
    decided = scores >= np.array([0.3, 0.9])
    assert [evaluation.per_label[name]["n_predicted"] for name in "ab"] == decided.sum(axis=0).tolist()
    assert evaluation.metrics["hamming_loss"].value == np.mean(decided != targets)


def test_a_label_with_rows_of_one_kind_has_no_area_and_says_so():
    targets = np.random.default_rng(2).random((300, 3)) < 0.4
    targets[:, 1], targets[:, 2] = False, True
    scores, evaluation = multi(targets)
    none, every = evaluation.per_label["b"], evaluation.per_label["c"]
    assert none["roc_auc"] == none["average_precision"] == Interval(None, note="no row has the label")
    assert none["recall"] == Interval(None, note="no row has the label")
    assert every["roc_auc"] == Interval(None, note="every row has the label")
    assert evaluation.notes == (
        "no row has the label 'b': it has no ROC AUC and no average precision; their means leave it out",
        "every row has the label 'c': it has no ROC AUC and no average precision; their means leave it out",
    )
    assert evaluation.metrics["roc_auc_macro"].value == metrics.roc_auc(targets[:, :1], scores[:, :1])


def test_under_20_rows_of_a_kind_a_label_has_values_without_intervals():
    targets = np.zeros((400, 3), dtype=bool)
    targets[:100, 0], targets[:19, 1], targets[:381, 2] = True, True, True
    _, evaluation = multi(targets)
    for name, kind in (("b", "with"), ("c", "without")):
        found = evaluation.per_label[name]["roc_auc"]
        assert found.value is not None
        assert found.low is found.high is None
        assert found.note == f"no interval: 19 rows {kind} the label, 20 are needed"
    assert evaluation.notes == (
        "no interval for recall, F1, ROC AUC and average precision of labels that fewer than 20 rows have: 'b' (19)",
        "no interval for ROC AUC and average precision of labels that fewer than 20 rows lack: 'c' (19)",
    )
    assert evaluation.per_label["a"]["roc_auc"].low is not None
    macro = evaluation.metrics["roc_auc_macro"]
    assert macro.low < macro.value < macro.high
    assert macro.note == "fewer than 20 rows with or without the label 'b' (19), 'c' (19): the interval is approximate"


def test_under_10_rows_of_a_kind_the_mean_has_no_interval_either():
    targets = np.zeros((400, 2), dtype=bool)
    targets[:100, 0], targets[:9, 1] = True, True
    _, evaluation = multi(targets)
    macro = evaluation.metrics["roc_auc_macro"]
    assert macro.value is not None
    assert macro.low is None
    assert macro.note == "fewer than 20 rows with or without the label 'b' (9): no interval"


def test_a_label_that_is_neither_true_nor_predicted_has_no_f1_and_says_why():
    targets = np.zeros((100, 2), dtype=bool)
    targets[:40, 0] = True
    _, evaluation = multi(targets, threshold=0.61)
    empty = evaluation.per_label["b"]
    assert empty["f1"] == Interval(None, note="no row has the label and it was never predicted")
    assert empty["precision"] == Interval(None, note="the label was never predicted")
    assert evaluation.metrics["f1_macro"].value == evaluation.per_label["a"]["f1"].value


def test_metrics_without_a_value_say_so_and_break_nothing():
    targets = np.zeros((50, 2), dtype=bool)
    _, evaluation = multi(targets, threshold=1.0)
    assert evaluation.metrics["f1_macro"].value is None
    assert evaluation.metrics["roc_auc_macro"].value is None
    assert "none" in str(evaluation)
    assert "none" in evaluation._repr_html_()
    json.dumps(evaluation.as_dict(), allow_nan=False)


def test_the_intervals_of_25000_rows_from_1000_resamples_take_seconds():
    random = np.random.default_rng(0)
    targets, scores = random.integers(0, 2, 25_000), random.dirichlet(np.ones(2), 25_000)
    before = time.process_time()
    found = evaluate(targets, scores, labels=LabelSet(("bad", "good")), task="single_label", split="test")
    assert time.process_time() - before < 10  # about half a second; row by row it would be minutes
    assert found.metrics["f1_macro"].method == "bootstrap"


def test_few_rows_and_constant_resamples_give_no_bootstrap_interval():
    labels = LabelSet(("n", "p"))
    targets = np.array([0, 1] * 5)
    scores = np.eye(2)[targets] * 0.8 + 0.1
    few = evaluate(targets, scores, labels=labels, task="single_label", split="test")
    assert few.metrics["log_loss"].note == "no interval from fewer than 20 rows"
    assert few.metrics["accuracy"].low == pytest.approx(0.7225, abs=1e-4)  # Wilson's needs no such number
    assert str(few).count("no interval from fewer than 20 rows") == 1
    assert "note: log_loss; f1_macro: no interval from fewer than 20 rows" in str(few)
    perfect = evaluate(np.tile(targets, 8), np.tile(scores, (8, 1)), labels=labels, task="single_label", split="test")
    assert perfect.metrics["roc_auc"].value == 1.0
    assert perfect.metrics["roc_auc"].low is None
    assert perfect.metrics["roc_auc"].note.startswith("no interval: no row is ranked better or worse than another")
    assert perfect.metrics["f1_macro"].note == "no interval: all resamples gave the same value"


def test_a_new_metric_is_one_function_and_gets_an_interval(monkeypatch):
    for registry in (metrics.REGISTERED, metrics.METRICS):
        for task, names in list(registry.items()):
            monkeypatch.setitem(registry, task, dict(names))

    @metrics.metric(uses="scores", larger_is_better=False, tasks=("single_label",))
    def brier(targets, scores):
        return float(((scores - np.eye(scores.shape[1])[targets]) ** 2).sum(axis=1).mean())

    targets, scores, evaluation = single()
    found = evaluation.metrics["brier"]
    assert found.low < found.value < found.high
    assert monitor_value(targets, scores, "brier") == found.value
    assert metrics.METRICS["single_label"]["brier"] is False
    assert "brier" not in metrics.METRICS["multi_label"]


# ---------------------------------------------------------------------------------------------- shown and stored


def test_the_dictionary_has_the_form_of_the_report_and_comes_back_equal():
    for evaluation in (single()[2], multi(np.random.default_rng(1).random((60, 2)) < 0.2, threshold=[0.2, 0.5])[1]):
        stored = json.loads(json.dumps(evaluation.as_dict(), allow_nan=False))
        assert set(stored["metrics"]["accuracy"]) >= {"value", "low", "high"}
        assert set(stored["labels"][evaluation.labels[0]]) == {
            "precision",
            "recall",
            "f1",
            "support",
            "n_predicted",
            "roc_auc",
            "average_precision",
        }
        assert Evaluation.from_dict({**stored, "timing": {"fit_s": 1.0}}) == evaluation
    confusion = single()[2].as_dict()["confusion_matrix"]
    assert confusion["labels"] == ["bad", "fair", "good"]
    assert (confusion["rows"], confusion["columns"]) == ("true", "predicted")


@pytest.mark.parametrize("broken", [{}, {"metrics": 3}, {"task": "t", "labels": {"a": {"f1": {"valeu": 1}}}}, []])
def test_what_is_no_evaluation_is_refused(broken):
    with pytest.raises(DataError) as caught:
        Evaluation.from_dict(broken)
    assert "this is not an evaluation" in caught.value.what
    assert "report.json" in caught.value.next


def test_the_text_is_a_table_whose_columns_line_up():
    evaluation = single()[2]
    lines = str(evaluation).splitlines()
    assert lines[0] == "test: 300 rows, single_label, 3 labels"
    table = lines[2:9]
    assert table[0].split() == ["metric", "value", "95", "%", "interval"]
    ends = {line.index(line.split()[1]) + len(line.split()[1]) for line in table}
    assert len(ends) == 1
    accuracy = evaluation.metrics["accuracy"]
    assert f"{accuracy.value:.4f}  {accuracy.low:.4f} to {accuracy.high:.4f}" in str(evaluation)


def test_the_notes_of_metrics_and_labels_are_shown():
    targets = np.zeros((400, 2), dtype=bool)
    targets[:100, 0], targets[:9, 1] = True, True
    _, evaluation = multi(targets)
    for shown in (str(evaluation), evaluation._repr_html_()):
        assert shown.count("note: roc_auc_macro; average_precision_macro: fewer than 20 rows") == 1
        assert shown.count("note: no interval for recall, F1, ROC AUC and average precision of labels") == 1


def test_an_interval_reads_as_a_number_with_its_span():
    assert str(Interval(0.91, 0.905, 0.915, method="wilson")) == "0.9100 (0.9050 to 0.9150)"
    assert str(Interval(0.5)) == "0.5000"
    assert str(Interval(None, note="no row has the label")) == "none (no row has the label)"


def test_the_notebook_table_escapes_label_names_and_split():
    hostile = "<img src=x onerror=alert(1)>"
    labels = LabelSet((hostile, "</td><script>", "ok"))
    targets, scores, _ = single(labels)
    evaluation = evaluate(targets, scores, labels=labels, task="single_label", split=hostile, resamples=20)
    found = set()

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.add(tag)

    Reader().feed(evaluation._repr_html_())
    assert found == {"p", "b", "table", "thead", "tbody", "tr", "th", "td"}


def test_very_many_labels_are_shown_in_part_and_stored_in_full():
    labels = LabelSet(tuple(f"label {i}" for i in range(60)))
    _, _, evaluation = single(labels, n_rows=600)
    assert "… and 20 more labels" in str(evaluation)
    assert "… and 20 more labels" in evaluation._repr_html_()
    assert len(evaluation.as_dict()["labels"]) == 60


# ---------------------------------------------------------------------------------------------- refused


def call(targets, scores, *, task="single_label", labels=THREE, **options):
    return evaluate(np.array(targets), np.array(scores), labels=labels, task=task, split="test", **options)


def test_no_rows_are_refused():
    with pytest.raises(DataError) as caught:
        call(np.empty(0, dtype=int), np.empty((0, 3)))
    assert caught.value.what == "there are no rows to evaluate"
    assert caught.value.next == "give at least one row with labels"


def test_shapes_that_do_not_fit_are_refused():
    for targets, scores, task in (
        ([0, 1], [[0.5, 0.5, 0.0]], "single_label"),
        ([0], [[0.5, 0.5]], "single_label"),
        ([0], [[0.5, 0.5, 0.0]], "multi_label"),
        ([[0, 1, 0]], [[0.5, 0.5, 0.0]], "single_label"),
    ):
        with pytest.raises(DataError, match=r"are not those of .* with 3 labels") as caught:
            call(targets, scores, task=task)
        assert caught.value.where == "targets, scores"


@pytest.mark.parametrize("bad", [math.nan, 1.5, -0.1, math.inf])
def test_scores_that_are_no_probabilities_are_refused_with_their_row(bad):
    with pytest.raises(DataError) as caught:
        call([0, 1], [[0.5, 0.5, 0.0], [0.1, bad, 0.2]])
    assert caught.value.what.startswith("1 of 2 rows have a score that is no number in [0, 1]")
    assert caught.value.where == "scores:1"
    assert "probabilities, not logits" in caught.value.next


def test_targets_that_name_no_label_are_refused():
    with pytest.raises(DataError, match="targets hold 3") as caught:
        call([0, 3], [[0.5, 0.5, 0.0]] * 2)
    assert caught.value.next == "give whole numbers from 0 to 2"
    with pytest.raises(DataError, match="targets hold 2") as caught:
        call([[0, 1, 2]], [[0.5, 0.5, 0.0]], task="multi_label")
    assert caught.value.next == "give 0 and 1"
    with pytest.raises(DataError, match="targets hold float64"):
        call([0.0, 1.0], [[0.5, 0.5, 0.0]] * 2)


def test_an_unknown_task_and_a_wrong_number_of_thresholds_are_refused():
    with pytest.raises(RecipeError, match="did you mean 'multi_label'"):
        call([0], [[0.5, 0.5, 0.0]], task="multi_lable")
    with pytest.raises(DataError, match="2 thresholds for 3 labels"):
        call([[0, 1, 1]], [[0.5, 0.5, 0.0]], task="multi_label", threshold=np.array([0.1, 0.2]))


# ---------------------------------------------------------------------------------------------- watched in training


@pytest.mark.parametrize("name", sorted(METRICS["single_label"]))
def test_the_watched_value_is_the_reported_one(name):
    targets, scores, evaluation = single()
    assert monitor_value(targets, scores, name) == evaluation.metric(name).value


def test_the_watched_value_obeys_the_threshold():
    targets = np.random.default_rng(1).random((200, 2)) < 0.3
    scores, evaluation = multi(targets, threshold=0.35)
    watched = monitor_value(targets, scores, "f1_macro", threshold=0.35)
    assert watched == evaluation.metrics["f1_macro"].value
    assert watched != monitor_value(targets, scores, "f1_macro")


def test_a_watched_value_that_the_rows_do_not_define_is_none():
    assert monitor_value(np.zeros(3, dtype=int), np.full((3, 2), 0.5), "roc_auc", task="single_label") is None
    assert monitor_value(np.zeros(0, dtype=int), np.empty((0, 2)), "accuracy") is None


def test_an_unknown_name_to_watch_is_refused_with_the_nearest():
    with pytest.raises(RecipeError) as caught:
        monitor_value(np.zeros(3, dtype=int), np.full((3, 2), 0.5), "f1-macro")
    assert caught.value.where == "fit.monitor"
    assert caught.value.next.startswith("did you mean 'f1_macro'?")
