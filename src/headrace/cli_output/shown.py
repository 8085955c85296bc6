"""An answer and its parts, written for a person or as one JSON object for a program."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from headrace.errors import HeadraceError

MAX_SHOWN_CHARACTERS = 200
TOLD_EVERY_S = 5.0


@dataclass(frozen=True)
class Table:
    """Rows under a header; the first column stands left, numbers stand right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Styled:
    """A paragraph of pieces, each with a style of rich's such as `bold red`, or none; colours show on terminals alone."""

    pieces: Sequence[tuple[str, str]]


Part = str | Table | Styled


@dataclass(frozen=True)
class Answer:
    """What a verb has to say.

    Attributes:
        value: The whole of it, for `--json`.
        parts: Paragraphs and tables, for a person.
        exit_code: 0 good, 1 findings.
    """

    value: Mapping[str, Any]
    parts: Sequence[Part] = field(default=())
    exit_code: int = 0


def show(answer: Answer, *, as_json: bool, stream: TextIO) -> None:
    """Write an answer to the stream."""
    if as_json:
        write_json_line(answer.value, stream)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    for part in answer.parts:
        if isinstance(part, str):
            # Soft wrap: a path that is cut in two cannot be copied.
            console.print(Text(printable(part)), soft_wrap=True)
            continue
        if isinstance(part, Styled):
            console.print(Text.assemble(*((printable(text), style) for text, style in part.pieces)), soft_wrap=True)
            continue
        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        for number, name in enumerate(part.header):
            is_text = number == 0 or not all(_is_number(row[number]) for row in part.rows)
            table.add_column(Text(printable(name)), justify="left" if is_text else "right", overflow="fold")
        for row in part.rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        console.print(table)


def write_json_line(value: Mapping[str, Any], stream: TextIO) -> None:
    """Write one JSON object to the stream; what JSON does not know becomes text."""
    stream.write(json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n")
    stream.flush()


def show_error(error: HeadraceError, *, as_json: bool, stdout: TextIO, stderr: TextIO) -> None:
    """Write what is wrong, where and what to do next: to the error stream, with `--json` to the output."""
    if as_json:
        write_json_line(error.as_dict(), stdout)
    else:
        stderr.write(f"{type(error).__name__}: {printable(str(error))}\n")


def printable(text: str) -> str:
    """Return the text without control characters: data on a terminal must not move the cursor or set colours."""
    if text.isprintable():
        return text
    cleaned = (c if c.isprintable() or c == "\n" else " " if c.isspace() else "\ufffd" for c in text)
    return "".join(cleaned)


def _plain(value: Any) -> Any:
    if hasattr(value, "as_dict"):
        return value.as_dict()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "").replace("%", "").replace("-", "").strip().isdigit() or not text


def cut(text: str | Sequence[str]) -> str:
    """Return a text, or the texts of a pair, in at most 200 characters."""
    joined = text if isinstance(text, str) else " / ".join(text)
    return joined if len(joined) <= MAX_SHOWN_CHARACTERS else f"{joined[: MAX_SHOWN_CHARACTERS - 1]}…"


def as_typed(recipe: str, overrides: Sequence[str] | None) -> str:
    """Return a recipe with its overrides as a shell takes them."""
    return shlex.join([recipe, *(part for one in overrides or () for part in ("--set", one))])


def many(n: int, what: str) -> str:
    """Return `1 text` or `1,200 texts`."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def counted(what: str) -> Callable[[int, int], None]:
    """Return a function that tells on the error stream, every five seconds, how far the work is."""
    told = [time.monotonic()]

    def tell(done: int, total: int) -> None:
        if time.monotonic() - told[0] >= TOLD_EVERY_S:
            told[0] = time.monotonic()
            to_stderr(f"{what} {done:,} of {total:,}")

    return tell


def to_stderr(line: str) -> None:
    """Write a line of progress."""
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()
