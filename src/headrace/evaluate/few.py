"""Where rows are too few for an interval, and the words for it: each reason once, with the labels that it is about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headrace.intervals import MIN_ROWS, MIN_ROWS_IN_MACRO

#: A note names so many labels, and counts the others.
MAX_NAMED = 20
_MAX_NAME_CHARACTERS = 40
FEW_ROWS = f"no interval from fewer than {MIN_ROWS} rows"


def few_of_kind(support: int, n_rows: int) -> str:
    """Return why a label has no interval of what depends on rows with it and without it."""
    return few_with(support) if support <= n_rows - support else _none(f"{n_rows - support} rows without the label")


def few_with(support: int) -> str:
    """Return why a label has no interval of what depends on the rows with it."""
    return _none(f"{support} rows with the label")


def few_predicted(n_predicted: int) -> str:
    """Return why a label has no interval of what depends on the rows that it was predicted on."""
    return _none(f"{n_predicted} rows on which the label was predicted")


def _none(why: str) -> str:
    return f"no interval: {why}, {MIN_ROWS} are needed"


def mean_note(names: Sequence[str], counts: np.ndarray, kind: str) -> tuple[str | None, bool]:
    """Return what to know of a mean over labels, and whether it gets an interval.

    Args:
        names: Of the labels that the mean is over.
        counts: int [labels], the rows that each label's own figure hangs on.
        kind: Which rows these are, such as `with the label`.
    """
    few = np.flatnonzero(counts < MIN_ROWS).tolist()
    if not few:
        return None, True
    enough = int(counts.min()) >= MIN_ROWS_IN_MACRO and len(names) > 1
    outcome = "the interval is approximate" if enough else "no interval"
    told = _named([names[i] for i in few], counts[few])
    return f"fewer than {MIN_ROWS} rows {kind} {told}: {outcome}", enough


def label_notes(names: Sequence[str], support: np.ndarray, predicted: np.ndarray, n_rows: int) -> list[str]:
    """Return which figures of which labels have no value or no interval, and why.

    Args:
        names: Of all labels.
        support: int [labels], rows with each label.
        predicted: int [labels], rows on which each label was predicted.
        n_rows: All rows.
    """
    without, is_some = n_rows - support, (support > 0) & (support < n_rows)
    notes = []
    for which, chosen in (("no row has", support == 0), ("every row has", without == 0)):
        if chosen.any():
            one = int(chosen.sum()) == 1
            has, them = ("it has", "it") if one else ("they have", "them")
            told = _labels(names, chosen)
            why = f"{has} no ROC AUC and no average precision; their means leave {them} out"
            notes.append(f"{which} the label{'' if one else 's'} {told}: {why}")
    few, rare, unsaid = support < MIN_ROWS, without < MIN_ROWS, predicted < MIN_ROWS
    for figures, which, chosen, counts in (
        ("recall, F1, ROC AUC and average precision", f"that fewer than {MIN_ROWS} rows have", few & is_some, support),
        ("ROC AUC and average precision", f"that fewer than {MIN_ROWS} rows lack", rare & ~few & is_some, without),
        ("precision and F1", f"predicted on fewer than {MIN_ROWS} rows", unsaid & (support + predicted > 0), predicted),
    ):
        if chosen.any():
            notes.append(f"no interval for {figures} of labels {which}: {_labels(names, chosen, counts)}")
    return notes


def _labels(names: Sequence[str], chosen: np.ndarray, counts: np.ndarray | None = None) -> str:
    places = np.flatnonzero(chosen).tolist()
    return _named([names[i] for i in places], None if counts is None else counts[places])


def _named(names: Sequence[str], counts: np.ndarray | None = None) -> str:
    """Return the labels in quotes, each with its count, and how many were left out."""
    shown = [name if len(name) <= _MAX_NAME_CHARACTERS else f"{name[: _MAX_NAME_CHARACTERS - 1]}…" for name in names]
    told = [repr(name) if counts is None else f"{name!r} ({counts[i]})" for i, name in enumerate(shown[:MAX_NAMED])]
    return ", ".join(told) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")
