"""Reads labelled texts that are in memory: lists of dicts, pandas DataFrames, `datasets.Dataset`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.data.columns import Columns, present
from headrace.data.faults import Faults
from headrace.data.rows import Record, is_missing
from headrace.data.tabular import Named, peeked, picked
from headrace.errors import DataError

_BATCH_ROWS = 1024


@dataclass(frozen=True)
class InMemory:
    """A source in memory, ready to be read.

    Attributes:
        name: What a message calls it.
        columns: The columns that it has.
        records: Yields its records, anew at each call.
    """

    name: str
    columns: Columns
    records: Callable[[Faults], Iterator[Record]]


def in_memory(source: Any, columns: Columns, *, label_required: bool, name: str) -> InMemory:
    """Return how a list of dicts, a DataFrame or a Dataset is read.

    Args:
        source: The rows.
        columns: What is asked for.
        label_required: Whether missing labels are a fault.
        name: What a message calls it.

    Raises:
        DataError: It is none of these, or lacks a column.
    """
    kind = _kind(source)
    if kind == "list":
        return _from_dicts(source, columns, name, label_required)
    if kind == "DataFrame":
        found = [str(column) for column in source.columns]
        wanted = present(found, columns, where=name, label_required=label_required)
        return InMemory(name, wanted, lambda _: _frame_records(source, wanted))
    if kind == "Dataset":
        wanted = present(source.column_names, columns, where=name, label_required=label_required)
        return InMemory(name, wanted, lambda _: _dataset_records(source, wanted))
    advice = "give a file's path, a list of dicts, a pandas.DataFrame or a datasets.Dataset"
    if kind in ("DatasetDict", "IterableDatasetDict"):
        advice = f"choose one of its splits: {', '.join(map(str, source))}"
    raise DataError(f"examples cannot be read from a {kind}", where=name, next=advice)


def records_sha256(records: Iterable[Record]) -> str:
    """Return the sha256 over the rows and values of records."""
    digest = hashlib.sha256()
    for row, values in records:
        digest.update(repr((row, list(values))).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _kind(source: Any) -> str:
    """Name the kind of a source without importing pandas or datasets for those who use neither."""
    for cls in type(source).__mro__:
        package = cls.__module__.partition(".")[0]
        if package in ("pandas", "datasets") and cls.__name__ in ("DataFrame", "Dataset"):
            return cls.__name__
    return "list" if isinstance(source, list | tuple) else type(source).__name__


def _from_dicts(source: Sequence[Any], columns: Columns, name: str, label_required: bool) -> InMemory:
    ignored = Faults(name, skip=True)
    wanted, _ = peeked(_mappings(source, ignored), columns, where=name, label_required=label_required)
    return InMemory(
        name,
        wanted,
        lambda faults: picked(_mappings(source, faults), wanted, faults, label_required=label_required),
    )


def _mappings(source: Sequence[Any], faults: Faults) -> Iterator[Named]:
    for row, record in enumerate(source, start=1):
        if isinstance(record, Mapping):
            yield row, record
        else:
            faults.add(
                f":{row}",
                f"this row is a {type(record).__name__}, not a dict",
                'give a list of dicts such as {"text": "…", "label": "…"}',
                str(record)[:200],
            )


def _frame_records(frame: Any, columns: Columns) -> Iterator[Record]:
    found = [str(column) for column in frame.columns]
    indices = [found.index(name) for name in columns.names]
    for start in range(0, len(frame), _BATCH_ROWS):
        part = frame.iloc[start : start + _BATCH_ROWS]
        values = [part.iloc[:, index].tolist() for index in indices]
        yield from enumerate(zip(*values, strict=True), start=start + 1)


def _dataset_records(dataset: Any, columns: Columns) -> Iterator[Record]:
    names = list(dict.fromkeys(columns.names))
    plain = dataset.select_columns(names).with_format(None)
    class_names = [_class_names(dataset.features[name]) for name in columns.names]
    for start in range(0, len(plain), _BATCH_ROWS):
        part = plain[start : start + _BATCH_ROWS]
        values = [
            part[name] if classes is None else [_named(value, classes) for value in part[name]]
            for name, classes in zip(columns.names, class_names, strict=True)
        ]
        yield from enumerate(zip(*values, strict=True), start=start + 1)


def _class_names(feature: Any) -> list[str] | None:
    """Return the names behind a ClassLabel feature, or a list of them; None for other features."""
    inner = feature[0] if isinstance(feature, list) else getattr(feature, "feature", feature)
    names = getattr(inner, "names", None)
    return list(names) if names is not None and type(inner).__name__ == "ClassLabel" else None


def _named(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    # datasets marks an unknown label by -1
    return None if is_missing(value) or not 0 <= value < len(names) else names[value]
