"""Rows that were given in memory, as a Parquet file in the run's folder: with the recipe's columns, so that it runs again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from headrace.data.columns import Columns
from headrace.data.examples import PAIR, ROW, SLICE, TEXT, BadRow, Examples
from headrace.files import sha256_of
from headrace.tables import TableWriter, write_rows

_NAME = re.compile(r"(train|valid|test)-[0-9a-f]{16}\.parquet")
_BAD_ROW = {"where": str, "reason": str, "content": str}


def store(examples: Examples, columns: Columns, folder: Path, *, name: str) -> Path:
    """Write rows into a folder and return the file; it reads, by the same columns, as the same rows with their numbers.

    A row that was left out is a blank one there, and is left out again. Why it was stands beside the file.

    Args:
        examples: Read from memory: row n of what was given has the number n.
        columns: What they were read by.
        folder: Made if it is not there.
        name: `train`, `valid` or `test`.
    """
    numbers = sha256_of(*(repr(examples.column(ROW, start, stop)) for start, stop in examples.batches()))
    key = sha256_of(examples.fingerprint, repr(replace(columns, slices=())), numbers, str(examples.n_bad_rows))
    # By content: another call's rows must not overwrite what an interrupted run still needs.
    path = folder / f"{name}-{key[:16]}.parquet"
    if examples.n_bad_rows:
        bad = [replace(row, where=name + row.where.removeprefix(examples.source)) for row in examples.bad_rows]
        write_rows(_beside(path), _BAD_ROW, [list(asdict(row).values()) for row in bad])
    if columns.slices or not path.is_file():  # the key does not tell what stands in further columns
        with TableWriter(path, _kinds(columns)) as table:
            for rows in _blocks(examples, columns):
                table.write(rows)
    return path


def as_given(examples: Examples) -> Examples:
    """Return rows that were read, those left out as they were given: `store` has written blank ones in their place."""
    path = Path(examples.source)
    if not examples.n_bad_rows or not _NAME.fullmatch(path.name) or not _beside(path).is_file():
        return examples
    with open(_beside(path), encoding="utf-8", newline="\n") as lines:  # a row may hold other ends of a line
        return replace(examples, bad_rows=tuple(BadRow(**json.loads(line)) for line in lines))


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}.bad_rows.jsonl")


def _kinds(columns: Columns) -> dict[str, type]:
    """Return the columns of the file with the type of their values."""
    label: type = list if columns.multi_label and columns.separator is None else str
    if len(columns.label) > 1:
        label = int
    found = {**dict.fromkeys(columns.text, str), **dict.fromkeys(columns.label, label)}
    return found | {name: str for name in columns.slices if name not in found}  # a slice may be the label itself


def _blocks(examples: Examples, columns: Columns) -> Iterator[list[list[Any]]]:
    """Yield the rows some thousands at a time, with a blank one for each that was left out."""
    names = list(_kinds(columns))
    blank = [None] * len(names)
    last = 0
    for start, stop in examples.batches():
        values = _values(examples, columns, start, stop)
        rows: list[list[Any]] = []
        for number, row in zip(
            examples.column(ROW, start, stop), zip(*(values[n] for n in names), strict=True), strict=True
        ):
            rows += [blank] * (number - last - 1)
            rows.append(list(row))
            last = number
        yield rows
    yield [blank] * (len(examples) + examples.n_bad_rows - last)


def _values(examples: Examples, columns: Columns, start: int, stop: int) -> dict[str, list[Any]]:
    """Return the values of some rows by column, so that reading them gives the same texts and labels."""
    texts = [examples.column(name, start, stop) for name in (TEXT, PAIR)[: len(columns.text)]]
    found = {name: examples.column(SLICE + name, start, stop) for name in columns.slices}
    found |= dict(zip(columns.text, texts, strict=True))
    labels = examples.labels(start, stop)
    if len(columns.label) > 1:
        found |= {name: [int(name in given) for given in labels] for name in columns.label}
    elif columns.separator is not None:
        found[columns.label[0]] = [columns.separator.join(given) for given in labels]
    else:
        found[columns.label[0]] = labels
    return found
