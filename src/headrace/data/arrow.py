"""Writes checked rows to an Arrow file in the cache, and opens one that is whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from headrace.data.columns import Columns
from headrace.data.examples import FILE, LABEL, PAIR, ROW, SLICE, TEXT, BadRow, Examples
from headrace.data.faults import Faults
from headrace.data.mapped import MappedTable
from headrace.data.rows import RowBatch
from headrace.errors import DataError
from headrace.files import write_json

FORMAT_VERSION = 1  # part of the key: a change here makes all kept files stale
_ARROW_FILE = "examples.arrow"
_META_FILE = "meta.json"


def schema_of(columns: Columns, *, has_file: bool) -> pa.Schema:
    """Return the schema of the kept file for these columns."""
    fields = [(TEXT, pa.string())]
    if len(columns.text) > 1:
        fields.append((PAIR, pa.string()))
    if columns.label:
        fields.append((LABEL, pa.list_(pa.string()) if columns.has_label_lists else pa.string()))
    fields.append((ROW, pa.int64()))
    if has_file:
        fields.append((FILE, pa.string()))
    fields += [(SLICE + name, pa.string()) for name in columns.slices]
    return pa.schema(fields)


def write(folder: Path, batches: Iterable[RowBatch], schema: pa.Schema, faults: Faults) -> None:
    """Write the batches to `folder` as they come, and what is known about them beside.

    Raises:
        DataError: There are faults (unless they are skipped), or no row is good.
    """
    # Of texts and labels alone: another choice of slices leaves tokens and runs as they are.
    names = [name for name in schema.names if not name.startswith(SLICE)]
    digest = hashlib.sha256(",".join(names).encode())
    n_rows = n_labelled = n_replaced = 0
    with pyarrow.ipc.new_file(str(folder / _ARROW_FILE), schema) as file:
        try:
            for batch in batches:
                _update(digest, batch)
                n_rows += len(batch.rows)
                n_labelled += sum(label is not None for label in batch.labels)
                n_replaced += batch.n_replaced
                if not faults.n_faults or faults.skip:  # with faults nothing is kept; go on only to find them all
                    file.write_batch(_record_batch(batch, schema))
        except DataError as error:  # one that ends the reading
            raise faults.joined(error) from error
    faults.raise_any()
    if not n_rows:
        raise faults.no_row()
    meta = {
        "format": FORMAT_VERSION,
        "fingerprint": digest.hexdigest(),
        "n_rows": n_rows,
        "n_labelled": n_labelled,
        "n_replaced": n_replaced,
        "n_bad_rows": faults.n_faults,
        "bad_rows": [[bad.where, bad.reason, bad.content] for bad in faults.bad_rows],
        "n_bytes": (folder / _ARROW_FILE).stat().st_size,
    }
    write_json(folder / _META_FILE, meta)


def open_kept(folder: Path, *, source: str) -> Examples | None:
    """Open what `write` left in `folder`, or return None where there is nothing whole."""
    try:
        meta: dict[str, Any] = json.loads((folder / _META_FILE).read_text(encoding="utf-8"))
        if meta["format"] != FORMAT_VERSION or (folder / _ARROW_FILE).stat().st_size != meta["n_bytes"]:
            return None
        mapped = MappedTable(folder / _ARROW_FILE)
        if mapped.table.num_rows != meta["n_rows"]:
            return None
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return None  # it can be computed anew
    table = mapped.table
    if LABEL in table.column_names and not meta["n_labelled"]:
        table = table.drop_columns([LABEL])  # the source names the column and leaves it empty
    return Examples(
        table=table,
        rows=np.arange(meta["n_rows"], dtype=np.int64),
        source=source,
        fingerprint=meta["fingerprint"],
        bad_rows=tuple(BadRow(source + where, reason, content) for where, reason, content in meta["bad_rows"]),
        n_bad_rows=meta["n_bad_rows"],
        n_replaced=meta["n_replaced"],
        mapped=mapped,
    )


def _record_batch(batch: RowBatch, schema: pa.Schema) -> pa.RecordBatch:
    values = {TEXT: batch.texts, PAIR: batch.pairs, LABEL: batch.labels, ROW: batch.rows, FILE: batch.files}
    slices = [name for name in schema.names if name.startswith(SLICE)]
    values |= dict(zip(slices, zip(*batch.slices, strict=True), strict=True))
    return pa.record_batch([_column(values[field.name], field.type) for field in schema], schema=schema)


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return values as Arrow has them; `pa.array` would import pandas, half a second before a few texts are read."""
    if kind == pa.int64() and None not in values:
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.asarray(values, dtype=np.int64))])
    if kind == pa.string() and None not in values:
        encoded = [value.encode() for value in values]
        ends = np.zeros(len(values) + 1, dtype=np.int64)
        np.cumsum([len(value) for value in encoded], out=ends[1:])
        if ends[-1] < 1 << 31:
            buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(encoded))]
            return pa.Array.from_buffers(kind, len(values), buffers)
    return pa.array(values, kind)


def _update(digest: Any, batch: RowBatch) -> None:
    # After cleaning no text holds a control character, so these can stand between texts; None is marked by one too.
    for values in (batch.texts, batch.pairs):
        digest.update("\0".join(values).encode() + b"\x01")
    if any(isinstance(label, list) for label in batch.labels):
        joined = ("\x02" if names is None else "\x03".join(["", *names]) for names in batch.labels)
    else:
        joined = ("\x02" if label is None else label for label in batch.labels)
    digest.update("\0".join(joined).encode() + b"\x01")
