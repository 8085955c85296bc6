"""Examples: texts with their labels, memory-mapped from an Arrow file, and the set of label names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from headrace.errors import DataError, suggestion

TEXT = "text"
PAIR = "pair"
LABEL = "label"
ROW = "row"
FILE = "file"


@dataclass(frozen=True)
class Examples:
    """Rows of one source, or a choice of them; the table is never copied.

    Attributes:
        table: Columns `text` (string), `pair` (string; sentence pairs only), `label` (string, or list of strings for
            multi-label; absent in unlabelled data), `row` (int64, the physical line on which the record begins, or the
            row's number from 1 in Parquet and in memory), `file` (string; only a folder per label has it).
        rows: Positions in the table, int64, in this view's order.
        source: What a message calls it: the file, folder or hub id.
        fingerprint: sha256 over the content of the whole table (not of this choice of rows).
    """

    table: pa.Table
    rows: np.ndarray
    source: str
    fingerprint: str
    bad_rows: tuple[BadRow, ...] = field(default=())

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

    def column(self, name: str, start: int = 0, stop: int | None = None) -> list:
        """Return a column's values of view rows [start, stop) as Python objects."""
        chosen = self.rows[start:stop]
        return self.table.column(name).take(pa.array(chosen)).to_pylist()

    def texts(self, start: int = 0, stop: int | None = None) -> list[str] | list[tuple[str, str]]:
        """Return the texts of view rows [start, stop): strings, or (text, pair) tuples."""
        first = self.column(TEXT, start, stop)
        return list(zip(first, self.column(PAIR, start, stop), strict=True)) if self.is_pair else first

    def labels(self, start: int = 0, stop: int | None = None) -> list:
        """Return the labels of view rows [start, stop): strings, or lists of strings."""
        return self.column(LABEL, start, stop)

    def batches(self, size: int = 8192) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of consecutive view rows, so that a pass over the data holds few of them at a time."""
        for start in range(0, len(self), size):
            yield start, min(start + size, len(self))

    def where(self, position: int) -> str:
        """Return `file:row` of one view row, for messages."""
        row = self.column(ROW, position, position + 1)[0]
        if FILE in self.table.column_names:
            return f"{self.column(FILE, position, position + 1)[0]}:{row}"
        return f"{self.source}:{row}"

    def content_key(self) -> str:
        """Return the sha256 of exactly these rows in this order: the table's fingerprint and the positions."""
        digest = hashlib.sha256(self.fingerprint.encode())
        digest.update(np.ascontiguousarray(self.rows).tobytes())
        return digest.hexdigest()


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
                f"the label {name!r} does not occur in the training data", where=where, next=suggestion(name, self.names)
            ) from None


