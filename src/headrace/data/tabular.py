"""Parses JSON Lines and Parquet files record by record, with the row of each."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace.data.columns import Columns, present
from headrace.data.faults import Faults
from headrace.data.rows import MAX_TEXT_BYTES, Record
from headrace.data.textfile import MAX_PIECE_CHARACTERS, ends_line, open_bytes, open_text, pieces
from headrace.errors import DataError, suggestion

_BATCH_ROWS = 1024  # of Parquet; a batch of 1 MB texts is held at once
_PEEKED_RECORDS = 20
_NO_PARQUET_ADVICE = "check that the file is whole and that it is Parquet"

# A row and what stands in it by column name.
Named = tuple[int, Mapping[str, Any]]


def json_columns(path: Path, columns: Columns, *, source: str, encoding: str | None, label_required: bool) -> Columns:
    """Look at a JSON Lines file's first records and return the columns that they have.

    Raises:
        DataError: None of them has a column that is needed.
    """
    ignored = Faults(source, skip=True)
    return peeked(
        json_objects(path, ignored, source=source, encoding=encoding),
        columns,
        where=source,
        label_required=label_required,
    )[0]


def peeked(
    objects: Iterable[Named], columns: Columns, *, where: str, label_required: bool
) -> tuple[Columns, Iterator[Named]]:
    """Return the columns that the first records have, and all records.

    Raises:
        DataError: None of the first records has a column that is needed.
    """
    stream = iter(objects)
    first = list(islice(stream, _PEEKED_RECORDS))
    found = list(dict.fromkeys(name for _, record in first for name in record))
    if not first:
        return columns, iter(())
    if not label_required and set(columns.text) <= set(found):
        return columns, chain(first, stream)  # a later record may have a label
    return present(found, columns, where=where, label_required=label_required), chain(first, stream)


def picked(objects: Iterable[Named], columns: Columns, faults: Faults, *, label_required: bool) -> Iterator[Record]:
    """Yield the values of the columns of each mapping; records that lack a text or label go to `faults`."""
    names = columns.names
    needed = columns.text + columns.label if label_required else columns.text
    for row, record in objects:
        try:
            yield row, [record[name] for name in names]
        except KeyError:
            missing = [name for name in needed if name not in record]
            if not missing:
                yield row, [record.get(name) for name in names]
                continue
            faults.add(
                f":{row}:{missing[0]}",
                f"this record has no {missing[0]!r}",
                suggestion(missing[0], map(str, record)),
                str(dict(islice(record.items(), 20))) if len(record) else "{}",
            )


def json_records(
    path: Path, columns: Columns, faults: Faults, *, source: str, encoding: str | None, label_required: bool
) -> Iterator[Record]:
    """Yield the values of the columns of each line's object; numbers are strings as they are written."""
    objects = json_objects(path, faults, source=source, encoding=encoding)
    for row, values in picked(objects, columns, faults, label_required=label_required):
        if any(type(value) is bool for value in values):
            values = [("true" if value else "false") if type(value) is bool else value for value in values]
        yield row, values


def json_objects(path: Path, faults: Faults, *, source: str, encoding: str | None) -> Iterator[Named]:
    """Yield each line's object with the line's number; lines that hold none go to `faults`."""
    decode = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=lambda _: None).decode
    with open_text(path, encoding=encoding, source=source) as stream:
        lines = pieces(stream)
        for row, line in enumerate(lines, start=1):
            if len(line) >= MAX_PIECE_CHARACTERS and not ends_line(line):
                _skip_line(lines)
                faults.add(
                    f":{row}",
                    f"this line has more than {MAX_PIECE_CHARACTERS:,} characters; a text may have {MAX_TEXT_BYTES:,} bytes",
                    "write one object a line and cut the text into parts",
                    line,
                )
                continue
            try:
                record = decode(line)
            except json.JSONDecodeError as error:
                if line.isspace():
                    continue
                faults.add(
                    f":{row}:{error.colno}",
                    f"this line is not valid JSON: {error.msg} at column {error.colno}",
                    "write one whole JSON object a line",
                    line,
                )
                continue
            except RecursionError:
                faults.add(f":{row}", "this line's JSON is nested too deeply", "flatten the object", line)
                continue
            if isinstance(record, dict):
                yield row, record
            else:
                faults.add(
                    f":{row}",
                    f"this line holds a {type(record).__name__}, not an object",
                    'write one object a line, such as {"text": "…", "label": "…"}',
                    line,
                )


def _skip_line(lines: Iterator[str]) -> None:
    for piece in lines:
        if ends_line(piece):
            return


def parquet_columns(path: Path, columns: Columns, *, source: str, folder: Path, label_required: bool) -> Columns:
    """Return the columns that a Parquet file has.

    Raises:
        DataError: The file is not whole, not Parquet, or lacks a column.
    """
    with _parquet(path, source=source, folder=folder) as file:
        return present(file.schema_arrow.names, columns, where=source, label_required=label_required)


def parquet_records(path: Path, columns: Columns, *, source: str, folder: Path) -> Iterator[Record]:
    """Yield the values of the columns of each row of a Parquet file.

    Args:
        path: The file, plain or `.gz`.
        columns: Those that the file has.
        source: What a message calls the file.
        folder: Where a `.gz` is unpacked for the time of reading (Parquet is read from its end).
    """
    names = list(dict.fromkeys(columns.names))
    with _parquet(path, source=source, folder=folder) as file:
        row = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=names):
            values = [batch.column(name).to_pylist() for name in columns.names]
            for record in zip(*values, strict=True):
                row += 1
                yield row, record


@contextmanager
def _parquet(path: Path, *, source: str, folder: Path) -> Iterator[Any]:
    import pyarrow.parquet  # 0.1 s that CSV need not wait for

    with open_bytes(path, source=source) as opened:
        try:
            if path.suffix.lower() == ".gz":
                with tempfile.TemporaryFile(dir=folder) as unpacked:
                    shutil.copyfileobj(opened, unpacked, 1 << 20)
                    unpacked.seek(0)
                    yield pyarrow.parquet.ParquetFile(unpacked, pre_buffer=False)
            else:
                yield pyarrow.parquet.ParquetFile(opened, pre_buffer=False)
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"the Parquet file cannot be read: {reason}", where=source, next=_NO_PARQUET_ADVICE
            ) from error
