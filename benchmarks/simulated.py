"""What every simulation of `interval_coverage.py` stands on: regimes, tallies, and the resamples that Headrace itself takes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy.stats import norm

from headrace.intervals import counts_of, resampled_rows

ROWS = (200, 1_000, 10_000)
ACCURACIES = (0.5, 0.9, 0.98)
AREAS = (0.7, 0.9, 0.98)
POSITIVES = (20, 100)
RESAMPLES = 1_000
#: Of a promise that may be broken with a probability of 0.1.
BROKEN = "broken promises"
BANDS = {"coverage": (0.93, 0.97), "false differences": (0.035, 0.065), "power": (0.77, 0.83), BROKEN: (0.0, 0.1)}
CELLS = 4_000_000  # of data in memory at once


@dataclass
class Tally:
    """Counts over the draws of a regime; `notes` are further numbers of a method's line."""

    truth: float = 0.0
    counts: dict[str, list[int]] = field(default_factory=dict)
    notes: dict[str, dict[str, float]] = field(default_factory=dict)

    def span(self, method: str, span: tuple[float | None, float | None] | None, truth: float | None = None) -> None:
        """Count an interval: it holds the truth (its own, if each draw has another), lies below, lies above, or is none."""
        kind, wanted = 3, self.truth if truth is None else truth
        if span is not None and span[0] is not None and span[1] is not None:
            kind = 1 if span[1] < wanted else 2 if span[0] > wanted else 0
        self.counts.setdefault(method, [0, 0, 0, 0])[kind] += 1

    def rejected(self, method: str, p_value: float | None) -> None:
        """Count a test: it rejects, or not."""
        self.met(method, p_value is not None and p_value < 0.05)

    def met(self, method: str, is_met: bool) -> None:
        """Count a draw in which what is asked about came about, or not."""
        self.counts.setdefault(method, [0, 0])[0 if is_met else 1] += 1


@dataclass(frozen=True)
class Regime:
    """What is simulated: `figure` is one of `BANDS`."""

    figure: str
    of: str
    settings: dict
    run: Callable[[np.random.Generator, int], Tally]
    required: bool

    @property
    def name(self) -> str:
        return f"{self.figure} of {self.of}: " + ", ".join(f"{key} {value:,}" for key, value in self.settings.items())

    def lines(self, draws: int) -> Iterator[dict]:
        """Yield a record for each method."""
        tally = self.run(np.random.default_rng(zlib.crc32(self.name.encode())), draws)
        for method, counts in tally.counts.items():
            figure = "coverage" if len(counts) == 4 else self.figure
            low, high = BANDS[figure]
            total = sum(counts[:3])
            share = counts[0] / total if total else math.nan
            required = self.required and "(before)" not in method
            line = {"figure": figure, "of": self.of, "method": method, **self.settings, "draws": sum(counts)}
            line |= {"share": share, "required": required, "within": bool(low <= share <= high)}
            if len(counts) == 4:
                line |= {"below": counts[1] / total, "above": counts[2] / total, "none": counts[3]} if total else {}
            yield line | tally.notes.get(method, {})


def regime(figure: str, of: str, run: Callable[..., Tally], *, required: bool, **settings: float) -> Regime:
    return Regime(figure, of, settings, lambda random, draws: run(random, draws, **settings), required)


@lru_cache(maxsize=2)
def resample_counts(n: int) -> np.ndarray:
    """Return [rows, resamples] float32: how often each row stands in each of Headrace's resamples of n rows."""
    return np.concatenate([counts_of(drawn) for drawn in resampled_rows(n, resamples=RESAMPLES, seed=0)], axis=1)


def chunks(draws: int, n: int) -> Iterator[int]:
    size = max(1, CELLS // n)
    for start in range(0, draws, size):
        yield min(size, draws - start)


def two(random: np.random.Generator, shape: tuple[int, ...], correlation: float) -> np.ndarray:
    """Return [2, …] standard normal values of this correlation."""
    common = random.normal(size=shape)
    return math.sqrt(correlation) * common + math.sqrt(1 - correlation) * random.normal(size=(2, *shape))


def slope_of(accuracy: float) -> float:
    """How sure the classifier is: right in the mean where it is good, too sure of itself where it is not."""
    return max(2.0 * float(norm.ppf(accuracy)), 1.0)


def f1_of(true: np.ndarray, said: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """Return the macro F1 of two labels: of [data sets, rows], float64 [data sets] or [data sets, resamples]."""
    n = true.shape[1]
    cells = [(true & said), said, true]
    hits, decided, support = (c.sum(1) if counts is None else c.astype(np.float32) @ counts for c in cells)
    second = np.divide(2 * hits, decided + support, out=np.zeros(hits.shape), where=decided + support > 0)
    first = 2 * (n - decided - support + hits) / (2 * n - decided - support)
    return 0.5 * (second + first)
