"""Where the tokens of a text stand in it: the rules once more, each change remembered with its place."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from headrace.text._word_rules import MENDED, REPEATS, SPACED, WORD_REPEATS, chunk_tokens, pieces, told, told_word

# As HTML itself: a semicolon may be missing.
_ENTITY = re.compile(r"&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[^\t\n\f <&#;]{1,32});?")


@dataclass(frozen=True)
class _Traced:
    """A changed text, and of each of its characters where it comes from.

    Attributes:
        text: The text as it is by now.
        spans: For each character the first character of the original, and the one after the last.
    """

    text: str
    spans: list[tuple[int, int]]

    def changed(self, pattern: re.Pattern[str], told_as: Callable[[re.Match[str]], str]) -> _Traced:
        """Return the text with each match told otherwise; what is new comes from the whole match."""
        parts: list[str] = []
        spans: list[tuple[int, int]] = []
        done = 0
        for match in pattern.finditer(self.text):
            first, stop = match.span()
            new = told_as(match)
            n_kept = int(bool(new) and new[-1] == self.text[stop - 1])
            inner = self.text[first : stop - n_kept]
            begin = first + len(inner) - len(inner.lstrip())
            end = max(begin + 1, first + len(inner.rstrip()))
            spans += self.spans[done:first]
            spans += [(self.spans[begin][0], self.spans[min(end, stop) - 1][1])] * (len(new) - n_kept)
            spans += self.spans[stop - n_kept : stop]
            parts += (self.text[done:first], new)
            done = stop
        return _Traced("".join([*parts, self.text[done:]]), spans + self.spans[done:])


def _always(text: str) -> Callable[[re.Match[str]], str]:
    return lambda _: text


def placed_tokens(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield each token of a text with its first character there and the one after the last.

    The mark of a capital stands on the word's first letter; a mark of repetition, its number and what is repeated stand
    on the whole repetition.
    """
    traced = _Traced(text, [(place, place + 1) for place in range(len(text))])
    for found, read_as in MENDED:
        traced = traced.changed(re.compile(re.escape(found)), _always(read_as))
    traced = traced.changed(_ENTITY, lambda match: html.unescape(match.group()))
    traced = traced.changed(REPEATS, told).changed(WORD_REPEATS, told_word)
    traced = traced.changed(re.compile(f"[{re.escape(''.join(SPACED))}]"), lambda match: f" {match.group()} ")
    traced = traced.changed(re.compile(" {2,}"), _always(" "))
    begin = len(traced.text) - len(traced.text.lstrip())
    for piece in pieces(traced.text.strip()):
        begin = traced.text.index(piece, begin)
        # One character may become two in lower case.
        origin = [place for place, character in enumerate(piece, begin) for _ in character.lower()]
        tokens = chunk_tokens(piece)
        n_marks = int(sum(map(len, tokens)) > len(origin))
        for mark in tokens[:n_marks]:
            yield mark, *traced.spans[begin]
        done = 0
        for token in tokens[n_marks:]:
            yield token, traced.spans[origin[done]][0], traced.spans[origin[done + len(token) - 1]][1]
            done += len(token)
        begin += len(piece)
