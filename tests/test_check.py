"""`check` tells what a recipe would train on, and trains nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from headrace.check import Check, check
from headrace.cli_output import check_answer, show
from headrace.errors import DataError, RecipeError
from headrace.recipe import load_recipe
from headrace.text.subwords import Subwords
from headrace.train.data import TextDataModule
from headrace.train.fit import data_plan
from headrace.train.prepare import prepare
from headrace.train.summary import ShownToken, shown_tokens, special_ids, summary_of
from tiny import tiny_folder
from tiny_bundle import csv_file, rows


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("backbone"), "bert")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))


def checked(backbone: Path, data: dict[str, Any], *overrides: str, **values: Any) -> Check:
    recipe = {"backbone": str(backbone), "data": {"max_length": 32, **data}, "fit": {"batch_size": 8, "epochs": 2}}
    return check({**recipe, **values}, overrides=overrides)


def jsonl(path: Path, found: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in found), "utf-8")
    return str(path)


def test_rows_and_labels_are_counted_by_split(tmp_path: Path, backbone: Path) -> None:
    train, test = csv_file(tmp_path / "train.csv", 40), csv_file(tmp_path / "test.csv", 10)
    found = checked(backbone, {"train": str(train), "test": str(test), "valid": "25%"})
    assert [(split.name, split.n_rows, split.labels) for split in found.splits] == [
        ("train", 30, {"bad": 15, "good": 15}),
        ("valid", 10, {"bad": 5, "good": 5}),
        ("test", 10, {"bad": 5, "good": 5}),
    ]
    assert found.n_steps == 8  # 30 rows / 8 = 4 steps, 2 epochs


def test_lengths_are_in_tokens_before_the_cut(tmp_path: Path, backbone: Path) -> None:
    texts = ["good film"] * 15 + ["good film " * 20] * 5
    found = jsonl(tmp_path / "a.jsonl", [{"text": f"{t} {n}", "label": "pn"[n % 2]} for n, t in enumerate(texts)])
    split = checked(backbone, {"train": found, "valid": found, "max_length": 16}).splits[0]
    assert split.lengths.longest >= 43  # 40 words, a number, two special tokens
    assert split.lengths.median <= 7
    assert split.lengths.cut_share == 0.25
    n_cut, n_all = 5 * 27, 15 * 5 + 5 * 43  # 43 tokens are cut to 16; the others have five
    assert split.lengths.tokens_cut_share == pytest.approx(n_cut / n_all, abs=0.02)
    histogram = split.lengths.histogram
    assert sum(histogram.counts) == 20
    assert len(histogram.edges) == len(histogram.counts) + 1
    assert histogram.edges[-1] > split.lengths.longest


def test_multi_label_rows_without_a_label_are_counted(tmp_path: Path, backbone: Path) -> None:
    found = [{"text": f"{row['text']}", "labels": [["a"], ["a", "b"], []][n % 3]} for n, row in enumerate(rows(30))]
    path = jsonl(tmp_path / "a.jsonl", found)
    found = checked(backbone, {"train": path, "valid": path, "label": "labels"}, task="multi_label")
    assert found.splits[0].labels == {"a": 20, "b": 10}
    assert found.splits[0].n_without_label == 10
    assert found.co_occurrence is not None
    assert found.co_occurrence.labels == ["a", "b"]
    assert found.co_occurrence.counts == [[20, 10], [10, 10]]


def test_the_first_step_is_shown_as_the_model_sees_it(tmp_path: Path, backbone: Path) -> None:
    found = checked(backbone, {"train": str(csv_file(tmp_path / "a.csv", 40))})
    batch = found.batch
    assert batch.n_texts == 8
    assert len(batch.texts) == 4
    assert max(text.n_tokens for text in batch.texts) <= batch.width <= 32
    assert 0 <= batch.padding_share < 1
    assert {label for text in batch.texts for label in text.labels} <= {"good", "bad"}
    assert all(text.where.startswith(str(tmp_path / "a.csv:")) for text in batch.texts)
    for text in batch.texts:
        assert len(text.tokens) == text.n_tokens
        shown = "".join(token.text for token in text.tokens if not token.is_special)
        assert shown.startswith(
            ("a good film with a warm heart", "the plot is bad, the pace is slow")
        )  # case is folded
        assert [token.text for token in text.tokens if token.is_special] == ["[CLS]", "[SEP]"]
    assert found.co_occurrence is None


def test_pairs_long_texts_and_unknown_tokens_are_marked(tmp_path: Path, backbone: Path) -> None:
    long = "good film " * 60
    data = [{"a": f"{long} {n}", "b": "bad plot 世界", "label": "pn"[n % 2]} for n in range(20)]
    path = jsonl(tmp_path / "a.jsonl", data)
    found = checked(backbone, {"train": path, "valid": path, "text": ["a", "b"], "max_length": 128})
    text = found.batch.texts[0]
    assert len(text.tokens) == 56
    assert len(text.last_tokens) == 8
    assert text.n_left_out == text.n_tokens - 64
    special = [token.text for token in [*text.tokens, *text.last_tokens] if token.is_special]
    assert special == ["[CLS]", "[SEP]", "[UNK]", "[UNK]", "[SEP]"]
    assert "".join(token.text for token in text.last_tokens[-5:-3]) == "bad plot"
    # 2 unknown of 123 to 125 tokens
    assert found.splits[0].lengths.unknown_share == pytest.approx(2 / text.n_tokens, rel=0.02)


def test_a_length_is_suggested_and_padding_told(tmp_path: Path, backbone: Path) -> None:
    texts = ["good film " * 20] * 36 + ["good film " * 90] * 4  # 42 to 45 tokens, and 182 to 185
    data = [{"text": f"{t} {n}", "label": "pn"[n % 2]} for n, t in enumerate(texts)]
    train = jsonl(tmp_path / "a.jsonl", data)
    found = checked(backbone, {"train": train, "valid": train, "max_length": 64}, "fit.batch_size=4")
    assert found.max_length == 64
    assert found.suggested_max_length == 128  # 95 % need 185 tokens, and the tokenizer says that the model takes 128
    assert found.padding.n_steps == 10
    assert found.padding.to_max_length == pytest.approx(1 - (36 * 44 + 4 * 64) / (40 * 64), abs=0.03)
    assert found.padding.in_micro_batches <= found.padding.to_longest <= found.padding.to_max_length
    shorter = jsonl(tmp_path / "b.jsonl", data[:36] + data[36:37])  # 1 of 37 is long
    assert checked(backbone, {"train": shorter, "valid": shorter}).suggested_max_length == 64


def test_a_text_in_train_and_test_is_a_finding(tmp_path: Path, backbone: Path) -> None:
    train, test = csv_file(tmp_path / "train.csv", 40), csv_file(tmp_path / "test.csv", 4)
    found = checked(backbone, {"train": str(train), "test": str(test)})
    serious = [finding for finding in found.findings if finding.severity == "error"]
    assert serious, found.findings
    assert not found.is_clean
    allowed = checked(
        backbone, {"train": str(train), "test": str(test), "allow": [finding.code for finding in found.findings]}
    )
    assert allowed.is_clean


def test_clean_data_are_clean(tmp_path: Path, backbone: Path) -> None:
    found = checked(backbone, {"train": str(csv_file(tmp_path / "a.csv", 40))})
    assert found.is_clean
    assert [finding for finding in found.findings if finding.severity != "note"] == []


def test_rows_that_are_left_out_are_a_finding(tmp_path: Path, backbone: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [*rows(40), {"text": "no label"}])
    found = checked(backbone, {"train": path, "on_bad_row": "skip"})
    assert found.n_bad_rows == 1
    assert not found.is_clean
    serious = [finding for finding in found.findings if finding.severity != "note"]
    assert [(finding.severity, finding.code, finding.count, finding.where) for finding in serious] == [
        ("warning", "bad_rows", 1, (f"{path}:41:label",))
    ]
    assert found.findings[0].what == (
        "1 row of the training data cannot be read and is left out (data.on_bad_row: skip); "
        f"the first, {path}:41:label: this record has no 'label'"
    )
    assert checked(backbone, {"train": path, "on_bad_row": "skip", "allow": ["bad_rows"]}).is_clean
    with pytest.raises(DataError, match="this record has no 'label'"):
        checked(backbone, {"train": path})


def test_faults_of_the_recipe_come_before_the_data(tmp_path: Path, backbone: Path) -> None:
    data = {"train": str(tmp_path / "not-there.csv")}
    with pytest.raises(RecipeError, match="'acuracy' is not a figure of validation for single_label"):
        checked(backbone, data, "fit.monitor=acuracy")
    with pytest.raises(RecipeError, match=r"lightning\.Trainer has no argument 'max_step'"):
        checked(backbone, data, trainer={"max_step": 3})
    with pytest.raises(DataError, match=r"not-there\.csv"):
        checked(backbone, data)


def test_it_is_json(tmp_path: Path, backbone: Path) -> None:
    found = checked(backbone, {"train": str(csv_file(tmp_path / "a.csv", 40))})
    value = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert value["is_clean"] is True
    assert value["splits"][0]["labels"] == {"bad": 18, "good": 18}
    assert value["labels"] == ["bad", "good"]


def test_the_head_of_a_report_has_the_same_shape(tmp_path: Path, backbone: Path) -> None:
    source = {"train": str(csv_file(tmp_path / "a.csv", 40)), "max_length": 64}
    recipe = load_recipe({"backbone": str(backbone), "data": source})
    data = TextDataModule.of(
        prepare(data_plan(recipe.values)), seed=13, batch_size=32, sampler="random", micro_batch="auto"
    )
    summary = summary_of(data, task="single_label", epochs=3, max_length=64)
    expected = check(recipe).as_dict()
    assert {*expected} - {*summary} == {"recipe", "suspects", "forecast", "language_model"}
    assert summary == {name: expected[name] for name in summary}
    json.dumps(summary, allow_nan=False)


def test_a_character_of_several_tokens_is_shown_with_the_last(tmp_path: Path) -> None:
    subwords = Subwords.load(tiny_folder(tmp_path, "roberta"))
    ids = subwords.encode(["A film 世 is good"], max_length=64)[0].ids
    tokens = shown_tokens(ids, subwords, special=special_ids(subwords, is_pair=False))
    assert (tokens[0], tokens[-1]) == (ShownToken("<s>", True), ShownToken("</s>", True))
    assert "".join(token.text for token in tokens[1:-1]) == "A film 世 is good"
    assert "\ufffd" not in "".join(token.text for token in tokens)
    assert [token.text for token in tokens if "世" in token.text] == ["世"]


def test_doubtful_labels_are_named_with_their_places(tmp_path: Path, backbone: Path) -> None:
    pytest.importorskip("cleanlab")
    data = rows(60)
    for position in (10, 31):
        data[position]["label"] = {"good": "bad", "bad": "good"}[data[position]["label"]]
    path = jsonl(tmp_path / "a.jsonl", data)
    assert checked(backbone, {"train": path, "valid": path}).suspects is None
    recipe = {
        "backbone": str(backbone),
        "data": {"train": path, "valid": path, "allow": ["valid_in_train"], "max_length": 32},
    }
    found = check(recipe, labels=True)
    assert found.suspects is not None
    first = found.suspects.rows[:2]
    assert {row.where for row in first} == {f"{path}:11", f"{path}:32"}
    assert {(row.given, row.suggested) for row in first} == {(("bad",), ("good",)), (("good",), ("bad",))}
    value = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert value["suspects"]["rows"][0]["where"] == first[0].where
    assert value["is_clean"] is found.is_clean


def test_the_answer_reads_well(tmp_path: Path, backbone: Path) -> None:
    train, test = csv_file(tmp_path / "train.csv", 60), csv_file(tmp_path / "test.csv", 4)
    recipe = {"backbone": str(backbone), "data": {"train": str(train), "test": str(test), "max_length": 16}}
    stream = io.StringIO()
    answer = check_answer(check(recipe, labels=True), recipe="my.yaml")
    show(answer, as_json=False, stream=stream)
    out = stream.getvalue()
    assert answer.exit_code == 1
    assert "\x1b" not in out  # no colours where nobody would see them
    assert "errors: 1" in out
    assert f"where: {test}:2 = {train}:2, {test}:3 = {train}:3" in out
    assert "---- cut here: data.max_length 16 ----" in out
    assert " [CLS] the plot is bad" in out
    assert "labels most in doubt, of 54 training rows" in out
    assert "if all texts were padded to 16 tokens" in out
