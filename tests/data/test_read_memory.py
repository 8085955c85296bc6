"""Sources in memory give what the same rows in a file give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pytest

from headrace.data.read import Columns, read
from headrace.errors import DataError

SINGLE = Columns(text=("text",), label=("label",))
ROWS = [
    {"text": "NA", "label": "None", "id": 1},
    {"text": 'a, "b"', "label": "01", "id": 2},
    {"text": "", "label": "True", "id": 3},
]


def sources() -> dict[str, Any]:
    return {
        "list": ROWS,
        "DataFrame": pandas.DataFrame(ROWS, index=[7, 7, 9]),
        "Dataset": datasets.Dataset.from_list(ROWS),
    }


@pytest.mark.parametrize("name", ["list", "DataFrame", "Dataset"])
def test_memory_gives_what_the_file_gives(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('id,text,label\n1,NA,None\n2,"a, ""b""",01\n3,"",True\n')
    file = read(path, SINGLE, cache=tmp_path / "cache")
    examples = read(sources()[name], SINGLE, cache=tmp_path / "cache")
    assert examples.texts() == file.texts()
    assert examples.labels() == file.labels()
    assert examples.fingerprint == file.fingerprint
    assert examples.column("row") == [1, 2, 3]
    assert examples.where(1) == "train:2"


def test_the_fingerprint_tells_the_content_apart(tmp_path: Path) -> None:
    found = {
        read(rows, SINGLE, cache=tmp_path / "cache").fingerprint
        for rows in (
            [{"text": "ab", "label": "c"}],
            [{"text": "a", "label": "bc"}],
            [{"text": "ab", "label": "c"}, {"text": "", "label": "c"}],
            [{"text": "ab", "label": "d"}],
        )
    }
    assert len(found) == 4


def test_numbers_become_strings(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"text": ["a", "b"], "label": [1, 0]})
    assert read(frame, SINGLE, cache=tmp_path / "cache").labels() == ["1", "0"]
    rows = [{"text": np.str_("a"), "label": np.int64(3)}, {"text": 5, "label": 1.5}, {"text": "c", "label": True}]
    examples = read(rows, SINGLE, cache=tmp_path / "cache")
    assert (examples.texts(), examples.labels()) == (["a", "5", "c"], ["3", "1.5", "True"])


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), pandas.NA, pandas.NaT])
def test_every_kind_of_null_is_a_fault(tmp_path: Path, missing: object) -> None:
    with pytest.raises(DataError) as caught:
        read([{"text": "a", "label": "x"}, {"text": "b", "label": missing}], SINGLE, cache=tmp_path / "cache")
    assert (caught.value.what, caught.value.where) == ("the label is missing", "train:2:label")
    frame = pandas.DataFrame({"text": ["a", missing], "label": ["x", "y"]})
    with pytest.raises(DataError) as caught:
        read(frame, SINGLE, cache=tmp_path / "cache")
    assert (caught.value.what, caught.value.where) == ("the text is missing (null)", "train:2:text")
    frame = pandas.DataFrame({"text": ["a", "b"], "label": ["x", missing]})
    assert read(frame, SINGLE, label_required=False, cache=tmp_path / "cache").labels() == ["x", None]


def test_class_labels_give_their_names(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names, "tags": datasets.List(names)})
    data = datasets.Dataset.from_dict(
        {"text": ["a", "b", "c"], "label": [1, 0, 1], "tags": [[0, 1], [], [1]]}, features=features
    )
    assert read(data, SINGLE, cache=tmp_path / "cache").labels() == ["pos", "neg", "pos"]
    lists = Columns(text=("text",), label=("tags",), multi_label=True)
    assert read(data.with_format("numpy"), lists, cache=tmp_path / "cache").labels() == [["neg", "pos"], [], ["pos"]]
    unknown = datasets.Dataset.from_dict({"text": ["a"], "label": [-1], "tags": [[]]}, features=features)
    with pytest.raises(DataError, match="the label is missing"):
        read(unknown, SINGLE, cache=tmp_path / "cache")


def test_a_selection_of_a_dataset_is_read_as_selected(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(ROWS).select([2, 0])
    assert read(data, SINGLE, cache=tmp_path / "cache").labels() == ["True", "None"]


@pytest.mark.parametrize("name", ["list", "DataFrame", "Dataset"])
def test_a_missing_column_offers_the_nearest(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        read(sources()[name], Columns(text=("text",), label=("labels",)), cache=tmp_path / "cache")
    assert caught.value.what == "found columns 'text', 'label', 'id', expected 'text', 'labels'"
    assert caught.value.where == "train"
    assert caught.value.next == "for 'labels', did you mean 'label'?"


@pytest.mark.parametrize(
    ("source", "what", "next"),
    [
        (
            {"text": ["a"]},
            "examples cannot be read from a dict",
            "give a file's path, a list of dicts, a pandas.DataFrame or a datasets.Dataset",
        ),
        (
            datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS)}),
            "examples cannot be read from a DatasetDict",
            "choose one of its splits: train, test",
        ),
        (
            ["a text"],
            "this row is a str, not a dict",
            'give a list of dicts such as {"text": "…", "label": "…"}; '
            "or set data.on_bad_row: skip to leave such rows out",
        ),
        ([], "there is no row of data", "give a source with at least one text"),
        (pandas.DataFrame({"text": [], "label": []}), "there is no row of data", None),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, source: Any, what: str, next: str | None) -> None:
    with pytest.raises(DataError) as caught:
        read(source, SINGLE, cache=tmp_path / "cache")
    assert caught.value.what == what
    assert next is None or caught.value.next == next


def test_bad_rows_of_a_list_are_left_out(tmp_path: Path) -> None:
    rows = [*ROWS, "text", {"text": "b"}, {"text": ["b"], "label": "x"}]
    examples = read(rows, SINGLE, on_bad_row="skip", cache=tmp_path / "cache")
    assert len(examples) == 3
    assert [(bad.where, bad.reason) for bad in examples.bad_rows] == [
        ("train:4", "this row is a str, not a dict"),
        ("train:5:label", "this record has no 'label'"),
        ("train:6:text", "found a list where a text is expected"),
    ]


def test_the_hub_gives_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(reference: str, *, default_split: str, columns: tuple[str, ...]) -> datasets.Dataset:
        asked.append((reference, default_split, columns))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr("headrace.data.hub.load", load)
    examples = read("hub:owner/name", SINGLE, split="test", cache=tmp_path / "cache")
    assert asked == [("hub:owner/name", "test", SINGLE.names)]
    assert examples.where(0) == "hub:owner/name:1"
