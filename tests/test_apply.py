"""A bundle applied to a file: predictions in order, evaluation, vectors, nearest texts."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import html5lib
import numpy as np
import pyarrow.parquet as pq
import pytest

import headrace
import headrace.similar
from headrace import apply
from headrace.apply import vectors, where
from headrace.bundle import Bundle
from headrace.decide.calibration import Calibration
from headrace.decide.decision import Decision
from headrace.errors import BundleError, DataError, RecipeError
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


def jsonl(path: Path, found: list[Any]) -> Path:
    lines = (one if isinstance(one, str) else json.dumps(one) for one in found)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("at_a_time", [1, 4, 4096])
def test_rows_come_out_as_they_went_in_however_many_are_held(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, at_a_time: int
) -> None:
    monkeypatch.setattr(where, "ROWS_AT_A_TIME", at_a_time)
    texts = [*(row["text"] for row in rows(7)), "", "=SUM(1)", 'a "quoted" one, with a comma', "two\nlines"]
    with open(tmp_path / "a.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["other", "text"], *(["x", text] for text in texts)])
    told: list[tuple[int, int]] = []
    done = apply.predict_file(
        bundle, tmp_path / "a.csv", tmp_path / "p.csv", progress=lambda *counts: told.append(counts)
    )
    with open(tmp_path / "p.csv", encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert list(written[0]) == ["row", "label", "index", "score_bad", "score_good", "flags"]
    assert [int(row["row"]) for row in written] == list(range(2, 13))
    wanted = bundle.predict(texts)
    assert [(row["label"], int(row["index"])) for row in written] == [(p.label, p.index) for p in wanted]
    assert [row["flags"] for row in written] == ["|".join(p.flags) for p in wanted]
    found = [[float(row["score_bad"]), float(row["score_good"])] for row in written]
    np.testing.assert_allclose(found, bundle.scores(texts), rtol=0, atol=1e-5)
    assert (done.n_rows, done.n_predicted, done.n_bad_rows, done.errors) == (11, 11, 0, None)
    assert told[-1] == (11, 11)


def test_each_format_holds_the_same_answers_with_no_digit_too_many(tmp_path: Path, bundle: Bundle) -> None:
    for ending in ("jsonl", "parquet"):
        apply.predict_file(bundle, rows(6), tmp_path / f"p.{ending}")
    written = read_jsonl(tmp_path / "p.jsonl")
    assert written == pq.read_table(tmp_path / "p.parquet").to_pylist()
    scores = bundle.scores([row["text"] for row in rows(6)])
    assert [row["score_good"] for row in written] == [float(str(score)) for score in scores[:, 1]]
    assert all(len(str(row["score_good"])) <= 11 for row in written)  # 0. and the nine digits that tell any float32


def test_bad_rows_are_listed_with_number_and_reason_and_the_counts_add_up(tmp_path: Path, bundle: Bundle) -> None:
    found: list[Any] = [{"text": row["text"]} for row in rows(8)]
    found.insert(3, '{"text": "broken"')
    found.insert(6, {"text": None})
    found.insert(8, {"text": "x" * 1_100_000})
    path = jsonl(tmp_path / "a.jsonl", found)
    done = apply.predict_file(bundle, path, tmp_path / "p.jsonl")
    assert (done.n_rows, done.n_predicted, done.n_bad_rows) == (11, 8, 3)
    assert done.errors == tmp_path / "p.jsonl.errors.jsonl"
    errors = read_jsonl(done.errors)
    assert [list(error) for error in errors] == [["row", "where", "reason", "content"]] * 3
    assert [error["row"] for error in errors] == [4, 7, 9]
    assert all(error["where"].startswith(f"{path}:{error['row']}") for error in errors)
    assert "not valid JSON" in errors[0]["reason"]
    assert "1,048,576" in errors[2]["reason"]
    assert [row["row"] for row in read_jsonl(tmp_path / "p.jsonl")] == [1, 2, 3, 5, 6, 8, 10, 11]


def test_an_error_list_of_an_earlier_call_does_not_stay(tmp_path: Path, bundle: Bundle) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"text": "a good film"}, "{"])
    assert apply.predict_file(bundle, path, tmp_path / "p.csv").errors is not None
    jsonl(path, [{"text": "a good film"}])
    assert apply.predict_file(bundle, path, tmp_path / "p.csv").errors is None
    assert sorted(found.name for found in tmp_path.glob("p.csv*")) == ["p.csv"]


def test_bad_rows_can_be_an_error(tmp_path: Path, bundle: Bundle) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"text": "fine"}, "{", {"text": None}])
    with pytest.raises(DataError, match=r"2 faults in .*a\.jsonl"):
        apply.predict_file(bundle, path, tmp_path / "p.csv", on_bad_row="error")
    assert list(tmp_path.glob("p.csv*")) == []


def test_texts_of_a_folder_are_named_by_their_files(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "texts").mkdir()
    for name, content in (("1:2.txt", b"a good film"), ("3.txt", b"caf\xe9")):
        (tmp_path / "texts" / name).write_bytes(content)
    done = apply.predict_file(bundle, tmp_path / "texts", tmp_path / "p.jsonl")
    assert [(row["row"], row["file"]) for row in read_jsonl(tmp_path / "p.jsonl")] == [(1, "1:2.txt")]
    assert done.errors is not None
    error = read_jsonl(done.errors)[0]
    assert (error["row"], error["where"]) == (1, f"{tmp_path / 'texts'}/3.txt:1 (byte 3)")


def test_nothing_stays_in_the_cache(tmp_path: Path, bundle: Bundle) -> None:
    path = csv_file(tmp_path / "a.csv", 10)
    apply.predict_file(bundle, path, tmp_path / "p.csv")
    found, examples = apply.predict_rows(bundle, path)
    headrace.evaluate(bundle, path)
    apply.embed_file(bundle, path, tmp_path / "v.npy")
    apply.similar_in_file(bundle, "a good film", path)
    assert list((tmp_path / "cache").iterdir()) == []
    assert len(found) == len(examples.texts()) == 10  # the texts can be read all the same


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
    apply.predict_file(tags, path, tmp_path / "p.jsonl", threshold={"=x": 1.0, "y": 0.0, "z": 1.0})
    written = read_jsonl(tmp_path / "p.jsonl")
    assert [row["labels"] for row in written] == [["y"]] * 4
    assert list(written[0]) == ["row", "labels", "score_=x", "score_y", "score_z", "flags"]


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Bundle:
    """The same bundle, which is not sure of about every other text of `rows(6)`."""
    confidence = np.sort(bundle.scores([row["text"] for row in rows(6)]).max(axis=1).astype(np.float64))
    decision = Decision(
        bundle.labels, Calibration(), abstain_below=float(confidence[3]), error_rate=0.1, confidence=0.9
    )
    saved = Bundle(bundle.classifier, bundle.subwords, replace(bundle.about, decision=decision.as_dict()))
    folder = tmp_path_factory.mktemp("careful") / "bundle"
    saved.save(folder)
    return Bundle.load(folder)


def test_what_the_bundle_is_not_sure_of_has_no_label_and_a_reason_in_each_format(
    tmp_path: Path, careful: Bundle
) -> None:
    wanted = careful.predict([row["text"] for row in rows(6)])
    assert {one.reason for one in wanted} == {None, "abstain"}
    for ending in ("csv", "jsonl", "parquet"):
        done = apply.predict_file(careful, rows(6), tmp_path / f"p.{ending}")
        assert done.n_predicted == 6
    names = ["row", "label", "index", "reason", "score_bad", "score_good", "flags"]
    told = [(one.label, one.index, one.reason) for one in wanted]
    for written in (read_jsonl(tmp_path / "p.jsonl"), pq.read_table(tmp_path / "p.parquet").to_pylist()):
        assert list(written[0]) == names
        assert [(row["label"], row["index"], row["reason"]) for row in written] == told
        assert all(row["score_good"] is not None for row in written)
    with open(tmp_path / "p.csv", encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    assert list(cells[0]) == names
    shown = [tuple("" if value is None else str(value) for value in row) for row in told]
    assert [(row["label"], row["index"], row["reason"]) for row in cells] == shown
    found, _ = apply.predict_rows(careful, rows(6))
    assert [one.reason for _, one in found] == [one.reason for one in wanted]


def test_with_a_given_threshold_every_row_is_answered(tmp_path: Path, careful: Bundle) -> None:
    apply.predict_file(careful, rows(6), tmp_path / "p.jsonl", threshold={"good": 0.5})
    written = read_jsonl(tmp_path / "p.jsonl")
    assert {row["reason"] for row in written} == {None}
    assert None not in {row["label"] for row in written}


def test_a_bundle_that_may_abstain_is_evaluated_on_all_rows(careful: Bundle, bundle: Bundle) -> None:
    assert headrace.evaluate(careful, rows(8)).metrics == headrace.evaluate(bundle, rows(8)).metrics


def decided_tags(tags: Bundle, thresholds: tuple[float, ...], **abstain: float) -> Bundle:
    decision = Decision(tags.labels, Calibration("none", "multi_label"), thresholds, **abstain)
    return Bundle(tags.classifier, tags.subwords, replace(tags.about, decision=decision.as_dict()))


def test_the_bundles_thresholds_decide_predictions_and_evaluations(tmp_path: Path, tags: Bundle) -> None:
    decided = decided_tags(tags, (0.0, 1.0, 0.0))
    apply.predict_file(decided, rows(4), tmp_path / "p.jsonl")
    assert {tuple(row["labels"]) for row in read_jsonl(tmp_path / "p.jsonl")} == {("=x", "z")}
    source = [{"text": row["text"], "labels": "=x|z"} for row in rows(8)]
    found = headrace.evaluate(decided, source)
    assert found.threshold == (0.0, 1.0, 0.0)
    assert found.metrics["accuracy"].value == 1.0
    given = headrace.evaluate(decided, source, threshold={"=x": 1.0, "z": 1.0})
    assert given.metrics["accuracy"].value == 0.0


def test_several_labels_that_are_not_sure_are_none_and_not_empty(tmp_path: Path, tags: Bundle) -> None:
    decided = decided_tags(tags, (0.5, 0.5, 0.5), abstain_below=1.0, error_rate=0.1, confidence=0.9)
    for ending in ("jsonl", "parquet", "csv"):
        apply.predict_file(decided, rows(3), tmp_path / f"p.{ending}")
    rows_of_parquet = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [(row["labels"], row["reason"]) for row in rows_of_parquet] == [(None, "abstain")] * 3
    assert [row["labels"] for row in read_jsonl(tmp_path / "p.jsonl")] == [None] * 3
    with open(tmp_path / "p.csv", encoding="utf-8", newline="") as file:
        assert [(row["labels"], row["reason"]) for row in csv.DictReader(file)] == [("", "abstain")] * 3


def test_an_evaluation_writes_a_page_that_can_be_read(tmp_path: Path, bundle: Bundle) -> None:
    headrace.evaluate(bundle, rows(30), out=tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    html5lib.HTMLParser(strict=True).parse(page)
    assert "of the 30" in page


def test_flags_are_counted(tmp_path: Path, bundle: Bundle) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": ""}\n{"text": "' + "good film " * 40 + '"}\n{"text": "good"}\n', "utf-8")
    assert apply.predict_file(bundle, path, tmp_path / "p.csv").n_flagged == {"empty": 1, "cut": 1}


def test_an_unknown_ending_is_refused_before_the_bundle_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        apply.predict_file(tmp_path / "no-bundle", tmp_path / "a.csv", tmp_path / "p.xlsx")
    assert caught.value.what == "cannot tell what to write from the name 'p.xlsx'"


def test_a_threshold_that_does_not_suit_is_told_before_the_data_are_read(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(RecipeError, match="there is no label 'god'"):
        apply.predict_file(bundle, tmp_path / "not-there.csv", tmp_path / "p.csv", threshold={"god": 0.5})
    with pytest.raises(RecipeError) as caught:
        headrace.evaluate(bundle, tmp_path / "not-there.csv", threshold=0.7)
    assert caught.value.next == "name it, such as good=0.7"


def test_evaluate_obeys_a_threshold_of_two_labels(tmp_path: Path, bundle: Bundle) -> None:
    path = csv_file(tmp_path / "a.csv", 10)
    found = headrace.evaluate(bundle, path, threshold={"bad": 0.0}, out=tmp_path / "out")
    assert [sum(column) for column in zip(*found.confusion or [], strict=True)] == [10, 0]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["threshold"] == [0.0, None]
    wrong = report["confusion_matrix"]["counts"][1][0]
    assert wrong > 0
    with (tmp_path / "out" / "errors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted"] for row in rows] == ["bad"] * wrong
    assert [row["confidence"] for row in rows] == sorted((row["score:bad"] for row in rows), reverse=True)


def test_evaluate_counts_every_row_once_and_writes_its_files(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, "ROWS_AT_A_TIME", 4)
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


def test_an_evaluation_reads_the_label_columns_that_the_bundle_names(tmp_path: Path) -> None:
    # its recipe says `label`
    named = Bundle.load(tiny_bundle(tmp_path / "named", text={"label_columns": ("sentiment",)}))
    source = [{"text": row["text"], "sentiment": row["label"], "label": "no such label"} for row in rows(8)]
    assert headrace.evaluate(named, source).n_rows == 8
    with pytest.raises(DataError, match="expected 'text', 'sentiment'"):
        headrace.evaluate(str(named.folder), rows(8))


def test_an_evaluation_reads_several_columns_of_a_multi_label_bundle(tmp_path: Path) -> None:
    text = {"label_columns": ("y", "x")}
    tagged = Bundle.load(tiny_bundle(tmp_path, task="multi_label", labels=("x", "y"), text=text))
    source = [{"text": row["text"], "x": int(n < 3), "y": int(n < 5)} for n, row in enumerate(rows(8))]
    found = headrace.evaluate(tagged, source)
    assert {label: values["support"] for label, values in found.per_label.items()} == {"x": 3, "y": 5}


def test_where_the_bundle_does_not_name_the_labels_column_its_recipe_does(tmp_path: Path) -> None:
    old = Bundle.load(tiny_bundle(tmp_path, text={"label_columns": ()}))
    assert apply.with_label_columns(old).label_columns == ("label",)
    old.recipe_yaml = "task: multi_label\ndata: {label: tags, label_separator: ';'}\n"
    found = apply.with_label_columns(old)
    assert (found.label_columns, found.separator) == (("tags",), ";")


@pytest.mark.parametrize("recipe", ["", "data:\n", "data: {text: text}\n"])
def test_an_evaluation_needs_to_know_the_labels_column(tmp_path: Path, recipe: str) -> None:
    old = Bundle.load(tiny_bundle(tmp_path, text={"label_columns": ()}))
    old.recipe_yaml = recipe
    with pytest.raises(BundleError) as caught:
        headrace.evaluate(old, rows(8))
    assert caught.value.what == "the bundle does not say which column holds the label"
    assert caught.value.where == str(old.folder)
    assert caught.value.next is not None
    assert caught.value.next.startswith("train it anew")


def test_vectors_are_written_in_order_without_pickle(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, "ROWS_AT_A_TIME", 4)
    path = csv_file(tmp_path / "a.csv", 10)
    assert apply.embed_file(bundle, path, tmp_path / "v.npy") == (10, 32)
    found = np.load(tmp_path / "v.npy", allow_pickle=False)
    wanted = np.asarray(bundle.embed([row["text"] for row in rows(10)]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    apply.embed_file(bundle, path, tmp_path / "v.parquet", pool="cls")
    table = pq.read_table(tmp_path / "v.parquet")
    assert table.column("row").to_pylist() == list(range(2, 12))
    np.testing.assert_allclose(
        np.array(table.column("vector").to_pylist()),
        np.asarray(bundle.embed([row["text"] for row in rows(10)], pool="cls")),
        atol=1e-5,
    )


def test_vectors_of_tokens_are_written_beside_their_tokens(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "TOKEN_WINDOW_BYTES", 4 * 4 * 32 * 24)  # four texts of 24 tokens of width 32
    texts = [*(row["text"] for row in rows(9)), ""]
    path = jsonl(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    told: list[tuple[int, int]] = []
    done = apply.embed_file(
        bundle, path, tmp_path / "v.parquet", pool="none", progress=lambda *counts: told.append(counts)
    )
    assert done == (10, 32)
    assert told == [(4, 10), (8, 10), (10, 10)]
    table = pq.read_table(tmp_path / "v.parquet").to_pydict()
    assert table["row"] == list(range(1, 11))
    assert table["tokens"] == bundle.tokens(texts)
    assert table["tokens"][-1] == ["[CLS]", "[SEP]"]
    for found, wanted in zip(table["vectors"], bundle.embed(texts, pool="none"), strict=True):
        np.testing.assert_allclose(np.array(found), wanted, atol=1e-5)
    assert [len(found) for found in table["vectors"]] == [len(tokens) for tokens in table["tokens"]]


def test_vectors_of_tokens_have_no_rectangle_and_no_neighbours(tmp_path: Path, bundle: Bundle) -> None:
    path = csv_file(tmp_path / "a.csv", 4)
    with pytest.raises(DataError) as caught:
        apply.embed_file(bundle, path, tmp_path / "v.npy", pool="none")
    assert caught.value.what == "vectors of tokens are not written as .npy: one text has more of them than another"
    assert caught.value.where == str(tmp_path / "v.npy")
    assert ".parquet" in str(caught.value.next)
    for similar in (
        lambda: apply.similar_in_file(bundle, "a film", path, pool="none"),
        lambda: headrace.similar.similar(bundle, "a film", ["a film", "two"], pool="none"),
    ):
        with pytest.raises(RecipeError, match="there is no pooling 'none'"):
            similar()


def test_other_endings_and_poolings_are_refused(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(DataError, match=r"vectors are not written as \.pkl"):
        apply.embed_file(bundle, tmp_path / "a.csv", tmp_path / "v.pkl")
    with pytest.raises(RecipeError, match="there is no pooling 'sum'"):
        apply.embed_file(bundle, tmp_path / "a.csv", tmp_path / "v.npy", pool="sum")


def test_the_nearest_text_of_a_text_is_itself(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where, "ROWS_AT_A_TIME", 4)
    path = csv_file(tmp_path / "a.csv", 10)
    found = apply.similar_in_file(bundle, rows(10)[7]["text"], path, top=3)
    assert (found[0].row, found[0].text) == (9, rows(10)[7]["text"])
    assert found[0].cosine == pytest.approx(1, abs=1e-5)
    assert [match.cosine for match in found] == sorted((match.cosine for match in found), reverse=True)
    assert len(apply.similar_in_file(bundle, "x", path, top=50)) == 10


def test_free_pages_go_back_after_each_window(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(where, "ROWS_AT_A_TIME", 4)
    monkeypatch.setattr(where, "give_back", lambda: given.append(1))
    apply.predict_file(bundle, rows(10), tmp_path / "p.csv")
    assert len(given) == 3


def test_what_a_bundle_reads_is_never_told_to_change_a_recipe(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "a good film,good\n" * 3 + "one,two,three\n", "utf-8")
    (tmp_path / "b.csv").write_text("review,stars\na good film,good\n", "utf-8")
    (tmp_path / "c.csv").write_text("text,label\n", "utf-8")
    advice = []
    for name in ("a.csv", "b.csv", "c.csv"):
        with pytest.raises(DataError) as caught:
            headrace.evaluate(bundle, tmp_path / name)
        advice.append(str(caught.value))
    assert "leave such rows out of the data" in advice[0]
    assert "rename the columns" in advice[1]
    assert "give a source with at least one text" in advice[2]
    assert "data." not in "".join(advice)


def test_a_query_without_a_word_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(DataError, match="the query is empty"):
        apply.similar_in_file(bundle, " ", tmp_path / "not-there.csv")
    with pytest.raises(DataError, match="the query is empty"):
        headrace.similar.similar(bundle, "", ["a good film"])
    with pytest.raises(DataError, match="5 is not a text"):
        headrace.similar.similar(bundle, 5, ["a good film"])  # type: ignore[arg-type]


def test_rows_in_memory_are_called_rows(bundle: Bundle) -> None:
    with pytest.raises(DataError) as caught:
        headrace.evaluate(bundle, [{"text": ["x"], "label": "good"}])
    assert caught.value.where == "rows:1:text"
