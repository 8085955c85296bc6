"""Which columns of a source hold the texts and the labels, and whether the source has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from headrace.errors import DataError, nearest

_MAX_NAMES_SHOWN = 20
_DELIMITER_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class Columns:
    """The columns that are read.

    Attributes:
        text: One name, or two for pairs.
        label: No name for unlabelled data, one, or several 0/1 columns (multi-label; the names are the labels).
        separator: Between the names in one multi-label column of joined names.
        multi_label: Whether one column holds a list of names.
        labels: Names and order of the labels; of a folder per label only these folders are read.
        slices: Further columns that are kept as they are, for metrics on parts of the rows.
        has_recipe: Whether a recipe names them, which can name others; a bundle's are as they are.
    """

    text: tuple[str, ...]
    label: tuple[str, ...] = ()
    separator: str | None = None
    multi_label: bool = False
    labels: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    has_recipe: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", tuple(dict.fromkeys(self.slices)))  # naming one twice does no harm

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of texts, labels and slices, in the order in which a record's values come."""
        return self.text + self.label + self.slices

    @property
    def has_label_lists(self) -> bool:
        """Whether a row's label is a list of names."""
        return self.multi_label or self.separator is not None or len(self.label) > 1


def present(
    found: Sequence[str], columns: Columns, *, where: str, label_required: bool, delimiter: str | None = None
) -> Columns:
    """Return the columns that can be read: all, or the texts alone where labels are absent and not required.

    Args:
        found: The source's column names.
        columns: What is asked for.
        where: The place that a message names, such as `file:1` for a header.
        label_required: Whether missing label columns are a fault.
        delimiter: The character between columns, in a file that has one.

    Raises:
        DataError: A name occurs twice, or a column is missing; offers the nearest name, or the delimiter that fits.
    """
    refuse_repeated(found, where=where)
    wanted = columns
    if not label_required and not set(columns.label) & set(found):
        wanted = replace(columns, label=())
    missing = [name for name in wanted.names if name not in found]
    if missing:
        raise DataError(
            f"found columns {_listed(found)}, expected {_listed(wanted.names)}",
            where=where,
            next=_advice(found, wanted, missing, delimiter),
        )
    return wanted


def _advice(found: Sequence[str], expected: Columns, missing: Sequence[str], delimiter: str | None) -> str:
    separated = other_delimiter(found, delimiter)
    if separated:
        return separated
    close = [(name, nearest(name, found)) for name in missing]
    if any(near for _, near in close):
        return "; ".join(f"for {name!r}, did you mean {near!r}?" for name, near in close if near)
    if set(missing) <= set(expected.slices):
        return "name in data.slices only columns that each file has"
    name_them = "name the columns in data.text and data.label" if expected.has_recipe else "rename the columns"
    if delimiter is not None and len(missing) == len(expected.names):
        return f"the first line must hold the columns' names: add them, or {name_them}"
    return f"{name_them} as the source names them" if expected.has_recipe else f"{name_them} as the bundle names them"


def refuse_repeated(names: Sequence[str], *, where: str) -> None:
    """Refuse column names of which one occurs twice.

    Raises:
        DataError: One does.
    """
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise DataError(
            f"the column name {twice[0]!r} occurs {names.count(twice[0])} times",
            where=where,
            next="rename the columns so that each name occurs once",
        )


def other_delimiter(found: Sequence[str], delimiter: str | None) -> str | None:
    """Return what to do about a header that is one column because it is separated by something else, or None."""
    other = _other_delimiter(found[0], delimiter) if delimiter is not None and len(found) == 1 else None
    if other is None:
        return None
    mend = {"\t": "rename the file to .tsv", ",": "rename the file to .csv"}
    return f"the columns look separated by {_DELIMITER_NAMES[other]}: " + mend.get(
        other, "save the file with commas (.csv) or tabs (.tsv)"
    )


def _other_delimiter(header: str, delimiter: str) -> str | None:
    counts = {other: header.count(other) for other in _DELIMITER_NAMES if other != delimiter}
    best = max(counts, key=lambda other: counts[other])
    return best if counts[best] else None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MAX_NAMES_SHOWN])
    return shown if len(names) <= _MAX_NAMES_SHOWN else f"{shown} and {len(names) - _MAX_NAMES_SHOWN} more"
