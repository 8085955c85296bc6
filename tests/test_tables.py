"""Tables out: each format, whole or not there, no formulas in a spreadsheet (X7)."""

import csv
import gzip
import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from headrace.errors import DataError, RunError
from headrace.tables import EXTENSIONS, TableWriter, csv_guard, write_rows

COLUMNS = {"row": int, "text": str, "score": float, "right": bool, "labels": list}
ROWS = [
    [2, "plain", 0.5, True, ["a", "b"]],
    [3, 'a "quoted", long\nline\r\twith\x00 NUL and é', np.float32(0.25), np.bool_(False), []],
    [np.int64(4), None, None, None, None],
]


def parsed(text, delimiter=","):
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_cell_that_a_spreadsheet_would_run_is_guarded(start, tmp_path):
    text = f"{start}1+1"
    assert csv_guard(text) == f"'{text}"
    for name, delimiter in (("out.csv", ","), ("out.tsv", "\t")):
        write_rows(tmp_path / name, {text: str}, [[text]])
        assert parsed((tmp_path / name).read_bytes().decode(), delimiter) == [[f"'{text}"], [f"'{text}"]]
        write_rows(tmp_path / name, {text: str}, [[text]], raw=True)
        assert parsed((tmp_path / name).read_bytes().decode(), delimiter) == [[text], [text]]
    write_rows(tmp_path / "out.jsonl", {"text": str}, [[text]])
    assert json.loads((tmp_path / "out.jsonl").read_text()) == {"text": text}
    write_rows(tmp_path / "out.parquet", {"text": str}, [[text]])
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [{"text": text}]


@pytest.mark.parametrize("text", ["", "plain", "1-1", " =1", "'=1", "é"])
def test_other_cells_stay_as_they_are(text):
    assert csv_guard(text) == text


def test_a_list_is_guarded_as_one_cell_and_a_number_is_not(tmp_path):
    write_rows(tmp_path / "out.csv", {"labels": list, "score": float}, [[["=a", "b"], -0.5]])
    assert (tmp_path / "out.csv").read_text() == "labels,score\n'=a|b,-0.5\n"


def test_a_lone_carriage_return_is_quoted(tmp_path):
    write_rows(tmp_path / "out.csv", {"a": str, "b": str}, [["x\ry", "z"]])
    assert (tmp_path / "out.csv").read_bytes() == b'a,b\n"x\ry",z\n'


def test_a_row_of_one_empty_cell_is_still_a_row(tmp_path):
    write_rows(tmp_path / "out.csv", {"a": str}, [[""], [None], ["x"]])
    assert parsed((tmp_path / "out.csv").read_text()) == [["a"], [""], [""], ["x"]]


@pytest.mark.parametrize("ending", EXTENSIONS)
def test_every_format_gives_the_rows_back(ending, tmp_path):
    path = tmp_path / f"out{ending}"
    with TableWriter(path, COLUMNS) as table:
        table.write(ROWS[:1])
        table.write([])
        table.write(iter(ROWS[1:]))
    assert table.n_rows == 3
    plain = [[2, "plain", 0.5, True, ["a", "b"]], [3, ROWS[1][1], 0.25, False, []], [4, None, None, None, None]]
    if ending == ".parquet":
        assert [list(row.values()) for row in pq.read_table(path).to_pylist()] == plain
        return
    text = (gzip.decompress(path.read_bytes()) if ending.endswith(".gz") else path.read_bytes()).decode()
    if ending.startswith(".jsonl"):
        assert [json.loads(line) for line in text.splitlines()] == [
            dict(zip(COLUMNS, row, strict=True)) for row in plain
        ]
        return
    delimiter = "\t" if ending.startswith(".tsv") else ","
    cells = [["2", "plain", "0.5", "1", "a|b"], ["3", ROWS[1][1], "0.25", "0", ""], ["4", "", "", "", ""]]
    assert parsed(text, delimiter) == [list(COLUMNS), *cells]


@pytest.mark.parametrize("ending", EXTENSIONS)
def test_equal_rows_give_equal_bytes(ending, tmp_path):
    paths = [tmp_path / f"{name}{ending}" for name in ("first", "second")]
    for path in paths:
        write_rows(path, COLUMNS, ROWS)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("ending", EXTENSIONS)
@pytest.mark.filterwarnings("error")
def test_a_failure_leaves_what_was_there_and_nothing_else(ending, tmp_path):
    path = tmp_path / f"out{ending}"
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), TableWriter(path, COLUMNS) as table:
        table.write(ROWS)
        raise ZeroDivisionError
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", [".csv", ".jsonl.gz", ".parquet"])
def test_numbers_that_are_none_become_empty(ending, tmp_path):
    path = tmp_path / f"out{ending}"
    write_rows(path, {"a": float, "b": int}, [[float("nan"), 1], [float("inf"), 2]])
    if ending == ".csv":
        assert path.read_text() == "a,b\n,1\n,2\n"
    elif ending == ".parquet":
        assert pq.read_table(path)["a"].to_pylist() == [None, None]
    else:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        assert [json.loads(line)["a"] for line in lines] == [None, None]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_lone_surrogate_is_written_as_its_escape(ending, tmp_path):
    path = tmp_path / f"out{ending}"
    write_rows(path, {"text": str, "labels": list}, [["a\ud800", ["b\udfff"]]])
    if ending == ".jsonl":
        assert json.loads(path.read_text("utf-8")) == {"text": "a\ud800", "labels": ["b\udfff"]}
    elif ending == ".parquet":
        assert pq.read_table(path).to_pylist() == [{"text": "a\\ud800", "labels": ["b\\udfff"]}]
    else:
        assert path.read_text("utf-8").splitlines()[1] == "a\\ud800,b\\udfff"


def test_a_first_batch_of_nothing_but_none_keeps_the_columns_types(tmp_path):
    with TableWriter(tmp_path / "out.parquet", {"label": str, "index": int}) as table:
        table.write([[None, None]])
        table.write([["a", 1]])
    assert pq.read_table(tmp_path / "out.parquet").to_pylist()[1] == {"label": "a", "index": 1}


@pytest.mark.parametrize(
    ("name", "mend"), [("out.xlsx", "give a name that ends in .csv"), ("out.parquet.gz", "leave .gz out")]
)
def test_an_ending_that_is_not_known_is_refused_before_anything_is_written(name, mend, tmp_path):
    with pytest.raises(DataError) as caught:
        TableWriter(tmp_path / name, COLUMNS)
    assert caught.value.what == f"cannot tell what to write from the name {name!r}"
    assert caught.value.where == str(tmp_path / name)
    assert caught.value.next.startswith(mend)


def test_a_row_of_another_length_is_refused_and_named(tmp_path):
    with pytest.raises(DataError) as caught, TableWriter(tmp_path / "out.csv", {"a": int, "b": int}) as table:
        table.write([[1, 2]])
        table.write([[3, 4], [5]])
    assert caught.value.what == "row 3 has 1 values for 2 columns"
    assert caught.value.next == "give one value for each of a, b"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".csv", ".jsonl.gz", ".parquet"])
@pytest.mark.filterwarnings("error")
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(ending, tmp_path):
    path = tmp_path / f"out{ending}"
    with pytest.raises(RunError) as caught, TableWriter(path, {"a": int}) as table:
        table.write([[1]])
        raise OSError(28, "No space left on device")  # as the file's own write would
    assert caught.value.what == f"cannot write out{ending}: No space left on device"
    assert caught.value.where == str(path)
    assert list(tmp_path.iterdir()) == []


def test_writing_outside_the_with_block_is_refused(tmp_path):
    table = TableWriter(tmp_path / "out.csv", {"a": int})
    with pytest.raises(ValueError, match="inside its with block only"):
        table.write([[1]])
