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
from torch.nn import functional

from headrace.errors import RecipeError, suggestion

logger = getLogger(__name__)

NAMES = ("linear", "ulmfit", "native", "svm", "logistic")
CLASSICAL = ("svm", "logistic")
# Their batch norm sees all texts of a step: it cannot go through in micro-batches.
NORMALIZING = ("ulmfit",)
POOLS = ("cls", "pooler", "mean", "max", "concat")
#: A vector for each token instead of one a text; not for a head.
NO_POOL = "none"
# BERT's own spread for new layers: logits start near zero, whatever the width.
_INITIAL_STD = 0.02
# The logit of a label that the training rows never have: no finite score comes near it.
_ABSENT_LOGIT = -1.0e4
# fastai's: the hidden layer of a text classifier, the dropout before its last layer, the first value of a norm's bias.
_ULMFIT_HIDDEN = 50
_ULMFIT_DROPOUT = 0.4
_ULMFIT_LAST_DROPOUT = 0.1
_ULMFIT_NORM_BIAS = 1e-3


@dataclass(frozen=True, init=False)
class HeadSettings:
    """What stands over the backbone. What is not given is the default of the head that is named.

    Attributes:
        name: `linear`; `ulmfit` (two blocks with batch norm, over `concat`); `native` (the family's own head); `svm` or
            `logistic` (scikit-learn on frozen features).
        pool: `cls` (first token), `pooler` (the family's own), `mean` or `max` over the text's tokens, or `concat`:
            [last token read, max, mean], three times as wide. `ulmfit` takes `concat` alone; the default is `cls`.
        hidden: Width of a hidden layer with ReLU; 0 for none (default). Of `ulmfit` 50, and never 0.
        dropout: Share dropped before the last layer, in [0, 1); 0.1 by default. Of `ulmfit` that before the hidden layer,
            0.4 by default: fastai multiplies it with `drop_mult`, so with the backbone's drop_mult 0.5 say 0.2 here.
    """

    name: str
    pool: str
    hidden: int
    dropout: float

    def __init__(
        self, name: str = "linear", pool: str | None = None, hidden: int | None = None, dropout: float | None = None
    ) -> None:
        own = head_defaults(name)
        given = {"name": name, "pool": pool, "hidden": hidden, "dropout": dropout}
        for key, value in given.items():
            object.__setattr__(self, key, own[key] if value is None else value)
        self._check()

    def _check(self) -> None:
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
        if self.name == "ulmfit":
            self._check_ulmfit()
        elif self.hidden and self.name != "linear":
            raise RecipeError(
                f"the head {self.name!r} has no hidden layer of ours",
                where="head: hidden",
                next="remove `hidden`, or use `head: {name: linear, hidden: …}`",
            )

    def _check_ulmfit(self) -> None:
        if self.pool != "concat":
            raise RecipeError(
                f"the head 'ulmfit' pools with concat, not {self.pool}", where="head: pool", next="remove `pool`"
            )
        if not self.hidden:
            raise RecipeError(
                "the head 'ulmfit' has a hidden layer", where="head: hidden", next="remove `hidden`: 50 is the default"
            )


def head_defaults(name: str) -> dict[str, Any]:
    """Return pool, hidden and dropout of the head with this name where nothing is said of them; those of any other too."""
    if name == "ulmfit":
        return {"pool": "concat", "hidden": _ULMFIT_HIDDEN, "dropout": _ULMFIT_DROPOUT}
    return {"pool": "cls", "hidden": 0, "dropout": 0.1}


def pooled_width(width: int, pool: str) -> int:
    """Return the size of a pooled vector, for hidden states of this size."""
    return 3 * width if pool == "concat" else width


def pool_hidden(hidden: Tensor, attention_mask: Tensor, pool: str, *, last: Tensor | None = None) -> Tensor:
    """Return one vector a text, [texts, width]; all but `cls` see real tokens only and compute in float32.

    Args:
        hidden: Last hidden states, [texts, tokens, width].
        attention_mask: [texts, tokens]; 1 for the tokens to pool over. A text without any gives zeros.
        pool: `cls`, `mean` or `max`, or `concat` for [last, max, mean], [texts, 3 x width].
        last: [texts] int64, the place of each text's last token for `concat`; None for the last one in the mask.

    Raises:
        RecipeError: There is no such pooling.

    Source: `concat` is Howard & Ruder 2018 (arXiv 1801.06146), section 3.3.
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
    if pool == "concat":
        if last is None:
            columns = torch.arange(attention_mask.shape[1], device=attention_mask.device)
            last = (columns * attention_mask.to(torch.bool)).amax(dim=1)
        of_last = hidden[torch.arange(len(hidden), device=hidden.device), last].float()
        of_last = torch.where(mask.any(dim=1), of_last, 0.0)
        others = [pool_hidden(hidden, attention_mask, name) for name in ("max", "mean")]
        return torch.cat([of_last, *others], dim=1)
    raise RecipeError(
        f"there is no pooling {pool!r}", where="pool", next=suggestion(pool, ("cls", "mean", "max", "concat"))
    )


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


class UlmfitHead(nn.Module):
    """BatchNorm-Dropout-Linear-ReLU, then BatchNorm-Dropout-Linear: fastai's head of a text classifier.

    The linear layers have no bias, and the dropout before the last one is 0.1. In training a batch is normalized by its own
    mean and variance, so a step must not be cut into micro-batches.

    Args:
        width: Size of what comes in.
        n_labels: Number of logits.
        hidden: Width of the hidden layer.
        dropout: Share dropped before the hidden layer.

    Source: Howard & Ruder 2018 (arXiv 1801.06146), section 3.3; the sizes and the order are fastai 2.8's.
    """

    def __init__(
        self, width: int, n_labels: int, *, hidden: int = _ULMFIT_HIDDEN, dropout: float = _ULMFIT_DROPOUT
    ) -> None:
        super().__init__()
        self.norm = BatchNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(width, hidden, bias=False)
        self.output_norm = BatchNorm(hidden)
        self.output_dropout = nn.Dropout(_ULMFIT_LAST_DROPOUT)
        self.output = nn.Linear(hidden, n_labels, bias=False)
        for norm in (self.norm, self.output_norm):
            nn.init.constant_(norm.bias, _ULMFIT_NORM_BIAS)

    def forward(self, pooled: Tensor) -> Tensor:
        """Return logits, [texts, labels], of [texts, width]."""
        inner = torch.relu(self.hidden(self.dropout(self.norm(pooled.float()))))
        logits: Tensor = self.output(self.output_dropout(self.output_norm(inner.float())))
        return logits


class BatchNorm(nn.BatchNorm1d):
    """Batch norm over texts that takes a training batch of one text, or none: as in evaluation, by the running statistics.

    One text has no variance. Its pass learns as any other, but leaves the running statistics as they are.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return [texts, width], normalized."""
        if self.training and len(input) < 2:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(input)


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
