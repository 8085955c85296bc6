"""Turns records as they were parsed into checked texts and labels, a batch of rows at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.data.columns import Columns
from headrace.data.faults import BadCell, Faults

# A record: its row, and the values of Columns.names in that order (a folder's file name as one more).
Record = tuple[int, Sequence[Any]]

MAX_TEXT_BYTES = 1 << 20
_BATCH_ROWS = 8192
_BATCH_CHARACTERS = 16 << 20  # 8,192 texts of 1 MB would be 8 GB
_MAX_SLICE_CHARACTERS = 200  # of a value that rows are parted by; enough to tell values apart
_REPLACED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
_FLAGS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


@dataclass
class RowBatch:
    """Checked rows: lists of equal length, filled and then written."""

    texts: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    slices: list[list[str | None]] = field(default_factory=list)  # one list of values for each row
    n_replaced: int = 0

    def clean(self) -> RowBatch:
        """Replace control characters by a space and lone surrogates by U+FFFD, and count them; return the batch."""
        self.texts = self._cleaned(self.texts)
        self.pairs = self._cleaned(self.pairs)
        if self.labels and any(isinstance(label, list) for label in self.labels):
            self.labels = [None if names is None else self._cleaned(names) for names in self.labels]
        else:
            self.labels = self._cleaned(self.labels)
        return self

    def _cleaned(self, values: list[Any]) -> list[Any]:
        if not _REPLACED.search("".join(filter(None, values))):  # one search a batch, since almost none has any
            return values
        cleaned = []
        for value in values:
            text, count = (None, 0) if value is None else _REPLACED.subn(_replacement, value)
            cleaned.append(text)
            self.n_replaced += count
        return cleaned


def batches(
    records: Iterable[Record], columns: Columns, faults: Faults, *, label_required: bool, has_file: bool = False
) -> Iterator[RowBatch]:
    """Yield the good rows in batches; the bad ones go to `faults`."""
    text_name, pair_name = columns.text[0], columns.text[1] if len(columns.text) > 1 else None
    label_of = _label_reader(columns, label_required=label_required)
    n_texts, n_read = len(columns.text), len(columns.text) + len(columns.label)
    batch, n_characters = RowBatch(), 0
    for row, values in records:
        try:
            text = as_text(values[0], text_name)
            pair = as_text(values[1], pair_name) if pair_name is not None else ""
            label = label_of(values[n_texts:n_read]) if label_of is not None else None
        except BadCell as bad:
            file = f"/{values[-1]}" if has_file else ""
            more = f", {bad.in_recipe}" if bad.in_recipe and faults.has_recipe else ""
            faults.add(f"{file}:{row}:{bad.column}", bad.what, bad.next + more, _content(values))
            continue
        batch.texts.append(text)
        batch.rows.append(row)
        if pair_name is not None:
            batch.pairs.append(pair)
        if label_of is not None:
            batch.labels.append(label)
        if has_file:
            batch.files.append(_REPLACED.sub(_replacement, values[-1]))
        elif columns.slices:
            batch.slices.append([_as_slice(value) for value in values[n_read:]])
        n_characters += len(text) + len(pair)
        if len(batch.texts) == _BATCH_ROWS or n_characters > _BATCH_CHARACTERS:
            yield batch.clean()
            batch, n_characters = RowBatch(), 0
    if batch.texts:
        yield batch.clean()


def as_text(value: Any, column: str) -> str:
    """Return a value as the string that was written.

    Raises:
        BadCell: It is null, not a scalar, or more than 1 MB.
    """
    if type(value) is not str:
        if is_missing(value):
            raise BadCell(column, "the text is missing (null)", "write the text")
        value = _scalar(value, column, "a text")
    # No character takes more than 4 bytes, so short texts need not be encoded.
    if len(value) > MAX_TEXT_BYTES // 4:
        n_bytes = len(value.encode("utf-8", "surrogatepass"))
        if n_bytes > MAX_TEXT_BYTES:
            raise too_long(column, f"{n_bytes:,}")
    return str(value)


def _as_slice(value: Any) -> str | None:
    """Return a value of a further column as a short string, None where it is missing; none is a fault."""
    if type(value) is not str and is_missing(value):
        return None
    return _REPLACED.sub(_replacement, str(value)[:_MAX_SLICE_CHARACTERS])


def too_long(column: str, size: str) -> BadCell:
    """Return the fault of a text beyond the limit."""
    return BadCell(
        column,
        f"the text has {size} bytes; the limit is {MAX_TEXT_BYTES:,}",
        "cut the text into parts",
    )


def is_missing(value: Any) -> bool:
    """Tell whether a value is null in Python, numpy or pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    kind = getattr(getattr(value, "dtype", None), "kind", "f" if isinstance(value, float) else "")
    return kind == "f" and not hasattr(value, "__len__") and bool(value != value)


def _scalar(value: Any, column: str, wanted: str) -> str:
    is_array = hasattr(value, "shape") and bool(value.shape)
    if is_array or isinstance(value, Mapping | list | tuple | set | frozenset | bytes | bytearray):
        raise BadCell(column, f"found a {type(value).__name__} where {wanted} is expected", f"write {wanted}")
    return str(value)


def _replacement(match: re.Match[str]) -> str:
    return "\ufffd" if match.group() >= "\ud800" else " "


def _content(values: Sequence[Any]) -> str:
    return " | ".join(str(value)[:200] for value in values)


LabelReader = Callable[[Sequence[Any]], Any]


def _label_reader(columns: Columns, *, label_required: bool) -> LabelReader | None:
    if not columns.label:
        return None
    if len(columns.label) > 1:
        return lambda values: _from_flags(values, columns.label, label_required)
    name = columns.label[0]
    if columns.separator is not None:
        separator = columns.separator
        return lambda values: _from_joined(values[0], name, separator, label_required)
    if columns.multi_label:
        return lambda values: _from_list(values[0], name, label_required)
    return lambda values: _from_one(values[0], name, label_required)


def _missing_label(column: str, advice: str) -> BadCell:
    return BadCell(column, "the label is missing", advice)


def _from_one(value: Any, column: str, required: bool) -> str | None:
    if type(value) is str and value and not value.isspace():
        return value
    if is_missing(value) or not str(value).strip():
        if required:
            raise _missing_label(column, "write the label")
        return None
    if isinstance(value, list | tuple) or (hasattr(value, "shape") and value.shape):
        raise BadCell(
            column,
            f"found a {type(value).__name__} where one label is expected",
            "write one label",
            "or set task: multi_label if a text can have several",
        )
    return _scalar(value, column, "a label")


def _from_flags(values: Sequence[Any], names: tuple[str, ...], required: bool) -> list[str] | None:
    found = []
    for name, value in zip(names, values, strict=False):
        flag = _FLAGS.get(value) if type(value) is str else None
        if flag is None:
            if is_missing(value) or value == "":
                if not required and all(is_missing(other) or other == "" for other in values[: len(names)]):
                    return None
                raise _missing_label(name, "write 0 or 1")
            flag = _FLAGS.get(str(value).strip().lower())
            if flag is None:
                raise BadCell(name, f"found {str(value)[:80]!r} where 0 or 1 is expected", "write 0 or 1")
        if flag:
            found.append(name)
    return found


def _from_joined(value: Any, column: str, separator: str, required: bool) -> list[str] | None:
    if is_missing(value):
        if required:
            raise _missing_label(column, "write an empty string for a row with no label")
        return None
    text = value if type(value) is str else _scalar(value, column, "joined labels")
    return _distinct(name.strip() for name in text.split(separator))


def _from_list(value: Any, column: str, required: bool) -> list[str] | None:
    if is_missing(value):
        if required:
            raise _missing_label(column, "write an empty list for a row with no label")
        return None
    if isinstance(value, str):
        raise BadCell(
            column,
            f"found the string {value[:80]!r} where a list of labels is expected",
            "write a list",
            "or set data.label_separator to what stands between the names",
        )
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, list | tuple | set | frozenset):
        raise BadCell(column, f"found a {type(value).__name__} where a list of labels is expected", "write a list")
    if any(is_missing(name) for name in value):
        raise BadCell(column, "the list of labels holds a null", "leave the null out")
    return _distinct(_scalar(name, column, "a label") for name in value)


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(name for name in names if name))
