"""The shingles of texts: every run of five characters, as numbers, and how many of them two texts share."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from headrace.data.examples import PAIR, TEXT, TextRows
from headrace.data.split import folded, seeded

N_CHARACTERS = 5
# In a shorter text one changed word is most of it, or nearly nothing: such texts are compared as a whole.
MIN_CHARACTERS = 24
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd
_GROUP_CHARACTERS = 1 << 20  # 8 MB an array of numbers
_ROWS_READ = 1024
_TEXT_BITS = 16  # of the 64 bits that stand for one shingle of one text while texts are compared


@dataclass(frozen=True)
class Shingles:
    """The shingles of some texts, laid end to end.

    Attributes:
        numbers: [shingles] uint64, a hash of each; what a text repeats stands repeatedly.
        offsets: [texts + 1] int64; text i has numbers[offsets[i] : offsets[i + 1]], one at least.
    """

    numbers: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1


def shingles(texts: Sequence[str], *, seed: int = 0) -> Shingles:
    """Return the shingles of folded texts: each run of five characters, spaces and marks included.

    Runs of characters need no notion of a word, so they serve languages without spaces too. A text under 24
    characters has one shingle, itself: it is like an equal text and like no other.

    Args:
        texts: Texts as `folded` returns them.
        seed: Another seed gives the same shingles other numbers.

    Source:
        Broder 1997, "On the resemblance and containment of documents", section 2 (there of words); five characters:
        Leskovec, Rajaraman and Ullman 2014, "Mining of Massive Datasets", section 3.2.2.
    """
    texts = [text or " " for text in texts]  # an empty text needs a place of its own; no folded text is one space
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    ends = np.cumsum(lengths)
    starts = ends - lengths
    padded = "".join(texts) + "\0" * (N_CHARACTERS - 1)
    codes = np.frombuffer(padded.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    n_runs = len(codes) - N_CHARACTERS + 1
    numbers = codes[:n_runs].astype(np.uint64)
    for place in range(1, N_CHARACTERS):
        numbers *= _MULTIPLIER
        numbers += codes[place : place + n_runs]
    numbers = seeded(numbers, seed)
    is_short = lengths < MIN_CHARACTERS
    kept = ~np.repeat(is_short, lengths)
    for back in range(1, N_CHARACTERS):
        kept[ends[~is_short] - back] = False  # these runs would reach into the next text
    kept[starts[is_short]] = True
    numbers[starts[is_short]] = [_number(text, seed) for text in texts if len(text) < MIN_CHARACTERS]
    counts = np.where(is_short, 1, lengths - N_CHARACTERS + 1)
    return Shingles(numbers[kept], np.concatenate(([0], np.cumsum(counts))))


def in_groups(examples: TextRows, positions: np.ndarray) -> Iterator[tuple[int, list[list[str]]]]:
    """Yield the folded texts of these rows a few at a time, so that memory does not grow with the texts.

    Yields:
        (start, texts of each column): a group holds the rows positions[start : start + len(texts[0])], and about a
        million characters or a single row.
    """
    columns = [TEXT, PAIR] if examples.is_pair else [TEXT]
    for start in range(0, len(positions), _ROWS_READ):
        view = examples.take(positions[start : start + _ROWS_READ])
        texts = [[folded(text) for text in view.column(column)] for column in columns]
        sizes = np.cumsum([sum(map(len, row)) for row in zip(*texts, strict=True)])
        group_of_row = sizes // _GROUP_CHARACTERS
        borders = [0, *(np.flatnonzero(np.diff(group_of_row)) + 1).tolist(), len(view)]
        for begin, end in itertools.pairwise(borders):
            yield start + begin, [column[begin:end] for column in texts]


def joined(columns: Sequence[Sequence[str]]) -> Shingles:
    """Return the shingles of rows with one or two texts each; the same run in both texts of a pair counts twice."""
    if len(columns) == 1:
        return shingles(columns[0])
    parts = [shingles(texts, seed=number) for number, texts in enumerate(columns)]
    counts = [np.diff(part.offsets) for part in parts]
    offsets = np.concatenate(([0], np.cumsum(sum(counts))))
    numbers = np.empty(int(offsets[-1]), dtype=np.uint64)
    begin = offsets[:-1]
    for part, count in zip(parts, counts, strict=True):
        numbers[_ranges(begin, count)] = part.numbers
        begin = begin + count
    return Shingles(numbers, offsets)


def jaccard(columns: Sequence[Sequence[str]], pairs: np.ndarray) -> np.ndarray:
    """Return the Jaccard similarity of pairs of rows: shingles that both have / shingles that either has.

    For rows of two texts it is the smaller one of the two: two rows with the same premise and another hypothesis are
    not alike.

    Args:
        columns: The folded texts of up to 65,536 rows, one list for each column.
        pairs: [pairs, 2] int64 numbers of rows.

    Returns:
        [pairs] float64 in [0, 1]. Exact but for hashing: a shingle is taken for another with a chance of 2**-48.
    """
    found = np.ones(len(pairs))
    for texts in columns:
        np.minimum(found, _jaccard(shingles(texts), pairs), out=found)
    return found


def _jaccard(given: Shingles, pairs: np.ndarray) -> np.ndarray:
    text_of = np.repeat(np.arange(len(given), dtype=np.uint64), np.diff(given.offsets))
    codes = np.sort(_codes(text_of, given.numbers))
    codes = codes[np.concatenate(([True], codes[1:] != codes[:-1]))]
    borders = np.searchsorted(codes, np.arange(len(given) + 1, dtype=np.uint64) << np.uint64(64 - _TEXT_BITS))
    counts = np.diff(borders)[pairs]
    # Both sets of a pair, sorted together: what both have stands twice. Sorting is cheaper than looking up.
    both = counts.sum(axis=1)
    numbers = codes[_ranges(borders[pairs.ravel()], counts.ravel())] << np.uint64(_TEXT_BITS)
    pooled = np.sort(_codes(np.repeat(np.arange(len(pairs), dtype=np.uint64), both), numbers))
    twice = pooled[1:][pooled[1:] == pooled[:-1]] >> np.uint64(64 - _TEXT_BITS)
    shared = np.bincount(twice.astype(np.int64), minlength=len(pairs))
    return np.asarray(shared / (both - shared))


def _codes(texts: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    return (texts << np.uint64(64 - _TEXT_BITS)) | (numbers >> np.uint64(_TEXT_BITS))


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return start, start + 1, … (count of them) for each start, one after the other."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


def _number(text: str, seed: int) -> int:
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8, salt=seed.to_bytes(2, "little"))
    return int.from_bytes(digest.digest(), "little")
