"""Joins words back to a text as one would write it: marks obeyed, spaces where they belong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise, zip_longest
from typing import NamedTuple

from headrace.text._english import exceptions
from headrace.text._word_rules import ALL_CAPITALS, CAPITAL, FIELD, FILLER, MARKS, REPEATED, REPEATED_WORD, SPACE

_SILENT = frozenset({*MARKS, FILLER, ""})
_CLOSING = frozenset(",.;:!?)]}%…’”»、。，！？；：")
_OPENING = frozenset("([{$£€¥#“‘«¿¡")
_BINDING = frozenset("-/~")
_SENTENCE_ENDS = frozenset(".!?…")
_APOSTROPHES = ("'", "’")
# A number behind a mark of repetition; larger ones come from a model that has lost its way.
_LARGEST_REPEAT = 1000


class _Spoken(NamedTuple):
    """A token that is seen.

    Attributes:
        token: As the vocabulary writes it.
        shown: With its capitals, and as often as it was said.
        is_repeated: A character that stood several times on end.
    """

    token: str
    shown: str
    is_repeated: bool = False


def join_words(tokens: Sequence[str]) -> str:
    """Return the text that the tokens stand for; unknown words, padding and all marks are left out.

    What the rules threw away cannot come back: capitals inside of a word or behind a bracket, and whether a hyphen had
    spaces around it.
    """
    parts: list[str] = []
    last: _Spoken | None = None
    was_opening, starts = False, True
    is_open = dict.fromkeys("\"'", False)
    for spoken in _spoken(tokens):
        token = spoken.token
        if token.isspace():
            is_open = dict.fromkeys(is_open, False)
        if token in is_open:
            is_open[token] = not is_open[token]
        is_opening = token in _OPENING or is_open.get(token, False)
        is_closing = token in _CLOSING or not is_open.get(token, True)
        if last and not was_opening and not is_closing and not _is_joined(last, spoken):
            parts.append(" ")
        # What the rules leave without a mark: one letter, and a word behind a bracket or a quote.
        if starts and (len(token) == 1 or was_opening):
            spoken = spoken._replace(shown=_capitalized(spoken.shown))
        parts.append(spoken.shown)
        starts = token in _SENTENCE_ENDS or token.isspace() or (starts and is_opening)
        last, was_opening = spoken, is_opening
    return "".join(parts).strip()


def _spoken(tokens: Sequence[str]) -> Iterator[_Spoken]:
    """Yield each token that is seen, with capitals and repetitions restored."""
    capitals, n_times, between = "", 1, ""
    is_number_of_mark = False
    for token, following in zip_longest(tokens, tokens[1:], fillvalue=""):
        if is_number_of_mark:
            is_number_of_mark = False
        elif token in (ALL_CAPITALS, CAPITAL):
            capitals = token
        elif token in (REPEATED, REPEATED_WORD, FIELD):
            number = _number(following)
            is_number_of_mark = number is not None
            if token != FIELD:
                n_times, between = number or 1, " " if token == REPEATED_WORD else ""
        elif token not in _SILENT:
            shown = between.join([_written(token, capitals)] * n_times)
            yield _Spoken(token.replace(SPACE, " "), shown, is_repeated=n_times > 1 and not between)
            # The parts of a contraction are one word: DON'T.
            capitals = capitals if capitals == ALL_CAPITALS and following in _parts() else ""
            n_times, between = 1, ""


def _written(token: str, capitals: str) -> str:
    if token == "i":  # one letter has no mark, and alone it is nearly always the speaker
        return "I"
    shown = token.replace(SPACE, " ").replace("…", "...")
    if capitals == ALL_CAPITALS:
        return shown.upper()
    return _capitalized(shown) if capitals else shown


def _capitalized(shown: str) -> str:
    return shown[:1].upper() + shown[1:]


def _is_joined(last: _Spoken, spoken: _Spoken) -> bool:
    """Tell whether no space stands between two tokens, neither of which is a bracket, a quote or a full stop."""
    if last.token.isspace() or spoken.token.isspace() or {last.token, spoken.token} & _BINDING:
        return True
    if spoken.is_repeated:  # s xxrep 4 o
        return last.token.isalnum() and spoken.token.isalnum()
    return spoken.token in _parts() or (last.token, spoken.token) in _pairs()


def _number(token: str) -> int | None:
    if not token.isdecimal() or len(token) > len(str(_LARGEST_REPEAT)):
        return None
    return min(int(token), _LARGEST_REPEAT)


@cache
def _parts() -> frozenset[str]:
    """Return the ends of contractions with an apostrophe, such as n't."""
    found = {part for tokens in exceptions().values() for part in tokens[1:]}
    return frozenset(part for part in found if any(mark in part for mark in _APOSTROPHES))


@cache
def _pairs() -> frozenset[tuple[str, str]]:
    """Return which words are written as one: can not, gon na, do nt."""
    found = {pair for tokens in exceptions().values() for pair in pairwise(tokens) if not tokens[0].isdecimal()}
    return frozenset((first, second) for first, second in found if second != "a")  # I'm a, not I'ma
