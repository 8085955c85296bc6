"""What token counts tell before training: how long texts are, what the cut takes, and how much would be padding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

#: Aimed at; the width of a bin is rounded up to a power of two.
N_BINS = 20
# The few longest texts would squeeze all others into the first bins: they share the last one.
_HISTOGRAM_QUANTILE = 0.99
#: Share of the texts that a suggested length keeps whole.
WHOLE_SHARE = 0.95
#: A suggested length is a multiple of it.
LENGTH_STEP = 32
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")


@dataclass(frozen=True)
class Histogram:
    """Texts by length.

    Attributes:
        edges: [bins + 1] tokens; bin i holds the texts of edges[i] to edges[i + 1] - 1 tokens. All bins but the last
            are equally wide; the last one reaches beyond the longest text.
        counts: [bins] texts.
    """

    edges: list[int]
    counts: list[int]


@dataclass(frozen=True)
class Lengths:
    """How long the texts of a split are, in tokens before the cut, special tokens included.

    Attributes:
        mean: Tokens; 0 without texts, as are the next three.
        median: Tokens.
        p95: Tokens; 95 % of the texts are no longer.
        longest: Tokens.
        cut_share: Share of the texts that are longer than `data.max_length`, in [0, 1].
        tokens_cut_share: Share of all tokens that the cut takes away, in [0, 1].
        unknown_share: Share of the tokens kept that the vocabulary lacks, in [0, 1].
        histogram: Texts by length; its edges are the same for all splits of a data set.
    """

    mean: float
    median: int
    p95: int
    longest: int
    cut_share: float
    tokens_cut_share: float
    unknown_share: float
    histogram: Histogram


@dataclass(frozen=True)
class Padding:
    """How much of what is computed would be padding, as shares of all token positions, in [0, 1].

    Where an encoder lays texts end to end (in training on a CPU, if its family can), its token-wise work has none.

    Attributes:
        to_max_length: If each text were padded to `data.max_length`.
        to_longest: If the texts of each step, drawn at random, were padded to the longest of them.
        in_micro_batches: With the recipe's sampler, and each step cut into micro-batches of like length as on a CPU; a
            GPU computes a step in one piece, or in pieces of `fit.micro_batch` texts.
        avoided_of_max_length: Share of the positions of `to_max_length` that micro-batches do not compute.
        avoided_of_longest: Share of the positions of `to_longest` that micro-batches do not compute; below 0 where they
            compute more.
        n_steps: Steps from the first on that were looked at.
    """

    to_max_length: float
    to_longest: float
    in_micro_batches: float
    avoided_of_max_length: float
    avoided_of_longest: float
    n_steps: int


def histogram_edges(lengths: np.ndarray) -> list[int]:
    """Return the edges of about 20 bins for texts of these lengths.

    The bins are a power of two wide, so that usual values of `data.max_length` are edges. They reach to the 99th
    percentile; the last one holds all longer texts.

    Args:
        lengths: [texts] tokens; none give one bin.
    """
    if not len(lengths):
        return [0, 1]
    longest = int(np.max(lengths))
    usual = max(1, int(np.ceil(np.quantile(lengths, _HISTOGRAM_QUANTILE))))
    width = 1
    while width * N_BINS < usual:
        width *= 2
    edges = list(range(0, usual + 1, width))
    return [*edges, max(longest + 1, edges[-1] + width)]


def lengths_of(full: np.ndarray, kept: np.ndarray, n_unknown: np.ndarray, *, edges: list[int]) -> Lengths:
    """Return how long the texts of a split are.

    Args:
        full: [texts] tokens before the cut.
        kept: [texts] tokens after it.
        n_unknown: [texts] unknown tokens among those kept.
        edges: Of the histogram; longer texts than the last edge count in the last bin.
    """
    full, kept = np.asarray(full, dtype=np.int64), np.asarray(kept, dtype=np.int64)
    n_full, n_kept = int(full.sum()), int(kept.sum())
    counts, _ = np.histogram(np.minimum(full, edges[-1] - 1), bins=edges)
    some = full if len(full) else np.zeros(1, dtype=np.int64)
    return Lengths(
        mean=round(float(some.mean()), 1),
        median=int(np.median(some)),
        p95=int(np.percentile(some, 95)),
        longest=int(some.max()),
        cut_share=_share(int((full > kept).sum()), len(full)),
        tokens_cut_share=_share(n_full - n_kept, n_full),
        unknown_share=_share(int(np.sum(n_unknown)), n_kept, digits=6),
        histogram=Histogram(list(edges), counts.tolist()),
    )


def suggested_length(full: np.ndarray, *, limit: int | None = None) -> int:
    """Return the smallest multiple of 32 tokens that keeps 95 % of the texts whole.

    Args:
        full: [texts] tokens before the cut, special tokens included; none give 32.
        limit: What the backbone takes at most, in tokens; never exceeded.
    """
    # The smallest length that occurs of which at least 95 % of the texts are no longer: nothing is interpolated.
    needed = int(np.quantile(full, WHOLE_SHARE, method="inverted_cdf")) if len(full) else 1
    rounded = max(LENGTH_STEP, -(-needed // LENGTH_STEP) * LENGTH_STEP)
    return rounded if limit is None else min(rounded, limit)


def padding_of(
    lengths: np.ndarray,
    *,
    random_steps: Iterable[np.ndarray],
    batches: Iterable[np.ndarray],
    max_length: int,
) -> Padding:
    """Return what padding would cost in three ways of making batches.

    Args:
        lengths: [rows] tokens of each row after the cut.
        random_steps: The rows of each step, drawn at random.
        batches: The rows of each batch that is computed in one piece, over as many steps.
        max_length: Tokens kept of a text.
    """
    random_steps, batches = list(random_steps), list(batches)
    n_real, n_longest = _positions(lengths, random_steps)
    n_batched_real, n_batched = _positions(lengths, batches)
    n_texts = sum(map(len, random_steps))
    # Real tokens a position, compared: the steps of another sampler need not hold the same texts.
    of_max, of_longest = _ratio(n_real, n_texts * max_length), _ratio(n_real, n_longest)
    dense = _ratio(n_batched_real, n_batched)
    return Padding(
        to_max_length=round(1 - of_max, 4),
        to_longest=round(1 - of_longest, 4),
        in_micro_batches=round(1 - dense, 4),
        avoided_of_max_length=round(1 - of_max / dense, 4),
        avoided_of_longest=round(1 - of_longest / dense, 4),
        n_steps=len(random_steps),
    )


def padding_share(lengths: np.ndarray) -> float:
    """Return the share of positions that are padding if these texts are padded to the longest, in [0, 1).

    Args:
        lengths: [texts] tokens; none give 0.
    """
    if not len(lengths):
        return 0.0
    return round(1 - _ratio(int(np.sum(lengths)), len(lengths) * int(np.max(lengths))), 4)


def bars(histogram: Histogram, *, max_length: int | None, key: str = "data.max_length", width: int = 40) -> list[str]:
    """Return the histogram as lines of text, with a line where `max_length` cuts.

    Args:
        histogram: Texts by length.
        max_length: Tokens kept; its line stands before the first bin of longer texts alone. None for no cut.
        key: The recipe's key for it.
        width: Characters of the longest bar.
    """
    largest = max([*histogram.counts, 1])
    bins = list(zip(histogram.edges[:-1], histogram.edges[1:], strict=True))
    names = [f"{low:,} to {high - 1:,}" if high - low > 1 else f"{low:,}" for low, high in bins]
    left = max(map(len, names))
    lines, is_marked = [], False
    for name, (low, _), count in zip(names, bins, histogram.counts, strict=True):
        if max_length is not None and low > max_length - 1 and not is_marked:
            is_marked = True
            lines.append(f"{'':>{left}}  ---- cut here: {key} {max_length:,} ----")
        eighths = max(round(8 * width * count / largest), int(count > 0))
        bar = "█" * (eighths // 8) + _EIGHTHS[eighths % 8]
        lines.append(f"{name:>{left}}  {bar} {count:,}".rstrip())
    return lines


def _positions(lengths: np.ndarray, batches: list[np.ndarray]) -> tuple[int, int]:
    """Return real tokens and computed positions of these batches."""
    found = [np.asarray(lengths, dtype=np.int64)[rows] for rows in batches if len(rows)]
    return sum(int(one.sum()) for one in found), sum(len(one) * int(one.max()) for one in found)


def _ratio(part: int, whole: int) -> float:
    return part / whole if part and whole else 1.0


def _share(part: int, whole: int, *, digits: int = 4) -> float:
    return round(part / whole, digits) if whole else 0.0
