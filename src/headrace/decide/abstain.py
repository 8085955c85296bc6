"""Abstention: the confidence below which the answer is "not sure", so that the other answers keep an error rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.evaluation import Interval
from headrace.intervals import WILSON, wilson

METHOD = "learn then test: fixed-sequence testing with exact binomial p-values (Angelopoulos et al. 2021)"
CURVE_POINTS = 100
#: Thresholds that are tried, at most: their number costs no error rate, only time.
_MAX_CANDIDATES = 1000
#: More validation rows than this are never named as "needed".
_MOST_ROWS = 100_000_000


def confidence_of(scores: np.ndarray, thresholds: Sequence[float] | np.ndarray | None = None) -> np.ndarray:
    """Return how sure the answer of each row is, [rows], 0.5 to 1 (single label: 1 / labels to 1).

    Single label (`thresholds` is None): the highest score. Multi-label: each label's distance from its threshold, as a
    share of the room on that side, d = (score - t) / (1 - t) or (t - score) / t; the confidence is 0.5 + 0.5 x the smallest
    d. At a threshold of 0.5 that is the smaller one of max(score, 1 - score).

    Args:
        scores: [rows, labels] in [0, 1].
        thresholds: Of multi-label: one per label, or [rows, labels].
    """
    if thresholds is None:
        return np.asarray(scores.max(axis=1).astype(np.float64))
    values, limits = scores.astype(np.float64), np.broadcast_to(np.asarray(thresholds, dtype=np.float64), scores.shape)
    above = values >= limits
    room = np.where(above, 1.0 - limits, limits)
    far = np.divide(np.abs(values - limits), room, out=np.zeros_like(values), where=room > 0)
    return np.asarray(0.5 + 0.5 * far.min(axis=1, initial=1.0))


@dataclass(frozen=True)
class Certificate:
    """Whether a threshold of confidence keeps an error rate, and how sure that is.

    Attributes:
        threshold: Answers with less confidence are "not sure"; None if no threshold could be certified.
        n_rows: Rows that certified it (not those that chose the candidates).
        n_answered, n_wrong: Of those, rows at or above the threshold, and how many of these were wrong.
        reason: Why there is none, with the number of rows that would be needed; empty if there is one.
    """

    threshold: float | None
    n_rows: int
    n_answered: int = 0
    n_wrong: int = 0
    reason: str = ""


def fewest_rows(error_rate: float, delta: float) -> int:
    """Return how many answered rows without one error certify the rate: the smallest m with (1 - r)^m <= delta."""
    return max(math.ceil(math.log(delta) / math.log1p(-error_rate)), 1)


def certify(
    confidence: np.ndarray,
    is_wrong: np.ndarray,
    *,
    scout: np.ndarray,
    error_rate: float,
    certainty: float = 0.9,
) -> Certificate:
    """Return the lowest threshold of confidence that keeps the error rate, with a finite-sample guarantee.

    The guarantee: with a chance of at least `certainty` over the drawing of the certifying rows, at most a share
    `error_rate` of the answers at or above the threshold is wrong, on new rows of the same kind. It asks for nothing but
    independent rows of one distribution; neither for a calibrated model nor for an error that falls with the
    confidence. It says nothing of single labels or slices, nor of other data. And the chance counts the draws that give no
    threshold as kept promises: where a certificate is a rare stroke of luck, the few that are given may mostly be wrong.

    The scout rows alone pick the candidates: their own confidences, downwards from the one that looks surest to be
    certified. The other rows test them in this order: of the m rows at or above a candidate k are wrong, and
    p = P(Binomial(m, error_rate) <= k) must not exceed 1 - certainty; the last candidate before the first failure is taken.
    Given m, k is binomial with the true risk, so the first candidate whose risk is too high passes with a chance of at
    most 1 - certainty; it must pass before anything wrong can be taken. So the tests need no correction for their number,
    as a union bound over the candidates does (Geifman and El-Yaniv 2017); the price is that a start with bad luck ends all.

    Args:
        confidence: [rows]; a function of the row that the certifying rows had no part in.
        is_wrong: bool [rows], of the answers; the answers' rule is fixed in the same sense.
        scout: bool [rows]; the rows that pick the candidates (those that fitted the calibration, where there is one).
        error_rate: Wished share of wrong answers, above 0 and below 1.
        certainty: 1 - delta, above 0 and below 1.

    Source: Angelopoulos, Bates, Candès, Jordan and Lei 2021, "Learn then Test", arXiv 2110.01052, section 2.3 and
        proposition 3 (fixed-sequence testing); selective risk and its binomial tail: Geifman and El-Yaniv 2017, "Selective
        Classification for Deep Neural Networks", arXiv 1705.08500, lemma 3.1. The start from scout rows is ours.
    """
    delta = 1.0 - certainty
    own, wrong = confidence[~scout], is_wrong[~scout]
    if len(own) < fewest_rows(error_rate, delta) or not scout.any():
        reason = (
            f"{len(own)} rows cannot certify it: {fewest_rows(error_rate, delta)} answers without an error are needed"
        )
        return Certificate(None, len(own), reason=reason)
    candidates = _candidates(confidence[scout], is_wrong[scout], n_rows=len(own), error_rate=error_rate)
    answered, errors = _counts_above(own, wrong, candidates)
    failed = np.flatnonzero(_p_values(answered, errors, error_rate) > delta)
    n_passed = int(failed[0]) if len(failed) else len(candidates)
    if n_passed == 0:
        needed = _needed_rows(confidence, is_wrong, error_rate=error_rate, delta=delta)
        return Certificate(None, len(own), reason=_why_none(needed, len(confidence), error_rate, certainty))
    last = n_passed - 1
    return Certificate(float(candidates[last]), len(own), int(answered[last]), int(errors[last]))


def risk_coverage(
    confidence: np.ndarray, is_wrong: np.ndarray, *, points: int = CURVE_POINTS
) -> list[dict[str, float]]:
    """Return the risk-coverage curve: `threshold`, `coverage` (share answered) and `risk` (share of these wrong).

    At most `points` of them, from few to all rows answered; the last is a coverage of 1. No rows give an empty list.
    """
    if len(confidence) == 0:
        return []
    thresholds = _downwards(confidence, points)
    answered, errors = _counts_above(confidence, is_wrong, thresholds)
    return [
        {"threshold": float(t), "coverage": int(m) / len(confidence), "risk": int(k) / int(m)}
        for t, m, k in zip(thresholds, answered, errors, strict=True)
    ]


def coverage_and_error(confidence: np.ndarray, is_wrong: np.ndarray, threshold: float) -> tuple[Interval, Interval]:
    """Return the share of rows answered, and the share of the answered that is wrong, with Wilson's intervals."""
    is_answered = confidence >= threshold
    n_answered = int(is_answered.sum())
    coverage = _share(n_answered, len(confidence), "there are no rows")
    return coverage, _share(int(is_wrong[is_answered].sum()), n_answered, "no row was answered")


def _share(n: int, n_of: int, why_none: str) -> Interval:
    span = wilson(n, n_of)
    return Interval(None, note=why_none) if span is None else Interval(n / n_of, *span, method=WILSON)


def _downwards(confidence: np.ndarray, most: int) -> np.ndarray:
    """Return distinct confidences from high to low, at most `most`, at about equal steps of coverage, the lowest last."""
    ordered = np.sort(confidence)[::-1]
    steps = np.unique(np.ceil(np.linspace(0, len(ordered), most + 1)[1:]).astype(np.int64)) - 1
    return np.asarray(np.unique(ordered[steps])[::-1])


def _counts_above(
    confidence: np.ndarray, is_wrong: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return int64 [thresholds] twice: rows at or above each threshold, and how many of them are wrong."""
    order = np.argsort(confidence, kind="stable")
    below = np.searchsorted(confidence[order], thresholds, side="left")
    wrong_from = np.append(np.cumsum(is_wrong[order][::-1].astype(np.int64))[::-1], 0)
    return len(confidence) - below, wrong_from[below]


def _p_values(n: np.ndarray, k: np.ndarray, error_rate: float) -> np.ndarray:
    """Return P(Binomial(n, error_rate) <= k), float64; 1 for no rows."""
    from scipy.special import bdtr

    return np.asarray(np.where(n > 0, bdtr(k.astype(np.float64), np.maximum(n, 1), error_rate), 1.0))


def _candidates(confidence: np.ndarray, is_wrong: np.ndarray, *, n_rows: int, error_rate: float) -> np.ndarray:
    """Return the scout rows' confidences downwards, from where a test on `n_rows` rows promises the smallest p-value."""
    thresholds = _downwards(confidence, _MAX_CANDIDATES)
    answered, errors = _counts_above(confidence, is_wrong, thresholds)
    expected = np.round(answered / len(confidence) * n_rows).astype(np.int64)
    risk = (errors + 0.5) / (answered + 1)  # half an error more than seen: a few lucky rows promise little
    promised = _p_values(expected, np.ceil(risk * expected).astype(np.int64), error_rate)
    return np.asarray(thresholds[int(promised.argmin()) :])


def _needed_rows(confidence: np.ndarray, is_wrong: np.ndarray, *, error_rate: float, delta: float) -> int | None:
    """Return about how many rows in all would certify the rate at some threshold if the shares stay as they are."""
    thresholds = _downwards(confidence, CURVE_POINTS)
    answered, errors = _counts_above(confidence, is_wrong, thresholds)
    risk = (errors + 0.5) / (answered + 1)
    possible = risk < error_rate
    if not possible.any():
        return None
    risk, coverage = risk[possible], answered[possible] / len(confidence)
    n_rows = len(confidence)
    while n_rows < _MOST_ROWS:
        expected = np.floor(coverage * n_rows).astype(np.int64)
        if (_p_values(expected, np.ceil(risk * expected).astype(np.int64), error_rate) <= delta).any():
            return n_rows
        n_rows = math.ceil(n_rows * 1.1)
    return None


def _why_none(needed: int | None, n_rows: int, error_rate: float, certainty: float) -> str:
    wished = f"an error rate of {error_rate:g} at {certainty:.0%} certainty"
    if needed is None:
        return f"no threshold keeps {wished}: even the surest answers are wrong about as often, or more"
    # the tests may fail by bad luck on as many rows as should do
    about = max(needed, n_rows + max(n_rows // 2, 1))
    digits = -(len(str(about)) - 2)
    return f"{n_rows:,} rows do not certify {wished}; about {round(about, digits):,} validation rows would be needed"


def shown(certificate: Certificate, *, error_rate: float, certainty: float) -> dict[str, Any]:
    """Return what report.json keeps of a certificate: all but what is measured on the evaluated split."""
    return {
        "error_rate": error_rate,
        "confidence": certainty,
        "threshold": certificate.threshold,
        "method": METHOD,
        "reason": certificate.reason,
        "n_rows": certificate.n_rows,
        "n_answered": certificate.n_answered,
        "n_wrong": certificate.n_wrong,
    }
