"""Findings about equal texts: those that repeat another, stand in two splits, or have different labels."""

from __future__ import annotations

import numpy as np

from headrace.data.audited import Audited
from headrace.data.finding import EQUAL, MAX_SHOWN_ROWS, Finding, have, rows_in_words, shown_pairs, shown_rows


def duplicates(part: Audited) -> Finding | None:
    """Tell of rows that repeat the text of an earlier one."""
    _, first = np.unique(part.keys, return_index=True)
    is_repeated = np.ones(len(part), dtype=bool)
    is_repeated[first] = False
    rows = np.flatnonzero(is_repeated)
    if len(rows) == 0:
        return None
    return Finding(
        "note",
        "duplicate",
        f"{rows_in_words(len(rows))} of the {part.name} data {'repeats' if len(rows) == 1 else 'repeat'} the text of an "
        f"earlier row; {len(first):,} of {len(part):,} texts are distinct",
        len(rows),
        _beside(part, rows, part),
        "leave them out if they are not meant to count twice; the automatic split keeps equal texts on one side",
    )


def conflicting_labels(part: Audited) -> Finding | None:
    """Tell of texts that stand in a split with different labels."""
    if not part.examples.is_labelled:
        return None
    codes, _ = part.label_sets
    _, first, group_of_row = np.unique(part.keys, return_index=True, return_inverse=True)
    texts = np.unique(group_of_row[codes != codes[first][group_of_row]])
    rows = np.flatnonzero(np.isin(group_of_row, texts)) if len(texts) else texts
    if len(rows) == 0:
        return None
    by_text = rows[np.argsort(group_of_row[rows], kind="stable")]
    return Finding(
        "warning",
        "conflicting_labels",
        f"{len(texts):,} {'text stands' if len(texts) == 1 else 'texts stand'} in the {part.name} data with different "
        f"labels, in {rows_in_words(len(rows))}",
        len(rows),
        shown_rows(part.examples, by_text),
        "decide for one label of each, or leave the rows out",
    )


def shared(part: Audited, train: Audited) -> Finding | None:
    """Tell of rows whose text stands in the training data, too."""
    rows = np.flatnonzero(np.isin(part.keys, train.keys))
    if len(rows) == 0:
        return None
    what = (
        f"{rows_in_words(len(rows))} of the {part.name} data ({len(rows) / len(part):.2%}) {have(len(rows))} a text "
        "that is in the training data too"
    )
    where = _beside(part, rows, train)
    if part.name == "test":
        return Finding(
            "error",
            "test_in_train",
            what,
            len(rows),
            where,
            "leave these rows out of the training data; metrics with them flatter the model",
        )
    return Finding(
        "warning",
        "valid_in_train",
        what,
        len(rows),
        where,
        "leave these rows out of one of them; else the best checkpoint is chosen by texts that it was trained on",
    )


def _beside(part: Audited, rows: np.ndarray, other: Audited) -> tuple[str, ...]:
    """Return the places of the first of these rows, each with the first place of its text in the other split."""
    partners = other.first_rows(part.keys[rows[:MAX_SHOWN_ROWS]])
    return shown_pairs(part.examples, rows, other.examples, partners, EQUAL)
