"""`check` tells what a recipe would train on, and trains nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.check import Check, check
from headrace.errors import DataError, RecipeError
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
    assert 0 < split.lengths.kept_share < 1


def test_multi_label_rows_without_a_label_are_counted(tmp_path: Path, backbone: Path) -> None:
    found = [{"text": f"{row['text']}", "labels": [["a"], ["a", "b"], []][n % 3]} for n, row in enumerate(rows(30))]
    path = jsonl(tmp_path / "a.jsonl", found)
    split = checked(backbone, {"train": path, "valid": path, "label": "labels"}, task="multi_label").splits[0]
    assert split.labels == {"a": 20, "b": 10}
    assert split.n_without_label == 10


def test_the_first_step_is_shown_as_the_model_sees_it(tmp_path: Path, backbone: Path) -> None:
    batch = checked(backbone, {"train": str(csv_file(tmp_path / "a.csv", 40))}).batch
    assert batch.n_texts == 8
    assert len(batch.texts) == 4
    assert all(text.text == text.text.lower() for text in batch.texts)  # the tokenizer folds case
    assert max(text.n_tokens for text in batch.texts) <= batch.width <= 32
    assert 0 <= batch.padding_share < 1
    assert {label for text in batch.texts for label in text.labels} <= {"good", "bad"}
    assert all(text.where.startswith(str(tmp_path / "a.csv:")) for text in batch.texts)


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
    assert [(finding.severity, finding.code, finding.count, finding.where) for finding in found.findings] == [
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
