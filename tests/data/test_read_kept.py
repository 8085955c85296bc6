"""What was read is kept, opened again only when whole, and never all in memory."""

from __future__ import annotations

import json
import logging
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headrace.data import arrow
from headrace.data import read as read_module
from headrace.data.examples import Examples
from headrace.data.read import Columns, read
from headrace.errors import RunError

SINGLE = Columns(text=("text",), label=("label",))


def write_csv(path: Path, n_rows: int) -> Path:
    path.write_text("text,label\n" + "".join(f"text {row},l{row % 3}\n" for row in range(n_rows)))
    return path


def kept_folders(cache: Path) -> list[Path]:
    return sorted((cache / "examples").iterdir())


def test_an_equal_source_is_only_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(write_csv(tmp_path / "a.csv", 10), SINGLE, cache=tmp_path / "cache")
    monkeypatch.setattr(arrow, "write", None)  # a second parse would fail
    again = read(write_csv(tmp_path / "b.csv", 10), SINGLE, cache=tmp_path / "cache")
    assert again.fingerprint == first.fingerprint
    assert again.where(0) == f"{tmp_path / 'b.csv'}:2"


def test_other_content_columns_or_options_are_kept_apart(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", 10)
    cache = tmp_path / "cache"
    read(path, SINGLE, cache=cache)
    read(path, Columns(text=("label",), label=("text",)), cache=cache)
    read(path, SINGLE, on_bad_row="skip", cache=cache)
    read(path, SINGLE, encoding="latin-1", cache=cache)
    read(path, SINGLE, label_required=False, cache=cache)
    read(write_csv(path, 11), SINGLE, cache=cache)
    assert len(kept_folders(cache)) == 6


@pytest.mark.parametrize("damage", ["cut", "no_meta", "half_meta", "other_format", "no_arrow", "empty_arrow"])
def test_what_is_not_whole_is_read_anew(tmp_path: Path, damage: str) -> None:
    path = write_csv(tmp_path / "a.csv", 100)
    before = read(path, SINGLE, cache=tmp_path / "cache").fingerprint
    (folder,) = kept_folders(tmp_path / "cache")
    file, meta = folder / "examples.arrow", folder / "meta.json"
    content = json.loads(meta.read_text())
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-10])
    elif damage == "no_meta":
        meta.unlink()
    elif damage == "half_meta":
        meta.write_text(meta.read_text()[:30])
    elif damage == "other_format":
        meta.write_text(json.dumps({**content, "format": -1}))
    elif damage == "no_arrow":
        file.unlink()
    else:
        file.write_bytes(b"")
        meta.write_text(json.dumps({**content, "n_bytes": 0}))
    examples = read(path, SINGLE, cache=tmp_path / "cache")
    assert examples.fingerprint == before
    assert len(examples.texts()) == 100
    assert kept_folders(tmp_path / "cache") == [folder]


def test_another_process_may_be_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_csv(tmp_path / "a.csv", 10)
    read(path, SINGLE, cache=tmp_path / "cache")
    calls = []
    opened = arrow.open_kept

    def open_kept(folder: Path, *, source: str) -> Examples | None:
        calls.append(folder)
        return None if len(calls) == 1 else opened(folder, source=source)

    def taken(path: Path) -> None:
        raise RunError("cannot write")

    monkeypatch.setattr(arrow, "open_kept", open_kept)
    monkeypatch.setattr(read_module, "atomic_folder", taken)
    assert len(read(path, SINGLE, cache=tmp_path / "cache")) == 10


def test_left_out_rows_are_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,x\nb\nc\n")
    with caplog.at_level(logging.WARNING, "headrace"):
        read(path, SINGLE, on_bad_row="skip", cache=tmp_path / "cache")
    assert [record.getMessage() for record in caplog.records] == [f"{path}: 2 bad rows are left out"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """Return 20,000 rows: three record batches."""
    folder = tmp_path_factory.mktemp("many")
    return read(write_csv(folder / "a.csv", 20_000), SINGLE, cache=folder / "cache")


def test_rows_are_found_across_record_batches(many: Examples) -> None:
    assert many.table.column("text").num_chunks == 3
    assert many.texts() == [f"text {row}" for row in range(20_000)]
    assert many.texts(8190, 8194) == ["text 8190", "text 8191", "text 8192", "text 8193"]
    order = np.random.default_rng(0).permutation(20_000)
    chosen = many.take(order)
    assert chosen.texts() == [f"text {row}" for row in order]
    assert chosen.labels(5, 9) == [f"l{row % 3}" for row in order[5:9]]
    assert chosen.take([3, 3, 0]).column("row") == [int(order[3]) + 2, int(order[3]) + 2, int(order[0]) + 2]
    assert chosen.take([]).texts() == []
    assert [stop - start for start, stop in many.batches()] == [8192, 8192, 3616]


def test_another_process_maps_the_file_rather_than_copy_it(many: Examples) -> None:
    chosen = many.take([19_999, 0])
    pickled = pickle.dumps(chosen)
    assert len(pickled) < 5000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(Examples.texts, (chosen,)) == ["text 19999", "text 0"]


_PASS = """
import resource, sys
from pathlib import Path
from headrace.data.read import Columns, read
examples = read(Path(sys.argv[1]), Columns(text=("text",), label=("label",)), cache=Path(sys.argv[2]))
n = sum(len(text) for start, stop in examples.batches() for text in examples.texts(start, stop))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, n)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    peaks = {}
    words = "some more words that make a row of two hundred characters " * 3
    for n_rows in (20_000, 200_000):
        path = tmp_path / f"{n_rows}.csv"
        with open(path, "w") as file:
            file.write("text,label\n")
            file.writelines(f"{row} {words},l{row % 3}\n" for row in range(n_rows))
        command = [sys.executable, "-c", _PASS, str(path), str(tmp_path / "cache")]
        peak, n_characters = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        assert int(n_characters) > n_rows * 170
        peaks[n_rows] = int(peak)
    # 200,000 rows are 36 MB of text on disk; the process itself takes about 100 MB
    assert peaks[200_000] < 1.2 * peaks[20_000]
