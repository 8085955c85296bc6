"""Tables out: rows streamed to CSV, TSV, JSON Lines or Parquet, whole or not there, safe to open in a spreadsheet."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.errors import DataError
from headrace.files import atomic_file

EXTENSIONS = (".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz", ".tsv.gz", ".jsonl.gz")
#: What stands between the items of a list in one CSV cell. JSON Lines and Parquet keep lists as they are.
LIST_SEPARATOR = "|"
_FORMULA_STARTS = frozenset("=+-@\t\r")
_ARROW_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), list: pa.list_(pa.string())}


def csv_guard(value: str) -> str:
    """Return the text with `'` before it if a spreadsheet would take it for a formula (`= + - @`, tab, CR first).

    Source: OWASP, "CSV Injection".
    """
    return f"'{value}" if value[:1] in _FORMULA_STARTS else value


def extension_of(path: Path) -> str:
    """Return which of `EXTENSIONS` a path has.

    Raises:
        DataError: None of them.
    """
    name = Path(path).name.lower()
    for extension in sorted(EXTENSIONS, key=len, reverse=True):
        if name.endswith(extension):
            return extension
    mend = f"give a name that ends in {', '.join(EXTENSIONS)}"
    if name.endswith(".parquet.gz"):
        mend = "leave .gz out: Parquet is compressed by itself"
    raise DataError(f"cannot tell what to write from the name {Path(path).name!r}", where=str(path), next=mend)


class _Closing(Protocol):
    def close(self) -> None:
        """Write what is left."""


class _Format(_Closing, Protocol):
    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write whole rows."""


class TableWriter:
    """Writes batches of rows to a file that appears when the `with` block ends without an exception.

    Args:
        path: Its ending tells the format, see `EXTENSIONS`.
        columns: Names with the type of their values: str, int, float, bool, or list (of strings). Any may be None.
        raw: Write texts to CSV and TSV as they are, without `csv_guard`. Other formats are never guarded.

    Raises:
        DataError: The ending is unknown, or a row has not one value per column.
        RunError: The disk is full or the folder cannot be written.
    """

    def __init__(self, path: str | Path, columns: Mapping[str, type], *, raw: bool = False) -> None:
        self.path = Path(path)
        self.columns = dict(columns)
        self.n_rows = 0
        self._raw = raw
        self._extension = extension_of(self.path)
        self._stack = ExitStack()
        self._format: _Format | None = None

    def __enter__(self) -> TableWriter:
        with ExitStack() as opening:
            file = cast(IO[bytes], opening.enter_context(atomic_file(self.path)))
            if self._extension.endswith(".gz"):
                # no name and no time inside, so that equal rows give equal bytes
                file = cast(IO[bytes], gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0))
                opening.push(_closing(file))
            self._format = self._open_format(file)
            opening.push(_closing(self._format))
            self._stack = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._format = None
        self._stack.__exit__(kind, error, trace)

    def write(self, rows: Iterable[Sequence[Any]]) -> None:
        """Write rows, each a sequence of values in the order of the columns."""
        if self._format is None:
            raise ValueError("a TableWriter writes inside its with block only")
        batch = rows if isinstance(rows, Sequence) else list(rows)
        for number, row in enumerate(batch, start=self.n_rows + 1):
            if len(row) != len(self.columns):
                raise DataError(
                    f"row {number} has {len(row)} values for {len(self.columns)} columns",
                    where=str(self.path),
                    next=f"give one value for each of {', '.join(self.columns)}",
                )
        self._format.write(batch)
        self.n_rows += len(batch)

    def _open_format(self, file: IO[bytes]) -> _Format:
        if self._extension == ".parquet":
            return _Parquet(file, self.columns)
        if self._extension.startswith(".jsonl"):
            return _JsonLines(file, self.columns)
        delimiter = "\t" if self._extension.startswith(".tsv") else ","
        return _Delimited(file, self.columns, delimiter=delimiter, raw=self._raw)


def write_rows(
    path: str | Path, columns: Mapping[str, type], rows: Iterable[Sequence[Any]], *, raw: bool = False
) -> None:
    """Write all rows to one file, see `TableWriter`."""
    with TableWriter(path, columns, raw=raw) as table:
        table.write(rows)


def _closing(opened: _Closing) -> Any:
    """Return an exit callback that closes; after a failure the file is thrown away, and a second one is no news."""

    def leave(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        with nullcontext() if kind is None else suppress(OSError, pa.ArrowException):
            opened.close()
        return False

    return leave


class _Delimited:
    # Not csv.writer: with "\n" as the line's end it leaves a lone "\r" unquoted (seen in Python 3.11), which readers
    # take for the end of the row.
    def __init__(self, file: IO[bytes], columns: Mapping[str, type], *, delimiter: str, raw: bool) -> None:
        self._file = file
        self._delimiter = delimiter
        self._raw = raw
        self._quoted = frozenset(f'{delimiter}"\r\n')
        self.write([list(columns)])

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write whole rows."""
        lines = [self._delimiter.join(map(self._cell, row)) or '""' for row in rows]  # a bare line end is no row
        self._file.write("".join(f"{line}\n" for line in lines).encode("utf-8", errors="backslashreplace"))

    def _cell(self, value: Any) -> str:
        value = _plain(value)
        if value is None:
            return ""
        if isinstance(value, bool):
            return "1" if value else "0"
        if not isinstance(value, str):
            if not isinstance(value, list):
                return str(value)
            value = LIST_SEPARATOR.join(value)
        text = value if self._raw else csv_guard(value)
        return text if self._quoted.isdisjoint(text) else '"' + text.replace('"', '""') + '"'

    def close(self) -> None:
        """Pass on what is left."""
        self._file.flush()


class _JsonLines:
    def __init__(self, file: IO[bytes], columns: Mapping[str, type]) -> None:
        self._file = file
        self._names = list(columns)

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write whole rows."""
        names = self._names
        lines = [json.dumps(dict(zip(names, map(_plain, row), strict=True)), ensure_ascii=False) for row in rows]
        # a lone surrogate becomes \udxxx, which is what JSON itself would write
        self._file.write("".join(f"{line}\n" for line in lines).encode("utf-8", errors="backslashreplace"))

    def close(self) -> None:
        """Pass on what is left."""
        self._file.flush()


class _Parquet:
    def __init__(self, file: IO[bytes], columns: Mapping[str, type]) -> None:
        self._schema = pa.schema([(name, _ARROW_TYPES[kind]) for name, kind in columns.items()])
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write whole rows as one row group."""
        if not rows:
            return
        columns = zip(*rows, strict=True)
        arrays = [
            pa.array([_unicode(_plain(value)) for value in column], type=field.type)
            for column, field in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        """Write the footer, without which the file cannot be read."""
        self._writer.close()


def _plain(value: Any) -> Any:
    """Return a value that JSON and Arrow take: no numpy types, no tuples, None for NaN and infinities."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if isinstance(value, tuple):
        return list(value)
    return value


def _unicode(value: Any) -> Any:
    """Return texts as Arrow takes them: a lone surrogate is written out as `\\udxxx`."""
    if isinstance(value, list):
        return [_unicode(item) for item in value]
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", errors="backslashreplace").decode("utf-8")
    return value
