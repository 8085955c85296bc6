"""What a bundle is applied to: files, tables in memory and pipes, read into a cache that is gone afterwards."""

from __future__ import annotations

import codecs
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

from headrace.bundle import Bundle
from headrace.data.examples import BadRow, Examples
from headrace.data.faults import Faults
from headrace.data.read import Columns, read
from headrace.errors import DataError, RunError
from headrace.files import TEMPORARY_PREFIX, cache_folder, remove_leftovers

OnBadRow = Literal["error", "skip"]

_DAY_S = 86_400.0  # a large file may take hours, and what a process that is gone has left is removed at any age
# Behind the source's name stand `:row`, `:row:column`, `/file:row` or `/file:row (byte n)`.
_ROW = re.compile(r"(?:/.*)?:(\d+)")


@dataclass(frozen=True)
class Piped:
    """Texts that came through a pipe; messages call it by its name, not by the file that holds it meanwhile.

    Attributes:
        path: JSON Lines, with a blank line for each bad one.
        faults: The lines that hold no text.
    """

    path: Path
    faults: Faults
    NAME: ClassVar[str] = "standard input"


@contextmanager
def piped(stream: BinaryIO, bundle: Bundle) -> Iterator[Piped]:
    """Keep what comes through a pipe in a temporary file while the block lasts, and yield it as a source.

    Lines that begin with `{` are JSON objects with the bundle's columns. Other lines are texts; for a bundle of pairs,
    two texts with a tab between them.

    Raises:
        DataError: A line is not UTF-8, or none of them holds a text.
        RunError: The cache folder cannot be written.
    """
    faults = Faults(Piped.NAME, skip=True, has_recipe=False)
    n_lines = 0
    with scratch() as folder:
        path = folder / "lines.jsonl"
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            for line in _json_lines(stream, bundle.about.text.columns, faults):
                file.write(f"{line}\n")
                n_lines += 1
        if n_lines and faults.n_faults == n_lines:
            raise faults.no_row()
        yield Piped(path, faults)


@contextmanager
def texts_of(bundle: Bundle, source: Any, *, on_bad_row: OnBadRow = "skip") -> Iterator[Examples]:
    """Yield the texts of a source by the bundle's columns; their file is gone when the block ends.

    Raises:
        DataError: The source cannot be read.
        RunError: The cache folder cannot be written.
    """
    columns = Columns(text=bundle.about.text.columns, has_recipe=False)
    with scratch() as cache:
        if isinstance(source, Piped):
            yield _read_piped(source, columns, cache, on_bad_row)
        else:
            yield read(source, columns, on_bad_row=on_bad_row, cache=cache, label_required=False, called="rows")


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder on the cache's disk that is gone afterwards: what is scored once need not be kept.

    What earlier calls have left there, because they were killed, is removed.

    Raises:
        RunError: The cache folder cannot be written.
    """
    parent = cache_folder()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):  # another call may be removing the same
            remove_leftovers(parent, older_than_s=_DAY_S)
        # Windows cannot remove a file that is still mapped; the next call does.
        folder = tempfile.TemporaryDirectory(
            dir=parent, prefix=f"{TEMPORARY_PREFIX}{os.getpid()}-apply-", ignore_cleanup_errors=True
        )
    except OSError as error:
        raise RunError(
            f"the cache folder cannot be written: {error.strerror or error}",
            where=str(parent),
            next="name another folder in the environment variable HEADRACE_CACHE",
        ) from error
    with folder as name:
        yield Path(name)


def row_of(bad: BadRow, *, source: str) -> int | None:
    """Return the number of a bad row of a source; None where its place tells none."""
    found = _ROW.match(bad.where.removeprefix(source))
    return int(found.group(1)) if found else None


def _json_lines(stream: BinaryIO, columns: Sequence[str], faults: Faults) -> Iterator[str]:
    """Yield a JSON line for each line, a blank one for a bad line: the reader passes over it and counts it."""
    lines = (_decoded(raw, number) for number, raw in enumerate(stream, start=1))
    first: list[str] = []  # up to the one that tells what they are
    for line in lines:
        first.append(line)
        if line.strip():
            break
    if first and first[-1].lstrip().startswith("{"):
        yield from chain(first, lines)
        return
    for number, line in enumerate(chain(first, lines), start=1):
        yield _json_line(line, columns, number, faults)


def _decoded(raw: bytes, number: int) -> str:
    try:
        content = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
        return content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the byte 0x{raw[error.start]:02x} is not valid UTF-8 ({error.reason})",
            where=f"{Piped.NAME}:{number} (byte {error.start:,} of the line)",
            next="convert it first, such as with iconv -f latin1 -t utf-8",
        ) from error


def _json_line(line: str, columns: Sequence[str], number: int, faults: Faults) -> str:
    parts = line.split("\t") if len(columns) > 1 else [line]
    if len(parts) != len(columns):
        faults.add(
            f":{number}",
            f"the line has {len(parts) - 1} tabs; a pair is two texts with one tab between them",
            f'or write JSON lines: {{"{columns[0]}": …, "{columns[-1]}": …}}',
            line,
        )
        return ""
    return json.dumps(dict(zip(columns, parts, strict=True)), ensure_ascii=False)


def _read_piped(source: Piped, columns: Columns, cache: Path, on_bad_row: OnBadRow) -> Examples:
    if on_bad_row == "error" and source.faults.n_faults:
        raise source.faults.joined()
    place = str(source.path)
    try:
        examples = read(source.path, columns, on_bad_row=on_bad_row, cache=cache, label_required=False)
    except DataError as error:
        what, where = error.what.replace(place, Piped.NAME), (error.where or Piped.NAME).replace(place, Piped.NAME)
        raise DataError(what, where=where, next=error.next) from error
    bad = [replace(row, where=row.where.replace(place, Piped.NAME)) for row in examples.bad_rows]
    bad += [replace(row, where=Piped.NAME + row.where) for row in source.faults.bad_rows]
    bad.sort(key=lambda row: row_of(row, source=Piped.NAME) or 0)
    n_bad = examples.n_bad_rows + source.faults.n_faults
    return replace(examples, source=Piped.NAME, bad_rows=tuple(bad), n_bad_rows=n_bad)
