"""Further columns are kept beside texts and labels, whatever the format, and change nothing else."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from headrace.data.examples import Examples
from headrace.data.read import Columns, read
from headrace.errors import DataError

PLAIN = Columns(text=("text",), label=("label",))
COLUMNS = Columns(text=("text",), label=("label",), slices=("genre", "stars"))
ROWS = [
    {"stars": 5, "text": "one", "label": "a", "genre": "drama"},
    {"stars": 1, "text": "two", "label": "b", "genre": None},
    {"stars": 3, "text": "three", "label": "a", "genre": "war"},
]
EXPECTED = {"genre": ["drama", None, "war"], "stars": ["5", "1", "3"]}


def csv(folder: Path) -> Path:
    path = folder / "a.csv"
    path.write_text("stars,text,label,genre\n5,one,a,drama\n1,two,b,\n3,three,a,war\n")
    return path


def sources(folder: Path) -> dict[str, object]:
    jsonl = folder / "a.jsonl"
    jsonl.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    parquet = folder / "a.parquet"
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), parquet)
    return {"jsonl": jsonl, "parquet": parquet, "dicts": ROWS, "frame": pd.DataFrame(ROWS)}


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "dicts", "frame"])
def test_each_format_keeps_the_columns(tmp_path: Path, kind: str) -> None:
    examples = read(sources(tmp_path)[kind], COLUMNS, cache=tmp_path / "cache")
    assert examples.slices() == EXPECTED
    assert examples.labels() == ["a", "b", "a"]
    assert examples.take([2, 0]).slices() == {"genre": ["war", "drama"], "stars": ["3", "5"]}


def test_a_table_of_text_keeps_them_as_written(tmp_path: Path) -> None:
    examples = read(csv(tmp_path), COLUMNS, cache=tmp_path / "cache")
    assert examples.slices() == {**EXPECTED, "genre": ["drama", "", "war"]}
    assert read(csv(tmp_path), PLAIN, cache=tmp_path / "cache").slices() == {}


def test_a_record_without_the_column_has_no_value(tmp_path: Path) -> None:
    rows = [*ROWS, {"text": "four", "label": "b"}]
    assert read(rows, COLUMNS, cache=tmp_path).slices()["genre"] == ["drama", None, "war", None]


def test_the_fingerprint_is_that_of_texts_and_labels(tmp_path: Path) -> None:
    with_them = read(csv(tmp_path), COLUMNS, cache=tmp_path / "cache")
    without = read(csv(tmp_path), PLAIN, cache=tmp_path / "cache")
    assert with_them.fingerprint == without.fingerprint
    assert with_them.content_key() == without.content_key()


def test_text_label_and_repeated_columns_may_be_slices_too(tmp_path: Path) -> None:
    columns = Columns(text=("text", "genre"), label=("label",), slices=("label", "genre", "label"))
    examples = read([{**row, "genre": str(row["genre"])} for row in ROWS], columns, cache=tmp_path)
    assert examples.slices() == {"label": ["a", "b", "a"], "genre": ["drama", "None", "war"]}
    assert examples.texts()[0] == ("one", "drama")


def test_multi_label_flags_are_told_from_slices(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,good,new,genre\none,1,0,war\ntwo,1,1,1\n")
    columns = Columns(text=("text",), label=("good", "new"), multi_label=True, slices=("genre",))
    examples = read(path, columns, cache=tmp_path / "cache")
    assert examples.labels() == [["good"], ["good", "new"]]
    assert examples.slices() == {"genre": ["war", "1"]}


def test_odd_values_are_shortened_and_cleaned_but_no_fault(tmp_path: Path) -> None:
    rows = [{"text": "one", "label": "a", "genre": value} for value in ("x" * 500, ["l"], "\ud800\x00", 2.5, True)]
    examples = read(rows, Columns(text=("text",), label=("label",), slices=("genre",)), cache=tmp_path)
    assert examples.slices()["genre"] == ["x" * 200, "['l']", "\ufffd ", "2.5", "True"]
    assert examples.n_bad_rows == examples.n_replaced == 0


def test_a_missing_column_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    for name, advice in (("genr", "for 'genr', did you mean 'genre'?"), ("xyz", "data.slices")):
        columns = Columns(text=("text",), label=("label",), slices=(name,))
        with pytest.raises(DataError) as caught:
            read(csv(tmp_path), columns, cache=tmp_path / "cache")
        assert advice in caught.value.next


def test_a_folder_of_texts_has_no_columns(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "texts" / label).mkdir(parents=True)
        (tmp_path / "texts" / label / "1.txt").write_text("text")
    with pytest.raises(DataError, match="has no column 'genre'") as caught:
        read(tmp_path / "texts", COLUMNS, cache=tmp_path / "cache")
    assert "remove data.slices" in caught.value.next


def test_they_cross_a_process_border(tmp_path: Path) -> None:
    again: Examples = pickle.loads(pickle.dumps(read(sources(tmp_path)["jsonl"], COLUMNS, cache=tmp_path / "cache")))
    assert again.slices() == EXPECTED
