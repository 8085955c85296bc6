"""Finds the labels of a data set and turns each row's label into the number that a loss wants."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.data.examples import LABEL, Examples, LabelSet
from headrace.errors import MAX_SHOWN_FAULTS, DataError, together

# Labels are short, so many rows at a time; a batch of 65,536 labels of 20 bytes is 1.3 MB.
_BATCH_ROWS = 65_536
# 18 digits fit int64; longer numbers are names, not counts
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")


def label_set(examples: Examples, *, names: tuple[str, ...] = ()) -> LabelSet:
    """Return the label names of training rows, sorted, or as given.

    Integers sort by value (`2` before `10`). Given names keep their order and may lack rows (the audit reports that).

    Raises:
        DataError: There is no label at all, only a single class, a name given twice, or a row whose label is not
            among the names given.
    """
    _require_labels(examples)
    if len(examples) == 0:
        raise DataError(
            "there are no training rows", where=examples.source, next="check that the file holds rows below its header"
        )
    _refuse_repeated(names)
    codes, sets = label_sets(examples)
    found = sorted_names({name for labels in sets for name in labels})
    labels = LabelSet(names or found)
    if not set(found) <= set(labels.names):
        _raise_faults(examples, _unseen(examples, labels), "is not in data.labels")
    if examples.is_multi_label:
        _require_contrast(examples, labels, sets)
    else:
        _require_two(examples, found)
        _refuse_missing(examples, codes, sets)
    return labels


def sorted_names(names: set[str]) -> tuple[str, ...]:
    """Return label names in order: by value if all are integers, else by code point."""
    if all(_INTEGER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def targets(examples: Examples, labels: LabelSet) -> np.ndarray:
    """Return each row's target.

    Returns:
        [rows] int64 positions in `labels` for a single label, or [rows, labels] float32 of 0 and 1 for multi-label.

    Raises:
        DataError: Rows have a label that `labels` lacks, or none where one is needed; names each such label once,
            with its first row and the number of its rows.
    """
    _require_labels(examples)
    if len(labels) == 0:
        raise DataError("the label set is empty", where=examples.source, next="name at least one label")
    known = pa.array(labels.names, type=pa.string())
    if examples.is_multi_label:
        dense, clean = _dense(examples, known)
        if not clean:
            _raise_faults(examples, _unseen(examples, labels))
        return dense
    positions = np.empty(len(examples), dtype=np.int64)
    for start, values in _label_batches(examples):
        positions[start : start + len(values)] = _positions(values, known)
    if (positions < 0).any():
        _raise_faults(examples, _unseen(examples, labels))
    return positions


def label_counts(examples: Examples, labels: LabelSet) -> dict[str, int]:
    """Return the number of rows of each label, in the labels' order; labels outside the set are not counted."""
    codes, sets = label_sets(examples)
    counts = dict.fromkeys(labels.names, 0)
    for names, n_rows in zip(sets, np.bincount(codes, minlength=len(sets)).tolist(), strict=True):
        for name in names:
            if name in counts:
                counts[name] += n_rows
    return counts


def label_sets(examples: Examples) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Return which set of labels each row has.

    Returns:
        [rows] int32 positions in a list of distinct label sets. Both depend on content alone: the sets are sorted,
        and so are the names within one. A row without a label, or unlabelled data, has the empty set.
    """
    if not examples.is_labelled:
        return np.zeros(len(examples), dtype=np.int32), [()]
    seen: dict[tuple[str, ...], int] = {}
    codes = np.empty(len(examples), dtype=np.int32)
    for start, values in _label_batches(examples):
        local = _local_sets(values) if pa.types.is_list(values.type) else _local_singles(values)
        positions, names = local
        numbers = np.array([seen.setdefault(key, len(seen)) for key in names], dtype=np.int32)
        codes[start : start + len(values)] = numbers[positions]
    ordered = sorted(seen)
    rank = np.empty(len(ordered), dtype=np.int32)
    for position, key in enumerate(ordered):
        rank[seen[key]] = position
    return rank[codes] if ordered else codes, ordered


def _local_singles(values: pa.Array) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    encoded = values.dictionary_encode()
    names: list[tuple[str, ...]] = [(name,) for name in encoded.dictionary.to_pylist()]
    positions = pc.fill_null(encoded.indices, len(names)).to_numpy()
    return positions, [*names, ()] if encoded.null_count else names


def _local_sets(values: pa.Array) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    flat = values.flatten().dictionary_encode()
    names = flat.dictionary.to_pylist()
    codes = flat.indices.to_numpy().tolist()
    lengths = pc.fill_null(pc.list_value_length(values), 0).to_pylist()
    # A row's codes as written are the key of a first, cheap look-up; sorting is for the few distinct ones.
    seen: dict[tuple[int, ...], int] = {}
    positions = np.empty(len(values), dtype=np.int64)
    end = 0
    for row, length in enumerate(lengths):
        begin, end = end, end + length
        positions[row] = seen.setdefault(tuple(codes[begin:end]), len(seen))
    return positions, [tuple(sorted({names[code] for code in key})) for key in seen]


def _label_batches(examples: Examples) -> Iterator[tuple[int, pa.Array]]:
    column = examples.table.column(LABEL)
    for start, stop in examples.batches(_BATCH_ROWS):
        rows = examples.rows[start:stop]
        first = int(rows.min())
        # Only the part of the column that the batch needs: `take` joins all pieces of what it is given.
        window = column.slice(first, int(rows.max()) - first + 1)
        is_whole = len(window) == len(rows) and bool((np.diff(rows) == 1).all())
        values = pa.concat_arrays((window if is_whole else window.take(pa.array(rows - first))).chunks)
        if examples.mapped is not None:
            examples.mapped.release()
        yield start, values


def _positions(values: pa.Array, known: pa.Array) -> np.ndarray:
    """Return the position of each value in `known`, [values] int32; -1 for an unknown or missing one."""
    found = pc.fill_null(pc.index_in(values, value_set=known), -1)
    return np.asarray(found.to_numpy(zero_copy_only=False))


def _dense(examples: Examples, known: pa.Array) -> tuple[np.ndarray, bool]:
    """Return the 0/1 targets, and whether every label was known."""
    dense = np.zeros((len(examples), len(known)), dtype=np.float32)
    clean = True
    for start, values in _label_batches(examples):
        rows = pc.list_parent_indices(values).to_numpy() + start
        columns = _positions(values.flatten(), known)
        good = columns >= 0
        clean = clean and bool(good.all())
        dense[rows[good], columns[good]] = 1.0
    return dense, clean


def _unseen(examples: Examples, labels: LabelSet) -> dict[str | None, tuple[int, int]]:
    """Return (first view position, number of rows) of each label that the set lacks; None is a missing label."""
    codes, sets = label_sets(examples)
    counts = np.bincount(codes, minlength=len(sets))
    first = np.full(len(sets), len(examples), dtype=np.int64)
    np.minimum.at(first, codes, np.arange(len(examples)))
    known = set(labels.names)
    found: dict[str | None, tuple[int, int]] = {}
    for position, names in enumerate(sets):
        missing: list[str | None] = [name for name in names if name not in known]
        if not names and not examples.is_multi_label:
            missing = [None]
        for name in missing:
            row, n_rows = found.get(name, (len(examples), 0))
            found[name] = (min(row, int(first[position])), n_rows + int(counts[position]))
    return dict(sorted(found.items(), key=lambda item: item[1][0]))


def _raise_faults(
    examples: Examples, unseen: dict[str | None, tuple[int, int]], reason: str = "does not occur in the training data"
) -> None:
    faults: list[DataError] = []
    for name, (position, n_rows) in list(unseen.items())[:MAX_SHOWN_FAULTS]:
        others = f" and {n_rows - 1:,} more rows" if n_rows > 2 else " and 1 more row" if n_rows == 2 else ""
        where = examples.where(position) + others
        if name is None:
            faults.append(DataError("the row has no label", where=where, next="give it one, or leave the row out"))
        else:
            faults.append(
                DataError(
                    f"the label {name!r} {reason}",
                    where=where,
                    next="correct the label, give training rows that have it, or leave these rows out",
                )
            )
    # Only the first few are shown, so the rest need to be counted, not described.
    faults.extend([faults[-1]] * (len(unseen) - len(faults)))
    raise together(DataError, faults, source=examples.source)


def _require_labels(examples: Examples) -> None:
    if not examples.is_labelled:
        raise DataError(
            "the data have no labels", where=examples.source, next="name the label's column as data.label in the recipe"
        )


def _require_two(examples: Examples, found: tuple[str, ...]) -> None:
    if len(found) >= 2:
        return
    what = f"every row has the same label {found[0]!r}" if found else "no row has a label"
    raise DataError(
        f"{what}; a classifier needs at least two",
        where=examples.source,
        next="check data.label in the recipe, or add rows of another label",
    )


def _refuse_missing(examples: Examples, codes: np.ndarray, sets: list[tuple[str, ...]]) -> None:
    if () in sets:
        rows = np.flatnonzero(codes == sets.index(()))
        _raise_faults(examples, {None: (int(rows[0]), len(rows))})


def _require_contrast(examples: Examples, labels: LabelSet, sets: list[tuple[str, ...]]) -> None:
    """Refuse multi-label data in which no label tells one row from another."""
    if not any(sets):
        what = f"no row has a label out of {len(labels)}" if len(labels) else "no row has a label"
    elif len(sets) == 1:
        what = f"every row has the same labels {', '.join(sets[0])}"
    else:
        return
    raise DataError(
        f"{what}; there is nothing to learn",
        where=examples.source,
        next="check data.label in the recipe, or add rows with other labels",
    )


def _refuse_repeated(names: tuple[str, ...]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            f"the label {repeated[0]!r} is named {names.count(repeated[0])} times",
            where="data.labels",
            next="name each label once",
        )
