"""Do scores mean what they say: reliability by bins, expected calibration error and Brier score, with intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from headrace.evaluate import Interval, mean_interval
from headrace.intervals import HALL, MIN_ROWS, TAILS, hall, wilson
from headrace.metrics import one_column_per_label, row_losses

N_BINS = 15
_NOISE_DRAWS = 2000


@dataclass(frozen=True)
class Claims:
    """Claims that can be right or wrong: what calibration is measured on.

    Single label: one claim a row, that the label with the highest score is right (top label). Multi-label: one claim for
    each row and label, that the row has the label; all labels are pooled.

    Attributes:
        scores: float64 [rows, claims of a row].
        holds: bool [rows, claims of a row].
    """

    scores: np.ndarray
    holds: np.ndarray

    @classmethod
    def of(cls, targets: np.ndarray, scores: np.ndarray) -> Claims:
        """Return the claims of `scores` [rows, labels]; `targets` int64 [rows] or 0/1 [rows, labels]."""
        if targets.ndim == 2:
            return cls(scores.astype(np.float64), targets != 0)
        best = scores.argmax(axis=1)
        top = scores[np.arange(len(scores)), best].astype(np.float64)
        return cls(top[:, None], (best == targets)[:, None])

    def bins(self, n_bins: int) -> np.ndarray:
        """Return the bin of each claim, int64 in its shape: as equal in size as equal scores allow, numbered from 0."""
        flat = self.scores.ravel()
        ordered = np.sort(flat)
        first = np.searchsorted(ordered, flat, side="left")
        return np.asarray(
            np.unique(first * n_bins // max(len(flat), 1), return_inverse=True)[1].reshape(self.scores.shape)
        )

    def bins_of_mass(self, n_bins: int) -> np.ndarray:
        """Return the bin of each claim, int64 in its shape: of about equal sums of scores, numbered from 0."""
        flat = self.scores.ravel()
        order = np.argsort(flat, kind="stable")
        before = np.empty(len(flat))
        before[order] = np.cumsum(flat[order]) - flat[order]
        # equal scores go with the first of them
        ordered = flat[order]
        first = order[np.searchsorted(ordered, flat, side="left")]
        total = max(float(flat.sum()), np.finfo(np.float64).tiny)
        bins = np.minimum((before[first] / total * n_bins).astype(np.int64), n_bins - 1)
        return np.asarray(np.unique(bins, return_inverse=True)[1].reshape(self.scores.shape))


def reliability(targets: np.ndarray, scores: np.ndarray, *, bins: int = N_BINS) -> list[dict[str, Any]]:
    """Return the reliability diagram: for bins of scores, what was claimed and what held.

    Single label: bins of equally many claims. Multi-label: bins in which the scores expect equally many labels; most of
    its claims are near 0, and bins of equally many would show all the others as one.

    Returns:
        From low to high scores, at most `bins` of: `low` and `high` score, `mean_score`, `share` of claims that held,
        `n` claims, `share_low` and `share_high` (Wilson's 95 % interval; in multi-label it takes the claims of a row as
        independent). No rows give an empty list.
    """
    claims = Claims.of(targets, scores)
    if claims.scores.size == 0:
        return []
    of_bin = (claims.bins_of_mass if targets.ndim == 2 else claims.bins)(bins).ravel()
    flat, holds = claims.scores.ravel(), claims.holds.ravel()
    found = []
    for number in range(int(of_bin.max()) + 1):
        inside = of_bin == number
        n, n_held = int(inside.sum()), int(holds[inside].sum())
        span = wilson(n_held, n) or (0.0, 1.0)
        found.append(
            {
                "low": float(flat[inside].min()),
                "high": float(flat[inside].max()),
                "mean_score": float(flat[inside].mean()),
                "share": n_held / n,
                "n": n,
                "share_low": span[0],
                "share_high": span[1],
            }
        )
    return found


def calibration_measures(targets: np.ndarray, scores: np.ndarray, *, bins: int = N_BINS) -> dict[str, Interval]:
    """Return `ece`, `brier` and `log_loss` with 95 % intervals; see each function, and `metrics.log_loss`.

    Args:
        targets: int64 [rows] or 0/1 [rows, labels].
        scores: [rows, labels] in [0, 1].
        bins: Of the ECE.
    """
    if len(targets) == 0:
        return {name: Interval(None, note="there are no rows") for name in ("ece", "brier", "log_loss")}
    return {
        "ece": ece_interval(*binned_gaps(Claims.of(targets, scores), bins)),
        "brier": brier(targets, scores),
        "log_loss": mean_interval(row_losses(targets, scores), (0.0, np.inf)),
    }


def ece(targets: np.ndarray, scores: np.ndarray, *, bins: int = N_BINS) -> Interval:
    """Return the expected calibration error: the mean over claims of |mean score - share that held| of their bin.

    Bins hold equally many claims, equal scores always together. Single label: top label. Multi-label: all labels
    pooled. The value is never below 0, so noise alone lifts it; `note` says what exact probabilities would show on these
    rows. The interval is that of `ece_interval`.

    Args:
        targets: int64 [rows] or 0/1 [rows, labels].
        scores: [rows, labels] in [0, 1].
        bins: How many.

    Source: Guo et al. 2017, arXiv 1706.04599, equation 3, with the bins of equal mass of Nguyen and O'Connor 2015,
        arXiv 1508.05154, section 3.1. That the binned estimate is too high: Roelofs et al. 2022, arXiv 2012.08668; what
        exact probabilities would show: Bröcker and Smith 2007, "Increasing the Reliability of Reliability Diagrams".
    """
    return calibration_measures(targets, scores, bins=bins)["ece"]


def brier(targets: np.ndarray, scores: np.ndarray) -> Interval:
    """Return the Brier score with the interval of a mean over rows (`headrace.intervals.hall`).

    Single label: the mean over rows of the sum over labels of (score - truth)^2, 0 to 2, as Brier defined it (twice the
    usual number for two labels). Multi-label: the mean over rows and labels of (score - truth)^2, 0 to 1.

    Args:
        targets: int64 [rows] or 0/1 [rows, labels].
        scores: [rows, labels] in [0, 1].

    Source: Brier 1950, "Verification of Forecasts Expressed in Terms of Probability", equation 2.
    """
    return mean_interval(_row_briers(targets, scores), (0.0, 1.0 if targets.ndim == 2 else 2.0))


def compared(targets: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """Return `ece`, `brier`, `log_loss` (as `Interval.as_dict`) and `reliability`, as report.json shows them."""
    shown: dict[str, Any] = {name: one.as_dict() for name, one in calibration_measures(targets, scores).items()}
    return {**shown, "reliability": reliability(targets, scores)}


def _row_briers(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    truth = one_column_per_label(targets, scores.shape[1])
    squares = (scores.astype(np.float64) - truth) ** 2
    return np.asarray(squares.mean(axis=1) if targets.ndim == 2 else squares.sum(axis=1))


def binned_gaps(claims: Claims, n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's part of each bin's gap, and what exact probabilities would show.

    Returns:
        float64 [rows, bins]: mean over the row's claims of (score - held), by bin; summed over rows and made absolute it
        is a bin's part of the ECE times the rows. And float64 [draws]: the ECE times the rows if each claim held
        with the probability of its score, independently, by the normal approximation in each bin.
    """
    of_bin = claims.bins(n_bins)
    n_rows, n_claims = claims.scores.shape
    n_found = int(of_bin.max(initial=-1)) + 1
    cells = (np.arange(n_rows)[:, None] * n_found + of_bin).ravel()
    gaps = np.bincount(cells, weights=(claims.scores - claims.holds).ravel() / n_claims, minlength=n_rows * n_found)
    spread = np.bincount(of_bin.ravel(), weights=(claims.scores * (1 - claims.scores)).ravel(), minlength=n_found)
    chance = np.abs(_normals(n_found) * np.sqrt(np.maximum(spread, 0.0)) / n_claims).sum(axis=1)
    return gaps.reshape(n_rows, n_found), chance


@lru_cache(maxsize=4)
def _normals(n_bins: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((_NOISE_DRAWS, n_bins))


def ece_interval(gaps: np.ndarray, chance: np.ndarray) -> Interval:
    """Return the ECE and its interval from what `binned_gaps` gives.

    A sum of absolute values has two troubles. Noise lifts it, by how much depends on the true gaps, which nobody knows;
    and a model with few, large errors gives a skewed estimate. So

    - the lift is that of noise with the rows' own covariance, added to gaps that were shrunk by the noise in them. It is
      taken off the lower end alone: the upper end need not go down for a lift that may be smaller;
    - the skew is taken out of either end as it is of a mean (`intervals.hall`), with the rows' pull on the sum;
    - the lower end is 0 if exact probabilities would show such a value in 97.5 % of draws.

    The interval always holds the value.

    Args:
        gaps: float64 [rows, bins].
        chance: float64 [draws].
    """
    n_rows = len(gaps)
    total = gaps.sum(axis=0)
    value = float(np.abs(total).sum())
    if n_rows < MIN_ROWS:
        return Interval(value / n_rows, note=f"no interval from fewer than {MIN_ROWS} rows")
    apart = (gaps - total / n_rows) * math.sqrt(n_rows / (n_rows - 1))
    covariance = apart.T @ apart
    variance = np.diag(covariance)
    squares, axes = np.linalg.eigh(covariance)
    noise = _normals(len(total)) @ (axes * np.sqrt(np.maximum(squares, 0.0))).T
    noise_share = min(float(variance.sum() / max((total**2).sum(), 1e-12)), 1.0)
    lift, spread_below = _folded(np.sqrt(np.maximum(total**2 - noise_share * variance, 0.0)), noise)
    pull = apart @ np.where(total < 0, -1.0, 1.0)
    pull /= max(float(np.sqrt(np.sum(pull**2))), 1e-12)
    below = hall(value - lift, pull * spread_below, df=n_rows - 1)
    above = hall(value, pull * _folded(np.abs(total), noise)[1], df=n_rows - 1, bounds=(0.0, n_rows))
    if below is None or above is None:
        return Interval(value / n_rows, note="no interval: all rows have the same gap")
    low = 0.0 if value <= np.percentile(chance, TAILS[1]) else min(below[0], value)
    note = f"exact probabilities would show about {float(chance.mean()) / n_rows:.4f} on these rows"
    return Interval(value / n_rows, low / n_rows, max(above[1], value) / n_rows, method=HALL, note=note)


def _folded(gaps: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
    """Return how far noise lifts the sum of the gaps' absolute values, and the sum's standard deviation."""
    drawn = np.abs(gaps + noise).sum(axis=1)
    return float(drawn.mean() - gaps.sum()), float(drawn.std())
