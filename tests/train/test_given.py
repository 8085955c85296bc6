"""Sources given in Python: the recipe's own columns, rows that are left out, files and memory together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import headrace
from headrace import Bundle
from headrace.data.read import Columns, read
from headrace.errors import DataError
from headrace.train.fit import fit
from headrace.train.stored import as_given, store
from loopback import Site, sha, tar_of
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, write_csv

STARS = {"data__text": "review", "data__label": "stars", "fit__epochs": 1}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("backbone"))


def reviews(n: int = 24) -> list[dict[str, Any]]:
    return [{"review": row["text"], "stars": row["label"]} for row in rows(n)]


def in_memory(backbone: Path, **changes: Any) -> dict[str, Any]:
    settings = recipe(Path("unused"), backbone, **{**STARS, **changes})
    del settings["data"]["train"]
    return settings


def listed(run: Path) -> list[dict[str, str]]:
    with open(run / "bad_rows.jsonl", encoding="utf-8", newline="\n") as lines:  # a text may hold other ends of a line
        return [json.loads(line) for line in lines]


# -- columns ------------------------------------------------------------------------------------------------------


def test_a_bundle_of_rows_in_memory_reads_the_same_rows_and_a_file_with_their_columns(
    tmp_path: Path, backbone: Path
) -> None:
    given = reviews()
    run = headrace.fit(in_memory(backbone), train=given, out=tmp_path / "run", echo=silent)
    about = Bundle.load(run.bundle).about.text
    assert (about.columns, about.label_columns) == (("review",), ("stars",))
    assert headrace.evaluate(run.bundle, given).n_rows == 24
    path = tmp_path / "again.csv"
    path.write_text("review,stars\n" + "".join(f"{row['review']},{row['stars']}\n" for row in given), "utf-8")
    assert headrace.evaluate(run.bundle, path).n_rows == 24
    resolved = (run.folder / "recipe.yaml").read_text("utf-8")
    assert "text: review" in resolved
    assert "label: stars" in resolved
    # the run's recipe needs the objects no more
    again = fit(run.folder / "recipe.yaml", out=tmp_path / "again", echo=silent)
    assert again.evaluation.metrics == run.evaluation.metrics


def test_the_columns_of_pairs_and_of_several_labels_stay_too(tmp_path: Path, backbone: Path) -> None:
    given = [
        {"premise": f"film {i} is warm", "hypothesis": "it is", "long": i % 2, "warm": i // 2 % 2} for i in range(24)
    ]
    settings = in_memory(
        backbone, task="multi_label", data__text=["premise", "hypothesis"], data__label=["warm", "long"]
    )
    run = headrace.fit(settings, train=given, out=tmp_path / "run", echo=silent)
    about = Bundle.load(run.bundle).about.text
    assert (about.columns, about.label_columns) == (("premise", "hypothesis"), ("warm", "long"))
    found = headrace.evaluate(run.bundle, given)
    assert {label: values["support"] for label, values in found.per_label.items()} == {"warm": 12, "long": 12}


COLUMNS = {
    "one label": Columns(("review",), ("stars",)),
    "a pair": Columns(("review", "title"), ("stars",)),
    "flags": Columns(("review",), ("warm", "long"), multi_label=True),
    "joined": Columns(("review",), ("tags",), separator=";", multi_label=True),
    "a list": Columns(("review",), ("names",), multi_label=True),
    "slices": Columns(("review",), ("stars",), slices=("text", "stars", "review", "shop")),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_what_is_stored_reads_as_what_was_given(tmp_path: Path, kind: str) -> None:
    common = {"title": "T", "text": "in a slice", "shop": None}
    tagged = {"warm": 1, "long": False, "tags": "warm; long", "names": ["warm", "long"]}
    clean = {"warm": "0", "long": 0.0, "tags": "", "names": []}
    given = [
        {"review": "NA", "stars": 5, **common, **tagged},
        {"review": None, "stars": None, "title": None},
        {"review": "", "stars": "01", **common, **clean},
        {"review": None},
    ]
    columns = COLUMNS[kind]
    first = read(given, columns, on_bad_row="skip", cache=tmp_path / "cache")
    path = store(first, columns, tmp_path / "data", name="train")
    assert set(pq.read_table(path).column_names) == set(columns.names)
    second = as_given(read(path, columns, on_bad_row="skip", cache=tmp_path / "cache"))
    assert second.fingerprint == first.fingerprint
    assert (second.texts(), second.labels(), second.slices()) == (first.texts(), first.labels(), first.slices())
    assert second.column("row") == [1, 3]
    assert second.n_bad_rows == 2
    assert [bad.where.split(":")[:2] for bad in second.bad_rows] == [["train", "2"], ["train", "4"]]
    assert [bad.reason for bad in second.bad_rows] == [bad.reason for bad in first.bad_rows]


# -- rows that are left out ---------------------------------------------------------------------------------------


def test_bad_rows_in_memory_are_left_out_and_listed_as_they_were_given(tmp_path: Path, backbone: Path) -> None:
    train: list[Any] = reviews()
    train.insert(2, {"review": None, "stars": "good"})
    train.insert(5, {"review": "a good one\u2028", "stars": None})
    train.append("no row")
    test: list[Any] = [{**row, "review": f"new {row['review']}"} for row in reviews(9)]
    test.insert(0, {"stars": "bad"})
    settings = in_memory(backbone, data__on_bad_row="skip")
    run = headrace.fit(settings, train=train, test=test, out=tmp_path / "run", echo=silent)
    told = listed(run.folder)
    assert [row["where"] for row in told] == ["train:3:review", "train:6:stars", "train:27", "test:1:review"]
    assert "the text is missing" in told[0]["reason"]
    assert told[1]["reason"] == "the label is missing"
    assert told[1]["content"].startswith("a good one\u2028")
    assert told[2]["reason"] == "this row is a str, not a dict"
    assert json.loads((run.folder / "report.json").read_text("utf-8"))["data"]["bad_rows"] == 4
    findings = [finding for finding in run.findings if finding.code == "bad_rows"]
    assert [finding.where for finding in findings] == [tuple(row["where"] for row in told[:3]), ("test:1:review",)]
    # rows keep the numbers that they have in the list, the first being 1
    assert pq.read_table(run.folder / "predictions.parquet")["row"].to_pylist() == list(range(2, 11))
    again = fit(run.folder / "recipe.yaml", out=tmp_path / "again", echo=silent)
    assert listed(again.folder) == told


def test_a_bad_row_in_memory_is_an_error_where_the_recipe_does_not_skip(tmp_path: Path, backbone: Path) -> None:
    with pytest.raises(DataError, match="the text is missing") as caught:
        headrace.fit(in_memory(backbone), train=[*reviews(), {"review": None, "stars": "good"}], out=tmp_path / "run")
    assert caught.value.where == "train:25:review"
    assert "set data.on_bad_row: skip" in str(caught.value.next)


# -- files and memory together ------------------------------------------------------------------------------------


def test_some_parts_may_be_in_memory_and_others_files(tmp_path: Path, backbone: Path) -> None:
    new = [{"text": f"new {row['text']}", "label": row["label"]} for row in rows(9)]
    file = write_csv(tmp_path / "test.csv", new)
    settings = recipe(Path("unused"), backbone, fit__epochs=1, data__test=str(file))
    run = headrace.fit(settings, train=rows(24), out=tmp_path / "memory", echo=silent)
    assert (run.evaluation.split, run.evaluation.n_rows) == ("test", 9)
    settings["data"]["train"] = str(write_csv(tmp_path / "train.csv", rows(24)))
    other = headrace.fit(settings, test=new, out=tmp_path / "file", echo=silent)
    assert other.evaluation.metrics == run.evaluation.metrics


def test_rows_in_memory_may_stand_beside_an_archive(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    content = tar_of({"films/test.csv": b"text,label\na warm film,good\na dull film,bad\n"})
    site = Site()
    site.files["/films.tar.gz"] = content
    settings = recipe(Path("unused"), backbone, fit__epochs=1, data__test="films/test.csv")
    settings["data"] |= {"url": f"{site.url}/films.tar.gz", "sha256": sha(content)}
    run = headrace.fit(settings, train=rows(24), out=tmp_path / "run", echo=silent)
    site.server.shutdown()
    site.server.server_close()
    assert (run.evaluation.split, run.evaluation.n_rows) == ("test", 2)
