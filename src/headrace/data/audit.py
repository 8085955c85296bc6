"""Looks for what would spoil a training or make its figures untrue, before any time is spent on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from headrace.data.examples import PAIR, TEXT, Examples, LabelSet
from headrace.data.labels import label_counts, label_sets
from headrace.data.split import exact_keys, seeded, text_keys
from headrace.errors import nearest

MAX_SHOWN_ROWS = 10
_MAX_SHOWN_LABELS = 5


@dataclass(frozen=True)
class Finding:
    """Something about the data that its owner should know.

    Attributes:
        severity: `error` where the figures would be untrue or a label cannot be learnt, `warning` where quality may
            suffer, `note` for what is good to know.
        code: A word for machines that stays the same between versions.
        what: One plain sentence with the numbers.
        count: Rows concerned, or labels.
        where: `file:row` of the first few rows, or names.
        next: What to do about it.
    """

    severity: Literal["error", "warning", "note"]
    code: str
    what: str
    count: int
    where: tuple[str, ...]
    next: str


def audit(train: Examples, valid: Examples | None, test: Examples | None, labels: LabelSet) -> list[Finding]:
    """Return the findings about the data of one run, the worst first.

    Texts count as equal as in `split`: case, white space and Unicode form aside.
    """
    parts = (("training", train), ("validation", valid), ("test", test))
    given = [(name, part) for name, part in parts if part is not None]
    findings = [_bad_rows(name, part) for name, part in given]
    findings += [_empty_texts(name, part) for name, part in given]
    keys = text_keys(train)
    findings += [
        _labels_without_rows(train, labels),
        _labels_with_one_row(train, labels),
        _conflicting_labels(train, keys),
        _duplicates(train),
    ]
    if test is not None:
        findings.append(_shared_with_test(test, _shared(keys, test)))
    if valid is not None:
        findings += [_shared_with_validation(valid, _shared(keys, valid)), _labels_missing(valid, labels)]
    rank = {"error": 0, "warning": 1, "note": 2}
    return sorted((finding for finding in findings if finding is not None), key=lambda found: rank[found.severity])


def shared_rows(train: Examples, other: Examples) -> np.ndarray:
    """Return the positions in `other`, int64, sorted, of rows whose folded text occurs in `train`."""
    return _shared(text_keys(train), other)


def _shared(train_keys: np.ndarray, other: Examples) -> np.ndarray:
    return np.flatnonzero(np.isin(text_keys(other), train_keys))


def _bad_rows(name: str, examples: Examples) -> Finding | None:
    n_bad = examples.n_bad_rows
    if not n_bad:
        return None
    first = examples.bad_rows[0]
    return Finding(
        "warning",
        "bad_rows",
        f"{_rows(n_bad)} of the {name} data cannot be read and {'is' if n_bad == 1 else 'are'} left out "
        f"(data.on_bad_row: skip); the first, {first.where}: {first.reason}",
        n_bad,
        tuple(bad.where for bad in examples.bad_rows[:MAX_SHOWN_ROWS]),
        "correct them; `headrace fit` lists them in the run's bad_rows.jsonl",
    )


def _empty_texts(name: str, examples: Examples) -> Finding | None:
    columns = [column for column in (TEXT, PAIR) if column in examples.table.column_names]
    rows: list[int] = []
    for start, stop in examples.batches():
        found: set[int] = set()
        for column in columns:
            texts = examples.column(column, start, stop)
            found.update(start + number for number, text in enumerate(texts) if not text or text.isspace())
        rows += sorted(found)
    if not rows:
        return None
    return Finding(
        "warning",
        "empty_text",
        f"{_rows(len(rows))} of the {name} data {_have(len(rows))} an empty text, or one of white space alone",
        len(rows),
        _where(examples, rows),
        "leave the rows out, or fill in their texts",
    )


def _labels_without_rows(train: Examples, labels: LabelSet) -> Finding | None:
    names = _names_with(train, labels, 0)
    if not names:
        return None
    return Finding(
        "error",
        "label_without_rows",
        f"{_labels(len(names))} no training row, so nothing can be learnt of {_listed(names)}",
        len(names),
        tuple(names[:MAX_SHOWN_ROWS]),
        "add training rows, or leave the name out of the recipe's labels",
    )


def _labels_with_one_row(train: Examples, labels: LabelSet) -> Finding | None:
    names = _names_with(train, labels, 1)
    if not names:
        return None
    shown = [_with_nearest(name, labels) for name in names[:_MAX_SHOWN_LABELS]]
    more = f" and {len(names) - len(shown):,} more" if len(names) > len(shown) else ""
    codes, sets = label_sets(train)
    wanted = set(names)
    singles = np.array([bool(wanted.intersection(found)) for found in sets])
    return Finding(
        "error",
        "label_with_one_row",
        f"{_labels(len(names))} a single training row: {', '.join(shown)}{more}",
        len(names),
        _where(train, np.flatnonzero(singles[codes]).tolist()),
        "correct the label if it is misspelt; else add rows of it, or leave it out",
    )


def _conflicting_labels(train: Examples, keys: np.ndarray) -> Finding | None:
    if not train.is_labelled:
        return None
    codes, _ = label_sets(train)
    _, first, group_of_row = np.unique(keys, return_index=True, return_inverse=True)
    texts = np.unique(group_of_row[codes != codes[first][group_of_row]])
    rows = np.flatnonzero(np.isin(group_of_row, texts)) if len(texts) else texts
    if len(rows) == 0:
        return None
    by_text = rows[np.argsort(group_of_row[rows], kind="stable")]
    return Finding(
        "warning",
        "conflicting_labels",
        f"{len(texts):,} {'text stands' if len(texts) == 1 else 'texts stand'} in the training data with different "
        f"labels, in {_rows(len(rows))}",
        len(rows),
        _where(train, by_text.tolist()),
        "decide for one label of each, or leave the rows out",
    )


def _duplicates(train: Examples) -> Finding | None:
    codes, _ = label_sets(train)
    keys = exact_keys(train) ^ seeded(codes.astype(np.uint64), 0)
    _, first = np.unique(keys, return_index=True)
    repeated = np.ones(len(keys), dtype=bool)
    repeated[first] = False
    rows = np.flatnonzero(repeated)
    if len(rows) == 0:
        return None
    return Finding(
        "note",
        "duplicate",
        f"{_rows(len(rows))} of the training data {'repeats' if len(rows) == 1 else 'repeat'} an earlier row, text and "
        "labels alike",
        len(rows),
        _where(train, rows.tolist()),
        "leave them out if they are not meant to count twice; the automatic split keeps equal texts on one side",
    )


def _shared_with_test(test: Examples, rows: np.ndarray) -> Finding | None:
    if len(rows) == 0:
        return None
    return Finding(
        "error",
        "test_in_train",
        f"{_rows(len(rows))} of the test data ({len(rows) / len(test):.2%}) {_have(len(rows))} a text that is in the "
        "training data too",
        len(rows),
        _where(test, rows.tolist()),
        "leave these rows out of the training data; metrics with them flatter the model",
    )


def _shared_with_validation(valid: Examples, rows: np.ndarray) -> Finding | None:
    if len(rows) == 0:
        return None
    return Finding(
        "warning",
        "valid_in_train",
        f"{_rows(len(rows))} of the validation data ({len(rows) / len(valid):.2%}) {_have(len(rows))} a text that is "
        "in the training data too",
        len(rows),
        _where(valid, rows.tolist()),
        "leave these rows out of one of them; else the best checkpoint is chosen by texts that it was trained on",
    )


def _labels_missing(valid: Examples, labels: LabelSet) -> Finding | None:
    names = _names_with(valid, labels, 0)
    if not names:
        return None
    return Finding(
        "warning",
        "label_not_in_valid",
        f"{_labels(len(names))} no validation row, so validation says nothing of {_listed(names)}",
        len(names),
        tuple(names[:MAX_SHOWN_ROWS]),
        "give a larger share or a file as data.valid, or more rows of the label",
    )


def _names_with(examples: Examples, labels: LabelSet, n_rows: int) -> list[str]:
    if not examples.is_labelled:
        return []
    return [name for name, count in label_counts(examples, labels).items() if count == n_rows]


def _with_nearest(name: str, labels: LabelSet) -> str:
    close = nearest(name, [other for other in labels.names if other != name])
    return f"{name!r} (meant to be {close!r}?)" if close else repr(name)


def _where(examples: Examples, positions: list[int]) -> tuple[str, ...]:
    return tuple(examples.where(position) for position in positions[:MAX_SHOWN_ROWS])


def _rows(n: int) -> str:
    return "1 row" if n == 1 else f"{n:,} rows"


def _have(n: int) -> str:
    return "has" if n == 1 else "have"


def _labels(n: int) -> str:
    return "1 label has" if n == 1 else f"{n:,} labels have"


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_MAX_SHOWN_LABELS])
    return shown if len(names) <= _MAX_SHOWN_LABELS else f"{shown} and {len(names) - _MAX_SHOWN_LABELS:,} more"
