"""The verdict between two classifiers, from scores and from the folders of finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import metrics
from headrace.compare import Comparison, compare, compare_runs, compare_scores
from headrace.compare.verdict import judged
from headrace.data.examples import LabelSet
from headrace.errors import DataError, RecipeError, RunError
from headrace.evaluate import evaluate
from headrace.evaluation import Interval
from headrace.intervals import resample_metric
from headrace.tables import write_rows

TWO = LabelSet(("bad", "good"))
THREE = LabelSet(("bad", "fair", "good"))


def pair(n_rows=2000, *, labels=TWO, strengths=(1.5, 1.5), seed=0, share=None):
    """Targets, and two classifiers' scores that share half of their noise."""
    random = np.random.default_rng(seed)
    n = len(labels)
    targets = random.integers(0, n, n_rows) if share is None else (np.arange(n_rows) < share * n_rows).astype(int)
    common = random.normal(size=(n_rows, n))
    found = []
    for strength in strengths:
        logits = 0.7 * (common + random.normal(size=(n_rows, n))) + strength * np.eye(n)[targets]
        e = np.exp(logits)
        found.append((e / e.sum(axis=1, keepdims=True)).astype(np.float32))
    return targets, found[0], found[1]


def tagged(n_rows=1500, *, names=("a", "b", "c"), strengths=(0.4, 0.4), seed=0, support=0.2):
    """Multi-label targets and two classifiers' scores."""
    random = np.random.default_rng(seed)
    targets = random.random((n_rows, len(names))) < support
    common = random.random(targets.shape)
    noise = [0.5 * common + 0.5 * random.random(targets.shape) for _ in strengths]
    scores = [(s * targets + (1 - s) * one).astype(np.float32) for s, one in zip(strengths, noise, strict=True)]
    return targets.astype(np.int64), scores[0], scores[1]


def verdict(*of, labels=TWO, task="single_label", names=("A", "B"), **options):
    return compare_scores(*of, labels=labels, task=task, names=names, **options)


# ---------------------------------------------------------------------------------------------------- two scores


def test_the_better_one_wins_in_plain_words():
    found = verdict(*pair(4000, strengths=(1.2, 1.7)))
    assert found.winner == "b"
    assert found.test == "mid-p McNemar"
    gain, low, high = (100 * x for x in (found.difference.value, found.difference.low, found.difference.high))
    assert found.sentence == f"B is better by {gain:.1f} points of accuracy, 95 % interval {low:.1f} to {high:.1f}"
    turned = verdict(*(pair(4000, strengths=(1.2, 1.7))[i] for i in (0, 2, 1)), names=("B", "A"))
    assert turned.winner == "a"
    assert turned.sentence == found.sentence
    assert turned.difference.value == -found.difference.value
    assert turned.p_value == found.p_value


def test_where_no_difference_can_be_told_the_sentence_says_how_many_rows_would():
    found = verdict(*pair(2000, strengths=(1.5, 1.53), seed=4))
    assert found.winner is None
    assert found.p_value > 0.05
    assert found.needed_rows > 4000
    assert found.sentence.startswith("no difference can be told on 2,000 rows; about ")
    told = int(found.sentence.split("about ")[1].split(" ")[0].replace(",", ""))
    assert found.needed_rows <= told < 1.1 * found.needed_rows
    assert " would be needed (" in found.sentence
    assert " is ahead by " in found.sentence


def test_equal_scores_are_told_to_be_equal():
    targets, scores, _ = pair(500)
    found = verdict(targets, scores, scores, whole=True)
    right = float((scores.argmax(axis=1) == targets).mean())
    assert found.winner is None
    assert found.needed_rows is None
    assert found.p_value == 1.0
    assert found.sentence == f"no difference can be told on 500 rows: both have the same accuracy ({right:.4f})"
    assert {other.winner for other in found.others} == {None}
    assert {other.p_value for other in found.others} == {1.0}


def test_a_loss_is_better_when_it_is_smaller():
    found = verdict(*pair(4000, strengths=(1.2, 1.7)), metric="log_loss")
    assert found.difference.value < 0
    assert found.winner == "b"
    assert found.test == "paired t"
    words = f"B is better by {-found.difference.value:.3f} of log loss, 95 % interval {-found.difference.high:.3f} to "
    assert found.sentence == f"{words}{-found.difference.low:.3f}"


def test_the_dictionary_has_the_form_of_the_report():
    shown = verdict(*pair()).as_dict()
    assert list(shown) == [
        *("metric", "a", "b", "difference", "p_value", "test", "n_rows", "winner", "needed_rows", "sentence")
    ]
    assert set(shown["a"]) == {"name", "value"}
    assert set(shown["difference"]) == {"value", "low", "high", "method"}
    json.dumps(shown, allow_nan=False)
    whole = verdict(*pair(), whole=True).as_dict(whole=True)
    assert [other["metric"] for other in whole["others"]] == ["log_loss", "f1_macro", "roc_auc", "average_precision"]
    assert list(whole["labels"]) == ["bad", "good"]


@pytest.mark.parametrize("metric", ["f1_macro", "average_precision_macro", "roc_auc_macro"])
def test_the_paired_bootstrap_takes_the_same_rows_for_both(metric):
    targets, a, b = pair(300, labels=THREE, seed=2)
    found = verdict(targets, a, b, labels=THREE, metric=metric, resamples=80, seed=5)
    known = metrics.REGISTERED["single_label"][metric]
    second = [one if known.uses == "scores" else one.argmax(axis=1) for one in (a, b)]
    drawn = [resample_metric(known.function, targets, one, resamples=80, seed=5) for one in second]
    assert (found.difference.low, found.difference.high) == pytest.approx(
        np.percentile(drawn[1] - drawn[0], [2.5, 97.5])
    )
    assert found.difference.value == pytest.approx(found.values[1] - found.values[0])
    assert found.test == "paired bootstrap"


def test_a_registered_metric_is_compared_without_further_ado(monkeypatch):
    for registry in (metrics.REGISTERED, metrics.METRICS):
        for task, names in list(registry.items()):
            monkeypatch.setitem(registry, task, dict(names))

    @metrics.metric(uses="scores", larger_is_better=False, tasks=("single_label",))
    def brier(targets, scores):
        return float(((scores - np.eye(scores.shape[1])[targets]) ** 2).sum(axis=1).mean())

    found = verdict(*pair(600, strengths=(0.8, 1.9)), metric="brier", resamples=100)
    assert found.winner == "b"
    assert found.sentence.startswith("B is better by 0.")
    assert " of brier, 95 % interval 0." in found.sentence


def test_two_labels_are_ranked_by_delong_and_the_mean_has_an_alias():
    targets, a, b = pair(1000, strengths=(1.0, 1.6))
    found = verdict(targets, a, b, metric="roc_auc_macro")
    assert (found.metric, found.test, found.winner) == ("roc_auc", "DeLong", "b")
    assert found.values == pytest.approx([metrics.roc_auc(targets, one) for one in (a, b)])
    assert "points of ROC AUC" in found.sentence


def test_multi_label_compares_the_mean_roc_auc_and_each_label_corrected():
    found = verdict(*tagged(strengths=(0.2, 0.3)), labels=LabelSet(("a", "b", "c")), task="multi_label", whole=True)
    assert (found.metric, found.test, found.winner) == ("roc_auc_macro", "paired bootstrap", "b")
    names = [other.metric for other in found.others]
    assert names == ["accuracy", "hamming_loss", "log_loss", "f1_macro", "f1_micro", "average_precision_macro"]
    tests = {other.metric: other.test for other in found.others}
    assert tests["f1_macro"] == tests["f1_micro"] == "paired bootstrap"
    assert tests["hamming_loss"] == tests["log_loss"] == "paired t"
    labels = list(found.per_label.values())
    assert {one.test for one in labels} == {"DeLong"}
    assert all(one.p_corrected >= one.p_value for one in labels)
    smallest = min(labels, key=lambda one: one.p_value)
    assert smallest.p_corrected == pytest.approx(3 * smallest.p_value)


def test_thresholds_decide_for_each_of_the_two():
    targets, a, _ = tagged()
    options = {"labels": LabelSet(("a", "b", "c")), "task": "multi_label", "metric": "f1_micro"}
    found = verdict(targets, a, a, threshold_a=0.5, threshold_b=np.array([0.45, 0.5, 0.55]), **options)
    decided = a >= np.array([0.45, 0.5, 0.55])
    assert found.values == pytest.approx([metrics.f1_micro(targets, a >= 0.5), metrics.f1_micro(targets, decided)])


def test_under_20_positives_there_is_no_interval_and_it_says_why():
    targets, a, b = pair(800, share=19 / 800, strengths=(0.5, 2.0))
    found = verdict(targets, a, b, metric="roc_auc", whole=True)
    assert found.difference.value is not None
    assert (found.difference.low, found.p_value, found.winner, found.needed_rows) == (None, None, None, None)
    assert found.difference.note == "no interval: 19 rows with the label 'good', 20 are needed"
    assert found.sentence.startswith("no verdict: ")
    assert found.sentence.endswith("no interval: 19 rows with the label 'good', 20 are needed")
    assert found.per_label["good"].p_value is None
    shares = {other.metric: other for other in found.others}
    assert shares["accuracy"].p_value is not None  # a share of all rows needs no positives


def test_a_difference_of_f1_needs_rows_with_each_label_and_labels_in_all():
    options = {"labels": LabelSet(("a", "b", "c")), "task": "multi_label"}
    targets, a, b = tagged()
    for n, is_told in ((9, False), (10, True)):
        targets[:, 1] = 0
        targets[:n, 1] = 1
        found = verdict(targets, a, b, metric="f1_macro", **options)
        assert (found.difference.low is not None) == is_told
        if not is_told:
            assert found.difference.note == "no interval: 9 rows with the label 'b', 10 are needed"
    targets[:, 1] = 0
    shy, bold = (np.where([False, True, False], np.minimum(one, 0.49), one) for one in (a, b))
    assert verdict(targets, shy, bold, metric="f1_macro", **options).difference.low is not None  # nobody speaks of it
    bold[:3, 1] = 0.9
    found = verdict(targets, shy, bold, metric="f1_macro", **options)
    assert found.difference.note == "no interval: 0 rows with the label 'b', 10 are needed"
    guessed = np.minimum(bold, 0.49)
    guessed[:3, 1] = 0.9
    found = verdict(targets, a, guessed, metric="f1_micro", **options)
    assert found.difference.note == "no interval: 3 labels given or predicted in all, 20 are needed"
    targets[:] = 0
    targets[:19, 0] = 1
    found = verdict(targets, a, b, metric="f1_micro", **options)
    assert found.difference.note == "no interval: 19 labels given or predicted in all, 20 are needed"
    targets[19, 0] = 1
    assert verdict(targets, a, b, metric="f1_micro", **options).difference.low is not None


def test_a_mean_over_labels_of_which_one_has_10_to_19_rows_is_called_approximate():
    options = {"labels": LabelSet(("a", "b", "c")), "task": "multi_label"}
    targets, a, b = tagged()
    for n, is_told in ((19, True), (20, False)):
        targets[:, 1] = 0
        targets[:n, 1] = 1
        for metric in ("roc_auc_macro", "average_precision_macro", "f1_macro"):
            found = verdict(targets, a, b, metric=metric, **options)
            assert found.difference.low is not None
            assert (found.difference.note or "").endswith("'b' (19): the interval is approximate") == is_told


def test_under_20_rows_there_is_no_verdict_at_all():
    found = verdict(*pair(19))
    assert found.p_value is None
    assert "no interval from fewer than 20 rows: there are 19" in found.sentence


def test_a_label_that_no_row_has_is_left_out_of_the_labels():
    targets, a, b = tagged()
    targets[:, 1] = 0
    found = verdict(targets, a, b, labels=LabelSet(("a", "b", "c")), task="multi_label", whole=True)
    assert found.per_label["b"].sentence == "no verdict: no row has the label 'b'"
    assert found.p_value is not None


def test_what_does_not_fit_is_refused():
    targets, a, b = pair(50)
    with pytest.raises(RecipeError, match="did you mean 'f1_macro'"):
        verdict(targets, a, b, metric="f1_makro")
    with pytest.raises(DataError, match="are not those of single_label"):
        verdict(targets, a, b[:40])
    with pytest.raises(DataError, match="no number in"):
        verdict(targets, a, b + 1)


def example(**changes):
    values: dict[str, Any] = {
        "metric": "accuracy",
        "names": ("A", "B"),
        "values": (0.9, 0.906),
        "difference": Interval(0.006, 0.002, 0.010, "tango"),
        "p_value": 0.004,
        "test": "mid-p McNemar",
        "n_rows": 2000,
        "winner": None,
        "needed_rows": 8750,
        "sentence": "",
    }
    return judged(Comparison(**{**values, **changes}))


def test_the_sentences_are_these():
    assert str(example()) == "B is better by 0.6 points of accuracy, 95 % interval 0.2 to 1.0"
    level = {"difference": Interval(0.006, -0.002, 0.014, "tango"), "p_value": 0.13}
    assert str(example(**level)) == (
        "no difference can be told on 2,000 rows; about 8,800 would be needed "
        "(B is ahead by 0.6 points of accuracy, 95 % interval -0.2 to 1.4)"
    )
    fine = {"difference": Interval(0.0006, 0.0002, 0.0010, "tango")}
    assert str(example(**fine)) == "B is better by 0.06 points of accuracy, 95 % interval 0.02 to 0.10"
    assert "more than 1,000,000,000 would be needed" in str(example(**level, needed_rows=3_000_000_000))


def test_the_winner_needs_the_test_and_the_interval():
    assert example(p_value=0.06).winner is None
    assert example(difference=Interval(0.006, -0.0001, 0.0121, "tango")).winner is None
    assert example().corrected(0.008).winner == "b"
    lost = example().corrected(0.08)
    assert lost.winner is None
    assert "after the correction for several comparisons" in lost.sentence
    assert lost.as_dict()["p_corrected"] == 0.08


# ---------------------------------------------------------------------------------------------------- finished runs


def write_run(folder: Path, targets, scores, *, labels=TWO, split="test", seed=13, fingerprint="f0", **changes) -> Path:
    """A run's folder as `fit` leaves it, as far as a comparison reads it."""
    multi_label = targets.ndim == 2
    task = "multi_label" if multi_label else "single_label"
    evaluation = evaluate(targets, scores, labels=labels, task=task, split=split, resamples=60)
    report = evaluation.as_dict() | {"data": {"fingerprints": {split: fingerprint}}, "recipe": {"seed": seed}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps({**report, **changes}), encoding="utf-8")
    decided = metrics.decisions(scores, multi_label=multi_label)

    def named(value):
        return [labels.names[i] for i in np.flatnonzero(value)] if multi_label else labels.names[int(value)]

    kind = list if multi_label else str
    columns = {"row": int, "label": kind, "predicted": kind, **{f"score_{name}": float for name in labels.names}}
    rows = [(i + 2, named(targets[i]), named(decided[i]), *map(float, scores[i])) for i in range(len(targets))]
    write_rows(folder / "predictions.parquet", columns, rows)
    return folder


def test_two_runs_stand_side_by_side_with_the_verdict_of_their_scores(tmp_path):
    targets, a, b = pair(1500, strengths=(1.2, 1.8))
    first, second = write_run(tmp_path / "old", targets, a), write_run(tmp_path / "new", targets, b)
    found = compare(first, str(second))
    assert [one.name for one in found.contestants] == ["old", "new"]
    assert found.verdicts[0].winner == "b"
    expected = verdict(targets, a, b, names=("old", "new"))
    assert found.verdicts[0].as_dict() == expected.as_dict()
    assert found.lines()[0] == expected.sentence
    assert "each run has one seed" in found.lines()[1]
    report = json.loads((first / "report.json").read_text())
    assert found.contestants[0].metrics["accuracy"] == Interval(**report["metrics"]["accuracy"])
    header, rows = found.table()
    assert header == ["metric", "old", "new"]
    assert [row[0] for row in rows] == ["accuracy", "log_loss", "f1_macro", "roc_auc", "average_precision"]
    label_header, labels = found.label_table()
    assert label_header[0] == "ROC AUC"
    assert [row[0] for row in labels] == ["bad", "good"]
    json.dumps(found.as_dict(), allow_nan=False)
    assert expected.sentence in str(found)


def test_multi_label_runs_are_read_back_as_they_were_written(tmp_path):
    labels = LabelSet(("a", "b", "c"))
    targets, a, b = tagged(strengths=(0.2, 0.35))
    runs = [write_run(tmp_path / n, targets, s, labels=labels) for n, s in (("one", a), ("two", b))]
    found = compare(*runs, metric="f1_micro")
    direct = verdict(targets, a, b, labels=labels, task="multi_label", names=("one", "two"), metric="f1_micro")
    assert found.verdicts[0].as_dict() == direct.as_dict()


def test_labels_in_another_order_are_put_in_order(tmp_path):
    targets, a, b = pair(600, labels=THREE, strengths=(1.0, 1.6))
    turned = LabelSet(("good", "bad", "fair"))
    place = np.array([1, 2, 0])  # of bad, fair, good among them
    other = np.empty_like(b)
    other[:, place] = b
    runs = [
        write_run(tmp_path / "one", targets, a, labels=THREE),
        write_run(tmp_path / "two", place[targets], other, labels=turned),
    ]
    found = compare(*runs).verdicts[0]
    assert found.as_dict() == verdict(targets, a, b, labels=THREE, names=("one", "two")).as_dict()


def test_runs_that_decided_with_their_own_thresholds_are_judged_by_these(tmp_path):
    labels = LabelSet(("a", "b", "c"))
    targets, a, _ = tagged()
    one = write_run(tmp_path / "one", targets, a, labels=labels)
    two = write_run(tmp_path / "two", targets, a, labels=labels)
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(two / "predictions.parquet")
    place = table.column_names.index("predicted")
    nothing = pa.array([[]] * len(targets), type=pa.list_(pa.string()))
    pq.write_table(table.set_column(place, "predicted", nothing), two / "predictions.parquet")
    found = compare(one, two, metric="f1_micro").verdicts[0]
    assert found.values == (metrics.f1_micro(targets, a >= 0.5), 0.0)
    assert found.winner == "a"


def test_three_runs_are_corrected_and_the_best_counts_all_pairs(tmp_path):
    targets, a, b = pair(1500, strengths=(1.4, 1.5), seed=3)
    c = pair(1500, strengths=(1.4, 1.9), seed=3)[2]
    runs = [write_run(tmp_path / name, targets, s) for name, s in (("x", a), ("y", b), ("z", c))]
    first = compare_runs(runs)
    assert [v.names for v in first.verdicts] == [("x", "y"), ("x", "z")]
    raw = sorted(v.p_value for v in first.verdicts)
    assert sorted(v.p_corrected for v in first.verdicts) == pytest.approx([2 * raw[0], max(raw[1], 2 * raw[0])])
    best = compare_runs(runs, against="best")
    assert [v.names for v in best.verdicts] == [("z", "x"), ("z", "y")]
    raw = sorted(v.p_value for v in best.verdicts)
    assert min(v.p_corrected for v in best.verdicts) == pytest.approx(3 * raw[0])
    assert "corrected for 3 comparisons" in best.notes[-1]
    assert best.lines()[0].startswith("x against z: ")
    assert best.label_table() is None


def test_runs_of_one_name_are_called_by_more_of_their_path(tmp_path):
    targets, a, b = pair(100)
    runs = [write_run(tmp_path / name / "run", targets, s) for name, s in (("old", a), ("new", b))]
    assert [one.name for one in compare(*runs).contestants] == ["old/run", "new/run"]


# ---------------------------------------------------------------------------------------------------- several seeds


def several(folder: Path, targets, strength, *, seeds=(13, 14, 15), spread=0.05, listed=True) -> Path:
    """A folder of runs with several seeds: rows are hard for all of them, and each run is a little lucky or not."""
    hard = np.random.default_rng(99).normal(size=len(targets))
    for seed in seeds:
        random = np.random.default_rng(seed + int(1000 * strength))
        luck = spread * random.normal()
        margin = strength + luck + 0.8 * hard + 0.6 * random.normal(size=len(targets))
        second = 1 / (1 + np.exp(-np.where(targets == 1, margin, -margin)))
        scores = np.stack([1 - second, second], axis=1).astype(np.float32)
        write_run(folder / f"seed-{seed}", targets, scores, seed=seed)
    if listed:
        (folder / "seeds.json").write_text(json.dumps({"seeds": list(seeds), "best": seeds[0], "by": "accuracy"}))
    return folder


def test_a_folder_of_seeds_is_one_contestant_with_mean_and_spread(tmp_path):
    targets = np.random.default_rng(0).integers(0, 2, 1200)
    a, b = several(tmp_path / "a", targets, 0.9), several(tmp_path / "b", targets, 1.6, listed=False)
    found = compare(a, b)
    one = found.contestants[0]
    values = [
        json.loads((a / f"seed-{s}" / "report.json").read_text())["metrics"]["accuracy"]["value"] for s in (13, 14, 15)
    ]
    assert one.seeds == (13, 14, 15)
    assert one.metrics["accuracy"].value == pytest.approx(np.mean(values))
    assert one.spread["accuracy"] == pytest.approx(np.std(values, ddof=1))
    assert one.values["accuracy"] == pytest.approx(values)
    assert (found.verdicts[0].test, found.verdicts[0].winner) == ("t over rows and seeds", "b")
    assert "fewer than 5 seeds of a, b" in found.notes[0]
    assert f"± {one.spread['accuracy']:.4f}" in found.table()[1][0][1]
    shown = found.as_dict()["runs"][0]
    assert shown["spread"]["accuracy"] == one.spread["accuracy"]
    json.dumps(found.as_dict(), allow_nan=False)


def test_the_luck_of_the_seeds_widens_the_interval(tmp_path):
    targets = np.random.default_rng(0).integers(0, 2, 1200)
    steady = compare(several(tmp_path / "a", targets, 1.2), several(tmp_path / "b", targets, 1.3)).verdicts[0]
    lucky = compare(
        several(tmp_path / "c", targets, 1.2, spread=0.6), several(tmp_path / "d", targets, 1.3, spread=0.6)
    ).verdicts[0]
    widths = [one.difference.high - one.difference.low for one in (steady, lucky)]
    assert widths[1] > 2 * widths[0]


def test_one_run_against_several_seeds_says_what_it_stands_for(tmp_path):
    targets = np.random.default_rng(0).integers(0, 2, 900)
    folder = several(tmp_path / "many", targets, 1.3)
    found = compare(folder / "seed-13", folder)
    assert found.verdicts[0].test == "t over rows and seeds"
    assert "seed-13 has one seed: the verdict is about that run, not about its recipe" in found.notes


def test_a_seed_that_is_not_finished_is_an_error(tmp_path):
    targets = np.random.default_rng(0).integers(0, 2, 100)
    a, b = several(tmp_path / "a", targets, 1.0), several(tmp_path / "b", targets, 1.0)
    (b / "seed-14" / "report.json").unlink()
    with pytest.raises(RunError, match=r"there is no finished run in .*seed-14"):
        compare(a, b)
    (b / "seeds.json").write_text("{}")
    with pytest.raises(RunError, match=r"seeds\.json cannot be read: KeyError"):
        compare(a, b)


# ---------------------------------------------------------------------------------------------------- refused


def test_runs_on_other_rows_are_refused(tmp_path):
    targets, a, b = pair(200)
    one = write_run(tmp_path / "one", targets, a)
    with pytest.raises(DataError, match="were not scored on the same rows") as caught:
        compare(one, write_run(tmp_path / "two", targets, b, fingerprint="f1"))
    assert "data.test" in caught.value.next
    with pytest.raises(DataError, match="were not scored on the same rows"):
        compare(one, write_run(tmp_path / "three", 1 - targets, b))  # equal fingerprints, other labels
    valid = write_run(tmp_path / "four", targets, b, split="valid", fingerprint="f2")
    with pytest.raises(DataError, match="200 test rows and 200 valid rows") as caught:
        compare(one, valid)
    assert "drawn by the run's seed" in caught.value.next


def test_runs_with_other_labels_are_refused(tmp_path):
    targets, a, b = pair(200)
    one = write_run(tmp_path / "one", targets, a)
    with pytest.raises(DataError, match="not sort into the same labels: only one has 'bad'"):
        compare(one, write_run(tmp_path / "two", targets, b, labels=LabelSet(("good", "worse"))))


def test_what_is_no_run_is_refused_with_what_to_give(tmp_path):
    targets, a, b = pair(60)
    one, two = write_run(tmp_path / "one", targets, a), write_run(tmp_path / "two", targets, b)
    with pytest.raises(RunError, match="there is no finished run in"):
        compare(one, tmp_path / "nowhere")
    (two / "bundle").mkdir()
    with pytest.raises(RunError) as caught:
        compare(one, two / "bundle")
    assert caught.value.next == f"give the run's folder: {two}"
    with pytest.raises(RunError, match="1 run is no comparison"):
        compare(one)
    with pytest.raises(RecipeError, match="did you mean 'best'"):
        compare(one, two, against="bests")
    (two / "predictions.parquet").write_bytes(b"no parquet")
    with pytest.raises(RunError, match="the predictions cannot be read"):
        compare(one, two)


def test_a_report_and_predictions_that_do_not_belong_together_are_refused(tmp_path):
    targets, a, b = pair(60)
    one, two = write_run(tmp_path / "one", targets, a), write_run(tmp_path / "two", targets, b)
    write_run(tmp_path / "three", targets[:50], b[:50])
    (two / "predictions.parquet").write_bytes((tmp_path / "three" / "predictions.parquet").read_bytes())
    with pytest.raises(RunError, match="50 rows where the report has 60"):
        compare(one, two)
    other = write_run(tmp_path / "four", targets, b, labels=LabelSet(("bad", "nice")))
    (two / "predictions.parquet").write_bytes((other / "predictions.parquet").read_bytes())
    with pytest.raises(RunError, match="no column 'score_good'"):
        compare(one, two)
    with pytest.raises(RunError, match="does not say on which rows"):
        compare(one, write_run(tmp_path / "five", targets, b, data={}))


def test_language_models_are_told_to_compare_their_perplexity(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps({"task": "language_model", "metrics": {}}))
    with pytest.raises(RunError, match="no predictions by row") as caught:
        compare_runs([tmp_path / "a", tmp_path / "b"])
    assert caught.value.next is not None
    assert "--force" not in caught.value.next
