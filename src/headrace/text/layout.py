"""Where a tokenizer puts its special tokens, and the arithmetic that cuts texts and lays them out, many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from headrace.errors import ModelError, RecipeError, suggestion

TRUNCATIONS = ("head", "tail", "head_tail")

# Texts of which nearly every vocabulary makes a token, two of them different.
_MARKS = ("a", "the", "1", ".", "w0 x1 y2 z3", "w0")


@dataclass(frozen=True)
class Layout:
    """The special tokens around one text (`middle` is empty) or between and around the two texts of a pair.

    Attributes:
        prefix: Ids before the first text.
        middle: Ids between the two texts of a pair.
        suffix: Ids at the end.
        n_middle_first: How many of `middle` belong to segment 0.
        n_segments: 2 if the tokenizer gives the second text a segment of its own, else 1.
    """

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    n_middle_first: int
    n_segments: int

    @property
    def n_special(self) -> int:
        """How many tokens are not of the texts."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


@dataclass(frozen=True, eq=False)
class FlatTokens:
    """The tokens of many texts, end to end.

    Attributes:
        ids: [tokens] int32.
        offsets: [texts + 1] int64; text i holds ids[offsets[i] : offsets[i + 1]].
        first_lengths: [texts] int32, tokens of segment 0 (all of them for single texts).
        full_lengths: [texts] int32, tokens before the cut, special ones included.
        n_unknown: [texts] int32, unknown tokens among those that were kept.
    """

    ids: np.ndarray
    offsets: np.ndarray
    first_lengths: np.ndarray
    full_lengths: np.ndarray
    n_unknown: np.ndarray


@dataclass(frozen=True, eq=False)
class Parts:
    """The tokens of the first (or of the second) texts, end to end, without special tokens."""

    ids: np.ndarray
    lengths: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """[texts] int64, where each text begins in `ids`."""
        return np.asarray(np.cumsum(self.lengths) - self.lengths)


def probe(tokenizer: Tokenizer, *, pair: bool) -> Layout:
    """Return the layout that the tokenizer's own post-processor makes, found by running it on two marked texts.

    Raises:
        ModelError: The post-processor does more than put special tokens before, between and after the texts.
    """
    (first_mark, first), (second_mark, second) = _marked(tokenizer, _MARKS), _marked(tokenizer, _MARKS[::-1])
    second = second if pair else []
    made = tokenizer.encode(first_mark, second_mark) if pair else tokenizer.encode(first_mark)
    ids, types = list(made.ids), list(made.type_ids)
    special = [index for index, flag in enumerate(made.special_tokens_mask) if flag]
    begin = _first_gap(special)
    end = len(ids) - _first_gap([len(ids) - 1 - index for index in reversed(special)])
    middle = range(begin + len(first), end - len(second))
    around = ids[:begin] + first + [ids[index] for index in middle] + second + ids[end:]
    if not set(special).issuperset(middle) or around != ids:
        raise _unsupported()
    n_first_segment = types.index(1) if 1 in types else len(types)
    if set(types) - {0, 1} or 0 in types[n_first_segment:] or n_first_segment < begin + len(first):
        raise _unsupported()
    return Layout(
        prefix=tuple(ids[:begin]),
        middle=tuple(ids[index] for index in middle),
        suffix=tuple(ids[end:]),
        n_middle_first=sum(1 for index in middle if index < n_first_segment),
        n_segments=2 if 1 in types else 1,
    )


def _marked(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[str, list[int]]:
    """Return the first text of which the tokenizer makes a token, and its tokens."""
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        if ids:
            return text, list(ids)
    raise ModelError("the tokenizer makes no token of any text", where="tokenizer", next="use another tokenizer")


def _first_gap(indices: Sequence[int]) -> int:
    """Return how many of the indices 0, 1, 2, … stand at the head of `indices`."""
    n = 0
    while n < len(indices) and indices[n] == n:
        n += 1
    return n


def _unsupported() -> ModelError:
    return ModelError(
        "the tokenizer does not lay out its texts as [special tokens] first [special tokens] second [special tokens]",
        where="tokenizer.json: post_processor",
        next="use a model whose tokenizer does (BERT, RoBERTa, DeBERTa, ELECTRA, ModernBERT and their kin)",
    )


def lay_out(
    parts: Sequence[Parts], layout: Layout, *, max_length: int, truncate: str, unk_id: int | None
) -> FlatTokens:
    """Cut the texts to `max_length` tokens, special ones included, and put the special tokens around them.

    Args:
        parts: The tokens of the texts; for pairs the first texts and the second ones.
        layout: Of single texts or of pairs, as `parts` are.
        max_length: Tokens kept of a text or a pair, at least one more than the layout's special tokens.
        truncate: `head`, `tail`, or `head_tail`, which keeps the first quarter and the last three quarters of what
            fits. A pair is cut longest first: from the longer text until both are equally long.
        unk_id: What counts as unknown; None if the tokenizer knows everything.

    Raises:
        RecipeError: `max_length` leaves no room for text, or there is no such way to cut.

    Source:
        Sun et al. 2019, arXiv 1905.05583, section 5.3.1 (head_tail: the first 128 and the last 382 of 510).
    """
    if truncate not in TRUNCATIONS:
        raise RecipeError(
            f"there is no way to cut called {truncate!r}", where="data.truncate", next=suggestion(truncate, TRUNCATIONS)
        )
    room = max_length - layout.n_special
    if room < len(parts):
        raise RecipeError(
            f"max_length {max_length} leaves no room for text: {layout.n_special} special tokens go around "
            + ("each pair" if len(parts) > 1 else "each text"),
            where="data.max_length",
            next=f"set it to at least {layout.n_special + len(parts)}; 128 or 256 are usual",
        )
    kept = _kept_lengths(parts, room)
    lengths = np.sum(kept, axis=0) + layout.n_special
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    ids = np.empty(offsets[-1], dtype=np.int32)
    n_unknown = np.zeros(len(lengths), dtype=np.int32)
    place = _fill_special(ids, offsets[:-1], layout.prefix)
    for number, (part, n_kept) in enumerate(zip(parts, kept, strict=True)):
        owner, within = _positions(n_kept)
        chosen = part.ids[_cut(part, n_kept, truncate, owner, within)]
        ids[place[owner] + within] = chosen
        if unk_id is not None:
            n_unknown += np.bincount(owner[chosen == unk_id], minlength=len(lengths)).astype(np.int32)
        place = _fill_special(ids, place + n_kept, layout.suffix if number == len(parts) - 1 else layout.middle)
    if layout.n_segments == 2 and len(parts) == 2:
        first_lengths = len(layout.prefix) + kept[0] + layout.n_middle_first
    else:
        first_lengths = lengths
    full_lengths = np.sum([part.lengths for part in parts], axis=0) + layout.n_special
    return FlatTokens(ids, offsets, first_lengths.astype(np.int32), full_lengths.astype(np.int32), n_unknown)


def _kept_lengths(parts: Sequence[Parts], room: int) -> list[np.ndarray]:
    """Return how many tokens of each part fit into `room`; pairs are cut longest first, as `tokenizers` does it."""
    if len(parts) == 1:
        return [np.minimum(parts[0].lengths, room)]
    first, second = parts[0].lengths, parts[1].lengths
    shorter, longer = np.minimum(first, second), np.maximum(first, second)
    halved = shorter > room // 2  # both are longer than half of the room: each gets half of it
    new_shorter = np.where(halved, room // 2, shorter)
    new_longer = np.minimum(longer, room - new_shorter)
    fits = first + second <= room
    # Of two equally long texts the second keeps the odd token.
    kept_first = np.where(fits, first, np.where(first <= second, new_shorter, new_longer))
    kept_second = np.where(fits, second, np.where(first <= second, new_longer, new_shorter))
    return [kept_first, kept_second]


def _positions(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each token of texts of these lengths the text that owns it, and its position within that text."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    begins = np.cumsum(lengths) - lengths
    return owner, np.arange(len(owner)) - begins[owner]


def _cut(part: Parts, n_kept: np.ndarray, truncate: str, owner: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Return the positions in `part.ids` of the tokens that are kept."""
    if truncate == "head":
        return np.asarray(part.starts[owner] + within)
    # 128 of 510: a quarter, rounded to the nearest
    n_head = np.zeros_like(n_kept) if truncate == "tail" else (n_kept + 2) // 4
    skipped = (part.lengths - n_kept)[owner] * (within >= n_head[owner])
    return np.asarray(part.starts[owner] + within + skipped)


def _fill_special(ids: np.ndarray, place: np.ndarray, special: tuple[int, ...]) -> np.ndarray:
    """Write the special tokens at `place` of each text and return the places after them."""
    for index, token in enumerate(special):
        ids[place + index] = token
    return np.asarray(place + len(special))


def pieces(lengths: Sequence[int], *, max_texts: int, max_characters: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of consecutive texts that hold at most so many characters together, at least one text each."""
    start = total = 0
    for index, length in enumerate(lengths):
        if index > start and (index - start >= max_texts or total + length > max_characters):
            yield start, index
            start, total = index, 0
        total += length
    if start < len(lengths):
        yield start, len(lengths)
