"""A bundle applied to a file: predictions in order, evaluation, vectors, nearest texts."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import headrace
from headrace import apply
from headrace.bundle import Bundle
from headrace.errors import DataError, RecipeError
from tiny_bundle import csv_file, rows, tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(tiny_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def tags(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    text = {"label_columns": ("labels",), "separator": "|"}
    return Bundle.load(
        tiny_bundle(tmp_path_factory.mktemp("tags"), task="multi_label", labels=("=x", "y", "z"), text=text)
    )


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))


def test_predictions_stand_in_the_files_order(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "ROWS_AT_A_TIME", 4)  # 10 rows: two whole parts and a short one
    done = apply.predict_file(bundle, csv_file(tmp_path / "a.csv", 10), tmp_path / "p.jsonl")
    written = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text("utf-8").splitlines()]
    wanted = bundle.predict([row["text"] for row in rows(10)])
    assert [row["row"] for row in written] == list(range(2, 12))
    assert [row["label"] for row in written] == [p.label for p in wanted]
    assert [row["score_good"] for row in written] == pytest.approx([p.scores["good"] for p in wanted], abs=1e-6)
    assert (done.n_rows, done.n_bad_rows, done.bad_rows) == (10, 0, None)


def test_bad_rows_are_listed_and_the_others_predicted(tmp_path: Path, bundle: Bundle) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a good film"}\n{"text": \n{"text": "a bad film"}\n', "utf-8")
    done = apply.predict_file(bundle, path, tmp_path / "p.csv")
    assert (done.n_rows, done.n_bad_rows) == (2, 1)
    assert done.bad_rows == tmp_path / "p.csv.bad_rows.jsonl"
    bad = [json.loads(line) for line in done.bad_rows.read_text("utf-8").splitlines()]
    assert bad[0]["where"].startswith(f"{path}:2")
    assert "not valid JSON" in bad[0]["reason"]
    with open(tmp_path / "p.csv", encoding="utf-8", newline="") as file:
        assert [row["row"] for row in csv.DictReader(file)] == ["1", "3"]


def test_a_label_that_looks_like_a_formula_is_guarded_in_csv_alone(tmp_path: Path, tags: Bundle) -> None:
    path = csv_file(tmp_path / "a.csv", 6)
    apply.predict_file(tags, path, tmp_path / "p.csv", threshold=0.0)
    apply.predict_file(tags, path, tmp_path / "raw.csv", threshold=0.0, raw=True)
    apply.predict_file(tags, path, tmp_path / "p.jsonl", threshold=0.0)
    cells = {}
    for name in ("p", "raw"):
        with open(tmp_path / f"{name}.csv", encoding="utf-8", newline="") as file:
            cells[name] = {row["labels"] for row in csv.DictReader(file)}
    assert cells == {"p": {"'=x|y|z"}, "raw": {"=x|y|z"}}
    lines = (tmp_path / "p.jsonl").read_text("utf-8").splitlines()
    assert {tuple(json.loads(line)["labels"]) for line in lines} == {("=x", "y", "z")}


def test_a_threshold_decides_in_multi_label(tmp_path: Path, tags: Bundle) -> None:
    path = csv_file(tmp_path / "a.csv", 4)
    none, _ = apply.predict_rows(tags, path, threshold=1.0)
    assert [prediction.labels for _, prediction in none] == [()] * 4


def test_flags_are_counted(tmp_path: Path, bundle: Bundle) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": ""}\n{"text": "' + "good film " * 40 + '"}\n{"text": "good"}\n', "utf-8")
    assert apply.predict_file(bundle, path, tmp_path / "p.csv").n_flagged == {"empty": 1, "cut": 1}


def test_an_unknown_ending_is_refused_before_the_bundle_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        apply.predict_file(tmp_path / "no-bundle", tmp_path / "a.csv", tmp_path / "p.xlsx")
    assert caught.value.what == "cannot tell what to write from the name 'p.xlsx'"


def test_lines_from_a_pipe_are_texts(tmp_path: Path, bundle: Bundle) -> None:
    stream = io.BytesIO("a good film\n\nça va — “quotes, commas”\n".encode())
    with apply.piped(stream, bundle) as source:
        found, examples = apply.predict_rows(bundle, source)
        kept = source.path
    assert examples.texts() == ["a good film", "", "ça va — “quotes, commas”"]
    assert [row for row, _ in found] == [1, 2, 3]
    assert not kept.exists()


def test_json_lines_from_a_pipe_are_rows(bundle: Bundle) -> None:
    stream = io.BytesIO(b'{"text": "a good film"}\n{"txt": "a bad film"}\n')
    with apply.piped(stream, bundle) as source:
        found, examples = apply.predict_rows(bundle, source)
    assert len(found) == 1
    assert examples.bad_rows[0].where.startswith("standard input:2")


def test_a_pipe_with_the_wrong_columns_is_named_as_such(bundle: Bundle) -> None:
    with apply.piped(io.BytesIO(b'{"txt": "a"}\n'), bundle) as source, pytest.raises(DataError) as caught:
        apply.predict_rows(bundle, source)
    assert caught.value.where is not None
    assert "standard input" in caught.value.where
    assert "/tmp" not in str(caught.value)


def test_pairs_from_a_pipe_have_a_tab(tmp_path: Path) -> None:
    pairs = Bundle.load(tiny_bundle(tmp_path, text={"columns": ("premise", "hypothesis")}))
    with apply.piped(io.BytesIO(b"A man plays.\tNo one is there.\n"), pairs) as source:
        _, examples = apply.predict_rows(pairs, source)
        assert examples.texts() == [("A man plays.", "No one is there.")]
    with pytest.raises(DataError) as caught, apply.piped(io.BytesIO(b"one text\n"), pairs):
        pass
    assert caught.value.what == "the line has 0 tabs; a pair is two texts with one tab between them"
    assert caught.value.where == "standard input:1"


def test_evaluate_counts_every_row_once_and_writes_its_files(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "ROWS_AT_A_TIME", 4)
    found = headrace.evaluate(bundle, csv_file(tmp_path / "a.csv", 10), out=tmp_path / "out")
    predicted = [p.label for p in bundle.predict([row["text"] for row in rows(10)])]
    right = sum(label == row["label"] for label, row in zip(predicted, rows(10), strict=True))
    assert found.n_rows == 10
    assert found.metrics["accuracy"].value == pytest.approx(right / 10)
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert report["metrics"]["accuracy"]["value"] == pytest.approx(right / 10)
    assert (tmp_path / "out" / "errors.csv").is_file()


def test_evaluate_takes_rows_in_memory(bundle: Bundle) -> None:
    assert headrace.evaluate(bundle, rows(8)).n_rows == 8


def test_evaluate_reads_joined_labels_as_in_training(tmp_path: Path, tags: Bundle) -> None:
    path = tmp_path / "a.jsonl"
    names = ["=x|y", "", "z"]
    path.write_text(
        "".join(json.dumps({"text": row["text"], "labels": names[n % 3]}) + "\n" for n, row in enumerate(rows(9))),
        "utf-8",
    )
    found = headrace.evaluate(tags, path)
    assert {label: values["support"] for label, values in found.per_label.items()} == {"=x": 3, "y": 3, "z": 3}


def test_a_label_that_the_bundle_does_not_know_is_one_error(bundle: Bundle) -> None:
    with pytest.raises(DataError, match="the label 'fair'"):
        headrace.evaluate(bundle, [*rows(8), {"text": "so so", "label": "fair"}])


def test_the_labels_column_comes_from_the_recipe_where_the_bundle_does_not_say_it(tmp_path: Path) -> None:
    old = Bundle.load(tiny_bundle(tmp_path, text={"label_columns": ()}))
    assert apply.with_label_columns(old).label_columns == ("label",)


def test_vectors_are_written_in_order_without_pickle(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "ROWS_AT_A_TIME", 4)
    path = csv_file(tmp_path / "a.csv", 10)
    assert apply.embed_file(bundle, path, tmp_path / "v.npy") == (10, 32)
    vectors = np.load(tmp_path / "v.npy", allow_pickle=False)
    wanted = np.asarray(bundle.embed([row["text"] for row in rows(10)]))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, wanted, atol=1e-5)
    apply.embed_file(bundle, path, tmp_path / "v.parquet", pool="cls")
    table = pq.read_table(tmp_path / "v.parquet")
    assert table.column("row").to_pylist() == list(range(2, 12))
    np.testing.assert_allclose(
        np.array(table.column("vector").to_pylist()),
        np.asarray(bundle.embed([row["text"] for row in rows(10)], pool="cls")),
        atol=1e-5,
    )


def test_other_endings_and_poolings_are_refused(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(DataError, match=r"vectors are not written as \.pkl"):
        apply.embed_file(bundle, tmp_path / "a.csv", tmp_path / "v.pkl")
    with pytest.raises(RecipeError, match="there is no pooling 'sum'"):
        apply.embed_file(bundle, tmp_path / "a.csv", tmp_path / "v.npy", pool="sum")


def test_the_nearest_text_of_a_text_is_itself(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "ROWS_AT_A_TIME", 4)
    path = csv_file(tmp_path / "a.csv", 10)
    found = apply.similar_in_file(bundle, rows(10)[7]["text"], path, top=3)
    assert (found[0].row, found[0].text) == (9, rows(10)[7]["text"])
    assert found[0].cosine == pytest.approx(1, abs=1e-5)
    assert [match.cosine for match in found] == sorted((match.cosine for match in found), reverse=True)
    assert len(apply.similar_in_file(bundle, "x", path, top=50)) == 10
