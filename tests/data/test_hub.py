"""Names of data sets on the hub, and loading them (the hub itself is never asked)."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import datasets
import pytest

from headrace.data import hub
from headrace.data.hub import HubSource, parse
from headrace.errors import DataError
from hub_stand_in import COMMIT, StandIn


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hub:stanfordnlp/imdb", HubSource("stanfordnlp/imdb")),
        ("hub:nyu-mll/glue:mnli", HubSource("nyu-mll/glue", config="mnli")),
        ("hub:nyu-mll/glue:mnli#validation_matched", HubSource("nyu-mll/glue", None, "mnli", "validation_matched")),
        ("hub:a/b#train", HubSource("a/b", split="train")),
        ("hub:a/b#train[:10%]", HubSource("a/b", split="train[:10%]")),
        ("hub:a/b:c#test[100:-5]", HubSource("a/b", config="c", split="test[100:-5]")),
        ("hub:a/b@v1.0", HubSource("a/b", "v1.0")),
        ("hub:a/b@refs/convert/parquet", HubSource("a/b", "refs/convert/parquet")),
        ("hub:a/b@0123abc:20231101.en#train", HubSource("a/b", "0123abc", "20231101.en", "train")),
        ("hub:a/b:en-de+fr", HubSource("a/b", config="en-de+fr")),
        ("hub:A-1/_b.c_d", HubSource("A-1/_b.c_d")),
    ],
)
def test_each_part_of_a_name_is_read(source, expected):
    assert parse(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "hub:",
        "hub:imdb",
        "hub:/imdb",
        "hub:a/",
        "hub:a/b/c",
        "hub:../b",
        "hub:a/..",
        "hub:a/b#",
        "hub:a/b:",
        "hub:a/b@",
        "hub:a/b#train:c",
        "hub:a/b#train#test",
        "hub:a/b:c@rev",
        "hub:a/b:c d",
        "hub: a/b",
        "hub:a/b ",
        "hub:a/b\n",
        "hub:a/b#train[",
        "HUB:a/b",
        "a/b",
        "",
    ],
)
def test_what_is_not_written_like_that_is_an_error_with_an_example(source):
    with pytest.raises(DataError) as caught:
        parse(source)
    assert caught.value.what == f"{source!r} does not name a data set on the hub"
    assert caught.value.where == source
    assert "hub:nyu-mll/multi_nli#train" in caught.value.next
    assert parse(hub.EXAMPLE.split(",")[0]).split == "train"


@pytest.fixture
def listening(monkeypatch, tmp_path):
    """Let the hub's address be one on this machine where somebody listens, so that no test leaves it."""
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        yield


@pytest.fixture
def calls(monkeypatch, listening):
    found = []

    def load_dataset(*args, **kwargs):
        found.append((args, kwargs))
        return datasets.Dataset.from_dict({"text": ["a"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return found


@pytest.fixture(autouse=True)
def _no_builder(monkeypatch):
    """Nobody is asked which kind of files a data set has; the library itself is tried in fresh processes."""
    builder = SimpleNamespace(config=SimpleNamespace())
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: builder)


def test_the_parts_reach_datasets_and_no_code_is_trusted(calls):
    found = hub.load("hub:a/b@r1:c#test[:5]", default_split="train")
    assert found.column_names == ["text"]
    assert calls == [(("a/b", "c"), {"split": "test[:5]", "revision": "r1"})]


@pytest.mark.parametrize(("default", "asked"), [("train", "train"), ("valid", "validation"), ("test", "test")])
def test_the_split_is_that_of_the_recipes_key_where_the_source_names_none(calls, default, asked):
    hub.load("hub:a/b", default_split=default)
    hub.load("hub:a/b#valid", default_split=default)  # as written
    assert [kwargs["split"] for _, kwargs in calls] == [asked, "valid"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub"),
            "doesn't exist on the Hub",
        ),
        (ValueError("BuilderConfig 'c' not found. Available: ['x', 'y']\nmore"), "Available: ['x', 'y']"),
        (ValueError("Unknown split \"test\". Should be one of ['train']."), "Should be one of ['train']."),
        (RuntimeError("Dataset scripts are no longer supported, but found b.py"), "Dataset scripts are no longer"),
        (datasets.exceptions.DatasetGenerationError("An error occurred"), "An error occurred"),
        (OSError(), "OSError"),
    ],
)
def test_what_the_hub_lacks_is_one_clear_error(monkeypatch, listening, error, reason):
    def load_dataset(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError) as caught:
        hub.load("hub:a/b@r:c", default_split="test")
    assert caught.value.what.startswith(
        "cannot load a/b (split 'test', configuration 'c', revision 'r') from the hub: "
    )
    assert reason in caught.value.what
    assert "\n" not in caught.value.what
    assert caught.value.where == "hub:a/b@r:c"
    assert "https://huggingface.co/datasets/a/b" in caught.value.next


def test_a_fault_of_ours_is_not_taken_for_one_of_the_hub(monkeypatch, listening):
    def load_dataset(*_, **__):
        raise TypeError("wrong argument")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(TypeError):
        hub.load("hub:a/b", default_split="train")


def test_a_folder_of_the_same_name_is_not_read_in_its_place(tmp_path, calls):
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(DataError, match="the folder 'a/b' here would be read in place of") as caught:
        hub.load("hub:a/b", default_split="train")
    assert caught.value.where == "hub:a/b"
    assert calls == []


SCRIPT = """
import time
from types import SimpleNamespace
import datasets
from headrace.data import hub
from headrace.errors import DataError
start = time.perf_counter()
try:
    hub.load("hub:nobody-xyz/none", default_split="train")
except DataError as error:
    print(round(time.perf_counter() - start, 2))
    print(error)
"""


@pytest.mark.parametrize("how", ["offline", "closed port"])
def test_without_the_hub_there_is_one_clear_error_within_five_seconds(tmp_path, how):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"HF_HUB_OFFLINE": "1"} if how == "offline" else {"HF_ENDPOINT": f"http://127.0.0.1:{port}"}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**kept, **settings, "HF_HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    took, what, where, advice = ran.stdout.splitlines()
    assert float(took) < 5
    assert what.startswith("the hub cannot be reached, and no copy of the data set is here: ")
    assert where == "  where: hub:nobody-xyz/none"
    assert "HF_HUB_OFFLINE=1" in advice
    assert "Traceback" not in ran.stderr


def test_a_proxy_is_left_to_the_hubs_client(monkeypatch, calls):
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://no-such-host.invalid")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    start = time.perf_counter()
    hub.load("hub:a/b", default_split="train")
    assert time.perf_counter() - start < 5
    assert len(calls) == 1


CARD = """---
configs:
- config_name: films
  data_files:
  - {split: train, path: films/train.csv}
  - {split: validation, path: films/valid.csv}
- config_name: books
  data_files:
  - {split: test, path: books/*.csv}
---
"""
FILES = {
    "README.md": CARD,
    "films/train.csv": "text,label\na warm film,01\nNA,1\n1e3,null\n",
    "films/valid.csv": "text,label\na fine film,good\n",
    "books/a.csv": "text,label\na fine book,good\na dull book,bad\n",
}
READ = """
import json, sys
from pathlib import Path
from headrace.data.read import Columns, read
from headrace.errors import DataError
found = {}
for name in sys.argv[2:]:
    source, _, split = name.partition(" ")
    try:
        rows = read(source, Columns(("text",), ("label",)), cache=Path(sys.argv[1]), split=split or "train")
        found[name] = list(zip(rows.texts(), rows.labels()))
    except DataError as error:
        found[name] = error.what
print(json.dumps(found))
"""


def read_from(url: str, folder, *sources: str, **settings: str):
    """Read sources in a fresh process whose hub is at this address, with a cache of its own in the folder."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()}
    (folder / "work").mkdir(exist_ok=True)
    ran = subprocess.run(
        [sys.executable, "-c", READ, str(folder / "cache"), *sources],
        env={**kept, "HF_ENDPOINT": url, "HF_HOME": str(folder / "home"), **settings},
        cwd=folder / "work",
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.slow
def test_the_library_itself_reads_configurations_splits_and_revisions_from_a_hub(tmp_path):
    for name, content in FILES.items():
        path = tmp_path / "repository" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")
    hub = StandIn({"datasets/owner/tiny": tmp_path / "repository"})
    threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
    films = [["a warm film", "01"], ["NA", "1"], ["1e3", "null"]]  # as they are written
    found = read_from(
        hub.url,
        tmp_path,
        "hub:owner/tiny:films",
        "hub:owner/tiny:films valid",
        "hub:owner/tiny@v1:books#test[1:]",
        "hub:owner/tiny:plays",
        "hub:owner/tiny:books",
        "hub:owner/tiny@v9:films",
        "hub:owner/none",
    )
    assert found.pop("hub:owner/tiny:films") == films
    assert found.pop("hub:owner/tiny:films valid") == [["a fine film", "good"]]
    assert found.pop("hub:owner/tiny@v1:books#test[1:]") == [["a dull book", "bad"]]
    what = "cannot load owner/tiny (split 'train', configuration '{}') from the hub: "
    assert found["hub:owner/tiny:plays"].startswith(what.format("plays"))
    assert "['films', 'books']" in found["hub:owner/tiny:plays"]
    assert found["hub:owner/tiny:books"] == what.format("books") + "Unknown split \"train\". Should be one of ['test']."
    assert "revision 'v9'" in found["hub:owner/tiny@v9:films"]
    assert "doesn't exist on the Hub" in found["hub:owner/none"]
    assert f"GET /datasets/owner/tiny/resolve/{COMMIT}/films/train.csv" in hub.requests
    assert "HEAD /datasets/owner/tiny/resolve/v1/README.md" in hub.requests
    hub.shutdown()
    hub.server_close()
    # what was read once is read again without the hub, as our advice says
    again = read_from(hub.url, tmp_path, "hub:owner/tiny:films", HF_HUB_OFFLINE="1")
    assert again == {"hub:owner/tiny:films": films}
