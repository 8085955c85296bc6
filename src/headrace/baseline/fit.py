"""Fits the baseline, chooses its penalty on validation, and scores texts with it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from headrace.baseline.linear import Linear, path
from headrace.baseline.overlap import overlaps
from headrace.baseline.terms import Terms, fit_terms
from headrace.data.examples import LabelSet
from headrace.errors import DataError
from headrace.evaluate import monitor_value
from headrace.evaluation import Evaluation
from headrace.metrics import MULTI_LABEL, SINGLE_LABEL

NAME = "TF-IDF + logistic regression"
CS = (1.0, 3.0, 10.0, 30.0)
MAX_TERMS = 200_000
#: The most that is fitted on. 50 million characters (38,000 film reviews) take about 0.6 GB while terms are counted.
MAX_ROWS = 100_000
MAX_CHARACTERS = 50_000_000
#: Terms x labels. The weights of one fit stand in memory some 25 times while the solver runs, 2 million take 0.4 GB;
#: of multi-label each label is a fit of its own.
MAX_WEIGHTS = {SINGLE_LABEL: 2_000_000, MULTI_LABEL: 20_000_000}
#: Rows x labels of the last fit, and of the fits that choose C: with hundreds of labels a fit takes minutes else.
MAX_CELLS = 10_000_000
MAX_CELLS_OF_CHOICE = 1_000_000
#: Accuracy on so many rows is known to 0.6 points; more cost time and do not change which C is chosen.
MAX_VALID_ROWS = 25_000
#: Below, a word that stands in one text alone is kept: there are too few texts to see it again.
MIN_ROWS_FOR_MIN_DF = 200
_ROWS_AT_ONCE = 8_192

Texts = Sequence[str] | Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Baseline:
    """A fitted TF-IDF + logistic regression.

    Attributes:
        terms: One vocabulary, or one for each text of a pair.
        linear: The weights.
        c: The inverse strength of regularization that was best on validation.
        fit_s: Seconds of the whole fit, the choice of C included.
        n_train: Rows that it was fitted on.
        n_given: Rows that there were.
    """

    terms: tuple[Terms, ...]
    linear: Linear
    c: float
    fit_s: float
    n_train: int
    n_given: int

    def scores(self, texts: Texts) -> np.ndarray:
        """Return float32 [texts, labels] in [0, 1]; of a single label each row sums to 1. No texts give no rows.

        Raises:
            DataError: Pairs are given where it learnt from single texts, or the other way round.
        """
        if len(texts) and isinstance(texts[0], str) == (len(self.terms) == 2):
            raise DataError(
                "the baseline learnt from " + ("pairs" if len(self.terms) == 2 else "single texts"),
                where="texts",
                next="give texts in the form of the training texts",
            )
        parts = [np.zeros((0, len(self.linear.bias)), dtype=np.float32)]
        for start in range(0, len(texts), _ROWS_AT_ONCE):
            parts.append(self.linear.scores(_vectors(self.terms, texts[start : start + _ROWS_AT_ONCE])))
        return np.concatenate(parts)

    def as_dict(
        self, evaluation: Evaluation, *, majority: Mapping[str, Any], verdict: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what report.json holds under `baseline`.

        Args:
            evaluation: Of this baseline's scores, on the rows that the run is evaluated on.
            majority: What `majority` returned for the same rows.
            verdict: The paired comparison of the run with this baseline.

        Returns:
            `name` (str), `fit_s` (float), `c` (float), `n_train` and `n_given` (rows fitted on, rows there were),
            `metrics` ({name: interval}), `verdict` (mapping or None), `majority` ({"metrics": {name: value},
            "label": str or None}), `note` (what a reader must know, or None).
        """
        note = None
        if self.n_train < self.n_given:
            note = f"fitted on {self.n_train:,} of {self.n_given:,} training rows, drawn at random, to bound its time"
        return {
            "name": NAME,
            "fit_s": self.fit_s,
            "c": self.c,
            "n_train": self.n_train,
            "n_given": self.n_given,
            "metrics": {name: interval.as_dict() for name, interval in evaluation.metrics.items()},
            "verdict": None if verdict is None else dict(verdict),
            "majority": dict(majority),
            "note": note,
        }


def fit_baseline(
    train_texts: Texts,
    train_targets: np.ndarray,
    valid_texts: Texts,
    valid_targets: np.ndarray,
    labels: LabelSet,
    *,
    task: str,
    seed: int,
) -> Baseline:
    """Fit TF-IDF over words and pairs of neighbouring words with logistic regression, on at most 100,000 rows.

    C is the one of (1, 3, 10, 30) with the best accuracy on validation (multi-label: mean ROC AUC), the least of equals.
    A pair has a vocabulary for each of its texts, and the shares of shared words as features of their own: on MNLI
    (26,400 pairs) that gives an accuracy of 0.56, where one vocabulary over the joined texts gives 0.45.

    Args:
        train_texts: [rows] strings or (text, pair) tuples.
        train_targets: int64 [rows], or 0/1 [rows, labels] for multi-label.
        valid_texts, valid_targets: In the same form; at most 25,000 rows of them are used. Without any, C is 1.
        labels: The names of the labels.
        task: `single_label` or `multi_label`.
        seed: Decides which rows are used where there are too many.

    Raises:
        DataError: There are no training rows, or as many texts as targets are not given.
    """
    started = time.perf_counter()
    train_targets, valid_targets = np.asarray(train_targets), np.asarray(valid_targets)
    _check(train_texts, train_targets, "training")
    _check(valid_texts, valid_targets, "validation", may_be_empty=True)
    n_given, n_labels = len(train_texts), len(labels)
    rows = _within_characters(train_texts, baseline_rows(n_given, n_labels=n_labels, seed=seed))
    texts, targets = _taken(train_texts, rows), train_targets[rows]
    terms = _fitted_terms(texts, n_labels=n_labels, task=task)
    vectors = _vectors(terms, texts)
    chosen = baseline_rows(len(valid_texts), most=MAX_VALID_ROWS, seed=seed)
    valid = (_vectors(terms, _taken(valid_texts, chosen)), valid_targets[chosen])
    c, linear = _best((vectors, targets), valid, n_labels=n_labels, task=task, seed=seed)
    return Baseline(terms, linear, c, time.perf_counter() - started, len(rows), n_given)


def baseline_rows(n_rows: int, *, n_labels: int = 1, most: int = MAX_ROWS, seed: int) -> np.ndarray:
    """Return the rows that a baseline is fitted on, int64 [at most 100,000] ascending: all, or drawn at random.

    With more than 100 labels they are fewer, so that rows x labels stay within 10 million. Who takes these rows first
    need not hold the texts of all rows; the fit then uses them all.
    """
    most = min(most, max(1, MAX_CELLS // max(1, n_labels)))
    if n_rows <= most:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(seed).choice(n_rows, size=most, replace=False))


def _check(texts: Texts, targets: np.ndarray, what: str, *, may_be_empty: bool = False) -> None:
    if len(texts) != len(targets):
        raise DataError(
            f"{len(texts):,} {what} texts and {len(targets):,} targets", where=f"{what} rows", next="give one for each"
        )
    if not len(texts) and not may_be_empty:
        raise DataError("there are no training rows", where="training rows", next="give at least one labelled text")


def _within_characters(texts: Texts, rows: np.ndarray) -> np.ndarray:
    """Return every so many-th of the rows if their texts are too long together; at least one."""
    n_characters = sum(len(text) if isinstance(text, str) else sum(map(len, text)) for text in _taken(texts, rows))
    if n_characters <= MAX_CHARACTERS:
        return rows
    n_kept = max(1, len(rows) * MAX_CHARACTERS // n_characters)
    return np.asarray(rows[np.linspace(0, len(rows) - 1, n_kept).astype(np.int64)])


def _taken(texts: Texts, rows: np.ndarray) -> Texts:
    return texts if len(rows) == len(texts) else cast(Texts, [texts[row] for row in rows.tolist()])


def _sides(texts: Texts) -> tuple[Sequence[str], ...]:
    """Return the texts, or the first and the second texts of pairs."""
    if not len(texts) or isinstance(texts[0], str):
        return (cast(Sequence[str], texts),)
    pairs = cast(Sequence[tuple[str, str]], texts)
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _fitted_terms(texts: Texts, *, n_labels: int, task: str) -> tuple[Terms, ...]:
    sides = _sides(texts)
    most = min(MAX_TERMS, MAX_WEIGHTS[task] // max(1, n_labels))
    min_df = 2 if len(texts) >= MIN_ROWS_FOR_MIN_DF else 1
    return tuple(fit_terms(side, min_df=min_df, max_terms=max(1, most // len(sides))) for side in sides)


def _vectors(terms: tuple[Terms, ...], texts: Texts) -> Any:
    """Return CSR float32 [texts, columns]: the terms of each side one beside the other, then what pairs share."""
    from scipy.sparse import hstack

    if len(terms) == 1:
        return terms[0].vectors(_sides(texts)[0])
    sides = _sides(texts) if len(texts) else ((), ())
    shared = overlaps(cast(Sequence[tuple[str, str]], texts))
    return hstack([*(one.vectors(side) for one, side in zip(terms, sides, strict=True)), shared], format="csr")


def _best(
    train: tuple[Any, np.ndarray], valid: tuple[Any, np.ndarray], *, n_labels: int, task: str, seed: int
) -> tuple[float, Linear]:
    """Return the C of the best figure on validation and the model fitted with it on all rows."""
    vectors, targets = train
    if not len(valid[1]):
        return next(path(vectors, targets, n_labels, CS[:1]))
    n_rows = len(targets)
    some = baseline_rows(n_rows, most=max(1, MAX_CELLS_OF_CHOICE // n_labels), seed=seed)
    name = "roc_auc_macro" if task == MULTI_LABEL else "accuracy"
    found: list[tuple[float, float, Linear]] = []
    for c, linear in path(vectors[some], targets[some], n_labels, CS):
        value = monitor_value(valid[1], linear.scores(valid[0]), name, task=task)
        found.append((-1.0 if value is None else value, c, linear))
    _, c, linear = max(found, key=lambda one: one[0])  # the first of equals
    return (c, linear) if len(some) == n_rows else next(path(vectors, targets, n_labels, (c,)))
