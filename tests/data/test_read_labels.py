"""Multi-label rows in each of their forms, and the labels that are faults."""

from __future__ import annotations

import json
from pathlib import Path

import pandas
import pytest

from headrace.data.read import Columns, read
from headrace.errors import DataError

FLAGS = Columns(text=("text",), label=("rude", "spam"))
LISTS = Columns(text=("text",), label=("tags",), multi_label=True)
JOINED = Columns(text=("text",), label=("tags",), separator="|")


def test_columns_of_flags_are_named_by_their_columns(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("spam,text,rude\n0,a,1\n0.0,b,0\nTRUE,c,1.0\nFalse,d,true\n")
    examples = read(path, FLAGS, cache=tmp_path / "cache")
    assert examples.is_multi_label
    assert examples.labels() == [["rude"], [], ["rude", "spam"], ["rude"]]


@pytest.mark.parametrize("value", ["2", "yes", "0.5", "-1"])
def test_another_value_than_0_or_1_is_a_fault(tmp_path: Path, value: str) -> None:
    path = tmp_path / "f.csv"
    path.write_text(f"text,rude,spam\na,1,0\nb,0,{value}\n")
    with pytest.raises(DataError) as caught:
        read(path, FLAGS, cache=tmp_path / "cache")
    assert caught.value.what == f"found '{value}' where 0 or 1 is expected"
    assert caught.value.where == f"{path}:3:spam"
    assert caught.value.next == "write 0 or 1; or set data.on_bad_row: skip to leave such rows out"


def test_an_empty_flag_is_a_fault_unless_labels_are_not_required(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("text,rude,spam\na,1,\nb,,\n")
    with pytest.raises(DataError) as caught:
        read(path, FLAGS, cache=tmp_path / "cache")
    assert "2 faults in" in caught.value.what
    assert f"the label is missing ({path}:2:spam)" in caught.value.what
    assert f"the label is missing ({path}:3:rude)" in caught.value.what
    with pytest.raises(DataError) as caught:
        read(path, FLAGS, label_required=False, cache=tmp_path / "cache")
    assert caught.value.where == f"{path}:2:spam"
    path.write_text("text,rude,spam\na,1,0\nb,,\n")
    assert read(path, FLAGS, label_required=False, cache=tmp_path / "cache").labels() == [["rude"], None]


def test_flags_are_the_same_from_json_pandas_and_parquet(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"text": ["a", "b", "c"], "rude": [1, 0, 1], "spam": [True, False, False]})
    frame.to_parquet(tmp_path / "f.parquet")
    lines = frame.to_json(orient="records", lines=True)
    (tmp_path / "f.jsonl").write_text(str(lines))
    sources = [
        frame,
        frame.astype({"rude": float}),
        tmp_path / "f.parquet",
        tmp_path / "f.jsonl",
        frame.to_dict("records"),
    ]
    for source in sources:
        assert read(source, FLAGS, cache=tmp_path / "cache").labels() == [["rude", "spam"], [], ["rude"]]


def test_some_but_not_all_columns_of_flags_are_a_fault_even_without_required_labels(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("text,rude\na,1\n")
    with pytest.raises(DataError, match="found columns 'text', 'rude', expected 'text', 'rude', 'spam'"):
        read(path, FLAGS, label_required=False, cache=tmp_path / "cache")


def test_joined_names_are_split_and_stripped(tmp_path: Path) -> None:
    path = tmp_path / "j.csv"
    path.write_text("text,tags\na, x | y z \nb,\nc,x||x\nd,NA\n")
    examples = read(path, JOINED, cache=tmp_path / "cache")
    assert examples.labels() == [["x", "y z"], [], ["x"], ["NA"]]


def test_lists_of_names(tmp_path: Path) -> None:
    values = [["x", "y"], [], [1, "01"]]
    path = tmp_path / "l.jsonl"
    path.write_text("".join(json.dumps({"text": "t", "tags": value}) + "\n" for value in values))
    assert read(path, LISTS, cache=tmp_path / "cache").labels() == [["x", "y"], [], ["1", "01"]]
    rows = [{"text": "t", "tags": value} for value in values]
    assert read(rows, LISTS, cache=tmp_path / "cache").labels() == [["x", "y"], [], ["1", "01"]]
    frame = pandas.DataFrame({"text": ["t", "u"], "tags": [["x"], []]})
    frame.to_parquet(tmp_path / "l.parquet")
    for source in (frame, tmp_path / "l.parquet"):
        assert read(source, LISTS, cache=tmp_path / "cache").labels() == [["x"], []]


@pytest.mark.parametrize(
    ("value", "what", "next"),
    [
        (
            "x|y",
            "found the string 'x|y' where a list of labels is expected",
            "write a list, or set data.label_separator to what stands between the names; "
            "or set data.on_bad_row: skip to leave such rows out",
        ),
        (
            None,
            "the label is missing",
            "write an empty list for a row with no label; or set data.on_bad_row: skip to leave such rows out",
        ),
        (
            ["x", None],
            "the list of labels holds a null",
            "leave the null out; or set data.on_bad_row: skip to leave such rows out",
        ),
        (
            {"x": 1},
            "found a dict where a list of labels is expected",
            "write a list; or set data.on_bad_row: skip to leave such rows out",
        ),
    ],
)
def test_what_is_no_list_is_a_fault(tmp_path: Path, value: object, what: str, next: str) -> None:
    with pytest.raises(DataError) as caught:
        read([{"text": "a", "tags": ["x"]}, {"text": "t", "tags": value}], LISTS, cache=tmp_path / "cache")
    assert (caught.value.what, caught.value.where, caught.value.next) == (what, "train:2:tags", next)


def test_one_csv_column_of_several_labels_needs_a_separator(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("text,tags\na,x\n")
    with pytest.raises(DataError) as caught:
        read(path, LISTS, cache=tmp_path / "cache")
    assert caught.value.what == "the column 'tags' of a csv file cannot hold a list of labels"
    assert caught.value.where == f"{path}:1:tags"
    assert caught.value.next == (
        "set data.label_separator to what stands between the names, or name several 0/1 columns"
    )


def test_a_list_where_one_label_is_expected_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read([{"text": "a", "tags": ["x"]}], Columns(text=("text",), label=("tags",)), cache=tmp_path / "cache")
    assert caught.value.what == "found a list where one label is expected"
    assert str(caught.value.next).startswith("write one label, or set task: multi_label if a text can have several; or")
