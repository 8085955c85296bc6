"""Looks for what would spoil a training or make its figures untrue, before any time is spent on it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np

from headrace.data.audited import Audited
from headrace.data.equal_findings import conflicting_labels, conflicting_labels_across, duplicates, shared
from headrace.data.examples import Examples, LabelSet, TextRows
from headrace.data.finding import MAX_SHOWN_ROWS, Finding, rows_in_words
from headrace.data.label_findings import label_not_in_valid, rarely_scored_label, train_label_findings
from headrace.data.near_findings import near_findings
from headrace.data.split import text_keys
from headrace.data.text_findings import text_findings

__all__ = ["Finding", "audit", "audit_texts", "shared_rows"]


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
    parts = [Audited(name, part) for name, part in given if part is not None]
    found = [*_in_each(parts), *map(conflicting_labels, parts), *train_label_findings(train, labels)]
    if valid is not None:
        found.append(label_not_in_valid(valid, labels))
    for name, scored in (("validation", valid), ("test", test)):  # validation picks epoch and thresholds
        if scored is not None:
            found.append(rarely_scored_label(name, scored, labels))
    for earlier, part in itertools.combinations(parts, 2):
        found += [shared(part, earlier), conflicting_labels_across(part, earlier)]
    is_valid = None if divided is None or valid is None else np.isin(divided.rows, valid.rows)
    found += near_findings(parts, is_valid=is_valid)
    return _worst_first(found)


def audit_texts(
    train: TextRows, valid: TextRows | None, test: TextRows | None, *, is_valid: np.ndarray | None = None
) -> list[Finding]:
    """Return the findings about texts that are read without their labels, as by a language model; the worst first.

    Test is not compared with the others: that a language model reads its texts may be meant.

    Args:
        train: Training texts; with `is_valid` those of validation, too.
        valid: Texts of a validation file.
        test: Test texts.
        is_valid: [rows] bool, which rows of `train` were split off for validation.
    """
    compared = [Audited(name, part) for name, part in (("training", train), ("validation", valid)) if part is not None]
    found = list(_in_each(compared if test is None else [*compared, Audited("test", test)]))
    found += [shared(part, earlier) for earlier, part in itertools.combinations(compared, 2)]
    return _worst_first([*found, *near_findings(compared, is_valid=is_valid)])


def shared_rows(train: Examples, other: Examples) -> np.ndarray:
    """Return the positions in `other`, int64, sorted, of rows whose folded text occurs in `train`."""
    return np.flatnonzero(np.isin(text_keys(other), text_keys(train)))


def _in_each(parts: Iterable[Audited]) -> Iterator[Finding | None]:
    """Yield what is wrong inside each part, whatever its labels."""
    for part in parts:
        yield from (_bad_rows(part), *text_findings(part.name, part.examples), duplicates(part))


def _worst_first(found: Iterable[Finding | None]) -> list[Finding]:
    rank = {"error": 0, "warning": 1, "note": 2}
    return sorted((finding for finding in found if finding is not None), key=lambda finding: rank[finding.severity])


def _bad_rows(part: Audited) -> Finding | None:
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
