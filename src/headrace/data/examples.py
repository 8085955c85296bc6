"""Examples: texts with their labels, memory-mapped from an Arrow file, and the set of label names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from headrace.data.mapped import MappedTable
from headrace.errors import DataError, suggestion

TEXT = "text"
PAIR = "pair"
LABEL = "label"
ROW = "row"
FILE = "file"
SLICE = "slice:"


class TextRows(Protocol):
    """What looking at texts alone needs: rows of one source, or of several as one."""

    def __len__(self) -> int: ...

    @property
    def is_pair(self) -> bool:
        """Whether each row is a pair of texts."""

    @property
    def bad_rows(self) -> tuple[BadRow, ...]:
        """The first of the rows that were left out."""

    @property
    def n_bad_rows(self) -> int:
        """How many were left out."""

    def take(self, positions: np.ndarray | Sequence[int], /) -> TextRows:
        """Return the view of these positions, which ascend."""

    def column(self, name: str, start: int = 0, stop: int | None = None, /) -> list[Any]:
        """Return a column's values of rows [start, stop)."""

    def batches(self, size: int = 8192, /) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of consecutive rows."""

    def where(self, position: int, /) -> str:
        """Return `file:row` of one row."""


@dataclass(frozen=True)
class Examples:
    """Rows of one source, or a choice of them; the table is never copied.

    Attributes:
        table: Columns `text` (string), `pair` (string; sentence pairs only), `label` (string, or list of strings for
            multi-label; absent in unlabelled data), `row` (int64, the physical line on which the record begins, or the
            row's number from 1 in Parquet and in memory), `file` (string; only a folder per label has it: the path
            inside that folder), and `slice:NAME` (string or null) for each further column that was asked for.
        rows: Positions in the table, int64, in this view's order.
        source: What a message calls it: the file, folder or hub id.
        fingerprint: sha256 over the texts and labels of the whole table (not of this choice of rows).
        bad_rows: Rows that were left out, at most 10,000 of them.
        n_bad_rows: How many were left out.
        n_replaced: How many control characters and lone surrogates were replaced in texts and labels.
        mapped: The file behind the table, where there is one.
    """

    table: pa.Table
    rows: np.ndarray
    source: str
    fingerprint: str
    bad_rows: tuple[BadRow, ...] = field(default=())
    n_bad_rows: int = 0
    n_replaced: int = 0
    mapped: MappedTable | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def is_pair(self) -> bool:
        """Whether each example is a pair of texts."""
        return PAIR in self.table.column_names

    @property
    def is_labelled(self) -> bool:
        """Whether the rows have labels."""
        return LABEL in self.table.column_names

    @property
    def is_multi_label(self) -> bool:
        """Whether a row's label is a list of names."""
        return self.is_labelled and pa.types.is_list(self.table.schema.field(LABEL).type)

    def take(self, positions: np.ndarray | Sequence[int]) -> Examples:
        """Return the view of these positions (of this view, not of the table), in their order."""
        return replace(self, rows=self.rows[np.asarray(positions, dtype=np.int64)])

    def column(self, name: str, start: int = 0, stop: int | None = None) -> list[Any]:
        """Return a column's values of view rows [start, stop) as Python objects."""
        return _values(self.table.column(name), self.rows[start:stop], self.mapped)

    def texts(self, start: int = 0, stop: int | None = None) -> list[str] | list[tuple[str, str]]:
        """Return the texts of view rows [start, stop): strings, or (text, pair) tuples."""
        first = self.column(TEXT, start, stop)
        return list(zip(first, self.column(PAIR, start, stop), strict=True)) if self.is_pair else first

    def labels(self, start: int = 0, stop: int | None = None) -> list[Any]:
        """Return the labels of view rows [start, stop): strings, or lists of strings; None where there is none."""
        return self.column(LABEL, start, stop)

    def slices(self) -> dict[str, list[str | None]]:
        """Return the values of each further column that was asked for (`Columns.slices`), None where one is missing."""
        names = [name for name in self.table.column_names if name.startswith(SLICE)]
        return {name.removeprefix(SLICE): self.column(name) for name in names}

    def batches(self, size: int = 8192) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of consecutive view rows, so that a pass over the data holds few of them at a time."""
        for start in range(0, len(self), size):
            yield start, min(start + size, len(self))

    def where(self, position: int) -> str:
        """Return `file:row` of one view row, for messages."""
        row = self.column(ROW, position, position + 1)[0]
        if FILE in self.table.column_names:
            return f"{self.source}/{self.column(FILE, position, position + 1)[0]}:{row}"
        return f"{self.source}:{row}"

    def content_key(self) -> str:
        """Return the sha256 of exactly these rows in this order: the table's fingerprint and the positions."""
        digest = hashlib.sha256(self.fingerprint.encode())
        digest.update(np.ascontiguousarray(self.rows).tobytes())
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        if self.mapped is None:
            return dict(self.__dict__)
        # Another process maps the file anew rather than get a copy of its content.
        return {**self.__dict__, "table": self.table.column_names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        mapped = state["mapped"]
        if mapped is not None:
            state["table"] = mapped.table.select(state["table"])
        self.__dict__.update(state)


# Values that are not worth the half second in which `to_numpy` imports pandas.
_FEW = 1_000


def _values(column: pa.ChunkedArray, rows: np.ndarray, mapped: MappedTable | None) -> list[Any]:
    """Return the values at these positions, each piece of the column touched once and its pages released after.

    ChunkedArray.take joins all pieces first, which copies the column (and fails above 2 GB of text).
    """
    n_rows = len(rows)
    if not n_rows:
        return []
    first = int(rows[0])
    if int(rows[-1]) - first == n_rows - 1 and bool((np.diff(rows) == 1).all()):
        return _objects(column.slice(first, n_rows).chunks, mapped)
    ends = np.cumsum([len(chunk) for chunk in column.chunks])
    chunk_of = np.searchsorted(ends, rows, side="right")
    order = np.argsort(chunk_of, kind="stable")
    borders = np.flatnonzero(np.diff(chunk_of[order])) + 1
    found: list[Any] = [None] * n_rows
    for positions in np.split(order, borders):
        number = int(chunk_of[positions[0]])
        chunk = column.chunk(number)
        local = rows[positions] - (int(ends[number]) - len(chunk))
        for position, value in zip(positions.tolist(), _objects([chunk.take(pa.array(local))], mapped), strict=True):
            found[position] = value
    return found


def _objects(chunks: Sequence[pa.Array], mapped: MappedTable | None) -> list[Any]:
    found: list[Any] = []
    for chunk in chunks:
        if pa.types.is_list(chunk.type) or len(chunk) <= _FEW:
            found += chunk.to_pylist()
        else:  # several times faster than to_pylist for strings; None stays None
            found += chunk.to_numpy(zero_copy_only=False).tolist()
        if mapped is not None:
            mapped.release()
    return found


@dataclass(frozen=True)
class BadRow:
    """A row that was left out: where it begins, why, and what it holds (cut to 200 characters)."""

    where: str
    reason: str
    content: str


@dataclass(frozen=True)
class LabelSet:
    """The names of the labels, in the order of the model's outputs."""

    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def index(self, name: str, *, where: str) -> int:
        """Return the position of `name`.

        Raises:
            DataError: There is no such label.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise DataError(
                f"the label {name!r} does not occur in the training data",
                where=where,
                next=suggestion(name, self.names),
            ) from None
