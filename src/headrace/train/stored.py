"""Rows that were given in memory, as a Parquet file in the run's folder: with the recipe's columns, so that it runs again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace.data.columns import Columns
from headrace.data.examples import PAIR, SLICE, TEXT, Examples
from headrace.files import sha256_of
from headrace.tables import TableWriter


def store(examples: Examples, columns: Columns, folder: Path, *, name: str) -> Path:
    """Write rows into a folder and return the file; it reads as the same by the same columns.

    Args:
        examples: Read from memory.
        columns: What they were read by.
        folder: Made if it is not there.
        name: `train`, `valid` or `test`.
    """
    key = sha256_of(examples.fingerprint, repr(replace(columns, slices=())))
    # By content: another call's rows must not overwrite what an interrupted run still needs.
    path = folder / f"{name}-{key[:16]}.parquet"
    if columns.slices or not path.is_file():  # the key does not tell what stands in further columns
        with TableWriter(path, _kinds(columns)) as table:
            for rows in _blocks(examples, columns):
                table.write(rows)
    return path


def _kinds(columns: Columns) -> dict[str, type]:
    """Return the columns of the file with the type of their values."""
    label: type = list if columns.multi_label and columns.separator is None else str
    if len(columns.label) > 1:
        label = int
    found = {**dict.fromkeys(columns.text, str), **dict.fromkeys(columns.label, label)}
    return found | {name: str for name in columns.slices if name not in found}  # a slice may be the label itself


def _blocks(examples: Examples, columns: Columns) -> Iterator[list[list[Any]]]:
    """Yield the rows some thousands at a time."""
    names = list(_kinds(columns))
    for start, stop in examples.batches():
        values = _values(examples, columns, start, stop)
        yield list(map(list, zip(*(values[name] for name in names), strict=True)))


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
