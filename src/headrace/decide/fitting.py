"""Fits calibrations: a temperature for a single label, Platt's line or isotonic knots for each of several labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headrace.decide.calibration import (
    ISOTONIC,
    MAX_SLOPE,
    MIN_SLOPE,
    PLATT,
    TEMPERATURE,
    Calibration,
    logit,
    sigmoid,
    softmax,
)
from headrace.metrics import MULTI_LABEL, SINGLE_LABEL

#: A temperature outside of this says that the model is broken, not that it is over- or underconfident.
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
#: A label with fewer rows with it, or without it, keeps the model's own scores.
MIN_KIND = 5
#: Under so many rows in all, or of either kind of a label, its isotonic steps would be noise: it gets Platt's line.
#: Source: Niculescu-Mizil and Caruana 2005, "Predicting Good Probabilities With Supervised Learning", section 5: isotonic
#: calibration wins from about a thousand rows on.
ISOTONIC_MIN_ROWS, ISOTONIC_MIN_KIND = 1000, 50
_STEPS = 100
#: Two knots this far out make a line for all logits that a model gives.
_FAR = 1000.0
_IDENTITY = (1.0, 0.0)


def fit_calibration(method: str, logits: np.ndarray, targets: np.ndarray) -> Calibration:
    """Return the calibration of this method that fits best.

    Args:
        method: One of `calibration.METHODS` of the task.
        logits: [rows, labels], finite.
        targets: int64 [rows] (single label) or 0/1 [rows, labels].

    Raises:
        ValueError: The task has no such method.
    """
    values = np.asarray(logits, dtype=np.float64)
    task = MULTI_LABEL if targets.ndim == 2 else SINGLE_LABEL
    if method == TEMPERATURE:
        return Calibration(TEMPERATURE, task, {"temperature": fit_temperature(values, targets)})
    columns = [(values[:, i], targets[:, i] != 0) for i in range(values.shape[1])] if task == MULTI_LABEL else []
    if method == PLATT:
        lines = [fit_platt(x, y) for x, y in columns]
        parameters = {"slopes": tuple(a for a, _ in lines), "intercepts": tuple(b for _, b in lines)}
        return Calibration(PLATT, task, parameters)
    if method == ISOTONIC:
        return Calibration(ISOTONIC, task, {"knots": tuple(fit_isotonic(x, y) for x, y in columns)})
    return Calibration(method, task)


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Return the temperature with the smallest log loss, between `MIN_TEMPERATURE` and `MAX_TEMPERATURE`.

    A model that is right on all rows would get the temperature 0 and be sure of everything. So each target gives
    1 / (rows + 2) of its weight to the other labels, as if about one row more had been wrong; on many rows that
    changes nothing.

    Args:
        logits: float64 [rows, labels], at least two labels.
        targets: int64 [rows].

    Source: Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599, section
        4.2; the weight follows Platt 1999. We search in 1 / T, in which the loss is convex.
    """
    n_rows, n_labels = logits.shape
    centred = logits - logits.max(axis=1, keepdims=True)
    other = 1.0 / (n_rows + 2)
    own = centred[np.arange(n_rows), targets]
    rest = (centred.sum(axis=1) - own) / max(n_labels - 1, 1)
    wanted = float(((1 - other) * own + other * rest).mean())

    def derivatives(inverse: float) -> tuple[float, float]:
        shares = softmax(inverse * centred)
        means = (shares * centred).sum(axis=1)
        variances = (shares * centred**2).sum(axis=1) - means**2
        return float(means.mean()) - wanted, float(variances.mean())

    return 1.0 / _root(derivatives, 1.0, 1.0 / MAX_TEMPERATURE, 1.0 / MIN_TEMPERATURE)


def _root(derivatives: Callable[[float], tuple[float, float]], start: float, low: float, high: float) -> float:
    """Return where a rising function is 0, or the end where it comes nearest: Newton's steps, halving if one leaves.

    Args:
        derivatives: Returns the function's value and its slope.
        start: Between `low` and `high`.
        low: The lowest answer.
        high: The highest.
    """
    if derivatives(low)[0] >= 0:
        return low
    if derivatives(high)[0] <= 0:
        return high
    at = start
    for _ in range(_STEPS):
        value, slope = derivatives(at)
        low, high = (low, at) if value > 0 else (at, high)
        step = value / slope if slope > 0 else np.inf
        following = at - step if low < at - step < high else (low + high) / 2
        if abs(following - at) <= 1e-10 * max(1.0, abs(at)):
            return following
        at = following
    return at


def fit_platt(logits: np.ndarray, has_label: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of a label: its score is the sigmoid of slope x logit + intercept.

    The slope is kept between `MIN_SLOPE` and `MAX_SLOPE`, so the order of the scores stays. A label with fewer than
    `MIN_KIND` rows of either kind gets slope 1 and intercept 0.

    Args:
        logits: float64 [rows].
        has_label: bool [rows].

    Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines", section 2.2, with his targets
        (N+ + 1) / (N+ + 2) and 1 / (N- + 2); the search is that of Lin, Lin and Weng 2007, "A Note on Platt's
        Probabilistic Outputs", algorithm 1.
    """
    n_with = int(has_label.sum())
    n_without = len(has_label) - n_with
    if min(n_with, n_without) < MIN_KIND:
        return _IDENTITY
    wanted = np.where(has_label, (n_with + 1) / (n_with + 2), 1 / (n_without + 2))
    centre, width = float(logits.mean()), float(logits.std())
    # a head that says the same of every row lets only the share of the label be told
    slope = _platt_line((logits - centre) / width, wanted)[0] / width if width > 1e-9 else MIN_SLOPE
    slope = min(max(slope, MIN_SLOPE), MAX_SLOPE)

    def derivatives(intercept: float) -> tuple[float, float]:
        shares = sigmoid(slope * logits + intercept)
        return float((shares - wanted).mean()), float((shares * (1 - shares)).mean())

    reach = slope * float(np.abs(logits).max()) + 50.0
    return slope, _root(derivatives, 0.0, -reach, reach)


def _platt_line(x: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the least cross-entropy by Newton's method, each step halved until it gains."""

    def loss(slope: float, intercept: float) -> float:
        z = slope * x + intercept
        return float((np.logaddexp(0.0, z) - wanted * z).mean())

    slope, intercept = 0.0, float(logit(wanted.mean()))
    now = loss(slope, intercept)
    for _ in range(_STEPS):
        shares = sigmoid(slope * x + intercept)
        weights = shares * (1 - shares)
        gradient = np.array([((shares - wanted) * x).mean(), (shares - wanted).mean()])
        if np.abs(gradient).max() < 1e-9:
            break
        cross = (weights * x).mean()
        curvature = np.array([[(weights * x * x).mean(), cross], [cross, weights.mean()]]) + 1e-12 * np.eye(2)
        move = np.linalg.solve(curvature, gradient)
        part = 1.0
        while part > 1e-10:
            found = loss(slope - part * move[0], intercept - part * move[1])
            if found < now - 1e-4 * part * float(gradient @ move):
                break
            part /= 2
        else:
            break
        slope, intercept, now = slope - part * float(move[0]), intercept - part * float(move[1]), found
    return slope, intercept


def fit_isotonic(logits: np.ndarray, has_label: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return a label's knots: (logits, calibrated logits), both strictly rising; the line through them calibrates.

    Pool-adjacent-violators gives blocks of rows with one share each. A knot stands in the middle of a block (at the mean
    of its logits), so that the line between knots rises instead of stepping and the order of the scores stays. One row
    that counts half as having the label is added at either end: no block has a share of 0 or 1. Labels with too few rows
    (see `ISOTONIC_MIN_KIND`) get the line of `fit_platt`.

    Args:
        logits: float64 [rows].
        has_label: bool [rows].

    Source: Ayer, Brunk, Ewing, Reid and Silverman 1955, "An Empirical Distribution Function for Sampling with
        Incomplete Information"; Zadrozny and Elkan 2002, "Transforming Classifier Scores into Accurate Multiclass
        Probability Estimates"; the middles of the blocks: Oron and Flournoy 2017, "Centered Isotonic Regression",
        arXiv 1701.05964. We interpolate in the space of logits.
    """
    from scipy.optimize import isotonic_regression

    n_with = int(has_label.sum())
    if len(logits) < ISOTONIC_MIN_ROWS or min(n_with, len(logits) - n_with) < ISOTONIC_MIN_KIND:
        slope, intercept = fit_platt(logits, has_label)
        return (-_FAR, _FAR), (intercept - _FAR * slope, intercept + _FAR * slope)
    xs, inverse, counts = np.unique(logits, return_inverse=True, return_counts=True)
    shares = np.bincount(inverse, weights=has_label) / counts
    found = isotonic_regression(np.concatenate(([0.5], shares, [0.5])), weights=np.concatenate(([1], counts, [1])))
    starts = np.clip(found.blocks[:-1] - 1, 0, len(xs))  # without the row added in front
    stops = np.clip(found.blocks[1:] - 1, 0, len(xs))
    knots = [
        (float(np.average(xs[start:stop], weights=counts[start:stop])), float(logit(found.x[block])))
        for start, stop, block in zip(starts, stops, found.blocks[:-1], strict=True)
        if stop > start
    ]
    rising = [
        pair for i, pair in enumerate(knots) if i == 0 or (pair[0] > knots[i - 1][0] and pair[1] > knots[i - 1][1])
    ]
    return tuple(x for x, _ in rising), tuple(y for _, y in rising)
