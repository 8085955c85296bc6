"""Chooses rows by their content: a stratified part for validation, or a smaller sample of the whole."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headrace.data._stratify import Groups, deal
from headrace.data.examples import PAIR, TEXT, Examples, TextRows
from headrace.data.labels import label_sets
from headrace.errors import DataError


def folded(text: str) -> str:
    """Return the text as it counts for equality: case folded, in Unicode form NFC, white space folded to one space.

    Source:
        The Unicode Standard, definition D145 (canonical caseless matching), composed (NFC) instead of decomposed.
    """
    if text.isascii():  # for ASCII, folding case is lowering it and the normal forms are the same
        return " ".join(text.lower().split())
    caseless = unicodedata.normalize("NFD", text).casefold()
    return " ".join(unicodedata.normalize("NFC", caseless).split())


def text_keys(examples: TextRows) -> np.ndarray:
    """Return a hash of each row's folded text (of both texts of a pair), [rows] uint64.

    Rows with equal keys are taken for equal: among 1,000,000 texts two different ones share a key with a chance of
    1e12 / 2 / 2**64 = 3e-8.
    """
    return _keys(examples, folded)


def exact_keys(examples: Examples) -> np.ndarray:
    """Return a hash of each row's text as written (of both texts of a pair), [rows] uint64."""
    return _keys(examples, str)


def split(examples: Examples, *, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide rows into a training and a validation part.

    The division depends on content and seed alone, not on the rows' order. Rows with equal folded texts stay together.
    Each label (in multi-label data: each set of labels, then each label) has its share on both sides; without
    duplicates the validation part has exactly `round(share * rows)` rows and a single label is within one row of its
    share. A label that a single text has stays in training, even if the validation part becomes smaller for it.

    Args:
        examples: Labelled or unlabelled rows.
        share: Part of the rows for validation, above 0 and below 1.
        seed: Another seed gives another division.

    Returns:
        Positions of the training and of the validation rows, int64, sorted.

    Raises:
        DataError: The share is not between 0 and 1, or one of the parts would be empty.

    Source:
        Multi-label data: see `headrace.data._stratify`.
    """
    if not 0.0 < share < 1.0:
        raise DataError(
            f"the share for validation is {share:g}; it must be above 0 and below 1",
            where="data.valid",
            next="write it like 10% or 0.1, or name a file",
        )
    codes, sets = label_sets(examples)
    groups, group_of_row = _group(text_keys(examples), codes, sets, seed)
    chosen = deal(groups, share=share, n_chosen=round(share * len(examples)), keep_every_label=True)[group_of_row]
    train, valid = np.flatnonzero(~chosen), np.flatnonzero(chosen)
    if len(train) == 0 or len(valid) == 0:
        raise DataError(
            f"{len(examples):,} rows with {len(groups.order):,} different texts cannot be divided with a share of "
            f"{share:g} for validation",
            where=examples.source,
            next="give more rows, another share as data.valid, or a file of its own",
        )
    return train, valid


def limit(examples: Examples, *, n: int, seed: int) -> np.ndarray:
    """Choose `n` rows, each label with its share; a label keeps at least one row if `n` has room for all.

    Depends on content and seed alone, not on the rows' order.

    Returns:
        Positions of the chosen rows, int64, sorted; all rows if there are not more than `n`.

    Raises:
        DataError: `n` is below 1.
    """
    if n < 1:
        raise DataError(
            f"the limit is {n}; it must be at least 1", where="data.limit", next="leave it out for all rows"
        )
    if n >= len(examples):
        return np.arange(len(examples), dtype=np.int64)
    codes, sets = label_sets(examples)
    # Rows are units of their own here; equal rows may take each other's place, so ties need no rule.
    keys = exact_keys(examples)
    groups = Groups(sizes=np.ones(len(keys), dtype=np.int64), set_of=codes, sets=sets, order=seeded(keys, seed))
    n_left = len(examples) - n
    left = deal(groups, share=n_left / len(examples), n_chosen=n_left, keep_every_label=False)
    return np.flatnonzero(~left)


def seeded(keys: np.ndarray, seed: int) -> np.ndarray:
    """Return a random-looking number for each key, [keys] uint64; different keys give different numbers.

    Source:
        Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators", the finisher of SplitMix64.
    """
    start = hashlib.blake2b(f"headrace split {seed}".encode(), digest_size=8).digest()
    mixed = keys ^ np.frombuffer(start, dtype="<u8")[0]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


def _keys(examples: TextRows, form: Callable[[str], str]) -> np.ndarray:
    keys = np.empty(len(examples), dtype=np.uint64)
    for start, stop in examples.batches():
        texts = [form(text) for text in examples.column(TEXT, start, stop)]
        if examples.is_pair:
            seconds = [form(text) for text in examples.column(PAIR, start, stop)]
            # The first text's length keeps ("ab", "c") and ("a", "bc") apart.
            texts = [f"{len(first)}:{first}{second}" for first, second in zip(texts, seconds, strict=True)]
        digests = [hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest() for text in texts]
        keys[start:stop] = np.frombuffer(b"".join(digests), dtype="<u8")
    return keys


@dataclass(frozen=True)
class _Union:
    """The label sets of groups whose rows disagree, beside those that rows have."""

    sets: list[tuple[str, ...]]
    set_of: np.ndarray


def _group(keys: np.ndarray, codes: np.ndarray, sets: list[tuple[str, ...]], seed: int) -> tuple[Groups, np.ndarray]:
    """Return the groups of rows with equal keys, and each row's group."""
    unique, first, group_of_row, sizes = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
    merged = _merged(group_of_row, codes, codes[first], sets)
    groups = Groups(sizes=sizes, set_of=merged.set_of, sets=merged.sets, order=seeded(unique, seed))
    return groups, group_of_row


def _merged(group_of_row: np.ndarray, codes: np.ndarray, first_code: np.ndarray, sets: list[tuple[str, ...]]) -> _Union:
    """Give a group whose rows have different labels all of their labels."""
    differing = np.unique(group_of_row[codes != first_code[group_of_row]])
    if len(differing) == 0:
        return _Union(sets, first_code)
    rows = np.flatnonzero(np.isin(group_of_row, differing))
    names: dict[int, set[str]] = {}
    for group, code in zip(group_of_row[rows].tolist(), codes[rows].tolist(), strict=True):
        names.setdefault(group, set()).update(sets[code])
    unions = {group: tuple(sorted(found)) for group, found in names.items()}
    every = sorted({*sets, *unions.values()})
    position = {labels: number for number, labels in enumerate(every)}
    set_of = np.array([position[labels] for labels in sets], dtype=np.int64)[first_code]
    set_of[list(unions)] = [position[labels] for labels in unions.values()]
    return _Union(every, set_of)
