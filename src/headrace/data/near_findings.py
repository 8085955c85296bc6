"""Findings about texts that are nearly equal."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import numpy as np

from headrace.data.audited import Audited
from headrace.data.finding import MAX_SHOWN_ROWS, NEAR, Finding, have, rows_in_words, shown_pairs
from headrace.data.near import NearPairs, Sketch, all_rows, near_matches, near_repeats

# A search compares so many shingles before it gives up: about half a minute, a million pairs of short texts.
MAX_COMPARED_SHINGLES = 500_000_000


def near_findings(parts: Sequence[Audited], *, is_valid: np.ndarray | None = None) -> Iterator[Finding]:
    """Yield the findings about texts that are nearly equal, inside the training data and between any two splits.

    Args:
        parts: The training data, then those of validation and test that there are.
        is_valid: [rows] bool, which of the training data were split off for validation, where they were.
    """
    train = parts[0]
    with ExitStack() as stack:
        sketches = [stack.enter_context(Sketch(part.examples, part.keys)) for part in parts]
        repeats = near_repeats(sketches[0], max_shingles=MAX_COMPARED_SHINGLES)
        searches = [(train.name, repeats)]
        if len(repeats):
            yield _near_duplicates(train, repeats)
        if len(repeats) and is_valid is not None:  # without a pair there is none across the division either
            sides = sketches[0].part(~is_valid), sketches[0].part(is_valid)
            matches = near_matches(*sides, max_shingles=MAX_COMPARED_SHINGLES)
            searches.append(("validation", matches))
            if len(matches):
                rows = all_rows(sides[1], matches.rows[:, 0])
                yield _near_divided(train, matches, rows, share=len(rows) / int(is_valid.sum()))
        for (earlier, before), (part, sketch) in itertools.combinations(zip(parts, sketches, strict=True), 2):
            matches = near_matches(before, sketch, max_shingles=MAX_COMPARED_SHINGLES)
            searches.append((part.name, matches))
            if len(matches):
                yield _near_shared(part, earlier, matches, all_rows(sketch, matches.rows[:, 0]))
    limited = list(dict.fromkeys(name for name, found in searches if not found.is_complete))
    if limited:
        yield Finding(
            "note",
            "near_search_limited",
            f"so many texts are alike that the search for nearly equal ones stopped early ({', '.join(limited)} data): "
            "the numbers of them are the least there are",
            len(limited),
            tuple(limited),
            "texts with the same wording but for a few words are the cause; leave out those that were found, and check again",
        )


def _near_duplicates(train: Audited, found: NearPairs) -> Finding:
    codes, _ = train.label_sets
    rows = found.rows[:, 0]
    n_differing = int((codes[rows] != codes[found.rows[:, 1]]).sum())
    other = f", {n_differing:,} of them with other labels" if n_differing else ""
    return Finding(
        "note",
        "near_duplicate",
        f"{rows_in_words(len(rows))} of the training data {have(len(rows))} nearly the text of an earlier row{other}; "
        f"{_first(train, train, found)}",
        len(rows),
        shown_pairs(train.examples, rows, train.examples, found.rows[:, 1], NEAR),
        "leave them out if they are not meant to count twice; valid_near_train tells which the automatic split has parted",
    )


def _near_divided(train: Audited, found: NearPairs, rows: np.ndarray, *, share: float) -> Finding:
    return Finding(
        "note",
        "valid_near_train",
        f"{rows_in_words(len(rows))} of the validation data ({share:.2%}), which were split off the training data, "
        f"{have(len(rows))} nearly a text that stayed there; {_first(train, train, found)}",
        len(rows),
        _beside(train, rows, train, found),
        "the automatic split keeps equal texts on one side, but not nearly equal ones: leave copies out of the file, or "
        "name a validation file of other texts",
    )


def _near_shared(part: Audited, earlier: Audited, found: NearPairs, rows: np.ndarray) -> Finding:
    what = (
        f"{rows_in_words(len(rows))} of the {part.name} data ({len(rows) / len(part):.2%}) {have(len(rows))} nearly "
        f"a text of the {earlier.name} data; {_first(part, earlier, found)}"
    )
    told = (what, len(rows), _beside(part, rows, earlier, found))
    if part.name == "validation":
        return Finding("note", "valid_near_train", *told, "leave these rows out of one of them if they are copies")
    if earlier.name == "validation":
        return Finding(
            "note", "test_near_valid", *told, "leave these rows out of the validation data if they are copies"
        )
    advice = "leave these rows out of the training data if they are copies; metrics with them may flatter the model"
    return Finding("warning", "test_near_train", *told, advice)


def _first(part: Audited, other: Audited, found: NearPairs) -> str:
    row, earlier = found.rows[0].tolist()
    return (
        f"{part.examples.where(row)} and {other.examples.where(earlier)} share {found.jaccard[0]:.0%} of their runs of "
        "five characters"
    )


def _beside(part: Audited, rows: np.ndarray, other: Audited, found: NearPairs) -> tuple[str, ...]:
    """Return the places of the first of these rows, each with that of a text that it is near to."""
    keys = part.keys[found.rows[:, 0]]  # a pair stands for all rows that have its text
    shown = rows[:MAX_SHOWN_ROWS]
    partners = [int(found.rows[np.argmax(keys == key), 1]) for key in part.keys[shown]]
    return shown_pairs(part.examples, shown, other.examples, partners, NEAR)
