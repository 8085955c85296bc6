"""Findings about equal texts: those that repeat another, stand in two splits, or have different labels."""

from __future__ import annotations

import numpy as np

from headrace.data.audited import Audited
from headrace.data.finding import EQUAL, MAX_SHOWN_ROWS, Finding, have, rows_in_words, shown_pairs


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
    rows, partners = _contradicted(part, part)
    if len(rows) == 0:
        return None
    n_texts = len(np.unique(part.keys[rows]))
    later = rows > partners  # of two rows that contradict each other one place is enough
    return Finding(
        "warning",
        "conflicting_labels",
        f"{n_texts:,} {'text stands' if n_texts == 1 else 'texts stand'} in the {part.name} data with different "
        f"labels, in {rows_in_words(len(rows))}",
        len(rows),
        shown_pairs(part.examples, rows[later], part.examples, partners[later], EQUAL),
        "decide for one label of each, or leave the rows out",
    )


def conflicting_labels_across(part: Audited, earlier: Audited) -> Finding | None:
    """Tell of texts that stand in two splits, in one with other labels than in the other."""
    rows, partners = _contradicted(part, earlier)
    if len(rows) == 0:
        return None
    return Finding(
        "warning",
        "conflicting_labels_across",
        f"{rows_in_words(len(rows))} of the {part.name} data {have(len(rows))} a text that stands in the {earlier.name} "
        "data with other labels",
        len(rows),
        shown_pairs(part.examples, rows, earlier.examples, partners, EQUAL),
        "decide for one label of each, and leave the text out of one of the two",
    )


def shared(part: Audited, earlier: Audited) -> Finding | None:
    """Tell of rows of validation whose text stands in training, too, or of rows of test, in training or validation."""
    rows = np.flatnonzero(np.isin(part.keys, earlier.keys))
    if len(rows) == 0:
        return None
    what = (
        f"{rows_in_words(len(rows))} of the {part.name} data ({len(rows) / len(part):.2%}) {have(len(rows))} a text "
        f"that is in the {earlier.name} data too"
    )
    told = (what, len(rows), _beside(part, rows, earlier))
    if part.name == "validation":
        advice = (
            "leave these rows out of one of them; else the best checkpoint is chosen by texts that it was trained on"
        )
        return Finding("warning", "valid_in_train", *told, advice)
    if earlier.name == "validation":
        advice = (
            "leave these rows out of the validation data; else epoch and thresholds are chosen by texts of the test"
        )
        return Finding("warning", "test_in_valid", *told, advice)
    advice = "leave these rows out of the training data; metrics with them flatter the model"
    return Finding("error", "test_in_train", *told, advice)


def _contradicted(part: Audited, other: Audited) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows whose text has other labels in some row of `other`, and for each the first such row there.

    Args:
        part: A split.
        other: Another one, or the same.

    Returns:
        Two times [rows] int64, by position in `part`; none if one of the two has no labels.
    """
    none = np.empty(0, dtype=np.int64)
    if not (part.is_labelled and other.is_labelled):
        return none, none
    rows = np.flatnonzero(np.isin(part.keys, other.keys))
    if len(rows) == 0:
        return none, none
    known = np.flatnonzero(np.isin(other.keys, part.keys[rows]))
    (codes, sets), (other_codes, other_sets) = part.label_sets, other.label_sets
    number = {labels: position for position, labels in enumerate(other_sets)}
    codes = np.array([number.get(labels, -1) for labels in sets], dtype=np.int64)[codes[rows]]  # -1: not in `other`
    other_codes = other_codes[known]
    texts, first, text_of = np.unique(other.keys[known], return_index=True, return_inverse=True)
    # A row contradicts the first row of its text, or else the first that does not agree with that one, if there is one.
    second = np.full(len(texts), -1)
    differing = np.flatnonzero(other_codes != other_codes[first][text_of])
    of_text, place = np.unique(text_of[differing], return_index=True)
    second[of_text] = differing[place]
    text = np.searchsorted(texts, part.keys[rows])
    partner = np.where(codes != other_codes[first][text], first[text], second[text])
    return rows[partner >= 0], known[partner[partner >= 0]]


def _beside(part: Audited, rows: np.ndarray, other: Audited) -> tuple[str, ...]:
    """Return the places of the first of these rows, each with the first place of its text in the other split."""
    partners = other.first_rows(part.keys[rows[:MAX_SHOWN_ROWS]])
    return shown_pairs(part.examples, rows, other.examples, partners, EQUAL)
