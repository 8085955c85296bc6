"""Metrics on resamples of the rows, by counting rows instead of copying them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from headrace.metrics import (
    LabelCounts,
    MetricFunction,
    Ranking,
    is_binary,
    mean_of_defined,
    one_column_per_label,
    row_losses,
)

#: Cells (rows x resamples) in work at once: four float32 and two int64 arrays of this size are some 64 MB.
_CHUNK_CELLS = 2_000_000
_LABELS_AT_ONCE = 64
#: Rows x labels x resamples that the ranked metrics may cost (about 8 s a billion); above, fewer resamples are drawn.
RANKING_CELLS = 3_000_000_000
MIN_RESAMPLES = 200


def resampled_rows(n_rows: int, *, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield int32 [rows, a few resamples]: each column names `n_rows` rows, drawn with replacement."""
    random = np.random.default_rng(seed)
    size = min(resamples, max(1, min(64, _CHUNK_CELLS // n_rows)))
    for start in range(0, resamples, size):
        yield random.integers(0, n_rows, size=(n_rows, min(size, resamples - start)), dtype=np.int32)


def counts_of(drawn: np.ndarray) -> np.ndarray:
    """Return float32 [rows, resamples]: how often each row was drawn into each resample.

    Whole numbers up to 2^24 are exact in float32, and no count or sum of counts exceeds the number of rows; above
    that many rows the counts are float64.
    """
    n_rows, n = drawn.shape
    cells = drawn.astype(np.int64)
    cells *= n
    cells += np.arange(n)
    kind = np.float32 if n_rows <= 1 << 24 else np.float64
    return np.bincount(cells.ravel(), minlength=n_rows * n).reshape(n_rows, n).astype(kind)


@dataclass(frozen=True)
class Resampled:
    """The values of the built-in metrics in each resample; NaN where a resample has none.

    Attributes:
        metrics: Metric's name -> float64 [resamples].
        f1: float64 [resamples, labels].
        roc_auc, average_precision: float64 [resamples, labels]; fewer resamples for very many labels; none if
            they were not asked for.
    """

    metrics: dict[str, np.ndarray]
    f1: np.ndarray
    roc_auc: np.ndarray
    average_precision: np.ndarray


def resample(
    targets: np.ndarray, scores: np.ndarray, decided: np.ndarray, *, resamples: int, seed: int, ranked: bool = True
) -> Resampled:
    """Compute the metrics that are no shares of rows on resamples of the rows, by counting instead of copying rows.

    Args:
        targets: int64 [rows] or 0/1 [rows, labels].
        scores: [rows, labels].
        decided: In the form of the targets.
        resamples: How many.
        seed: The same seed and number of rows give the same resamples.
        ranked: Also compute the ranked metrics, which cost the most; else they have no resamples.
    """
    n_rows, n_labels = scores.shape
    true, said = one_column_per_label(targets, n_labels), one_column_per_label(decided, n_labels)
    losses = row_losses(targets, scores)
    rankings = _rankings(true, scores) if ranked else []
    n_ranked = ranked_resamples(n_rows, n_labels, resamples) if ranked else 0
    log_loss, hamming, counted = [], [], []
    areas: list[np.ndarray] = []
    n_areas = 0
    for drawn in resampled_rows(n_rows, resamples=resamples, seed=seed):
        counts = counts_of(drawn)
        log_loss.append(losses @ counts)
        hamming.append((true != said).sum(axis=1, dtype=counts.dtype) @ counts)
        counted.append(_label_counts(true, said, counts))
        if n_areas < n_ranked:
            areas.append(_areas(rankings, counts))
            n_areas += len(areas[-1])
    labels = LabelCounts(*np.concatenate(counted, axis=1))
    both = np.concatenate(areas)[:n_ranked] if areas else np.empty((0, n_labels, 2))
    values = {
        "log_loss": np.concatenate(log_loss) / n_rows,
        "hamming_loss": np.concatenate(hamming) / (n_rows * n_labels),
        "f1_macro": mean_of_defined(labels.f1()),
        "f1_micro": labels.f1_micro(),
    }
    for position, name in enumerate(("roc_auc", "average_precision")):
        macro = mean_of_defined(both[:, :, position])
        values[f"{name}_macro"] = macro
        values[name] = both[:, 1, position] if is_binary(targets, n_labels) else macro
    return Resampled(values, labels.f1(), both[:, :, 0], both[:, :, 1])


def ranked_resamples(n_rows: int, n_labels: int, resamples: int) -> int:
    """Return how many resamples the ranked metrics get: all, fewer for very many labels, or 0 if too few would do."""
    affordable = RANKING_CELLS // max(1, n_rows * n_labels)
    return min(resamples, affordable) if affordable >= min(resamples, MIN_RESAMPLES) else 0


def _rankings(true: np.ndarray, scores: np.ndarray) -> list[Ranking | None]:
    """Sort the rows of each label that has rows of both kinds."""
    support = true.sum(axis=0)
    return [Ranking.of(true[:, i], scores[:, i]) if 0 < support[i] < len(true) else None for i in range(true.shape[1])]


def _areas(rankings: list[Ranking | None], counts: np.ndarray) -> np.ndarray:
    """Return float64 [resamples, labels, 2]: ROC AUC and average precision."""
    areas = np.full((counts.shape[1], len(rankings), 2), np.nan)
    for label, ranking in enumerate(rankings):
        if ranking is not None:
            areas[:, label, 0], areas[:, label, 1] = ranking.areas(counts)
    return areas


def _label_counts(true: np.ndarray, said: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return [3, resamples, labels]: hits, decided rows and rows with the label, as `LabelCounts` takes them."""
    blocks = []
    for start in range(0, true.shape[1], _LABELS_AT_ONCE):
        some_true, some_said = true[:, start : start + _LABELS_AT_ONCE], said[:, start : start + _LABELS_AT_ONCE]
        kinds = (some_true & some_said, some_said, some_true)
        blocks.append(np.stack([counts.T @ kind.astype(counts.dtype) for kind in kinds]))
    return np.concatenate(blocks, axis=2)


def resample_metric(
    function: MetricFunction, targets: np.ndarray, values: np.ndarray, *, resamples: int, seed: int
) -> np.ndarray:
    """Compute any metric on resamples by taking the rows: float64 [resamples], NaN where it has no value."""
    found: list[float | None] = []
    for drawn in resampled_rows(len(targets), resamples=resamples, seed=seed):
        found += [function(targets[rows], values[rows]) for rows in drawn.T]
    return np.array([np.nan if value is None else value for value in found])
