"""Logistic regression on sparse vectors: one weight vector a label, fitted for several strengths of regularization."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.metrics import MULTI_LABEL

#: The logit of a label that no training row has, in a softmax: its score is 0.
_NEVER = -1e4
#: On 22,500 reviews a tighter tolerance took up to five times as long and moved no accuracy by 0.1 points.
_TOLERANCE = 1e-5
_MAX_ITERATIONS = 100
#: A label with fewer rows of either kind gets its share as a constant score.
_MIN_ROWS = 2


@dataclass(frozen=True)
class Linear:
    """Scores from sparse vectors.

    Attributes:
        weight: float32 [columns, labels].
        bias: float32 [labels].
        task: `single_label` (softmax) or `multi_label` (a sigmoid for each label).
    """

    weight: np.ndarray
    bias: np.ndarray
    task: str

    def scores(self, vectors: Any) -> np.ndarray:
        """Return float32 [rows, labels] in [0, 1] for a CSR matrix [rows, columns]; rows sum to 1 for a single label."""
        from scipy.special import expit, softmax

        logits = np.asarray(vectors @ self.weight, dtype=np.float32) + self.bias
        found = expit(logits) if self.task == MULTI_LABEL else softmax(logits, axis=1)
        return np.asarray(np.clip(found, 0, 1), dtype=np.float32)


def path(vectors: Any, targets: np.ndarray, n_labels: int, cs: Sequence[float]) -> Iterator[tuple[float, Linear]]:
    """Yield (C, fitted model) for each C, each fit of a single label begun where the one before it ended.

    Args:
        vectors: CSR float32 [rows, columns].
        targets: int [rows] (single label), or 0/1 [rows, labels].
        n_labels: How many columns the scores have.
        cs: Inverse strengths of the L2 penalty, ascending.
    """
    fits = _multi_label if targets.ndim == 2 else _single_label
    yield from fits(vectors, targets, n_labels, cs)


def _single_label(
    vectors: Any, targets: np.ndarray, n_labels: int, cs: Sequence[float]
) -> Iterator[tuple[float, Linear]]:
    present = np.unique(targets)
    weight = np.zeros((vectors.shape[1], n_labels), dtype=np.float32)
    bias = np.full(n_labels, _NEVER, dtype=np.float32)
    if len(present) < 2 or not vectors.nnz:
        counts = np.bincount(targets, minlength=n_labels)[:n_labels]
        bias[present] = np.log(counts[present] / max(1, len(targets)))
        if not len(present):
            bias[:] = 0  # without rows all labels are alike
        for c in cs:
            yield c, Linear(weight, bias, "single_label")
        return
    model = _logistic()
    for c in cs:
        _fit(model, vectors, targets, c)
        coefficients, intercepts = model.coef_, model.intercept_
        if len(present) == 2:  # the softmax of (-z/2, z/2) is the sigmoid of z
            coefficients = np.concatenate([-coefficients, coefficients]) / 2
            intercepts = np.concatenate([-intercepts, intercepts]) / 2
        weight, bias = weight.copy(), bias.copy()
        weight[:, present], bias[present] = coefficients.T, intercepts
        yield c, Linear(weight, bias, "single_label")


def _multi_label(
    vectors: Any, targets: np.ndarray, n_labels: int, cs: Sequence[float]
) -> Iterator[tuple[float, Linear]]:
    for c in cs:
        weight = np.zeros((vectors.shape[1], n_labels), dtype=np.float32)
        bias = np.zeros(n_labels, dtype=np.float32)
        for label in range(n_labels):
            has_label = (targets[:, label] != 0).astype(np.int64)
            n_with, n_without = int(has_label.sum()), int((1 - has_label).sum())
            if min(n_with, n_without) < _MIN_ROWS or not vectors.nnz:
                bias[label] = np.log((n_with + 0.5) / (n_without + 0.5))
                continue
            model = _logistic()
            _fit(model, vectors, has_label, c)
            weight[:, label], bias[label] = model.coef_[0], model.intercept_[0]
        yield c, Linear(weight, bias, MULTI_LABEL)


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(solver="lbfgs", tol=_TOLERANCE, max_iter=_MAX_ITERATIONS, warm_start=True)


def _fit(model: Any, vectors: Any, targets: np.ndarray, c: float) -> None:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Stopping early acts like a slightly stronger penalty, and the penalty is chosen by validation anyway.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.set_params(C=c).fit(vectors, targets)
