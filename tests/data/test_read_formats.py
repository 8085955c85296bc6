"""Each file format gives the rows that were written, as they were written."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.data.read import Columns, read

SINGLE = Columns(text=("text",), label=("label",))
PAIRS = Columns(text=("premise", "hypothesis"), label=("label",))
# Strings that other readers turn into nulls, numbers or booleans.
WRITTEN = [
    ("NA", "None"),
    ("None", "NA"),
    ("null", "01"),
    ("nan", "1.0"),
    ("007", "True"),
    ("1e5", "true"),
    (" spaces ", "-1"),
    ("", "1"),
    ('a "quoted", text', "a,b"),
    ("émoji 🎉 العربية", "ß"),
]


def quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def write_rows(path: Path, rows: list[tuple[str, str]]) -> Path:
    suffix = path.name.removesuffix(".gz").rpartition(".")[2]
    if suffix in ("csv", "tsv"):
        mark = "," if suffix == "csv" else "\t"
        lines = [f"text{mark}label", *(f"{quoted(text)}{mark}{quoted(label)}" for text, label in rows)]
        content = ("\n".join(lines) + "\n").encode()
    elif suffix == "jsonl":
        content = "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows).encode()
    else:
        table = pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
        sink = pa.BufferOutputStream()
        pyarrow.parquet.write_table(table, sink)
        content = sink.getvalue().to_pybytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_format_keeps_strings_as_written(tmp_path: Path, suffix: str, end: str) -> None:
    path = write_rows(tmp_path / f"data.{suffix}{end}", WRITTEN)
    examples = read(path, SINGLE, cache=tmp_path / "cache")
    assert examples.texts() == [text for text, _ in WRITTEN]
    assert examples.labels() == [label for _, label in WRITTEN]
    first = {"csv": 2, "tsv": 2, "jsonl": 1, "parquet": 1}[suffix]
    assert examples.column("row") == list(range(first, first + len(WRITTEN)))
    assert examples.source == str(path)
    assert examples.where(0) == f"{path}:{first}"
    assert not examples.is_pair
    assert not examples.is_multi_label


def test_equal_rows_have_one_fingerprint_in_every_format(tmp_path: Path) -> None:
    found = {
        read(write_rows(tmp_path / f"data.{suffix}", WRITTEN), SINGLE, cache=tmp_path / "cache").fingerprint
        for suffix in ("csv", "tsv", "jsonl", "parquet", "csv.gz")
    }
    assert len(found) == 1
    changed = write_rows(tmp_path / "changed.csv", [*WRITTEN[:-1], ("émoji", "ß")])
    assert read(changed, SINGLE, cache=tmp_path / "cache").fingerprint not in found


def test_upper_case_endings_are_known(tmp_path: Path) -> None:
    path = tmp_path / "DATA.CSV"
    path.write_text("text,label\na,x\n")
    assert read(path, SINGLE, cache=tmp_path / "cache").texts() == ["a"]


def test_a_row_is_the_physical_line_on_which_the_record_begins(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    path.write_bytes(b'text,label\r\n"one\r\ntwo\nthree",x\r\n\r\nb,y\r\n"c\n",z')
    examples = read(path, SINGLE, cache=tmp_path / "cache")
    assert examples.texts() == ["one\r\ntwo\nthree", "b", "c\n"]
    assert examples.column("row") == [2, 6, 7]


def test_a_header_over_two_lines_and_empty_lines_before_it_count(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    path.write_text('\n"te\nxt",label\na,x\n')
    examples = read(path, Columns(text=("te\nxt",), label=("label",)), cache=tmp_path / "cache")
    assert examples.column("row") == [4]


def test_jsonl_numbers_and_booleans_stay_as_written(tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    path.write_text(
        '{"text": 1.50, "label": 1}\n\n{"label": 1.0, "text": 12345678901234567890123}\n{"text": "c", "label": true}\n'
        '{"text": "d\u2028e", "label": 1e3}\n'
    )
    examples = read(path, SINGLE, cache=tmp_path / "cache")
    assert examples.texts() == ["1.50", "12345678901234567890123", "c", "d\u2028e"]
    assert examples.labels() == ["1", "1.0", "true", "1e3"]
    assert examples.column("row") == [1, 3, 4, 5]


def test_parquet_integers_become_strings(tmp_path: Path) -> None:
    path = tmp_path / "n.parquet"
    pyarrow.parquet.write_table(pa.table({"label": [1, 0], "text": ["a", "b"]}), path)
    assert read(path, SINGLE, cache=tmp_path / "cache").labels() == ["1", "0"]


def test_pairs_give_two_texts(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("label,hypothesis,premise\nno,h1,p1\nyes,h2,p2\n")
    examples = read(path, PAIRS, cache=tmp_path / "cache")
    assert examples.is_pair
    assert examples.texts() == [("p1", "h1"), ("p2", "h2")]


def test_a_utf8_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    for name, content in {"a.csv": "text,label\né,x\n", "a.jsonl": '{"text": "é", "label": "x"}\n'}.items():
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.encode())
        assert read(tmp_path / name, SINGLE, cache=tmp_path / "cache").texts() == ["é"]
        assert read(tmp_path / name, SINGLE, encoding="utf-8", cache=tmp_path / "cache").texts() == ["é"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "cp1252", "utf-16-le"])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_an_encoding_that_is_named_is_used(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / f"e.csv{end}"
    content = "text,label\ncafé,über\n".encode(encoding)
    path.write_bytes(gzip.compress(content) if end else content)
    examples = read(path, SINGLE, encoding=encoding, cache=tmp_path / "cache")
    assert (examples.texts(), examples.labels()) == (["café"], ["über"])


def test_a_text_of_up_to_a_megabyte_is_read(tmp_path: Path) -> None:
    long = "x" * (1 << 20)
    examples = read(write_rows(tmp_path / "long.csv", [(long, "a"), ("b", "b")]), SINGLE, cache=tmp_path / "cache")
    assert examples.texts() == [long, "b"]


def test_control_characters_and_lone_surrogates_are_replaced_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(b'text,label\na\x00b\x07c,x\n"t\tn\nr\r",y\n')
    examples = read(path, SINGLE, cache=tmp_path / "cache")
    assert examples.texts() == ["a b c", "t\tn\nr\r"]
    assert examples.n_replaced == 2
    path = tmp_path / "c.jsonl"
    path.write_text('{"text": "a\\ud800b \\ud83d\\ude00", "label": "x\\u0001"}\n')
    examples = read(path, SINGLE, cache=tmp_path / "cache")
    assert (examples.texts(), examples.labels()) == (["a\ufffdb 😀"], ["x "])
    assert examples.n_replaced == 2


def test_odd_texts_are_good_rows(tmp_path: Path) -> None:
    odd = ["", "   ", "\u200f\u05d0", "a" + "\u0301" * 10_000, "👩‍👩‍👧", "\x85\x96"]
    rows = [{"text": text, "label": "x"} for text in odd]
    assert read(rows, SINGLE, cache=tmp_path / "cache").texts() == odd


def test_a_column_that_is_not_read_may_be_longer_than_a_text(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text(f"text,page,label\na,{'p' * 3_000_000},x\nb,q,y\n")
    assert read(path, SINGLE, cache=tmp_path / "cache").texts() == ["a", "b"]


def test_labels_are_not_needed_where_they_are_not_required(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\na\n")
    (tmp_path / "b.csv").write_text("text,label\na,\nb,\n")
    (tmp_path / "c.csv").write_text("text,label\na,x\nb,\n")
    (tmp_path / "d.jsonl").write_text('{"text": "a"}\n{"text": "b", "label": null}\n')
    (tmp_path / "e.jsonl").write_text('{"text": "a"}\n' * 30 + '{"text": "b", "label": "x"}\n')
    found = {
        path.name: read(path, SINGLE, label_required=False, cache=tmp_path / "cache")
        for path in sorted(tmp_path.glob("*.*"))
    }
    assert {name: examples.is_labelled for name, examples in found.items()} == {
        "a.csv": False,
        "b.csv": False,
        "c.csv": True,
        "d.jsonl": False,
        "e.jsonl": True,
    }
    assert found["c.csv"].labels() == ["x", None]
    assert found["e.jsonl"].labels() == [None] * 30 + ["x"]
    assert not read(tmp_path / "c.csv", Columns(text=("text",)), cache=tmp_path / "cache").is_labelled


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.text('ab ",\n\té\u2028\x0b', max_size=12), st.text('ab",\n', min_size=1, max_size=4)), min_size=1
    ),
    end=st.sampled_from(["\n", "\r\n"]),
    suffix=st.sampled_from(["csv", "tsv"]),
)
def test_whatever_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], end: str, suffix: str
) -> None:
    folder = tmp_path_factory.mktemp("property")
    rows = [(text, f"l{label}") for text, label in rows]
    with open(folder / f"a.{suffix}", "w", newline="") as file:
        writer = csv.writer(file, lineterminator=end, delimiter="\t" if suffix == "tsv" else ",")
        writer.writerows([("text", "label"), *rows])
    examples = read(folder / f"a.{suffix}", SINGLE, cache=folder)
    assert examples.texts() == [text.replace("\x0b", " ") for text, _ in rows]
    assert examples.labels() == [label for _, label in rows]
    assert examples.n_replaced == sum(text.count("\x0b") for text, _ in rows)
    begins = [2 + sum(f"{text}{label}".count("\n") + 1 for text, label in rows[:number]) for number in range(len(rows))]
    assert examples.column("row") == begins


def test_lone_carriage_returns_end_lines(tmp_path: Path) -> None:
    path = tmp_path / "mac.csv"
    path.write_bytes(b"text,label\ra,x\rb,y\r")
    examples = read(path, SINGLE, cache=tmp_path / "cache")
    assert (examples.texts(), examples.column("row")) == (["a", "b"], [2, 3])


REAL = os.environ.get("HEADRACE_DATA")


@pytest.mark.skipif(not REAL, reason="HEADRACE_DATA does not name the folder of real data")
def test_real_toxic_comments_are_read_whole(tmp_path: Path) -> None:
    names = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
    path = Path(str(REAL)) / "jigsaw_toxic" / "train_first20k.csv.gz"
    examples = read(path, Columns(text=("comment_text",), label=names), cache=tmp_path / "cache")
    labels = examples.labels()
    assert len(examples) == 20_000
    assert [sum(name in row for row in labels) for name in names] == [1947, 222, 1077, 67, 1021, 181]
    assert sum(bool(row) for row in labels) == 2060
