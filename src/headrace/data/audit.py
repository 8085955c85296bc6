"""Looks for what would spoil a training or make its figures untrue, before any time is spent on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from headrace.data.examples import Examples, LabelSet
from headrace.data.finding import MAX_SHOWN_ROWS, Finding, have, rows_in_words, shown_rows
from headrace.data.label_findings import label_not_in_valid, rarely_scored_label, train_label_findings
from headrace.data.labels import label_sets
from headrace.data.near import NearPairs, Sketch, all_rows, near_matches, near_repeats
from headrace.data.split import text_keys
from headrace.data.text_findings import text_findings

__all__ = ["Finding", "audit", "shared_rows"]

# A search compares so many shingles before it gives up: about half a minute, a million pairs of short texts.
MAX_COMPARED_SHINGLES = 500_000_000


@dataclass(frozen=True)
class _Part:
    """A split: what messages call it, its rows, and the keys of their folded texts."""

    name: str
    examples: Examples
    keys: np.ndarray


def audit(
    train: Examples,
    valid: Examples | None,
    test: Examples | None,
    labels: LabelSet,
    *,
    divided: Examples | None = None,
) -> list[Finding]:
    """Return the findings about the data of one run, the worst first.

    Texts count as equal as in `split`: case, white space and Unicode form aside. They count as nearly equal as in
    `near`: at least 0.8 of their runs of five characters in common.

    Args:
        train: Training rows.
        valid: Validation rows.
        test: Test rows.
        labels: The label set.
        divided: The rows that were divided into `train` and `valid`, where they come from one source. Texts are then
            looked at as the source has them; labels are counted in each part.
    """
    given = (
        ("training", train if divided is None else divided),
        ("validation", valid if divided is None else None),
        ("test", test),
    )
    parts = [_Part(name, part, text_keys(part)) for name, part in given if part is not None]
    found: list[Finding | None] = []
    for part in parts:
        found += [_bad_rows(part), *text_findings(part.name, part.examples), _duplicates(part)]
    found += [*train_label_findings(train, labels), _conflicting_labels(parts[0])]
    if valid is not None:
        found.append(label_not_in_valid(valid, labels))
    for name, scored in (("validation", valid), ("test", test)):  # validation picks epoch and thresholds
        if scored is not None:
            found.append(rarely_scored_label(name, scored, labels))
    for part in parts[1:]:
        found.append(_shared(part, np.flatnonzero(np.isin(part.keys, parts[0].keys))))
    found += _near(parts)
    rank = {"error": 0, "warning": 1, "note": 2}
    return sorted((finding for finding in found if finding is not None), key=lambda finding: rank[finding.severity])


def shared_rows(train: Examples, other: Examples) -> np.ndarray:
    """Return the positions in `other`, int64, sorted, of rows whose folded text occurs in `train`."""
    return np.flatnonzero(np.isin(text_keys(other), text_keys(train)))


def _bad_rows(part: _Part) -> Finding | None:
    n_bad = part.examples.n_bad_rows
    if not n_bad:
        return None
    first = part.examples.bad_rows[0]
    return Finding(
        "warning",
        "bad_rows",
        f"{rows_in_words(n_bad)} of the {part.name} data cannot be read and {'is' if n_bad == 1 else 'are'} left out "
        f"(data.on_bad_row: skip); the first, {first.where}: {first.reason}",
        n_bad,
        tuple(bad.where for bad in part.examples.bad_rows[:MAX_SHOWN_ROWS]),
        "correct them; `headrace fit` lists them in the run's bad_rows.jsonl",
    )


def _duplicates(part: _Part) -> Finding | None:
    _, first = np.unique(part.keys, return_index=True)
    is_repeated = np.ones(len(part.keys), dtype=bool)
    is_repeated[first] = False
    rows = np.flatnonzero(is_repeated)
    if len(rows) == 0:
        return None
    return Finding(
        "note",
        "duplicate",
        f"{rows_in_words(len(rows))} of the {part.name} data {'repeats' if len(rows) == 1 else 'repeat'} the text of an "
        f"earlier row; {len(first):,} of {len(part.keys):,} texts are distinct",
        len(rows),
        shown_rows(part.examples, rows),
        "leave them out if they are not meant to count twice; the automatic split keeps equal texts on one side",
    )


def _conflicting_labels(train: _Part) -> Finding | None:
    if not train.examples.is_labelled:
        return None
    codes, _ = label_sets(train.examples)
    _, first, group_of_row = np.unique(train.keys, return_index=True, return_inverse=True)
    texts = np.unique(group_of_row[codes != codes[first][group_of_row]])
    rows = np.flatnonzero(np.isin(group_of_row, texts)) if len(texts) else texts
    if len(rows) == 0:
        return None
    by_text = rows[np.argsort(group_of_row[rows], kind="stable")]
    return Finding(
        "warning",
        "conflicting_labels",
        f"{len(texts):,} {'text stands' if len(texts) == 1 else 'texts stand'} in the training data with different "
        f"labels, in {rows_in_words(len(rows))}",
        len(rows),
        shown_rows(train.examples, by_text),
        "decide for one label of each, or leave the rows out",
    )


def _shared(part: _Part, rows: np.ndarray) -> Finding | None:
    if len(rows) == 0:
        return None
    what = (
        f"{rows_in_words(len(rows))} of the {part.name} data ({len(rows) / len(part.keys):.2%}) {have(len(rows))} a text "
        "that is in the training data too"
    )
    where = shown_rows(part.examples, rows)
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


def _near(parts: list[_Part]) -> Iterator[Finding]:
    """Yield the findings about texts that are nearly equal, inside the training data and between it and the others."""
    train = parts[0]
    with ExitStack() as stack:
        first = stack.enter_context(Sketch(train.examples, train.keys))
        repeats = near_repeats(first, max_shingles=MAX_COMPARED_SHINGLES)
        searches = [(train, repeats)]
        if len(repeats):
            yield _near_duplicates(train, repeats)
        for part in parts[1:]:
            with Sketch(part.examples, part.keys) as other:
                matches = near_matches(first, other, max_shingles=MAX_COMPARED_SHINGLES)
                searches.append((part, matches))
                if len(matches):
                    yield _near_shared(part, train, matches, all_rows(other, matches.rows[:, 0]))
    limited = [part.name for part, found in searches if not found.is_complete]
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


def _near_duplicates(train: _Part, found: NearPairs) -> Finding:
    codes, _ = label_sets(train.examples)
    rows = found.rows[:, 0]
    n_differing = int((codes[rows] != codes[found.rows[:, 1]]).sum())
    other = f", {n_differing:,} of them with other labels" if n_differing else ""
    return Finding(
        "note",
        "near_duplicate",
        f"{rows_in_words(len(rows))} of the training data {have(len(rows))} nearly the text of an earlier row{other}; "
        f"{_first(train, train, found)}",
        len(rows),
        shown_rows(train.examples, rows),
        "leave them out if they are not meant to count twice; the automatic split may put such texts on both sides",
    )


def _near_shared(part: _Part, train: _Part, found: NearPairs, rows: np.ndarray) -> Finding:
    what = (
        f"{rows_in_words(len(rows))} of the {part.name} data ({len(rows) / len(part.keys):.2%}) {have(len(rows))} nearly "
        f"a text of the training data; {_first(part, train, found)}"
    )
    where = shown_rows(part.examples, rows)
    if part.name == "test":
        return Finding(
            "warning",
            "test_near_train",
            what,
            len(rows),
            where,
            "leave these rows out of the training data if they are copies; metrics with them may flatter the model",
        )
    return Finding(
        "note",
        "valid_near_train",
        what,
        len(rows),
        where,
        "leave these rows out of one of them if they are copies",
    )


def _first(part: _Part, train: _Part, found: NearPairs) -> str:
    row, earlier = found.rows[0].tolist()
    return (
        f"{part.examples.where(row)} and {train.examples.where(earlier)} share {found.jaccard[0]:.0%} of their runs of "
        "five characters"
    )
