"""From hidden states to logits: pooling, the head's layers, and the classical heads that scikit-learn fits."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from logging import getLogger
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headrace.errors import RecipeError, suggestion

logger = getLogger(__name__)

NAMES = ("linear", "native", "svm", "logistic")
CLASSICAL = ("svm", "logistic")
POOLS = ("cls", "pooler", "mean", "max")
# BERT's own spread for new layers: logits start near zero, whatever the width.
_INITIAL_STD = 0.02
# The logit of a label that the training rows never have: no finite score comes near it.
_ABSENT_LOGIT = -1.0e4


@dataclass(frozen=True)
class HeadSettings:
    """What stands over the backbone.

    Attributes:
        name: `linear`; `native` (the family's own head); `svm` or `logistic` (scikit-learn on frozen features).
        pool: `cls` (first token), `pooler` (the family's own), `mean` or `max` over the text's tokens.
        hidden: Width of a hidden layer with ReLU; 0 for none.
        dropout: Share dropped before the last layer, in [0, 1).
    """

    name: str = "linear"
    pool: str = "cls"
    hidden: int = 0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise RecipeError(
                f"there is no head {self.name!r}", where="head: name", next=suggestion(str(self.name), NAMES)
            )
        if self.pool not in POOLS:
            raise RecipeError(
                f"there is no pooling {self.pool!r}", where="head: pool", next=suggestion(str(self.pool), POOLS)
            )
        if not 0 <= self.hidden <= 65_536:
            raise RecipeError(
                f"a hidden layer of {self.hidden} is not possible", where="head: hidden", next="0 for none, or e.g. 768"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise RecipeError(f"a dropout of {self.dropout} is not in [0, 1)", where="head: dropout", next="try 0.1")
        if self.hidden and self.name != "linear":
            raise RecipeError(
                f"the head {self.name!r} has no hidden layer of ours",
                where="head: hidden",
                next="remove `hidden`, or use `head: {name: linear, hidden: …}`",
            )


def pool_hidden(hidden: Tensor, attention_mask: Tensor, pool: str) -> Tensor:
    """Return one vector a text, [texts, width]; `mean` and `max` see real tokens only and compute in float32.

    Args:
        hidden: Last hidden states, [texts, tokens, width].
        attention_mask: [texts, tokens]; 1 for real tokens. A text without any gives zeros.
        pool: `cls`, `mean` or `max`.

    Raises:
        RecipeError: There is no such pooling.
    """
    if pool == "cls":
        return hidden[:, 0]
    mask = attention_mask.unsqueeze(-1).to(torch.bool)
    if pool == "mean":
        total = hidden.float().masked_fill(~mask, 0.0).sum(dim=1)
        return total / mask.sum(dim=1).clamp(min=1)
    if pool == "max":
        highest = hidden.float().masked_fill(~mask, -torch.inf).amax(dim=1)
        return torch.where(mask.any(dim=1), highest, 0.0)
    raise RecipeError(f"there is no pooling {pool!r}", where="pool", next=suggestion(pool, ("cls", "mean", "max")))


class Head(nn.Module):
    """Dropout-Linear, or Linear-ReLU-Dropout-Linear where there is a hidden layer.

    Args:
        width: Size of what comes in.
        n_labels: Number of logits.
        hidden: Width of the hidden layer; 0 for none.
        dropout: Share dropped before the last layer.
    """

    def __init__(self, width: int, n_labels: int, *, hidden: int = 0, dropout: float = 0.1) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden) if hidden else None
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden or width, n_labels)
        for layer in (self.hidden, self.output):
            if layer is not None:
                nn.init.normal_(layer.weight, std=_INITIAL_STD)
                nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Return logits, [texts, labels]."""
        if self.hidden is not None:
            pooled = torch.relu(self.hidden(pooled))
        logits: Tensor = self.output(self.dropout(pooled))
        return logits

    def set_output(self, weight: np.ndarray, bias: np.ndarray) -> None:
        """Put what `fit_classical` found into the last layer."""
        with torch.no_grad():
            self.output.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight, dtype=np.float32)))
            self.output.bias.copy_(torch.from_numpy(np.ascontiguousarray(bias, dtype=np.float32)))


def fit_classical(
    features: np.ndarray,
    targets: np.ndarray,
    *,
    name: str,
    multi_label: bool,
    seed: int,
    c: float = 1.0,
    n_labels: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of a linear classifier that scikit-learn fits on frozen features.

    The features are standardized for the fit, and the scaling is folded into the weights. Two labels get two rows, so
    that the softmax of `logistic` equals scikit-learn's probabilities. A label without a row never wins.

    Args:
        features: [texts, width].
        targets: [texts] int (single label), or [texts, labels] of 0 and 1 (multi-label: one fit a label).
        name: `svm` (LinearSVC) or `logistic` (LogisticRegression).
        multi_label: Whether a text may have several labels.
        seed: For the solver's order.
        c: Inverse strength of regularization, > 0.
        n_labels: How many labels there are, for single label; by default the highest target says it.

    Returns:
        weight [labels, width] and bias [labels], float32.

    Raises:
        RecipeError: There is no such head, or a single class only.
    """
    if name not in CLASSICAL:
        raise RecipeError(f"{name!r} is no classical head", where="head: name", next=suggestion(name, CLASSICAL))
    from sklearn.preprocessing import StandardScaler  # loads slowly, and only these two heads need it

    scaler = StandardScaler()
    scaled = scaler.fit_transform(np.asarray(features, dtype=np.float64))
    targets = np.asarray(targets)
    if multi_label:
        rows = [_fit_one_label(scaled, targets[:, i], _classical(name, seed, c)) for i in range(targets.shape[1])]
        weight = np.stack([row[0] for row in rows])
        bias = np.array([row[1] for row in rows])
    else:
        weight, bias = _fit_classes(scaled, targets.astype(np.int64), _classical(name, seed, c), n_labels)
    # w · (x - mean) / scale + b = (w / scale) · x + (b - w · mean / scale)
    folded = weight / scaler.scale_
    return folded.astype(np.float32), (bias - folded @ scaler.mean_).astype(np.float32)


def _classical(name: str, seed: int, c: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    kind = LinearSVC if name == "svm" else LogisticRegression
    return kind(C=c, max_iter=5000, random_state=seed)


def _fit(model: Any, scaled: np.ndarray, targets: np.ndarray) -> None:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(scaled, targets)
    for warning in _convergence(caught, ConvergenceWarning):
        logger.warning("the classical head's solver did not converge: %s", warning)


def _convergence(caught: list[warnings.WarningMessage], kind: type[Warning]) -> Iterator[str]:
    for warning in caught:
        if issubclass(warning.category, kind):
            yield str(warning.message).splitlines()[0]


def _fit_classes(
    scaled: np.ndarray, targets: np.ndarray, model: Any, n_labels: int | None
) -> tuple[np.ndarray, np.ndarray]:
    present = np.unique(targets)
    if len(present) < 2:
        raise RecipeError(
            "a classical head needs texts of at least two labels", where="data", next="check the label column"
        )
    _fit(model, scaled, targets)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(present) == 2:
        # softmax over (-z/2, z/2) is the sigmoid of z
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    n_rows = int(present[-1]) + 1 if n_labels is None else n_labels
    weight = np.zeros((n_rows, scaled.shape[1]))
    bias = np.full(n_rows, _ABSENT_LOGIT)
    weight[present], bias[present] = coefficients, intercepts
    return weight, bias


def _fit_one_label(scaled: np.ndarray, targets: np.ndarray, model: Any) -> tuple[np.ndarray, float]:
    positives = int((targets > 0).sum())
    if positives in (0, len(targets)):
        # nothing to learn: the log-odds of what was seen, with half a text added to either side
        return np.zeros(scaled.shape[1]), float(np.log((positives + 0.5) / (len(targets) - positives + 0.5)))
    _fit(model, scaled, (targets > 0).astype(np.int64))
    return model.coef_[0], float(model.intercept_[0])
