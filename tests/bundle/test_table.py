"""Files in, files out: each row once and in order, bad rows listed and counted, and an evaluation of a labelled file."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from headrace.bundle import Bundle, evaluate, predict_file, save_bundle
from headrace.bundle import table as table_module
from headrace.data.examples import LabelSet
from headrace.errors import BundleError, DataError, RecipeError
from headrace.head import HeadSettings
from headrace.model import load_classifier
from headrace.text.subwords import Subwords
from tiny import SENTENCES, tiny_folder

TEXTS = [*SENTENCES, "", "=SUM(1)", 'a "quoted" one, with a comma', "two\nlines"]


def made(folder: Path, *, task: str = "single_label", columns: tuple[str, ...] = ("review",), **content: Any) -> Bundle:
    source = tiny_folder(folder)
    torch.manual_seed(2)
    classifier = load_classifier(
        backbone=str(source),
        head=HeadSettings(pool="mean"),
        labels=LabelSet(("bad", "good")),
        multi_label=task == "multi_label",
    )
    with torch.no_grad():
        for weight in classifier.groups()[-1][1]:
            weight.add_(torch.randn_like(weight) * 0.3)
    text = {"max_length": 32, "columns": columns, "label_columns": ["sentiment"], **content}
    return save_bundle(
        folder / "bundle", classifier=classifier, subwords=Subwords.load(source), task=task, text=text, recipe_yaml=""
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return made(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


@pytest.mark.parametrize("batch_rows", [1, 5, 4096])
def test_rows_come_out_as_they_went_in_whatever_the_batch(
    bundle: Bundle, tmp_path: Path, batch_rows: int, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(table_module, "BATCH_ROWS", batch_rows)
    source = write_csv(tmp_path / "in.csv", [{"review": text, "other": "x"} for text in TEXTS])
    told: list[tuple[int, int]] = []
    counts = predict_file(bundle, source, tmp_path / "out.csv", progress=lambda done, all: told.append((done, all)))
    rows = list(csv.DictReader(open(tmp_path / "out.csv", encoding="utf-8", newline="")))  # noqa: SIM115
    assert list(rows[0]) == ["row", "label", "index", "score_bad", "score_good", "flags"]
    assert [int(row["row"]) for row in rows] == list(range(2, len(TEXTS) + 2))
    scores = np.array([[float(row["score_bad"]), float(row["score_good"])] for row in rows])
    np.testing.assert_allclose(scores, bundle.scores(TEXTS), rtol=0, atol=1e-5)
    predictions = bundle.predict(TEXTS)
    assert [(row["label"], int(row["index"])) for row in rows] == [(p.label, p.index) for p in predictions]
    assert [row["flags"] for row in rows] == ["|".join(p.flags) for p in predictions]
    assert counts.as_dict() == {
        "rows": len(TEXTS), "predicted": len(TEXTS), "bad": 0, "flagged": {"empty": 1}, "errors": None,
    }  # fmt: skip
    assert told[-1] == (len(TEXTS), len(TEXTS))
    assert not list(cache.iterdir())  # what was read once is not kept


def test_each_format_holds_the_same_answers(bundle: Bundle, tmp_path: Path) -> None:
    rows = [{"review": text} for text in TEXTS]
    for ending in ("jsonl", "parquet", "csv"):
        predict_file(bundle, rows, tmp_path / f"out.{ending}")
    from_json = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert from_json == pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert from_json[8]["flags"] == ["empty"]
    assert from_json[0]["score_bad"] == float(str(bundle.scores(TEXTS)[0, 0]))  # no digits that a float32 does not have


def test_bad_rows_are_listed_and_the_counts_add_up(bundle: Bundle, tmp_path: Path) -> None:
    rows: list[Any] = [{"review": text} for text in TEXTS]
    rows.insert(3, '{"review": "broken"')
    rows.insert(7, {"review": None})
    rows.insert(9, {"review": "x" * 1_100_000})
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    counts = predict_file(bundle, source, tmp_path / "out.jsonl")
    assert (counts.n_rows, counts.n_predicted, counts.n_bad) == (len(TEXTS) + 3, len(TEXTS), 3)
    assert counts.errors == tmp_path / "out.jsonl.errors.jsonl"
    errors = [json.loads(line) for line in counts.errors.read_text().splitlines()]
    assert [error["row"] for error in errors] == [4, 8, 10]
    assert all(error["reason"] and str(source) in error["where"] for error in errors)
    assert "1,048,576" in errors[2]["reason"]
    out = [json.loads(line)["row"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert out == [row for row in range(1, len(rows) + 1) if row not in (4, 8, 10)]
    write_jsonl(source, [{"review": "good now"}])
    assert predict_file(bundle, source, tmp_path / "out.jsonl").errors is None
    assert not (tmp_path / "out.jsonl.errors.jsonl").exists()  # the earlier list would be a lie


def test_bad_rows_can_be_an_error(bundle: Bundle, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"review": "fine"}, "{", {"review": None}])
    with pytest.raises(DataError, match=r"2 faults in .*in\.jsonl"):
        predict_file(bundle, source, tmp_path / "out.jsonl", on_bad_row="error")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_formula_is_guarded_in_csv_unless_raw(tmp_path: Path) -> None:
    bundle = made(tmp_path)
    bundle.classifier.labels = LabelSet(("=1+1", "@x"))
    predict_file(bundle, [{"review": "film"}], tmp_path / "out.csv")
    predict_file(bundle, [{"review": "film"}], tmp_path / "raw.csv", raw=True)
    label = bundle.predict("film").label
    assert f",'{label}," in (tmp_path / "out.csv").read_text()
    assert f"1,{label}," in (tmp_path / "raw.csv").read_text()


def test_standard_streams_take_a_text_a_line_and_give_json_lines(bundle: Bundle) -> None:
    out = io.StringIO()
    counts = predict_file(bundle, "-", "-", stdin=io.StringIO("A good film.\r\n\nno end"), stdout=out)
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    expected = bundle.predict(["A good film.", "", "no end"])
    assert [row["row"] for row in rows] == [1, 2, 3]
    assert [row["label"] for row in rows] == [one.label for one in expected]
    assert rows[1]["flags"] == ["empty"]
    assert counts.n_predicted == 3


def test_standard_input_that_is_no_text_says_after_which_line(bundle: Bundle) -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        predict_file(bundle, "-", stdin=stream, stdout=io.StringIO())
    assert caught.value.where == "-, after line 0"


def test_pairs_on_standard_input_have_a_tab_between_them(tmp_path: Path) -> None:
    bundle = made(tmp_path, columns=("premise", "hypothesis"))
    out = io.StringIO()
    counts = predict_file(bundle, "-", stdin=io.StringIO("a man\tplays\nno tab\n"), stdout=out)
    assert json.loads(out.getvalue())["label"] == bundle.predict([("a man", "plays")])[0].label
    assert (counts.n_rows, counts.n_predicted, counts.n_bad) == (2, 1, 1)
    assert counts.bad_rows[0].where == "-:2"
    assert counts.bad_rows[0].reason == "the line has 0 tabs; a pair is two texts with one tab between them"


def test_multi_label_rows_have_a_list_of_labels(tmp_path: Path) -> None:
    bundle = made(tmp_path, task="multi_label")
    for ending in ("csv", "jsonl"):
        predict_file(bundle, [{"review": "film"}], tmp_path / f"all.{ending}", threshold=0.0)
        predict_file(bundle, [{"review": "film"}], tmp_path / f"none.{ending}", threshold={"bad": 1.0, "good": 1.0})
    assert json.loads((tmp_path / "all.jsonl").read_text())["labels"] == ["bad", "good"]
    assert json.loads((tmp_path / "none.jsonl").read_text())["labels"] == []
    assert (tmp_path / "all.csv").read_text().splitlines()[1].startswith("1,bad|good,")
    assert (tmp_path / "none.csv").read_text().splitlines()[1].startswith("1,,")


def test_faults_are_told_before_any_work(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot tell what to write from the name 'out\.xlsx'"):
        predict_file(bundle, tmp_path / "not there.csv", tmp_path / "out.xlsx")
    with pytest.raises(RecipeError, match="there is no label 'god'"):
        predict_file(bundle, tmp_path / "not there.csv", tmp_path / "out.csv", threshold={"god": 0.5})
    with pytest.raises(DataError) as caught:
        predict_file(bundle, tmp_path / "in.csv", tmp_path / "out.csv", text=["a", "b"])
    assert (caught.value.what, caught.value.next) == (
        "2 text columns are named",
        "this bundle takes one text: name one",
    )


def test_another_text_column_may_be_named(bundle: Bundle, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "in.csv", [{"comment": text} for text in SENTENCES])
    assert predict_file(bundle, source, tmp_path / "out.csv", text="comment").n_predicted == len(SENTENCES)
    with pytest.raises(DataError, match=r"found columns 'comment', expected 'review'"):
        predict_file(bundle, source, tmp_path / "out.csv")


def test_an_evaluation_compares_with_the_labels_of_the_file(bundle: Bundle, tmp_path: Path) -> None:
    predicted = [str(one.label) for one in bundle.predict(SENTENCES)]
    wrong = ["good" if predicted[0] == "bad" else "bad", *predicted[1:]]
    source = write_csv(
        tmp_path / "test.csv",
        [{"review": text, "sentiment": label} for text, label in zip(SENTENCES, wrong, strict=True)],
    )
    found = evaluate(str(bundle.folder), source, resamples=20)
    assert found.metrics["accuracy"].value == pytest.approx(7 / 8)
    assert (found.n_rows, found.split, found.labels) == (8, "test.csv", ("bad", "good"))
    with pytest.raises(DataError, match="expected 'review', 'stars'"):
        evaluate(bundle, source, label="stars")


def test_an_evaluation_needs_to_know_the_labels_column(tmp_path: Path) -> None:
    bundle = made(tmp_path, label_columns=())
    with pytest.raises(BundleError, match="does not say which column holds the label"):
        evaluate(bundle, [{"review": "film", "sentiment": "good"}])
