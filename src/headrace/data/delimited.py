"""Parses CSV and TSV files record by record, each with the physical line on which it begins."""

from __future__ import annotations

import csv
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import TextIO

from headrace.data.columns import Columns, other_delimiter, present, refuse_repeated
from headrace.data.faults import Faults
from headrace.data.rows import MAX_TEXT_BYTES, Record
from headrace.data.textfile import MAX_PIECE_CHARACTERS, ends_line, open_text, pieces, suffix_of
from headrace.errors import DataError

# Above the limit of a text, so that a long column that is not read does no harm; csv takes 4 bytes a character.
_MAX_FIELD_CHARACTERS = 4 * MAX_TEXT_BYTES
_LIMIT_LOCK = threading.RLock()
_UNCLOSED = "a quote that opens here is never closed"
_CLOSE_ADVICE = "close the quote, and write each quote inside a quoted field twice"


@contextmanager
def long_fields() -> Iterator[None]:
    """Raise the csv module's limit on a field's length for the block; it is one limit for the whole process."""
    with _LIMIT_LOCK:
        before = csv.field_size_limit(_MAX_FIELD_CHARACTERS)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def columns_of(path: Path, columns: Columns, *, source: str, encoding: str | None, label_required: bool) -> Columns:
    """Read the header and return the columns that the file has.

    Raises:
        DataError: The file is empty, or its header lacks a column or has one twice.
    """
    delimiter = _delimiter(path)
    with open_text(path, encoding=encoding, source=source) as stream:
        header = _header(_Lines(stream), delimiter, source)
    wanted = present(header, columns, where=f"{source}:1", label_required=label_required, delimiter=delimiter)
    if wanted.multi_label and len(wanted.label) == 1 and wanted.separator is None:
        raise DataError(
            f"the column {wanted.label[0]!r} of a {path.name.split('.', 1)[-1]} file cannot hold a list of labels",
            where=f"{source}:1:{wanted.label[0]}",
            next="set data.label_separator to what stands between the names, or name several 0/1 columns"
            if columns.has_recipe
            else "give a .jsonl or .parquet file, whose values can be lists, as in training",
        )
    return wanted


def records(path: Path, columns: Columns, faults: Faults, *, source: str, encoding: str | None) -> Iterator[Record]:
    """Yield the values of the columns of each record; records of the wrong form go to `faults`."""
    delimiter = _delimiter(path)
    with open_text(path, encoding=encoding, source=source) as stream:
        lines = _Lines(stream)
        header = _header(lines, delimiter, source)
        indices = [header.index(name) for name in columns.names]
        pick = itemgetter(*indices) if len(indices) > 1 else lambda fields: (fields[indices[0]],)
        n_columns = len(header)
        for row, fields in _rows(lines, delimiter, faults):
            if len(fields) == n_columns:
                yield row, pick(fields)
            elif fields:  # csv gives [] for an empty line
                faults.add(
                    f":{row}",
                    f"this row has {len(fields)} fields where the header has {n_columns}",
                    f'quote a field that holds the delimiter ("like{delimiter} this")',
                    delimiter.join(fields),
                )


def named_records(path: Path, faults: Faults, *, source: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each record by column name, with its line; records of the wrong form go to `faults`.

    Raises:
        DataError: The header cannot be read, has a name twice or another delimiter, or a quote is never closed.
    """
    delimiter = _delimiter(path)
    with open_text(path, encoding=None, source=source) as stream:
        header = tuple(_header(_Lines(stream), delimiter, source))
    refuse_repeated(header, where=f"{source}:1")
    advice = other_delimiter(header, delimiter)
    if advice:
        raise DataError(f"found one column {header[0]!r}", where=f"{source}:1", next=advice)
    for row, fields in records(path, Columns(text=header), faults, source=source, encoding=None):
        yield row, dict(zip(header, fields, strict=True))


class _UnclosedQuote(Exception):
    """The file ended inside a quoted field."""


class _TooLong(Exception):
    """A record is longer than is kept in memory."""


class _Lines:
    """Feeds a csv reader line by line, and keeps the lines of the record that is being read.

    `held` is emptied by the reader's loop after each record; what it holds at the end of the file is a record that
    did not end.
    """

    def __init__(self, stream: TextIO) -> None:
        self.pieces = pieces(stream)
        self.n_lines = 0
        self.held: list[str] = []

    def __iter__(self) -> Iterator[str]:
        held = self.held
        for line in self.pieces:
            self.n_lines += 1
            held.append(line)
            if len(line) >= MAX_PIECE_CHARACTERS and not ends_line(line):
                raise _TooLong
            yield line
        if held:
            raise _UnclosedQuote

    def skip_record(self, delimiter: str) -> None:
        """Read on to the end of the record whose beginning is held, keeping nothing.

        Raises:
            _UnclosedQuote: The file ends first, inside a quoted field.
        """
        state = _scan(self.held, delimiter, "start")
        last = self.held[-1]
        while state != "end":
            piece = next(self.pieces, "")
            if not piece:
                if state == "quoted":
                    raise _UnclosedQuote
                return
            self.n_lines += ends_line(last)  # else it is one more piece of the same line
            if state != "quoted" or '"' in piece:  # most lines of an unclosed quote need no scan
                state = _scan([piece], delimiter, state)
            last = piece


def _rows(lines: _Lines, delimiter: str, faults: Faults) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the line on which it begins, going on behind one that cannot be parsed."""
    held = lines.held
    while True:
        begin = lines.n_lines + 1
        try:
            for fields in csv.reader(lines, delimiter=delimiter, strict=True):
                held.clear()
                yield begin, fields
                begin = lines.n_lines + 1
            return
        except _UnclosedQuote:
            raise _unclosed(faults, begin) from None
        except (_TooLong, csv.Error) as error:
            start = held[0]
            if isinstance(error, _TooLong) or "limit" in str(error):
                try:
                    lines.skip_record(delimiter)
                except _UnclosedQuote:
                    raise _unclosed(faults, begin) from None
                faults.add(
                    f":{begin}",
                    f"this row has a field of more than {_MAX_FIELD_CHARACTERS:,} characters, or a quote that is not closed",
                    f"cut the text into parts (the limit is {MAX_TEXT_BYTES:,} bytes) or close the quote",
                    start,
                )
            else:
                at = "" if lines.n_lines == begin else f" (it goes on to line {lines.n_lines})"
                faults.add(
                    f":{begin}",
                    f"a quoted field of this row has text after its closing quote{at}",
                    _CLOSE_ADVICE,
                    start,
                )
            held.clear()


def _unclosed(faults: Faults, line: int) -> DataError:
    return DataError(_UNCLOSED, where=f"{faults.source}:{line}", next=_CLOSE_ADVICE)


def _header(lines: _Lines, delimiter: str, source: str) -> list[str]:
    try:
        for header in csv.reader(lines, delimiter=delimiter, strict=True):
            lines.held.clear()
            if header:  # csv gives [] for an empty line
                return header
    except (csv.Error, _TooLong, _UnclosedQuote) as error:
        raise DataError(
            f"the header cannot be read: {_UNCLOSED if isinstance(error, _UnclosedQuote) else error or 'it is too long'}",
            where=f"{source}:1",
            next="the first line must hold the columns' names",
        ) from error
    raise DataError("the file is empty", where=source, next="give a file with a header and at least one row")


def _delimiter(path: Path) -> str:
    return "\t" if suffix_of(path) == ".tsv" else ","


def _scan(pieces: list[str], delimiter: str, state: str) -> str:
    """Follow the quotes of a record: return `end`, or the state (start, field, quoted, closing) behind the pieces."""
    border = re.compile(f"[{re.escape(delimiter)}\r\n]")
    for piece in pieces:
        at = 0
        while at < len(piece):
            if state == "quoted":
                found = piece.find('"', at)
                if found < 0:
                    break
                state, at = "closing", found + 1
            elif state in ("start", "closing") and piece[at] == '"':  # a quote opens a field; a doubled one stays in it
                state, at = "quoted", at + 1
            else:
                match = border.search(piece, at)
                if match is None:
                    state = "field"
                    break
                if match.group() != delimiter:
                    return "end"
                state, at = "start", match.end()
    return state
