"""Findings about labels: names that may mean the same, labels with few rows, and uneven ones."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable

import numpy as np

from headrace.data.balance import MAX_POS_WEIGHT
from headrace.data.examples import Examples, LabelSet
from headrace.data.finding import (
    MAX_SHOWN_LABELS,
    MAX_SHOWN_ROWS,
    Finding,
    labels_have,
    listed,
    rows_in_words,
    shown_rows,
)
from headrace.data.labels import label_counts, label_sets
from headrace.errors import nearest

# Under 20 positives no interval of an AUC is worth printing (`headrace.intervals.MIN_ROWS`).
MIN_POSITIVES = 20
# In small data every label has few rows; rare is one that is also a small part of them.
RARE_SHARE = 0.05
# A misspelling is a slip: a name one letter off another that has ten times its rows, and four letters at least.
_TYPO_RATIO = 10
_MIN_TYPO_LENGTH = 4
IMBALANCE = 10
_BETWEEN_WORDS = re.compile(r"(?<=\w)[\s_-]+(?=\w)")


def train_label_findings(train: Examples, labels: LabelSet) -> list[Finding]:
    """Return the findings about the labels of training rows; none for unlabelled data."""
    if not train.is_labelled:
        return []
    counts = label_counts(train, labels)
    found = [
        _without_rows(counts),
        _with_one_row(train, counts),
        _variants(train, counts),
        _typos(train, counts),
        _rare(train, counts),
        _imbalance(train, counts),
    ]
    return [finding for finding in found if finding is not None]


def label_not_in_valid(valid: Examples, labels: LabelSet) -> Finding | None:
    """Tell of labels without validation rows; None if there are none, or the rows have no labels."""
    if not valid.is_labelled:
        return None
    names = [name for name, count in label_counts(valid, labels).items() if count == 0]
    if not names:
        return None
    return Finding(
        "warning",
        "label_not_in_valid",
        f"{labels_have(len(names))} no validation row, so validation says nothing of {listed(_quoted(names))}",
        len(names),
        tuple(names[:MAX_SHOWN_ROWS]),
        "give a larger share or a file as data.valid, or more rows of the label",
    )


def rarely_scored_label(name: str, examples: Examples, labels: LabelSet) -> Finding | None:
    """Tell of labels with fewer than 20 rows in the validation or test data, which `name` names; or None.

    A label without validation rows is told by `label_not_in_valid`, one without test rows here.
    """
    if not examples.is_labelled:
        return None
    is_valid = name == "validation"
    counts = label_counts(examples, labels)
    few = [label for label, count in counts.items() if 0 < count < MIN_POSITIVES]
    none = [label for label, count in counts.items() if count == 0 and not is_valid]
    names = few + none
    if not names:
        return None
    said = [f"little of {listed(_with_counts(few, counts))}"] if few else []
    said += [f"nothing of {listed(_quoted(none))}"] if none else []
    chosen = ", and what is chosen by them," if is_valid else ""
    how_many = f"fewer than {MIN_POSITIVES} rows" if few else "no row"
    return Finding(
        "note",
        "rarely_scored_label",
        f"{labels_have(len(names))} {how_many} in the {name} data, so metrics and AUC there{chosen} say "
        f"{', and '.join(said)}",
        len(names),
        tuple(names[:MAX_SHOWN_ROWS]),
        f"give {name} rows of it, {MIN_POSITIVES} at least; until then read the label's figures as a hint",
    )


def _without_rows(counts: dict[str, int]) -> Finding | None:
    names = [name for name, count in counts.items() if count == 0]
    if not names:
        return None
    return Finding(
        "error",
        "label_without_rows",
        f"{labels_have(len(names))} no training row, so nothing can be learnt of {listed(_quoted(names))}",
        len(names),
        tuple(names[:MAX_SHOWN_ROWS]),
        "add training rows, or leave the name out of the recipe's labels",
    )


def _with_one_row(train: Examples, counts: dict[str, int]) -> Finding | None:
    names = [name for name, count in counts.items() if count == 1]
    if not names:
        return None
    shown = [_with_nearest(name, counts) for name in names[:MAX_SHOWN_LABELS]]
    return Finding(
        "error",
        "label_with_one_row",
        f"{labels_have(len(names))} a single training row: {listed(shown + names[MAX_SHOWN_LABELS:])}",
        len(names),
        shown_rows(train, _rows_with(train, names)),
        "correct the label if it is misspelt; else add rows of it, or leave it out",
    )


def _variants(train: Examples, counts: dict[str, int]) -> Finding | None:
    """Names that differ in nothing that a reader would call a difference."""
    groups: dict[str, list[str]] = {}
    for name in counts:
        groups.setdefault(_folded(name), []).append(name)
    alike = [sorted(group, key=lambda name: -counts[name]) for group in groups.values() if len(group) > 1]
    if not alike:
        return None
    rarer = [name for group in alike for name in group[1:]]
    shown = [" and ".join(f"{_told(name, group)} ({rows_in_words(counts[name])})" for name in group) for group in alike]
    n_rows = sum(counts[name] for name in rarer)
    return Finding(
        "warning",
        "label_variants",
        f"names of labels differ only in case, white space, hyphens or Unicode form: {listed(shown)}",
        n_rows,
        shown_rows(train, _rows_with(train, rarer)),
        "write the name in one way in all files, else each way is a label of its own",
    )


def _typos(train: Examples, counts: dict[str, int]) -> Finding | None:
    """Names with few rows (a single one is told by `label_with_one_row`) that are one slip away from a frequent one."""
    pairs = [
        (rare, common)
        for rare, common in _one_slip_apart(counts)
        if 1 < counts[rare] < MIN_POSITIVES and counts[rare] * _TYPO_RATIO <= counts[common]
    ]
    if not pairs:
        return None
    shown = [
        f"{rare!r} ({rows_in_words(counts[rare])}) may be {common!r} ({counts[common]:,})" for rare, common in pairs
    ]
    return Finding(
        "warning",
        "label_typo",
        f"labels with few training rows are spelt almost like frequent ones: {listed(shown)}",
        sum(counts[name] for name in {rare for rare, _ in pairs}),
        shown_rows(train, _rows_with(train, [rare for rare, _ in pairs])),
        "correct the label if it is misspelt",
    )


def _rare(train: Examples, counts: dict[str, int]) -> Finding | None:
    most = min(MIN_POSITIVES, RARE_SHARE * len(train))
    names = [name for name, count in counts.items() if 1 < count < most]
    if not names:
        return None
    return Finding(
        "warning",
        "rare_label",
        f"{labels_have(len(names))} fewer than {MIN_POSITIVES} of {len(train):,} training rows, so little can be learnt "
        f"of {listed(_with_counts(names, counts))}",
        len(names),
        tuple(names[:MAX_SHOWN_ROWS]),
        "add rows of it, join it with another label, or leave it out",
    )


def _imbalance(train: Examples, counts: dict[str, int]) -> Finding | None:
    return _multi_label_imbalance(train, counts) if train.is_multi_label else _single_label_imbalance(counts)


def _single_label_imbalance(counts: dict[str, int]) -> Finding | None:
    present = sorted((name for name in counts if counts[name] > 0), key=lambda name: (counts[name], name))
    if len(present) < 2 or counts[present[-1]] < IMBALANCE * counts[present[0]]:
        return None
    rarest, second, largest = present[0], present[-2], present[-1]
    advice = "`fit: {class_weights: balanced}` makes rare labels weigh more (scores then overstate them)"
    if counts[largest] >= IMBALANCE * counts[second]:  # JSON's strings are YAML's
        rows = json.dumps(largest, ensure_ascii=False)
        advice += (
            f"; `data: {{downsample: {{rows: {rows}, to: {counts[second]}}}}}` trains on fewer rows of {largest!r}"
        )
    return Finding(
        "note",
        "class_imbalance",
        f"{largest!r} has {counts[largest] // counts[rarest]:,} times the training rows of {rarest!r} "
        f"({counts[largest]:,} and {counts[rarest]:,}), so the loss is mostly that of the frequent label",
        sum(counts[largest] >= IMBALANCE * counts[name] for name in present),
        (rarest, largest),
        advice,
    )


def _multi_label_imbalance(train: Examples, counts: dict[str, int]) -> Finding | None:
    names = [name for name, count in counts.items() if 0 < count * (IMBALANCE + 1) <= len(train)]
    if not names:
        return None
    codes, sets = label_sets(train)
    n_without = int((codes == sets.index(())).sum()) if () in sets else 0
    advice = (
        f"`fit: {{pos_weight: balanced}}` makes positive rows weigh more, {MAX_POS_WEIGHT:.0f} times at most (scores then "
        "overstate them)"
    )
    if n_without > len(train) / 2:
        advice += "; `data: {downsample: {rows: no_label, to: labelled}}` trains on fewer of the rows without a label"
    return Finding(
        "note",
        "class_imbalance",
        f"{labels_have(len(names))} {IMBALANCE} times as many negative training rows as positive ones, or more: "
        f"{listed(_with_counts(names, counts))}",
        len(names),
        tuple(names[:MAX_SHOWN_ROWS]),
        advice,
    )


def _folded(name: str) -> str:
    caseless = unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", name).casefold())
    return _BETWEEN_WORDS.sub(" ", " ".join(caseless.split()))


def _told(name: str, group: list[str]) -> str:
    """Return the name in quotes; escaped if another of the group would look the same."""
    shown = [unicodedata.normalize("NFC", other) for other in group]
    return repr(name) if shown.count(unicodedata.normalize("NFC", name)) == 1 else ascii(name)


def _one_slip_apart(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the ordered pairs of names that one letter added, left out, changed or swapped with the next tells apart.

    Two such names have a form in common that is left when one letter (at most) is taken from each, so names are looked
    up by these forms instead of being compared with each other.

    Source:
        Damerau 1964, "A technique for computer detection and correction of spelling errors"; the forms: Garbe 2012, SymSpell.
    """
    folded = {name: _folded(name) for name in names}
    by_form: dict[str, list[str]] = {}
    for name, text in folded.items():
        if len(text) >= _MIN_TYPO_LENGTH:
            for form in {text, *(text[:place] + text[place + 1 :] for place in range(len(text)))}:
                by_form.setdefault(form, []).append(name)
    pairs = {(a, b) for group in by_form.values() for a in group for b in group if a != b}
    return sorted((a, b) for a, b in pairs if _is_slip(folded[a], folded[b]))


def _is_slip(a: str, b: str) -> bool:
    """Whether one edit leads from `a` to another text `b`, and touches no digit: `class 1` and `class 2` are no slip."""
    if a == b:
        return False
    begin = next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    end = 0
    while end < min(len(a), len(b)) - begin and a[-1 - end] == b[-1 - end]:
        end += 1
    first, second = a[begin : len(a) - end], b[begin : len(b) - end]
    if any(character.isdigit() for character in first + second):
        return False
    is_swap = len(first) == 2 and first == second[::-1]
    return is_swap or max(len(first), len(second)) == 1


def _rows_with(examples: Examples, names: Iterable[str]) -> np.ndarray:
    codes, sets = label_sets(examples)
    wanted = set(names)
    return np.flatnonzero(np.array([bool(wanted.intersection(found)) for found in sets], dtype=bool)[codes])


def _with_nearest(name: str, counts: dict[str, int]) -> str:
    close = nearest(name, [other for other in counts if other != name])
    return f"{name!r} (meant to be {close!r}?)" if close else repr(name)


def _with_counts(names: Iterable[str], counts: dict[str, int]) -> list[str]:
    return [f"{name!r} ({rows_in_words(counts[name])})" for name in names]


def _quoted(names: Iterable[str]) -> list[str]:
    return [repr(name) for name in names]
