"""What an explanation holds: pieces of the original text with their attributions, and the words they make."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

#: What stands for the part of a text that the model did not read.
ELLIPSIS = "…"
#: What stands between the texts of a pair.
BETWEEN = " / "
#: The largest error of a sum of attributions that passes, relative to the difference that it should give.
TOLERANCE = 0.02
#: Logits. A smaller difference counts as this one when an error is measured: no sum need be nearer than 0.001 logits.
SMALLEST = 0.05

_APOSTROPHES = "'’"
# Scripts that are written without spaces: Thai, Lao, Myanmar, Khmer, Han with kana, and Han beyond the basic plane.
_UNSPACED = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x31FF)),
    *((0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),
)


@dataclass(frozen=True)
class Piece:
    """A stretch of the original text with its attribution.

    Attributes:
        text: As it stands in the original; `…` for a part that was cut away.
        attribution: What it added to the explained value, in logits; 0 for a part that was cut away.
        start: Its first character in its text.
        end: The character after its last one.
        which: 0 for the (first) text, 1 for the second text of a pair.
        is_cut: Whether it stands for a part that the model did not read.
    """

    text: str
    attribution: float
    start: int
    end: int
    which: int = 0
    is_cut: bool = False


@dataclass(frozen=True)
class Explanation:
    """How the words of a text moved an answer away from that of a text without words.

    The explained value is the logit of `label`, less that of `against` where there is one. Special tokens stay what
    they are on the whole path, so they have no share in it.

    Attributes:
        label: The label that is explained.
        against: The label that its logit is compared with; None in multi-label.
        texts: The text as the model's tokenizer read it, or both texts of a pair.
        pieces: From the first text's start to the last one's end, without special tokens. Empty without any word.
        value: The explained value, in logits; `value - difference` is that of the text without its words.
        total: Sum of the pieces' attributions.
        difference: The explained value of the text less that of the same text with each ordinary token masked.
        error_share: |total - difference| / |difference|, as a share; a difference under `SMALLEST` counts as that.
        n_steps: Points of the path at which the last gradients were taken; 0 without any word.
    """

    label: str
    against: str | None
    texts: tuple[str, ...]
    pieces: tuple[Piece, ...]
    value: float
    total: float
    difference: float
    error_share: float
    n_steps: int

    @property
    def is_exact(self) -> bool:
        """Whether the attributions sum to the difference within 2 %."""
        return self.error_share <= TOLERANCE

    def words(self) -> tuple[Piece, ...]:
        """Return the pieces, those of one word put together and their attributions added.

        A word is a stretch of letters, digits and marks with the apostrophes between them. In scripts without spaces
        each piece stays a word of its own.
        """
        words: list[Piece] = []
        for piece in self.pieces:
            last = words[-1] if words else None
            if last is not None and self._is_one_word(last, piece):
                added = last.attribution + piece.attribution
                text = self.texts[piece.which][last.start : piece.end]
                words[-1] = replace(last, text=text, attribution=added, end=piece.end)
            else:
                words.append(piece)
        return tuple(words)

    def tokens(self, *, words: bool = True) -> list[list[Any]]:
        """Return [text, attribution] of each word, or of each piece, as JSON.

        A text comes with what stands before it since the last one, mostly a space, so that all texts joined give the
        original, with `…` for what was cut away and ` / ` between the texts of a pair.
        """
        found: list[list[Any]] = []
        shown = self.words() if words else self.pieces
        for which, text in enumerate(self.texts):
            if which:
                found.append([BETWEEN, 0.0])
            stop = 0
            for piece in shown:
                if piece.which == which:
                    found.append([text[stop : piece.start] + piece.text, piece.attribution])
                    stop = piece.end
            if text[stop:]:
                found.append([text[stop:], 0.0])
        return found

    def strongest(self, n: int = 5) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
        """Return the words that speak most for the label and those that speak most against it, at most `n` of each."""
        words = sorted(self.words(), key=lambda word: -abs(word.attribution))
        speak_for = tuple(word for word in words if word.attribution > 0)[:n]
        return speak_for, tuple(word for word in words if word.attribution < 0)[:n]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON: the fields by name, and `words`; `pieces` and `words` are lists of `Piece`s by field."""
        shown = asdict(self)
        shown["texts"] = list(self.texts)
        shown["pieces"] = [asdict(piece) for piece in self.pieces]
        return {**shown, "words": [asdict(word) for word in self.words()]}

    def _is_one_word(self, left: Piece, right: Piece) -> bool:
        if left.is_cut or right.is_cut or left.which != right.which:
            return False
        if left.start == left.end or right.start == right.end:
            return False
        text = self.texts[right.which]
        return left.end <= right.start and all(
            _is_of_word(text, position) for position in range(left.end - 1, right.start + 1)
        )


def merged(pieces: Sequence[Piece], text: str) -> list[Piece]:
    """Return pieces of one text that do not overlap and are not empty, in order; overlapping ones are added up.

    Args:
        pieces: In order. Several tokens of one character overlap; a token that stands for no character goes to the
            piece before it, the first one to the piece after it.
        text: What they stand in.
    """
    found: list[Piece] = []
    for piece in pieces:
        last = found[-1] if found else None
        if last is not None and not last.is_cut and not piece.is_cut and _is_shared(last, piece):
            spans = [(one.start, one.end) for one in (last, piece) if one.start < one.end] or [(last.start, last.end)]
            start, end = min(first for first, _ in spans), max(stop for _, stop in spans)
            found[-1] = replace(
                last, text=text[start:end], attribution=last.attribution + piece.attribution, start=start, end=end
            )
        else:
            found.append(piece)
    return found


def _is_shared(last: Piece, piece: Piece) -> bool:
    return piece.start < last.end or last.start == last.end or piece.start == piece.end


def _is_of_word(text: str, position: int) -> bool:
    character = text[position]
    if character in _APOSTROPHES:
        inside = 0 < position < len(text) - 1
        return inside and text[position - 1].isalnum() and text[position + 1].isalnum()
    code = ord(character)
    if any(first <= code <= last for first, last in _UNSPACED):
        return False
    # Vowel signs and combining accents belong to their letters.
    return character.isalnum() or character == "_" or unicodedata.category(character).startswith("M")
