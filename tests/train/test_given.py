"""Sources given in Python: the recipe's own columns, files and memory together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import headrace
from headrace import Bundle
from headrace.data.read import Columns, read
from headrace.train.fit import fit
from headrace.train.stored import store
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
        {"review": "", "stars": "01", **common, **clean},
    ]
    columns = COLUMNS[kind]
    first = read(given, columns, cache=tmp_path / "cache")
    path = store(first, columns, tmp_path / "data", name="train")
    assert set(pq.read_table(path).column_names) == set(columns.names)
    second = read(path, columns, cache=tmp_path / "cache")
    assert second.fingerprint == first.fingerprint
    assert (second.texts(), second.labels(), second.slices()) == (first.texts(), first.labels(), first.slices())


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
