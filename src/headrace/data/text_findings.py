"""Findings about single texts: empty, nearly empty or swollen ones, and ones that were decoded wrongly."""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field

import numpy as np

from headrace.data.examples import PAIR, TEXT, TextRows
from headrace.data.finding import Finding, have, rows_in_words, shown_rows

MIN_WORD_CHARACTERS = 3
# A file that was decoded wrongly has it in many rows; a few stray characters in a few rows cost a model nothing.
MIN_MOJIBAKE_SHARE = 0.01
MIN_MOJIBAKE_ROWS = 3
# So many times as long as 99 texts of 100, and of so many characters: no such text is in IMDb, whose reviews differ much.
SWOLLEN_TIMES = 30
MIN_SWOLLEN_CHARACTERS = 5_000
# A character of a script without spaces may be a word: one is enough.
_WORDS = re.compile(
    r"[\u1100-\u11ff\u2e80-\u303f\u3040-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]|[^\W_](?:.*?[^\W_]){2}", re.S
)
_SHOWN_AROUND = 20


@dataclass
class _Found:
    """What a pass over the texts of one split collects."""

    empty: list[int] = field(default_factory=list)
    nearly_empty: list[int] = field(default_factory=list)
    garbled: list[int] = field(default_factory=list)
    repaired: tuple[str, str] = ("", "")
    lengths: array[int] = field(default_factory=lambda: array("I"))


def text_findings(name: str, examples: TextRows) -> list[Finding]:
    """Return what is wrong with single texts of one split, which `name` names, in one pass over them."""
    found = _look(examples)
    every = [
        _empty(name, examples, found.empty),
        _nearly_empty(name, examples, found.nearly_empty),
        _swollen(name, examples, found.lengths),
        _mojibake(name, examples, found),
    ]
    return [finding for finding in every if finding is not None]


def repaired(text: str) -> str:
    """Return the text with wrongly decoded characters put right, or as it is where nothing is surely wrong.

    Source:
        Speer 2019, "ftfy", version 6: `badness` and `fix_encoding`.
    """
    if text.isascii():
        return text
    import ftfy
    from ftfy.badness import is_bad

    return ftfy.fix_encoding(text) if is_bad(text) else text


def _look(examples: TextRows) -> _Found:
    columns = [TEXT, PAIR] if examples.is_pair else [TEXT]
    found = _Found()
    for start, stop in examples.batches():
        empty: set[int] = set()
        short: set[int] = set()
        garbled: set[int] = set()
        longest = [0] * (stop - start)
        for column in columns:
            for position, text in enumerate(examples.column(column, start, stop), start):
                longest[position - start] = max(longest[position - start], len(text))
                if not text or text.isspace():
                    empty.add(position)
                elif _WORDS.search(text) is None:
                    short.add(position)
                if text and not text.isascii() and (better := repaired(text)) != text:
                    if not (found.garbled or garbled):
                        found.repaired = (text, better)
                    garbled.add(position)
        found.lengths.extend(longest)
        found.empty += sorted(empty)
        found.nearly_empty += sorted(short - empty)
        found.garbled += sorted(garbled)
    return found


def _empty(name: str, examples: TextRows, rows: list[int]) -> Finding | None:
    if not rows:
        return None
    return Finding(
        "warning",
        "empty_text",
        f"{rows_in_words(len(rows))} of the {name} data {have(len(rows))} an empty text, or one of white space alone",
        len(rows),
        shown_rows(examples, rows),
        "leave the rows out, or fill in their texts",
    )


def _nearly_empty(name: str, examples: TextRows, rows: list[int]) -> Finding | None:
    if not rows:
        return None
    return Finding(
        "note",
        "near_empty_text",
        f"{rows_in_words(len(rows))} of the {name} data {have(len(rows))} a text with fewer than {MIN_WORD_CHARACTERS} "
        "letters or digits",
        len(rows),
        shown_rows(examples, rows),
        "leave the rows out unless such texts will be asked for",
    )


def _swollen(name: str, examples: TextRows, lengths: array[int]) -> Finding | None:
    """Tell of texts that are too long to be one: a quote that was never closed, or lines that ran together."""
    characters = np.frombuffer(lengths, dtype=np.uint32)
    if not len(characters):
        return None
    usual = int(np.percentile(characters, 99, method="lower"))
    rows = np.flatnonzero(characters > max(MIN_SWOLLEN_CHARACTERS, SWOLLEN_TIMES * usual)).tolist()
    if not rows:
        return None
    return Finding(
        "warning",
        "swollen_text",
        f"{rows_in_words(len(rows))} of the {name} data {have(len(rows))} a text of {characters[rows[0]]:,} characters, where 99 "
        f"of 100 have at most {usual:,}: rows may have run into one",
        len(rows),
        shown_rows(examples, rows),
        "look at the rows: a quote that is never closed takes in all rows behind it",
    )


def _mojibake(name: str, examples: TextRows, found: _Found) -> Finding | None:
    rows = found.garbled
    if not rows:
        return None
    before, after = _around(*found.repaired)
    what = (
        f"{rows_in_words(len(rows))} of the {name} data ({len(rows) / len(examples):.2%}) {have(len(rows))} characters "
        f"that were decoded wrongly; in {examples.where(rows[0])} {before!r} should be {after!r}"
    )
    where = shown_rows(examples, rows)
    if len(rows) < max(MIN_MOJIBAKE_ROWS, MIN_MOJIBAKE_SHARE * len(examples)):
        return Finding(
            "note",
            "stray_mojibake",
            what,
            len(rows),
            where,
            "ftfy.fix_encoding(text) repairs them; few rows matter little",
        )
    return Finding(
        "warning",
        "mojibake",
        what,
        len(rows),
        where,
        "name the file's encoding as data.encoding, or repair the texts with ftfy.fix_encoding(text)",
    )


def _around(before: str, after: str) -> tuple[str, str]:
    """Return the first difference of two texts with a little of what stands around it."""
    pairs = enumerate(zip(before, after, strict=False))
    first = next((place for place, (one, other) in pairs if one != other), min(len(before), len(after)))
    begin = max(0, first - _SHOWN_AROUND)
    return before[begin : first + _SHOWN_AROUND], after[begin : first + _SHOWN_AROUND]
