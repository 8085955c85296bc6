"""Where the tokens that a model reads stand in the original text, and which parts of it were cut away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from headrace.explain.explanation import ELLIPSIS, Piece, merged
from headrace.text.layout import Parts, lay_out
from headrace.text.subwords import Encoded, Texts, without_lone_surrogates
from headrace.text.tokenizer import Tokenizer

_SPECIAL = -1


@dataclass(frozen=True, eq=False)
class Placed:
    """The tokens of one text or pair, and where they come from.

    Attributes:
        encoded: What the model reads.
        texts: The text, or both texts of a pair, as the tokenizer read them.
        order: [tokens] int64; which of all tokens of the text(s) stands here, -1 for special tokens.
        spans: For each text the characters of all its tokens, [tokens before the cut, 2] int64.
    """

    encoded: Encoded
    texts: tuple[str, ...]
    order: np.ndarray
    spans: tuple[np.ndarray, ...]

    @property
    def is_ordinary(self) -> np.ndarray:
        """[tokens] bool; False for the special tokens around and between the texts."""
        return np.asarray(self.order != _SPECIAL)

    def pieces(self, attributions: np.ndarray) -> tuple[Piece, ...]:
        """Return the stretches of the text(s) with the attributions of their tokens.

        Args:
            attributions: [tokens] float64; those of special tokens are not looked at.
        """
        found: list[Piece] = []
        first = 0
        for which, (text, spans) in enumerate(zip(self.texts, self.spans, strict=True)):
            here = (self.order >= first) & (self.order < first + len(spans))
            found += _pieces_of(text, spans, self.order[here] - first, attributions[here], which)
            first += len(spans)
        return tuple(found)


def place(subwords: Tokenizer, texts: Texts, *, max_length: int, truncate: str) -> list[Placed]:
    """Return the tokens of each text or pair with their places.

    Args:
        subwords: The tokenizer.
        texts: As in `Subwords.encode`.
        max_length: Tokens kept of each, special ones included.
        truncate: `head`, `tail` or `head_tail`.

    Raises:
        RecipeError: `max_length` leaves no room for text, or there is no such `truncate`.
        DataError: A text is not a string.
    """
    encoded = subwords.encode(texts, max_length=max_length, truncate=truncate)
    found = []
    for one, text in zip(encoded, texts, strict=True):
        sides = (text,) if isinstance(text, str) else tuple(text)
        spans = tuple(subwords.spans(side) for side in sides)
        order = _order(subwords, [len(of_side) for of_side in spans], max_length=max_length, truncate=truncate)
        found.append(Placed(one, tuple(without_lone_surrogates(side) for side in sides), order, spans))
    return found


def _order(subwords: Tokenizer, lengths: list[int], *, max_length: int, truncate: str) -> np.ndarray:
    """Return which token stands where: the numbers of the tokens go through the cut in place of their ids."""
    layout = subwords.layout(pair=len(lengths) == 2)
    prefix, middle, suffix = ((_SPECIAL,) * len(ids) for ids in (layout.prefix, layout.middle, layout.suffix))
    blank = replace(layout, prefix=prefix, middle=middle, suffix=suffix)
    numbers = np.arange(sum(lengths), dtype=np.int32)
    bounds = np.cumsum([0, *lengths])
    parts = [Parts(numbers[start:stop], np.array([stop - start])) for start, stop in pairwise(bounds.tolist())]
    return lay_out(parts, blank, max_length=max_length, truncate=truncate, unk_id=None).ids.astype(np.int64)


def _pieces_of(text: str, spans: np.ndarray, kept: np.ndarray, attributions: np.ndarray, which: int) -> list[Piece]:
    """Return the pieces of one text; `kept` are the numbers of its tokens that were not cut away."""
    pieces: list[Piece] = []
    last = -1  # the number of the token before
    for number, attribution in zip([*kept.tolist(), len(spans)], [*attributions.tolist(), None], strict=True):
        if number > last + 1:
            begin = int(spans[last, 1]) if last >= 0 else 0
            end = int(spans[number, 0]) if number < len(spans) else len(text)
            pieces.append(_cut_piece(text, begin, end, which))
        if attribution is not None:
            start, stop = _without_space(text, *spans[number].tolist())
            pieces.append(Piece(text[start:stop], attribution, start, stop, which))
        last = number
    return merged(pieces, text)


def _cut_piece(text: str, start: int, end: int, which: int) -> Piece:
    """Return `…` for the part; the space between it and what was kept stays outside."""
    if text[start:end].strip():
        start = start and _without_space(text, start, end)[0]
        end = end if end == len(text) else start + len(text[start:end].rstrip())
    return Piece(ELLIPSIS, 0.0, start, max(start, end), which, is_cut=True)


def _without_space(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span without its leading white space, unless it is nothing else: some tokens carry the space."""
    own = text[start:end].lstrip()
    return (end - len(own), end) if own else (start, end)
