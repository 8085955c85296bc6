"""How much each row moves an estimate.

The sum of an estimate's influence values is about its error, so the sum of their squares is its variance, and the sum
of the products of two estimates' values on the same rows is their covariance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headrace.intervals.spans import DELONG, HALL
from headrace.metrics import LabelCounts, Ranking


def mean_influence(values: np.ndarray) -> np.ndarray:
    """Return the influence values of the mean of [rows] values; their squares sum to its unbiased variance."""
    n = len(values)
    return np.asarray((values - values.mean()) / math.sqrt(n * max(n - 1, 1)))


@dataclass(frozen=True)
class Area:
    """The area under a curve of one label, or the mean over labels, with what its variance is made of.

    Attributes:
        value: Of the ROC curve: the chance that a row with the label scores above one without it, half for a tie. Of the
            curve of precision over recall: the average precision.
        influence: float64 [rows]. The sum of squares is DeLong's variance, and the sum of products with another
            score's values on the same rows is DeLong's covariance.
        df: Degrees of freedom of the variance: of the ROC AUC by Satterthwaite, of rows with and rows without the label.
        method: How an interval made of it is called.
    """

    value: float
    influence: np.ndarray
    df: float
    method: str = DELONG

    @classmethod
    def of(cls, has_label: np.ndarray, scores: np.ndarray) -> Area:
        """Compute the area of bool [rows] and [rows]; both kinds of rows must be there.

        A row's placement is the share of rows of the other kind that it is ranked right against. All come from
        sorting once, O(n log n), instead of from all pairs.

        Source: E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, "Comparing the areas under two or more correlated
            receiver operating characteristic curves: a nonparametric approach", Biometrics 44 (1988), 837-845;
            X. Sun and W. Xu, "Fast implementation of DeLong's algorithm", IEEE Signal Processing
            Letters 21 (2014), 1389-1393, whose mid-ranks equal the two searches here.
        """
        with_label, without = scores[has_label], scores[~has_label]
        above = _share_below(np.sort(without), with_label)
        below = 1.0 - _share_below(np.sort(with_label), without)
        value = float(above.mean())
        influence = np.empty(len(scores))
        influence[has_label], influence[~has_label] = mean_influence(above), mean_influence(below)
        parts = [float(np.sum(influence[kind] ** 2)) for kind in (has_label, ~has_label)]
        freedom = [max(len(with_label) - 1, 1), max(len(without) - 1, 1)]
        spent = sum(part**2 / free for part, free in zip(parts, freedom, strict=True))
        return cls(value, influence, sum(parts) ** 2 / spent if spent > 0 else float(min(freedom)))

    @classmethod
    def of_precision(cls, has_label: np.ndarray, scores: np.ndarray) -> Area:
        """Compute the average precision of bool [rows] and [rows]; at least one row must have the label.

        The rarer kind of rows decides how well its variance is known.
        """
        areas = Ranking.of(has_label, scores).areas(np.ones((len(scores), 1)))
        rarer = min(int(has_label.sum()), int((~has_label).sum()))
        influence = average_precision_influence(has_label, scores)
        return cls(float(areas[1][0]), influence, float(max(rarer - 1, 1)), HALL)


def _share_below(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return which share of the ordered scores lies below each value, equal ones counted half."""
    places = ordered.searchsorted(values, "left") + ordered.searchsorted(values, "right")
    return np.asarray(places / (2.0 * len(ordered)))


def mean_area(areas: Sequence[Area]) -> Area:
    """Return the mean of some labels' areas on the same rows; its freedom is that of the label with the least."""
    value = float(np.mean([area.value for area in areas]))
    influence = np.mean([area.influence for area in areas], axis=0)
    return Area(value, influence, min(area.df for area in areas), areas[0].method)


def f1_influence(true: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Return float64 [rows, labels]: the influence values of each label's F1, NaN where it has none.

    Args:
        true: bool [rows, labels].
        said: bool [rows, labels], the decided labels.
    """
    counts = LabelCounts((true & said).sum(axis=0), said.sum(axis=0), true.sum(axis=0))
    total = (counts.decided + counts.support).astype(np.float64)
    moved = 2.0 * (true & said) - counts.f1() * (said.astype(np.float64) + true)
    return np.asarray(np.divide(moved, total, out=np.full(true.shape, np.nan), where=total != 0))


def average_precision_influence(has_label: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return float64 [rows]: the influence values of one label's average precision; it needs a row with the label.

    A row moves the precision at every distinct score down from its own, and a row with the label also brings in its
    own precision.

    Args:
        has_label: bool [rows].
        scores: [rows].
    """
    order = np.argsort(-scores, kind="stable")
    ordered, hit = scores[order], has_label[order].astype(np.float64)
    starts = np.flatnonzero(np.diff(ordered, prepend=np.nan) != 0)
    hits_in = np.add.reduceat(hit, starts)
    rows_so_far = np.append(starts[1:], len(ordered)).astype(np.float64)
    precision = np.cumsum(hits_in) / rows_so_far
    n_hits = float(hit.sum())
    value = float((hits_in * precision).sum()) / n_hits
    # by a row more at each score: the precision there moves by (hit - precision) / rows so far
    from_here = np.cumsum((hits_in / rows_so_far)[::-1])[::-1]
    lost_from_here = np.cumsum((hits_in * precision / rows_so_far)[::-1])[::-1]
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(ordered))))
    moved = hit * (precision - value)[group] + hit * from_here[group] - lost_from_here[group]
    found = np.empty(len(scores))
    found[order] = moved / n_hits
    return found
