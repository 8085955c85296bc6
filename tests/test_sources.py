"""What a bundle reads: pipes as well as files, in a scratch folder that is gone afterwards."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace import apply
from headrace.bundle import Bundle
from headrace.data.examples import BadRow
from headrace.errors import DataError, RunError
from headrace.sources import piped, row_of, scratch
from tiny_bundle import tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.load(tiny_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    text = {"columns": ("premise", "hypothesis")}
    return Bundle.load(tiny_bundle(tmp_path_factory.mktemp("pairs"), text=text))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# -- pipes --------------------------------------------------------------------------------------------------------


def test_lines_from_a_pipe_are_texts(tmp_path: Path, bundle: Bundle) -> None:
    stream = io.BytesIO("a good film\n\nça va — “quotes, commas”\n".encode())
    with piped(stream, bundle) as source:
        found, examples = apply.predict_rows(bundle, source)
        kept = source.path
    assert examples.texts() == ["a good film", "", "ça va — “quotes, commas”"]
    assert [row for row, _ in found] == [1, 2, 3]
    assert not kept.exists()


def test_json_lines_from_a_pipe_are_rows(bundle: Bundle) -> None:
    stream = io.BytesIO(b'{"text": "a good film"}\n{"txt": "a bad film"}\n')
    with piped(stream, bundle) as source:
        found, examples = apply.predict_rows(bundle, source)
    assert len(found) == 1
    assert examples.bad_rows[0].where.startswith("standard input:2")


def test_a_pipe_with_the_wrong_columns_is_named_as_such(bundle: Bundle) -> None:
    with piped(io.BytesIO(b'{"txt": "a"}\n'), bundle) as source, pytest.raises(DataError) as caught:
        apply.predict_rows(bundle, source)
    assert caught.value.where is not None
    assert "standard input" in caught.value.where
    assert "/tmp" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"\n \na good film\n\n", ["", " ", "a good film", ""]),
        (b"\n\n", ["", ""]),
        (b"\xef\xbb\xbfa good film\r\nno end", ["a good film", "no end"]),
    ],
)
def test_each_line_is_a_text_blank_ones_too(bundle: Bundle, content: bytes, texts: list[str]) -> None:
    with piped(io.BytesIO(content), bundle) as source:
        found, examples = apply.predict_rows(bundle, source)
    assert examples.texts() == texts
    assert [row for row, _ in found] == list(range(1, len(texts) + 1))


def test_a_pipe_that_is_not_utf_8_is_an_error_with_line_and_byte(bundle: Bundle) -> None:
    with pytest.raises(DataError) as caught, piped(io.BytesIO(b"a good film\ncaf\xe9 noir\n"), bundle):
        pass
    assert caught.value.what == "the byte 0xe9 is not valid UTF-8 (invalid continuation byte)"
    assert caught.value.where == "standard input:2 (byte 3 of the line)"
    assert caught.value.next == "convert it first, such as with iconv -f latin1 -t utf-8"


def test_pairs_from_a_pipe_have_a_tab_and_lines_without_are_bad_rows(tmp_path: Path, pairs: Bundle) -> None:
    content = b"no tab\nA man plays.\tNo one is there.\ntwo\ttabs\there\nIt rains.\tIt is wet.\n"
    with piped(io.BytesIO(content), pairs) as source:
        done = apply.predict_file(pairs, source, tmp_path / "p.jsonl")
        _, examples = apply.predict_rows(pairs, source)
        with pytest.raises(DataError, match="2 faults in standard input"):
            apply.predict_file(pairs, source, tmp_path / "p.jsonl", on_bad_row="error")
    assert examples.texts() == [("A man plays.", "No one is there."), ("It rains.", "It is wet.")]
    assert (done.n_rows, done.n_predicted, done.n_bad_rows) == (4, 2, 2)
    assert done.errors is not None
    assert [json.loads(line) for line in done.errors.read_text("utf-8").splitlines()] == [
        {
            "row": row,
            "where": f"standard input:{row}",
            "reason": f"the line has {n_tabs} tabs; a pair is two texts with one tab between them",
            "content": text,
        }
        for row, n_tabs, text in ((1, 0, "no tab"), (3, 2, "two\ttabs\there"))
    ]


def test_a_pipe_without_a_single_pair_is_an_error(pairs: Bundle) -> None:
    with pytest.raises(DataError) as caught, piped(io.BytesIO(b"one text\nanother\n"), pairs):
        pass
    assert caught.value.what == (
        "none of the 2 rows can be used; the first: the line has 0 tabs; a pair is two texts with one tab between them"
    )
    assert caught.value.where == "standard input:1"


# -- the scratch folder -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_a_killed_run_has_left_is_removed_and_what_a_living_one_needs_stays(cache: Path) -> None:
    program = (
        "import os, signal; from headrace.sources import scratch\n"
        "with scratch() as folder: (folder / 'x').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "HEADRACE_CACHE": str(cache)})
    assert done.returncode < 0
    assert len(list(cache.iterdir())) == 1
    with scratch() as first:
        two_hours_ago = time.time() - 7200
        os.utime(first, (two_hours_ago, two_hours_ago))  # it may take long
        with scratch() as second:
            assert sorted(cache.iterdir()) == sorted([first, second])
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way", "utf-8")
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "file"))
    with pytest.raises(RunError) as caught, scratch():
        pass
    assert caught.value.what == "the cache folder cannot be written: File exists"
    assert caught.value.where == str(tmp_path / "file")
    assert caught.value.next == "name another folder in the environment variable HEADRACE_CACHE"


@pytest.mark.parametrize(
    ("source", "place", "row"),
    [
        ("a.csv", ":7", 7),
        ("a:3.csv", ":7:text", 7),
        ("/data/1:2/texts", "/neg/3:4.txt:5 (byte 8)", 5),
        ("hub:owner/name", ":12:34", 12),
        ("a.csv", "", None),
    ],
)
def test_the_row_of_a_place_is_told_whatever_the_names(source: str, place: str, row: int | None) -> None:
    assert row_of(BadRow(source + place, "", ""), source=source) == row
