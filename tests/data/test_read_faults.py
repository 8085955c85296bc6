"""Each fault of a file says what was found, where, and what to do."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from headrace.data import rows as rows_module
from headrace.data import textfile
from headrace.data.read import Columns, read
from headrace.errors import DataError

SINGLE = Columns(text=("text",), label=("label",))
SKIP = "or set data.on_bad_row: skip to leave such rows out"


def fault(path: Path, content: str | bytes | None = None, *, columns: Columns = SINGLE, **options: object) -> DataError:
    """Return the error of reading a file, its place told from the file's name on."""
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError) as caught:
        read(path, columns, cache=path.parent / "cache", **options)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    assert caught.value.next or "next:" in caught.value.what
    assert not list((path.parent / "cache" / "examples").glob("*")), "something of a bad source was kept"
    return caught.value


def told(error: DataError, path: Path) -> tuple[str, str, str]:
    assert error.where is not None
    assert error.next is not None
    return error.what, error.where.replace(str(path), path.name), error.next


def test_a_ragged_row(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    assert told(fault(path, 'text,label\n"a\nb",x\nc,y,z\n'), path) == (
        "this row has 3 fields where the header has 2",
        "r.csv:4",
        f'quote a field that holds the delimiter ("like, this"); {SKIP}',
    )
    assert "this row has 1 fields" in fault(path, "text,label\na\n").what


def test_an_unclosed_quote_names_the_line_on_which_it_opens(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    expected = (
        "a quote that opens here is never closed",
        "q.csv:3",
        "close the quote, and write each quote inside a quoted field twice",
    )
    assert told(fault(path, 'text,label\na,x\n"b,y\nc,z\n'), path) == expected
    # Skipping would drop all rows behind it.
    assert told(fault(path, 'text,label\na,x\n"b,y\nc,z\n', on_bad_row="skip"), path) == expected


def test_an_unclosed_quote_in_a_large_file_is_never_one_giant_row(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    error = fault(path, 'text,label\na,x\n"b,y\n' + "some words,z\n" * 700_000)
    assert told(error, path)[:2] == ("a quote that opens here is never closed", "q.csv:3")


def test_a_quote_that_is_not_doubled(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    error = fault(path, 'text,label\na,x\n"b "quoted" c",y\nd,z\n')
    assert told(error, path) == (
        "a quoted field of this row has text after its closing quote",
        "q.csv:3",
        f"close the quote, and write each quote inside a quoted field twice; {SKIP}",
    )
    error = fault(path, 'text,label\n"b,x\nc "d" e,y\n')
    assert error.what == "a quoted field of this row has text after its closing quote (it goes on to line 3)"


def test_a_missing_label_and_a_missing_text(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    assert told(fault(path, "text,label\na,x\nb,\n"), path) == (
        "the label is missing",
        "m.csv:3:label",
        f"write the label; {SKIP}",
    )
    assert fault(path, "text,label\na,x\nb,  \n").what == "the label is missing"
    path = tmp_path / "m.jsonl"
    assert told(fault(path, '{"text": null, "label": "x"}\n'), path) == (
        "the text is missing (null)",
        "m.jsonl:1:text",
        f"write the text; {SKIP}",
    )
    assert told(fault(path, '{"text": "a", "label": "x"}\n{"text": "b", "lable": "x"}\n'), path) == (
        "this record has no 'label'",
        "m.jsonl:2:label",
        f"did you mean 'lable'? available: lable, text; {SKIP}",
    )
    error = fault(path, '{"text": ["a"], "label": "x"}\n')
    assert told(error, path) == ("found a list where a text is expected", "m.jsonl:1:text", f"write a text; {SKIP}")


def test_all_faults_come_together_in_the_order_of_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    content = "text,label\n" + "".join("a,\n" if number % 2 else "a,b,c\n" for number in range(25))
    error = fault(path, content)
    lines = error.what.splitlines()
    assert lines[0] == f"25 faults in {path}"
    assert lines[1] == f"  1. this row has 3 fields where the header has 2 ({path}:2)"
    assert lines[3] == f"  2. the label is missing ({path}:3:label)"
    assert lines[19].startswith("  10. ")
    assert lines[-1] == "  … and 15 more"
    assert error.exit_code == 2


def test_the_fault_that_ends_the_reading_is_shown_with_those_before_it(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    error = fault(path, "text,label\n" + "a,\n" * 30 + '"b,x\n')
    assert f"31 faults in {path}" in error.what
    assert f"  10. a quote that opens here is never closed ({path}:32)" in error.what


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    advice = "save the file as UTF-8; a recipe can name its own encoding, such as data.encoding: latin-1 or cp1252"
    content = "text,label\nabc,x\ncafé,y\n".encode("latin-1")
    expected = ("the byte 0xe9 is not valid UTF-8 (invalid continuation byte)", "e.csv:3 (byte 20)", advice)
    assert told(fault(path, content), path) == expected
    assert told(fault(path, content, on_bad_row="skip"), path) == expected
    far = b"text,label\n" + "é12345678,x\n".encode() * 50_000 + b"\xff,y\n"
    assert told(fault(path, far), path)[1] == f"e.csv:50002 (byte {11 + 50_000 * 13:,})"
    packed = tmp_path / "e.csv.gz"
    assert told(fault(packed, gzip.compress(content)), packed)[1] == "e.csv.gz:3 (byte 20 of the unpacked content)"
    cut = fault(path, "text,label\na,é".encode()[:-1])
    assert told(cut, path)[:2] == ("the byte 0xc3 is not valid UTF-8 (unexpected end of data)", "e.csv:2 (byte 13)")
    lines = tmp_path / "e.jsonl"
    error = fault(lines, b'{"text": "a", "label": "x"}\n{"text": "\xe9", "label": "x"}\n')
    assert told(error, lines)[1] == "e.jsonl:2 (byte 38)"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_another_unicode_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "u.csv"
    assert told(fault(path, "text,label\na,x\n".encode(encoding)), path) == (
        f"the file begins with the byte order mark of {encoding.upper()}, so it is not UTF-8",
        "u.csv:1 (byte 0)",
        f"save the file as UTF-8; a recipe can name its own encoding, data.encoding: {encoding}",
    )


def test_a_wrong_or_unknown_encoding_option(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    error = fault(path, "text,label\né,x\n", encoding="ascii")
    assert error.what == "the byte 0xc3 is not valid ASCII (ordinal not in range(128))"
    assert (
        error.next == "data.encoding is ascii: set the file's own encoding, or save it as UTF-8 and leave the key out"
    )
    error = fault(path, encoding="utf8x")
    assert (error.what, error.where) == ("there is no text encoding named 'utf8x'", "data.encoding")
    assert fault(path, encoding="rot13").what == "there is no text encoding named 'rot13'"


@pytest.mark.parametrize(
    ("name", "delimiter", "advice"),
    [
        ("w.csv", ";", "the columns look separated by semicolons: save the file with commas (.csv) or tabs (.tsv)"),
        ("w.csv", "|", "the columns look separated by vertical bars: save the file with commas (.csv) or tabs (.tsv)"),
        ("w.csv", "\t", "the columns look separated by tabs: rename the file to .tsv"),
        ("w.tsv", ",", "the columns look separated by commas: rename the file to .csv"),
    ],
)
def test_a_wrong_delimiter_is_named(tmp_path: Path, name: str, delimiter: str, advice: str) -> None:
    path = tmp_path / name
    error = fault(path, f"text{delimiter}label\na{delimiter}x\n")
    assert told(error, path) == (
        f"found columns {f'text{delimiter}label'!r}, expected 'text', 'label'",
        f"{name}:1",
        advice,
    )


def test_a_missing_column_offers_the_nearest_name(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    assert told(fault(path, "text,Label,id\na,x,1\n"), path) == (
        "found columns 'text', 'Label', 'id', expected 'text', 'label'",
        "c.csv:1",
        "for 'label', did you mean 'Label'?",
    )
    lines = tmp_path / "c.jsonl"
    assert told(fault(lines, '{"texts": "a", "label": "x"}\n'), lines) == (
        "found columns 'texts', 'label', expected 'text', 'label'",
        "c.jsonl",
        "for 'text', did you mean 'texts'?",
    )
    table = tmp_path / "c.parquet"
    pyarrow.parquet.write_table(pa.table({"text": ["a"], "sentiment": ["x"]}), table)
    assert told(fault(table), table) == (
        "found columns 'text', 'sentiment', expected 'text', 'label'",
        "c.parquet",
        "name the columns in data.text and data.label as the source names them",
    )


def test_a_file_without_header(tmp_path: Path) -> None:
    path = tmp_path / "h.csv"
    assert told(fault(path, "a good one,pos\na bad one,neg\n"), path) == (
        "found columns 'a good one', 'pos', expected 'text', 'label'",
        "h.csv:1",
        "the first line must hold the columns' names: add them, or name the columns in data.text and data.label",
    )


def test_a_column_name_that_occurs_twice(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    assert told(fault(path, "text,label,text\na,x,b\n"), path) == (
        "the column name 'text' occurs 2 times",
        "d.csv:1",
        "rename the columns so that each name occurs once",
    )


def test_an_empty_file_and_one_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    assert fault(path, "").what == "the file is empty"
    assert fault(path, "\n\n").what == "the file is empty"
    assert told(fault(path, "text,label\n"), path) == (
        "there is no row of data",
        "n.csv",
        "give a source with at least one text",
    )
    packed = tmp_path / "n.csv.gz"
    assert fault(packed, gzip.compress(b"")).what == "the file is empty"
    assert fault(tmp_path / "n.jsonl", "\n").what == "there is no row of data"
    table = tmp_path / "n.parquet"
    pyarrow.parquet.write_table(
        pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}), table
    )
    assert fault(table).what == "there is no row of data"


def test_a_missing_file_offers_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,x\n")
    error = fault(tmp_path / "trian.csv")
    assert error.what == f"there is no file {str(tmp_path / 'trian.csv')!r}"
    assert error.next == f"did you mean {str(tmp_path / 'train.csv')!r}?"
    with pytest.raises(DataError) as caught:
        read(tmp_path / "no" / "train.csv", SINGLE, cache=tmp_path / "cache")
    error = caught.value
    assert error.what.endswith("its folder does not exist")
    assert error.where == str(tmp_path / "no")


def test_an_unknown_ending_lists_those_that_are_known(tmp_path: Path) -> None:
    path = tmp_path / "x.xlsx"
    assert told(fault(path, "x"), path) == (
        "files ending in '.xlsx' cannot be read",
        "x.xlsx",
        "use .csv, .tsv, .jsonl or .parquet (each also .gz), a folder per label, or hub:owner/name",
    )
    assert fault(tmp_path / "x", "x").what == "the file's name has no ending that tells its format"
    assert fault(tmp_path / "x.json.gz", "x").what == "files ending in '.json' cannot be read"


def test_a_damaged_gzip_file(tmp_path: Path) -> None:
    whole = gzip.compress(b"text,label\n" + bytes(f"{list(range(9000))}".replace(",", "\n"), "ascii"))
    path = tmp_path / "g.csv.gz"
    advice = "fetch or compress the file again"
    columns = Columns(text=("text",))
    assert told(fault(path, whole[:-500]), path) == ("the gzip file is damaged: it ends too early", "g.csv.gz", advice)
    assert "the gzip file is damaged: Not a gzipped file" in fault(path, b"text,label\na,x\n", columns=columns).what
    broken = bytearray(gzip.compress(b"text\n" + b"some text\n" * 500))
    broken[-6] ^= 0xFF
    assert "the gzip file is damaged: CRC check failed" in fault(path, bytes(broken), columns=columns).what
    plain = tmp_path / "g.csv"
    assert told(fault(plain, whole), plain) == (
        "the content is compressed with gzip",
        "g.csv",
        "rename the file to g.csv.gz",
    )


@pytest.mark.parametrize("name", ["b.csv.gz", "b.jsonl.gz", "b.parquet.gz"])
def test_a_gzip_bomb_stops_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(textfile, "MIN_GZIP_LIMIT_BYTES", 1 << 19)
    path = tmp_path / name
    line = b'{"text": "a", "label": "x"}\n' if "jsonl" in name else b"a,x\n"
    error = fault(path, gzip.compress(b"text,label\n" * ("csv" in name) + line * 500_000))
    assert "the gzip file holds more than " in error.what
    assert "bytes, over 200 times its own size" in error.what
    assert error.next == "if the file is what it should be, decompress it first"


def test_a_broken_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    good = '{"text": "a", "label": "x"}\n'
    assert told(fault(path, good + '{"text": "b" "label": "x"}\n' + good), path) == (
        "this line is not valid JSON: Expecting ',' delimiter at column 14",
        "b.jsonl:2:14",
        f"write one whole JSON object a line; {SKIP}",
    )
    assert told(fault(path, good + '["b", "x"]\n'), path) == (
        "this line holds a list, not an object",
        "b.jsonl:2",
        f'write one object a line, such as {{"text": "…", "label": "…"}}; {SKIP}',
    )
    deep = '{"text": ' + "[" * 200_000 + "]" * 200_000 + ', "label": "x"}\n'
    assert fault(path, good + deep).what == "this line's JSON is nested too deeply"
    assert fault(path, '{"text": NaN, "label": "x"}\n').what == "the text is missing (null)"


def test_a_file_that_is_not_parquet(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    what, where, advice = told(fault(path, b"text,label\na,x\n" * 10), path)
    assert what.startswith("the Parquet file cannot be read: Parquet magic bytes not found")
    assert (where, advice) == ("p.parquet", "check that the file is whole and that it is Parquet")
    pyarrow.parquet.write_table(pa.table({"text": [b"a"], "label": ["x"]}), path)
    assert fault(path).what == "found a bytes where a text is expected"


def test_a_text_above_a_megabyte_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    limit = rows_module.MAX_TEXT_BYTES
    assert told(fault(path, f"text,label\na,x\n{'é' * (limit // 2 + 1)},y\n"), path) == (
        "the text has 1,048,578 bytes; the limit is 1,048,576",
        "l.csv:3:text",
        f"cut the text into parts; {SKIP}",
    )


@pytest.mark.parametrize("size", [5_000_000, 20_000_000])
def test_a_field_far_above_the_limit_is_left_out_and_the_rows_behind_it_are_read(tmp_path: Path, size: int) -> None:
    path = tmp_path / "l.csv"
    before = csv.field_size_limit()
    words = "word " * (size // 10)
    path.write_text(f'text,label\na,x\n"{words}""\n{words}\n",y\n{words * 2},y\n"b\nc",z\nd,z\n')
    examples = read(path, SINGLE, on_bad_row="skip", cache=tmp_path / "cache")
    assert examples.texts() == ["a", "b\nc", "d"]
    assert examples.column("row") == [2, 7, 9]
    assert [bad.where for bad in examples.bad_rows] == [f"{path}:3", f"{path}:6"]
    assert "this row has a field of more than 4,194,304 characters" in examples.bad_rows[0].reason
    assert examples.bad_rows[1].content == words[:200]
    assert csv.field_size_limit() == before
    path = tmp_path / "l.jsonl"
    lines = [{"text": text, "label": "x"} for text in ("a", words * 2, "b")]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    examples = read(path, SINGLE, on_bad_row="skip", cache=tmp_path / "cache")
    assert examples.texts() == ["a", "b"]
    assert examples.column("row") == [1, 3]


def test_bad_rows_are_left_out_with_their_reasons(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text('text,label\na,x\nb\n"c "d" e",y\nf,\ng,z\n')
    examples = read(path, SINGLE, on_bad_row="skip", cache=tmp_path / "cache")
    assert examples.texts() == ["a", "g"]
    assert examples.column("row") == [2, 6]
    assert examples.n_bad_rows == 3
    assert [(bad.where, bad.reason, bad.content) for bad in examples.bad_rows] == [
        (f"{path}:3", "this row has 1 fields where the header has 2", "b"),
        (f"{path}:4", "a quoted field of this row has text after its closing quote", '"c "d" e",y\n'),
        (f"{path}:5:label", "the label is missing", "f | "),
    ]
    again = read(path, SINGLE, on_bad_row="skip", cache=tmp_path / "cache")
    assert again.bad_rows == examples.bad_rows


def test_a_source_with_bad_rows_alone_is_an_error_even_when_they_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    assert told(fault(path, "text,label\na\nb\n", on_bad_row="skip"), path)[:2] == (
        "none of the 2 rows can be used; the first: this row has 1 fields where the header has 2",
        "s.csv:2",
    )


def test_the_bad_rows_that_are_kept_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("text,label\na,x\n" + "b\n" * 12_000)
    examples = read(path, SINGLE, on_bad_row="skip", cache=tmp_path / "cache")
    assert (len(examples.bad_rows), examples.n_bad_rows) == (10_000, 12_000)


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.csv"
    path.write_text("text,label\na,x\n")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(textfile, "open", refused, raising=False)  # root may open every file
    assert told(fault(path), path) == (
        "the file cannot be read: Permission denied",
        "p.csv",
        "check the file's permissions and its disk",
    )
