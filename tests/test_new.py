"""`new` guesses columns and task from the rows of a file, and writes a recipe that loads."""

from __future__ import annotations

import csv
import gzip
import importlib.resources
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.errors import DataError, RecipeError
from headrace.guess import guess
from headrace.new import new
from headrace.recipe import load_recipe

SAMPLES = Path(str(importlib.resources.files("headrace"))) / "samples"
TEXTS = [f"the {word} one came on a day in {month}" for word in ("first", "last", "best", "worst") for month in "abcde"]


def table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def lines(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    ("file", "task", "text", "label", "labels"),
    [
        ("reviews/train.csv", "single_label", "review", "sentiment", {"negative", "positive"}),
        (
            "pairs/train.jsonl",
            "single_label",
            ["premise", "hypothesis"],
            "label",
            {"entailment", "neutral", "contradiction"},
        ),
    ],
)
def test_the_samples_are_understood(
    tmp_path: Path, file: str, task: str, text: str | list[str], label: str, labels: set[str]
) -> None:
    found = new(SAMPLES / file, out=tmp_path / "recipe.yaml")
    values = load_recipe(tmp_path / "recipe.yaml").values
    assert (values.task, values.data.text, values.data.label) == (task, text, label)
    assert set(found.labels) == labels
    assert values.data.train == str(SAMPLES / file)
    assert values.data.test == str(SAMPLES / file.replace("train", "test"))


def test_joined_names_are_several_labels_and_an_empty_cell_is_none(tmp_path: Path) -> None:
    found = new(SAMPLES / "tickets" / "train.csv", out=tmp_path / "recipe.yaml")
    values = load_recipe(tmp_path / "recipe.yaml").values
    assert (values.task, values.data.text, values.data.label) == ("multi_label", "message", "labels")
    assert found.separator == "|"
    assert "separator: '|'" in (tmp_path / "recipe.yaml").read_text("utf-8")
    assert len(found.labels) >= 4
    assert all("|" not in name for name in found.labels)


def test_several_0_1_columns_are_several_labels(tmp_path: Path) -> None:
    rows = [(n, text, n % 2, n % 3 == 0, 0) for n, text in enumerate(TEXTS)]
    rows = [(n, text, str(a), str(int(b)), str(c)) for n, text, a, b, c in rows]
    path = table(tmp_path / "train.csv", ["id", "comment", "rude", "loud", "rare"], rows)
    found = new(path, out=tmp_path / "recipe.yaml")
    values = load_recipe(tmp_path / "recipe.yaml").values
    assert values.task == "multi_label"
    assert values.data.text == "comment"
    assert values.data.label == ["rude", "loud", "rare"]
    assert found.labels == {"rude": 10, "loud": 7, "rare": 0}


def test_lists_in_json_are_several_labels(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{"body": text, "tags": ["x", "y"][: n % 3]} for n, text in enumerate(TEXTS)])
    found = guess(path)
    assert (found.task, found.text, found.label, found.separator) == ("multi_label", ("body",), ("tags",), None)
    assert set(found.labels) == {"x", "y"}


def test_the_whole_file_is_sampled_as_files_are_sorted_by_label(tmp_path: Path) -> None:
    rows = [(f"a text with a number {n}", "bad" if n < 9000 else "good") for n in range(12_000)]
    found = guess(table(tmp_path / "a.csv", ["text", "verdict"], rows))
    assert found.label == ("verdict",)
    assert set(found.labels) == {"bad", "good"}
    assert found.n_rows <= 2000
    assert 0.7 < found.labels["bad"] / found.n_rows < 0.8


def test_a_column_called_label_wins_over_one_with_fewer_values(tmp_path: Path) -> None:
    rows = [{"text": text, "half": "ab"[n % 2], "label": "xyz"[n % 3]} for n, text in enumerate(TEXTS)]
    assert guess(lines(tmp_path / "a.jsonl", rows)).label == ("label",)


def test_ids_links_and_numbers_are_left_alone(tmp_path: Path) -> None:
    rows = [
        (f"id{n}", f"https://localhost/a/very/long/address/that/is/longer/than/the/text/itself/{n}", text, "pn"[n % 2])
        for n, text in enumerate(TEXTS)
    ]
    found = guess(table(tmp_path / "a.csv", ["id", "url", "text", "label"], rows))
    assert found.text == ("text",)
    assert found.others == ("id", "url")


def test_numbered_texts_are_a_pair(tmp_path: Path) -> None:
    rows = [{"sentence1": text, "sentence2": text[::-1], "label": n % 2} for n, text in enumerate(TEXTS)]
    assert guess(lines(tmp_path / "a.jsonl", rows)).text == ("sentence1", "sentence2")


def test_parquet_and_gzip_are_read(tmp_path: Path) -> None:
    names = ["pn"[n % 2] for n in range(len(TEXTS))]
    pq.write_table(pa.table({"text": TEXTS, "label": names}), tmp_path / "a.parquet")
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": t, "label": name}) + "\n" for t, name in zip(TEXTS, names, strict=True))
    for name in ("a.parquet", "a.jsonl.gz"):
        assert guess(tmp_path / name).labels == {"n": 10, "p": 10}


def test_a_folder_per_label_becomes_names_without_the_unlabelled(tmp_path: Path) -> None:
    for label in ("pos", "neg", "unsup"):
        (tmp_path / "train" / label).mkdir(parents=True)
        for n in range(3):
            (tmp_path / "train" / label / f"{n}.txt").write_text(f"a {label} review", "utf-8")
    (tmp_path / "train" / "urls.txt").write_text("stray", "utf-8")
    new(tmp_path / "train", out=tmp_path / "recipe.yaml")
    values = load_recipe(tmp_path / "recipe.yaml").values
    assert values.data.labels == ["neg", "pos"]
    assert values.data.train == str(tmp_path / "train")
    assert "left alone: unsup" in (tmp_path / "recipe.yaml").read_text("utf-8")


def test_every_line_says_why(tmp_path: Path) -> None:
    new(SAMPLES / "reviews" / "train.csv", out=tmp_path / "recipe.yaml")
    written = (tmp_path / "recipe.yaml").read_text("utf-8").splitlines()
    assert len(written) >= 14
    assert all("# " in line or line in ("data:", "fit:") for line in written)


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", ["text", "label"], [(text, "pn"[n % 2]) for n, text in enumerate(TEXTS)])
    (tmp_path / "recipes").mkdir()
    new(path, out=tmp_path / "recipes" / "recipe.yaml")
    assert "train: ../a.csv" in (tmp_path / "recipes" / "recipe.yaml").read_text("utf-8")
    assert load_recipe(tmp_path / "recipes" / "recipe.yaml").values.data.train == str(path)


def test_a_recipe_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "recipe.yaml"
    out.write_text("seed: 7\n", "utf-8")
    with pytest.raises(RecipeError) as caught:
        new(SAMPLES / "reviews" / "train.csv", out=out)
    assert caught.value.what == "recipe.yaml is there already and is not overwritten"
    assert caught.value.where == str(out)
    assert caught.value.next == "name another file with --out"
    assert out.read_text("utf-8") == "seed: 7\n"


def test_names_from_the_data_stay_in_their_comment(tmp_path: Path) -> None:
    header = ["text", "label", "odd\nname: injected"]
    path = table(tmp_path / "a.csv", header, [(text, "p\nq: 1" if n % 2 else "n", "-") for n, text in enumerate(TEXTS)])
    new(path, out=tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml").values.data.label == "label"


def test_a_missing_file_offers_the_one_beside_it(tmp_path: Path) -> None:
    table(tmp_path / "reviews.csv", ["text", "label"], [])
    with pytest.raises(DataError) as caught:
        new(tmp_path / "review.csv", out=tmp_path / "recipe.yaml")
    assert caught.value.what == f"there is no file {str(tmp_path / 'review.csv')!r}"
    assert caught.value.next == "did you mean 'reviews.csv'?"


@pytest.mark.parametrize(
    ("header", "rows", "what"),
    [
        (["text", "label"], [], "there is no row of data"),
        (["text"], [[text] for text in TEXTS], "no column looks like a label; there are text (20 values)"),
    ],
)
def test_a_file_that_tells_nothing_is_refused(
    tmp_path: Path, header: list[str], rows: list[list[str]], what: str
) -> None:
    with pytest.raises(DataError) as caught:
        new(table(tmp_path / "a.csv", header, rows), out=tmp_path / "recipe.yaml")
    assert caught.value.what == what
    assert caught.value.where == str(tmp_path / "a.csv")
    assert not (tmp_path / "recipe.yaml").exists()


def test_an_unknown_ending_and_an_unknown_task_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x", "utf-8")
    with pytest.raises(DataError, match=r"cannot tell what 'a\.txt' holds from its name"):
        new(tmp_path / "a.txt", out=tmp_path / "recipe.yaml")
    with pytest.raises(RecipeError, match="there is no task named 'regression'"):
        new(SAMPLES / "reviews" / "train.csv", out=tmp_path / "recipe.yaml", task="regression")


def test_the_task_can_be_told(tmp_path: Path) -> None:
    rows = [(text, str(n % 2), str((n % 3 == 0 and 1) or 0)) for n, text in enumerate(TEXTS)]
    path = table(tmp_path / "a.csv", ["comment", "rude", "loud"], rows)
    assert guess(path).task == "multi_label"
    told = guess(path, task="single_label")
    assert (told.task, told.label) == ("single_label", ("rude",))


def test_a_quote_that_is_never_closed_is_told_as_check_tells_it(tmp_path: Path) -> None:
    lines = ["text,label", *(f"{text},{'pn'[n % 2]}" for n, text in enumerate(TEXTS))]
    lines[4] = f'"{lines[4]}'
    (tmp_path / "a.csv").write_text("\n".join(lines), "utf-8")
    with pytest.raises(DataError) as caught:
        new(tmp_path / "a.csv", out=tmp_path / "recipe.yaml")
    assert caught.value.what == "a quote that opens here is never closed"
    assert caught.value.where == f"{tmp_path / 'a.csv'}:5"
    assert not (tmp_path / "recipe.yaml").exists()


def test_a_header_that_check_would_refuse_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,text\na,b,c\n", "utf-8")
    with pytest.raises(DataError, match="the column name 'text' occurs 2 times"):
        guess(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("text;label\na;b\n", "utf-8")
    with pytest.raises(DataError) as caught:
        guess(tmp_path / "b.csv")
    assert caught.value.next == (
        "the columns look separated by semicolons: save the file with commas (.csv) or tabs (.tsv)"
    )


def test_rows_with_too_many_fields_are_passed_over_or_told_where_there_are_no_others(tmp_path: Path) -> None:
    ragged = [[text, "more", "p"] for text in TEXTS]
    good = [[text, "pn"[n % 2]] for n, text in enumerate(TEXTS)]
    assert guess(table(tmp_path / "a.csv", ["text", "label"], [*ragged, *good])).n_rows == len(good)
    with pytest.raises(DataError) as caught:
        guess(table(tmp_path / "b.csv", ["text", "label"], ragged))
    assert caught.value.what == (
        "none of the 20 rows can be used; the first: this row has 3 fields where the header has 2"
    )
