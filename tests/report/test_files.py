"""report.json and errors.csv: their form, the most confident mistakes, and texts that are no formulas (X7)."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from headrace.data.examples import Examples, LabelSet
from headrace.errors import RunError
from headrace.evaluate import Evaluation, evaluate
from headrace.report import error_rows, mistakes, versions, write_errors, write_report

LABELS = LabelSet(("neg", "pos"))


def examples(texts, pairs=None):
    columns = {"text": texts, "row": list(range(2, len(texts) + 2))} | ({"pair": pairs} if pairs else {})
    return Examples(pa.table(columns), np.arange(len(texts)), "some.csv", "0" * 64)


def an_evaluation():
    targets = np.random.default_rng(0).integers(0, 2, 80)
    scores = np.random.default_rng(1).dirichlet([1, 1], 80)
    return evaluate(targets, scores, labels=LABELS, task="single_label", split="test", resamples=50)


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def report_of(folder, **changed):
    parts = {
        "evaluation": an_evaluation(),
        "timing": {"fit_s": 1.5, "train_texts_per_s": np.float32(20.0), "peak_memory_bytes": np.int64(1 << 30)},
        "data": {"train": {"source": Path("a.csv"), "n_rows": 80}},
        "recipe": {"task": "single_label"},
        "versions": {"python": "3"},
        "findings": ["one"],
    }
    return write_report(folder, **{**parts, **changed})


def test_the_report_has_the_parts_that_the_design_names(tmp_path):
    path = report_of(tmp_path / "run")
    assert path == tmp_path / "run" / "report.json"
    report = json.loads(path.read_text("utf-8"))
    assert {"metrics", "labels", "split", "timing", "recipe", "data", "versions", "findings"} <= set(report)
    assert {"value", "low", "high"} <= set(report["metrics"]["accuracy"])
    assert report["split"] == "test"
    assert set(report["labels"]) == {"neg", "pos"}
    assert report["timing"] == {"fit_s": 1.5, "train_texts_per_s": 20.0, "peak_memory_bytes": 1 << 30}
    assert report["data"]["train"]["source"] == "a.csv"
    assert report["findings"] == ["one"]


def test_the_evaluation_comes_back_from_the_report(tmp_path):
    path = report_of(tmp_path)
    assert Evaluation.from_dict(json.loads(path.read_text("utf-8"))) == an_evaluation()


def test_a_figure_that_is_not_finite_is_null(tmp_path):
    path = report_of(
        tmp_path, timing={"fit_s": math.nan, "curve": (1.0, np.inf), "by_epoch": np.array([1.0, math.nan])}
    )
    assert json.loads(path.read_text())["timing"] == {"fit_s": None, "curve": [1.0, None], "by_epoch": [1.0, None]}


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    before = report_of(tmp_path).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headrace.files.os.fsync", full)
    with pytest.raises(RunError, match=r"cannot write report\.json: No space left on device"):
        report_of(tmp_path, findings=["two"])
    assert (tmp_path / "report.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_versions_name_what_numbers_depend_on():
    found = versions()
    assert {"python", "headrace", "torch", "transformers", "lightning", "tokenizers", "platform", "cpu"} <= set(found)
    assert found["cpu"]
    assert found["n_cores"] >= 1
    json.dumps(found)


def test_single_label_mistakes_come_by_the_score_of_the_wrong_answer():
    targets = np.array([0, 0, 1, 1, 0])
    scores = np.array([[0.9, 0.1], [0.3, 0.7], [0.95, 0.05], [0.2, 0.8], [0.3, 0.7]])
    assert mistakes(targets, scores, task="single_label").tolist() == [2, 1, 4]
    assert mistakes(targets, scores, task="single_label", most=1).tolist() == [2]
    assert mistakes(targets, scores, task="single_label").dtype == np.int64


def test_multi_label_mistakes_come_by_the_farthest_wrong_score_of_the_row():
    targets = np.array([[1, 0], [0, 0], [1, 1], [0, 0]])
    scores = np.array([[0.4, 0.1], [0.49, 0.8], [0.9, 0.05], [0.4, 0.4]])
    assert mistakes(targets, scores, task="multi_label").tolist() == [2, 1, 0]
    # with thresholds of its own row 3 is wrong, too, and row 0 right
    found = mistakes(targets, scores, task="multi_label", threshold=np.array([0.35, 0.5]))
    assert found.tolist() == [2, 1, 3]


def test_no_mistakes_give_a_file_with_the_header_alone(tmp_path):
    targets, scores = np.array([0, 1]), np.eye(2)
    assert mistakes(targets, scores, task="single_label").tolist() == []
    write_errors(tmp_path / "errors.csv", error_rows(examples(["a", "b"]), targets, scores, labels=LABELS))
    assert (tmp_path / "errors.csv").read_text() == "row,text,true,predicted,confidence\n"


def test_errors_hold_row_text_labels_confidence_and_scores(tmp_path):
    scores = np.array([[0.25, 0.75], [0.1, 0.9], [0.875, 0.125]])
    rows = error_rows(examples(["first", "second", "third"]), np.array([0, 1, 1]), scores, labels=LABELS)
    write_errors(tmp_path / "errors.csv", rows)
    assert read_csv(tmp_path / "errors.csv") == [
        {
            "row": "4",
            "text": "third",
            "true": "pos",
            "predicted": "neg",
            "confidence": "0.875",
            "score:neg": "0.875",
            "score:pos": "0.125",
        },
        {
            "row": "2",
            "text": "first",
            "true": "neg",
            "predicted": "pos",
            "confidence": "0.75",
            "score:neg": "0.25",
            "score:pos": "0.75",
        },
    ]


def test_errors_of_pairs_and_of_multi_label_hold_both_texts_and_all_labels(tmp_path):
    targets, scores = np.array([[1, 1], [0, 0]]), np.array([[0.1, 0.2], [0.9, 0.8]])
    rows = error_rows(examples(["a", "b"], ["c", "d"]), targets, scores, labels=LABELS)
    write_errors(tmp_path / "errors.csv", rows)
    first, second = read_csv(tmp_path / "errors.csv")
    assert (first["text"], first["pair"], first["true"], first["predicted"]) == ("a", "c", "neg|pos", "")
    assert (second["text"], second["pair"], second["true"], second["predicted"]) == ("b", "d", "", "neg|pos")
    assert (first["confidence"], second["confidence"]) == ("0.9", "0.9")


def test_texts_are_cut_and_formulas_guarded_in_errors(tmp_path):
    texts = ["=HYPERLINK(1)", "+" + "x" * 5000, "a\rb"]
    labels = LabelSet(("=bad", "@good"))
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    write_errors(tmp_path / "errors.csv", error_rows(examples(texts), np.array([1, 1, 1]), scores, labels=labels))
    rows = read_csv(tmp_path / "errors.csv")
    assert rows[0]["text"] == "'=HYPERLINK(1)"
    assert rows[1]["text"] == "'+" + "x" * 998 + "…"
    assert rows[2]["text"] == "a\rb"
    assert (rows[0]["true"], rows[0]["predicted"]) == ("'@good", "'=bad")
    assert "score:=bad" in rows[0]


def test_the_rows_of_a_choice_of_examples_are_those_of_the_file(tmp_path):
    chosen = examples(["a", "b", "c", "d"]).take([3, 1])
    rows = error_rows(chosen, np.array([1, 1]), np.array([[0.6, 0.4], [0.7, 0.3]]), labels=LABELS)
    assert [(row["row"], row["text"]) for row in rows] == [(3, "b"), (5, "d")]
