"""Finds texts that are nearly equal: MinHash proposes pairs, their shingles decide.

Two texts are near if the Jaccard similarity of their shingles (`headrace.data.shingles`: runs of five characters of the
folded text) is at least the threshold. Equal folded texts are found by their keys and are not near ones.
"""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from rensa import RMinHash

from headrace.data.examples import Examples, TextRows
from headrace.data.shingles import Shingles, in_groups, jaccard, joined
from headrace.data.split import seeded, text_keys
from headrace.errors import DataError

THRESHOLD = 0.8
# 128 slots of 4 bytes; at 0.8 they make 18 bands of 7, and two texts of similarity 0.8 meet in one of them with a chance
# of 1 - (1 - 0.8**7)**18 = 0.986; at 0.9 it is 0.99999, at 0.5 it is 0.13, at 0.1 it is 2e-6.
N_SLOTS = 128
MIN_RECALL = 0.98
# A text that is near to one of a thousand others of one form is found without comparing it with each of them.
_REACH_OF_PAIRS = 64
_REACH_OF_ROWS = 4
_SEED = 13
# Texts are compared a few at a time: 2**20 shingles are 8 MB an array. A pair costs as much as 400 shingles to fetch.
_BLOCK_SHINGLES = 1 << 20
_BLOCK_PAIRS = 8192
_FETCH_SHINGLES = 400


@dataclass(frozen=True)
class NearPairs:
    """Pairs of rows whose texts are near.

    Attributes:
        rows: [pairs, 2] int64 positions, sorted.
        jaccard: [pairs] float64, at least the threshold.
        is_complete: Whether every proposed pair was compared.
    """

    rows: np.ndarray
    jaccard: np.ndarray
    is_complete: bool = True

    def __len__(self) -> int:
        return len(self.rows)


class Sketch:
    """What remains of the distinct texts of some rows: a number for each band of their MinHash signatures.

    The numbers lie in a temporary file (72 bytes a text), from which a band is read at a time.

    Args:
        examples: The rows.
        keys: Their `text_keys`, if they are known.
        threshold: The similarity for which the bands are made, above 0 and at most 1.

    Attributes:
        keys: [rows] uint64.
        rows: [texts] int64, the first row of each distinct folded text, sorted.
        sizes: [texts] int64, shingles of each.

    Raises:
        DataError: The threshold is not in (0, 1].

    Source:
        Broder 1997, "On the resemblance and containment of documents"; bands: Leskovec, Rajaraman and Ullman 2014,
        "Mining of Massive Datasets", section 3.4; the signatures: Dahlgaard, Knudsen and Thorup 2017, "Fast Similarity
        Sketching", in rensa's variant.
    """

    def __init__(self, examples: TextRows, keys: np.ndarray | None = None, *, threshold: float = THRESHOLD) -> None:
        self.examples = examples
        self.threshold = threshold
        self.keys = text_keys(examples) if keys is None else keys
        self.rows = np.sort(np.unique(self.keys, return_index=True)[1])
        self.sizes = np.zeros(len(self.rows), dtype=np.int64)
        self._width = _band_width(threshold)
        self.n_bands = N_SLOTS // self._width
        self._blocks: list[tuple[int, int]] = []
        self._kept: np.ndarray | None = None  # numbers of the texts that are looked at; None for all
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            for start, texts in in_groups(examples, self.rows):
                self._add(start, joined(texts))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Sketch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the temporary file up."""
        self._file.close()

    def part(self, is_in: np.ndarray) -> Sketch:
        """Return the sketch of some of the rows; nothing is computed anew, and it lasts as long as this one is open.

        Args:
            is_in: [rows] bool, alike for rows with equal texts.
        """
        found = copy.copy(self)
        found._kept = np.flatnonzero(is_in[self.rows])
        found.rows, found.sizes = self.rows[found._kept], self.sizes[found._kept]
        return found

    def band(self, number: int) -> np.ndarray:
        """Return the texts' numbers in one band, [texts] uint32: near texts have equal ones in some band."""
        found = np.empty(sum(n_texts for _, n_texts in self._blocks), dtype=np.uint32)
        for start, n_texts in self._blocks:
            self._file.seek((start * self.n_bands + number * n_texts) * 4)
            found[start : start + n_texts] = np.frombuffer(self._file.read(n_texts * 4), dtype=np.uint32)
        return found if self._kept is None else found[self._kept]

    def _add(self, start: int, given: Shingles) -> None:
        n_texts = len(given)
        self.sizes[start : start + n_texts] = np.diff(given.offsets)
        numbers = np.ascontiguousarray(_bands(_signatures(given), self._width).T)
        self._file.write(numbers.tobytes())
        self._blocks.append((start, n_texts))


def near_pairs(a: Examples, b: Examples | None = None, *, threshold: float = THRESHOLD) -> NearPairs:
    """Return the pairs of near rows inside `a`, or between `a` and `b`.

    Every pair that is returned was compared exactly; of the pairs of similarity 0.8 about 2 % are not proposed (fewer
    of more similar ones). Rows with equal folded texts are represented by the first of them. A pair of texts is near
    another if both texts are.

    Args:
        a: Rows.
        b: Rows; the same columns.
        threshold: The least Jaccard similarity, above 0 and at most 1.

    Returns:
        Rows (i, j) with i < j inside `a`; or i in `a` and j in `b`, whose folded texts differ. Not complete if more than
        64 texts look alike; then pairs of these are missing.

    Raises:
        DataError: The threshold is not in (0, 1].
    """
    with ExitStack() as stack:
        first = stack.enter_context(Sketch(a, threshold=threshold))
        if b is None:
            found = _search(first, None, reach=_REACH_OF_PAIRS, is_exhaustive=True)
        else:
            second = stack.enter_context(Sketch(b, threshold=threshold))
            found = _search(second, first, reach=_REACH_OF_PAIRS, is_exhaustive=True)
    rows = found.rows[:, ::-1]
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    return NearPairs(rows[order], found.jaccard[order], found.is_complete)


def near_rows(train: Examples, other: Examples, *, threshold: float = THRESHOLD) -> np.ndarray:
    """Return the positions in `other`, int64, sorted, of rows whose text is near to one in `train` and equal to none.

    Where many texts have one form in common, each is compared with a few of its kind only, and some rows are missed.

    Raises:
        DataError: The threshold is not in (0, 1].
    """
    with Sketch(train, threshold=threshold) as first, Sketch(other, threshold=threshold) as second:
        return all_rows(second, near_matches(first, second).rows[:, 0])


def leaked_rows(train: Examples, other: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows of `other` training has seen, so that metrics can be told with and without them.

    Returns:
        Positions in `other`, int64, sorted: of rows whose folded text occurs in `train`; and of others whose text is
        near to one in `train`.
    """
    with Sketch(train) as first, Sketch(other) as second:
        exact = np.flatnonzero(np.isin(second.keys, first.keys))
        return exact, all_rows(second, near_matches(first, second).rows[:, 0])


def near_repeats(sketch: Sketch, *, max_shingles: int | None = None) -> NearPairs:
    """Return for each distinct text that is near an earlier one a pair (its row, the earlier row), sorted.

    Args:
        sketch: The texts.
        max_shingles: Stop after comparing about so many shingles; the answer is then not complete.
    """
    return _sorted(_search(sketch, None, reach=_REACH_OF_ROWS, is_exhaustive=False, max_shingles=max_shingles))


def near_matches(train: Sketch, other: Sketch, *, max_shingles: int | None = None) -> NearPairs:
    """Return for each distinct text of `other` that is near one in `train`, and equal to none, (its row, that row).

    Args:
        train: Texts.
        other: Texts.
        max_shingles: Stop after comparing about so many shingles; the answer is then not complete.
    """
    return _sorted(_search(other, train, reach=_REACH_OF_ROWS, is_exhaustive=False, max_shingles=max_shingles))


def all_rows(sketch: Sketch, rows: np.ndarray) -> np.ndarray:
    """Return the positions, int64, sorted, of all rows whose folded texts are those of `rows`."""
    return np.flatnonzero(np.isin(sketch.keys, sketch.keys[rows]))


def _band_width(threshold: float) -> int:
    """Return how many slots a band has: as many as recall allows, since wider bands propose fewer pairs."""
    if not 0.0 < threshold <= 1.0:
        raise DataError(
            f"the threshold of near duplicates is {threshold:g}; it must be above 0 and at most 1",
            where="threshold",
            next="write a number like 0.8",
        )
    widths = range(N_SLOTS // 2, 0, -1)
    recalls = (1.0 - (1.0 - threshold**width) ** (N_SLOTS // width) for width in widths)
    return next((width for width, recall in zip(widths, recalls, strict=True) if recall >= MIN_RECALL), 1)


def _signatures(given: Shingles) -> np.ndarray:
    offsets = given.offsets.astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(given.numbers, offsets, N_SLOTS, _SEED)
    slots = itertools.chain.from_iterable(matrix.to_rows())
    return np.fromiter(slots, dtype=np.uint64, count=len(given) * N_SLOTS).reshape(len(given), N_SLOTS)


def _bands(signatures: np.ndarray, width: int) -> np.ndarray:
    """Return one number for each band of each text: [texts, bands] uint32."""
    n_bands = signatures.shape[1] // width
    slots = signatures[:, : n_bands * width].reshape(len(signatures), n_bands, width)
    numbers = np.zeros(slots.shape[:2], dtype=np.uint64)
    for place in range(width):
        numbers = seeded(numbers ^ slots[:, :, place], place)
    return (numbers >> np.uint64(32)).astype(np.uint32)


def _search(
    later: Sketch, earlier: Sketch | None, *, reach: int, is_exhaustive: bool, max_shingles: int | None = None
) -> NearPairs:
    """Return near pairs (row of `later`, row of `earlier`, or an earlier row of `later`).

    Unless it is exhaustive, a text of `later` has one pair at most, and none if it is equal to one of `earlier`.
    """
    candidates = _Candidates(later, earlier, reach)
    sizes, keys = candidates.sizes, candidates.keys
    budget = np.inf if max_shingles is None else float(max_shingles)
    seen = np.empty(0, dtype=np.int64)
    is_done = np.zeros(len(sizes), dtype=bool)
    if earlier is not None and not is_exhaustive:
        is_done[len(earlier.rows) :] = np.isin(keys[len(earlier.rows) :], keys[: len(earlier.rows)])
    found: list[np.ndarray] = [np.empty((0, 2), dtype=np.int64)]
    similarities: list[np.ndarray] = [np.empty(0)]
    for proposed in candidates:
        pairs = _unseen(proposed[~is_done[proposed[:, 0]]], seen, keys)
        costs = np.cumsum(sizes[pairs].sum(axis=1) + _FETCH_SHINGLES)
        affordable = pairs[: int(np.searchsorted(costs, budget, side="right"))]
        similarity = _compared(later, earlier, affordable, sizes)
        is_near = similarity >= later.threshold
        found.append(affordable[is_near])
        similarities.append(similarity[is_near])
        if len(affordable) < len(pairs):
            return NearPairs(candidates.rows_of(np.concatenate(found)), np.concatenate(similarities), is_complete=False)
        budget -= float(costs[-1]) if len(costs) else 0.0
        is_done[affordable[is_near, 0]] = not is_exhaustive
        again = affordable if is_exhaustive else affordable[~is_near]
        seen = np.concatenate((seen, again[:, 0] * len(sizes) + again[:, 1]))
    is_complete = not (is_exhaustive and candidates.has_cut)
    return NearPairs(candidates.rows_of(np.concatenate(found)), np.concatenate(similarities), is_complete)


def _unseen(pairs: np.ndarray, seen: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return the pairs of different texts that were not compared yet, each once, sorted."""
    codes = np.unique(pairs[:, 0] * len(keys) + pairs[:, 1])
    codes = codes[~np.isin(codes, seen, assume_unique=True)]
    first, second = np.divmod(codes, max(len(keys), 1))
    differ = keys[first] != keys[second]
    return np.stack((first[differ], second[differ]), axis=1)


class _Candidates:
    """Pairs (number of a later text, number of an earlier one) that share a band.

    With two sketches the texts of `earlier` are numbered first, then those of `later`, and pairs are between the two.

    Attributes:
        sizes: [texts] int64, shingles of each.
        keys: [texts] uint64, their keys.
        has_cut: Whether a text shared a band with more than `reach` others, and met only that many.
    """

    def __init__(self, later: Sketch, earlier: Sketch | None, reach: int) -> None:
        self._later, self._earlier, self._reach = later, earlier, reach
        sketches = [later] if earlier is None else [earlier, later]
        self.sizes = np.concatenate([sketch.sizes for sketch in sketches])
        self.keys = np.concatenate([sketch.keys[sketch.rows] for sketch in sketches])
        self.has_cut = False

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in range(self._later.n_bands):
            order, last, n_before = self._met(number)
            self.has_cut = self.has_cut or bool((n_before > self._reach).any())
            for distance in range(self._reach):
                places = np.flatnonzero(n_before > distance)
                if len(places) == 0:
                    break
                yield np.stack((order[places], order[last[places] - distance]), axis=1)

    def rows_of(self, pairs: np.ndarray) -> np.ndarray:
        """Return pairs of rows for pairs of texts' numbers."""
        if self._earlier is None:
            return np.asarray(self._later.rows[pairs])
        first = self._later.rows[pairs[:, 0] - len(self._earlier.rows)]
        return np.asarray(np.stack((first, self._earlier.rows[pairs[:, 1]]), axis=1))

    def _met(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the texts in order of one band's numbers, where each one's earlier fellows end, and how many they are."""
        keys = self._later.band(number)
        n_earlier = 0
        if self._earlier is not None:
            n_earlier = len(self._earlier.rows)
            keys = np.concatenate((self._earlier.band(number), keys))
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        is_first = np.concatenate(([True], ordered[1:] != ordered[:-1]))[: len(ordered)]
        places = np.arange(len(ordered))
        start = np.maximum.accumulate(np.where(is_first, places, 0))
        if self._earlier is None:
            return order, places - 1, places - start
        group = np.cumsum(is_first) - 1
        is_later = order >= n_earlier
        n_before = np.bincount(group[~is_later], minlength=int(group[-1]) + 1 if len(group) else 0)[group]
        return order, start + n_before - 1, np.where(is_later, n_before, 0)


def _compared(later: Sketch, earlier: Sketch | None, pairs: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the Jaccard similarity of pairs of texts, reading them a block at a time: [pairs] float64."""
    block_of = np.cumsum(sizes[pairs].sum(axis=1)) // _BLOCK_SHINGLES
    borders = set((np.flatnonzero(np.diff(block_of)) + 1).tolist()) | set(range(0, len(pairs), _BLOCK_PAIRS))
    edges = [*sorted(borders), len(pairs)]
    found = np.empty(len(pairs))
    for start, stop in itertools.pairwise(edges):
        numbers, local = np.unique(pairs[start:stop], return_inverse=True)
        found[start:stop] = jaccard(_texts(later, earlier, numbers), local.reshape(-1, 2))
    return found


def _texts(later: Sketch, earlier: Sketch | None, numbers: np.ndarray) -> list[list[str]]:
    """Return the folded texts of each column; `numbers` are sorted."""
    n_earlier = 0 if earlier is None else len(earlier.rows)
    columns: list[list[str]] = []
    for sketch, wanted in ((earlier, numbers[numbers < n_earlier]), (later, numbers[numbers >= n_earlier] - n_earlier)):
        if sketch is None:
            continue
        for _, texts in in_groups(sketch.examples, sketch.rows[wanted]):
            columns = columns or [[] for _ in texts]
            for column, more in zip(columns, texts, strict=True):
                column.extend(more)
    return columns


def _sorted(found: NearPairs) -> NearPairs:
    order = np.argsort(found.rows[:, 0], kind="stable")
    return NearPairs(found.rows[order], found.jaccard[order], found.is_complete)
