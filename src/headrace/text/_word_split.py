"""Cuts one lowercase run of characters without white space into words, punctuation and the parts of contractions."""

from __future__ import annotations

import re
from collections.abc import Container
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from headrace.text._english import exceptions
from headrace.text._letters import CURRENCIES, DASHES, ICONS, LETTERS, PUNCTUATION, QUOTES, UNCASED, UNITS

_DIGITS = frozenset("0123456789")
_ICON = re.compile(f"[{ICONS}]")
_AT_EITHER_END = frozenset(PUNCTUATION + QUOTES + DASHES)
_AT_THE_FRONT = _AT_EITHER_END | frozenset("§%=" + CURRENCIES)
_BEHIND_WORDS = frozenset(",.!?;")
_LONGEST_UNIT = max(map(len, UNITS))
_UNIT_ENDS = frozenset(unit[-1] for unit in UNITS)
_BEFORE_FULL_STOP = re.compile(f"[0-9{LETTERS}{re.escape(PUNCTUATION + QUOTES)}%²|+-]")

_QUOTE = re.escape(QUOTES)
_MAY_DIVIDE = re.compile(rf"[.…,+*^\-–—~:<>={ICONS}]")
_DIVIDER = re.compile(
    rf"\.\.+|…|[{ICONS}]"
    r"|(?<=[0-9])[-+*^](?=[-0-9])"
    rf"|(?<=[{LETTERS}{_QUOTE}])\.(?=[{UNCASED}{_QUOTE}])"
    rf"|(?<=[{LETTERS}]),(?=[{LETTERS}])"
    rf"|(?<=[{LETTERS}0-9])(?:-{{1,3}}|–|—{{1,2}}|[~:<>=])(?=[{LETTERS}])"
)
# A label of a host: up to 64 of these, the first and the last neither "_" nor "-".
_LABEL = r"[a-zA-Z0-9\u00a1-\uffff](?:[a-zA-Z0-9\u00a1-\uffff_-]{0,62}[a-zA-Z0-9\u00a1-\uffff])?"
_HOST = re.compile(rf"(?:{_LABEL}\.)+[{LETTERS}]{{2,63}}(?::\d{{2,5}})?(?:\?.*)?", re.DOTALL)


class _Pattern(NamedTuple):
    """An exception that the cutting takes apart: it is put together where its tokens follow one another."""

    parts: tuple[str, ...]
    tokens: tuple[str, ...]


def split(chunk: str) -> tuple[str, ...]:
    """Return the tokens of a chunk; joined they are the chunk.

    Args:
        chunk: Not empty, lower case, without white space. The time grows with its length, not with its square.

    Source:
        The behaviour of spaCy 3.8's blank English tokenizer, as its documentation tells it (Linguistic features,
        Tokenization): exceptions first, then prefixes and suffixes from outside inwards, addresses, infixes, and at
        the end the exceptions that were taken apart.
    """
    known = _exceptions().get(chunk)
    if known is not None:
        return known
    if chunk.isalpha():
        return (chunk,)
    word, last = chunk[:-1], chunk[-1]
    if last in _BEHIND_WORDS and word.isalpha() and word.isascii() and word not in _exceptions():
        return (word, last)  # most of what is left: no need to look closer
    tokens = _cut(chunk, _exceptions())
    return _put_together(tokens) if len(tokens) > 1 else tuple(tokens)


@cache
def _exceptions() -> dict[str, tuple[str, ...]]:
    return exceptions()


@cache
def _longest_exception() -> int:
    return max(map(len, _exceptions()))


def _cut(chunk: str, known: Container[str]) -> list[str]:
    """Return the tokens of a chunk; `known` are the exceptions that are not cut into."""
    begin, end = 0, len(chunk)
    before: list[str] = []
    after: list[str] = []
    while begin < end and not _is_known(chunk, begin, end, known):
        n_prefix = _prefix_length(chunk, begin, end)
        if n_prefix and _is_known(chunk, begin + n_prefix, end, known):
            before.append(chunk[begin : begin + n_prefix])
            begin += n_prefix
            break
        n_suffix = _suffix_length(chunk, begin + n_prefix, end)
        if n_suffix and _is_known(chunk, begin, end - n_suffix, known):
            n_prefix = 0
        if n_prefix:
            before.append(chunk[begin : begin + n_prefix])
            begin += n_prefix
        if n_suffix:
            after.append(chunk[end - n_suffix : end])
            end -= n_suffix
        if not n_prefix and not n_suffix:
            break
    if begin < end:
        before += _divide(chunk[begin:end], known)
    return before + after[::-1]


def _is_known(chunk: str, begin: int, end: int, known: Container[str]) -> bool:
    # The bound keeps long chunks from being copied at each step.
    return 0 < end - begin <= _longest_exception() and chunk[begin:end] in known


def _prefix_length(chunk: str, begin: int, end: int) -> int:
    """Return how many characters at the front stand for themselves; 0 for a letter or a digit."""
    first = chunk[begin]
    if first in _AT_THE_FRONT or _ICON.match(first):
        return 1
    if first == "+":
        return int(begin + 1 == end or chunk[begin + 1] not in _DIGITS)
    if first == ".":
        n = 1
        while begin + n < end and chunk[begin + n] == ".":
            n += 1
        return n if n > 1 else 0
    return 0


def _suffix_length(chunk: str, begin: int, end: int) -> int:
    """Return how many characters at the end stand for themselves; nothing before `begin` is looked at."""
    if begin >= end:
        return 0
    last = chunk[end - 1]
    previous = chunk[end - 2] if end - 2 >= begin else ""
    if last == ".":
        return _full_stops(chunk, begin, end)
    if last in _UNIT_ENDS:
        for n in range(min(_LONGEST_UNIT, end - begin - 1), 0, -1):
            if chunk[end - n - 1] in _DIGITS and chunk[end - n : end] in UNITS:
                return n
    if last == "s":
        return 2 if previous in ("'", "’") else 0
    if last in _AT_EITHER_END or _ICON.match(last):
        return 2 if last == previous == "…" else 1
    return int(previous in _DIGITS and (last == "+" or last in CURRENCIES))


def _full_stops(chunk: str, begin: int, end: int) -> int:
    n = 1
    while end - n > begin and chunk[end - n - 1] == ".":
        n += 1
    if n > 1:
        return n
    return int(end - 2 >= begin and _BEFORE_FULL_STOP.match(chunk[end - 2]) is not None)


def _divide(rest: str, known: Container[str]) -> list[str]:
    """Return what is left between prefixes and suffixes, cut at hyphens, signs and icons inside of it."""
    if _is_known(rest, 0, len(rest), known):
        return list(_exceptions()[rest])
    if not _MAY_DIVIDE.search(rest):
        return [rest]
    places = [found.span() for found in _DIVIDER.finditer(rest) if found.start() > 0]
    if not places or _is_address(rest):
        return [rest]
    found, start = [], 0
    for first, stop in places:
        if first > start:
            found.append(rest[start:first])
        found.append(rest[first:stop])
        start = stop
    return found + [rest[start:]] * (start < len(rest))


def _is_address(rest: str) -> bool:
    """Tell whether this is a host such as `some-site.com`, with or without a user, a port and a query."""
    if "." not in rest:
        return False
    place = 0
    while not _HOST.fullmatch(rest, place):
        place = rest.find("@", max(place, 1)) + 1
        if place == 0:
            return False
    return True


@cache
def _patterns() -> dict[tuple[str, str], list[_Pattern]]:
    """Return the exceptions that cutting takes apart, by the first two of their parts."""
    found: dict[tuple[str, str], list[_Pattern]] = {}
    for word, tokens in _exceptions().items():
        parts = tuple(_cut(word, ()))
        if len(parts) > 1:
            found.setdefault((parts[0], parts[1]), []).append(_Pattern(parts, tokens))
    return found


def _put_together(tokens: list[str]) -> tuple[str, ...]:
    """Return the tokens with exceptions restored: long ones first, of equally long ones the first in the chunk."""
    patterns = _patterns()
    matches: list[tuple[int, int, _Pattern]] = []
    for place, two in enumerate(pairwise(tokens)):
        for pattern in patterns.get(two, ()):
            n = len(pattern.parts)
            if tuple(tokens[place : place + n]) == pattern.parts:
                matches.append((-n, place, pattern))
    if not matches:
        return tuple(tokens)
    taken: set[int] = set()
    chosen: dict[int, _Pattern] = {}
    for negative, place, pattern in sorted(matches):
        if place not in taken and place - negative - 1 not in taken:
            chosen[place] = pattern
        taken.update(range(place, place - negative))
    found: list[str] = []
    place = 0
    while place < len(tokens):
        match = chosen.get(place)
        found.extend(match.tokens if match else (tokens[place],))
        place += len(match.parts) if match else 1
    return tuple(found)
