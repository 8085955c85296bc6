"""From an Evaluation to the files that stay: report.json, and errors.csv with the most confident mistakes."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from headrace.data.examples import ROW, Examples, LabelSet
from headrace.evaluation import Evaluation
from headrace.files import write_json
from headrace.metrics import MULTI_LABEL, SINGLE_LABEL, decisions, is_correct
from headrace.tables import LIST_SEPARATOR, TableWriter

REPORT = "report.json"
ERRORS = "errors.csv"
FORMAT_VERSION = 1
MAX_TEXT_CHARACTERS = 1000
_PACKAGES = ("headrace", "torch", "transformers", "lightning", "tokenizers", "numpy", "scikit-learn")


def write_report(
    folder: str | Path,
    *,
    evaluation: Evaluation,
    timing: Mapping[str, Any],
    data: Mapping[str, Any],
    recipe: Mapping[str, Any],
    versions: Mapping[str, Any],
    **evidence: Any,
) -> Path:
    """Write report.json into a run's folder, whole or not at all, and return its path.

    Args:
        folder: Made if it is not there.
        evaluation: Its parts stand at the top level: `metrics`, `labels`, `split`, `n_rows`, …
        timing: `fit_s`, `train_texts_per_s`, `peak_memory_bytes` and what else was measured.
        data: Sources, counts, fingerprints.
        recipe: The resolved recipe.
        versions: See `versions`.
        **evidence: More keys of the report, such as `findings` (what a reader should know about data and run: texts, or
            mappings), `decide`, `baseline`, `diagnoses`, `slices`, `leaks`, `curves`, `training_curve`, `errors`,
            `forecast`, `check`. `created` is the time of writing in UTC unless it is given.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    path = Path(folder) / REPORT
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    parts = {"timing": timing, "data": data, "recipe": recipe, "versions": versions, "findings": ()}
    head = {"format_version": FORMAT_VERSION, "created": created}
    write_json(path, _plain({**head, **evaluation.as_dict(), **parts, **evidence}))
    return path


def _plain(value: Any) -> Any:
    """Return what JSON has: numpy's types become Python's, NaN and infinities null, paths and others text."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def versions() -> dict[str, Any]:
    """Return what a run's numbers depend on: Python, packages (None if not installed), system, processor, cores."""
    found: dict[str, Any] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found | {"platform": platform.platform(), "cpu": _cpu_name(), "n_cores": os.cpu_count()}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def mistakes(
    targets: np.ndarray,
    scores: np.ndarray,
    *,
    task: str,
    threshold: float | np.ndarray | None = None,
    most: int = 200,
) -> np.ndarray:
    """Return the positions of the most confident mistakes, int64 [at most `most`], the worst first.

    Single label: rows decided wrongly, by the score of the decided label. Multi-label: rows with a wrong yes or no, by
    the largest |score - target| among their wrong labels. Of equals the earlier row comes first.
    """
    confidence = mistake_confidence(targets, scores, task=task, threshold=threshold)
    order = np.argsort(-np.nan_to_num(confidence, nan=-1.0), kind="stable")
    return np.asarray(order[: min(most, int((~np.isnan(confidence)).sum()))], dtype=np.int64)


def mistake_confidence(
    targets: np.ndarray, scores: np.ndarray, *, task: str, threshold: float | np.ndarray | None = None
) -> np.ndarray:
    """Return float64 [rows]: how sure the wrong answer was, see `mistakes`; NaN for a row that is right."""
    multi_label = task == MULTI_LABEL
    decided = decisions(scores, multi_label=multi_label, threshold=threshold)
    if multi_label:
        wrong = (targets != 0) != decided
        far = np.where(wrong, np.abs(scores.astype(np.float64) - targets), -1.0).max(axis=1, initial=-1.0)
    else:
        far = np.take_along_axis(scores, decided[:, None], axis=1)[:, 0].astype(np.float64)
    return np.where(is_correct(targets, decided), np.nan, far)


def error_rows(
    examples: Examples,
    targets: np.ndarray,
    scores: np.ndarray,
    *,
    labels: LabelSet,
    threshold: float | np.ndarray | None = None,
    most: int = 200,
) -> list[dict[str, Any]]:
    """Return the most confident mistakes as `write_errors` takes them.

    Args:
        examples: The rows that were scored, in the order of `targets` and `scores`.
        targets: int64 [rows] or 0/1 [rows, labels].
        scores: [rows, labels].
        labels: The names of the columns.
        threshold: As in `metrics.decisions`.
        most: How many rows at most.
    """
    multi_label = targets.ndim == 2
    task = MULTI_LABEL if multi_label else SINGLE_LABEL
    order = mistakes(targets, scores, task=task, threshold=threshold, most=most)
    if len(order) == 0:
        return []
    confidence = mistake_confidence(targets, scores, task=task, threshold=threshold)
    decided = decisions(scores, multi_label=multi_label, threshold=threshold)
    chosen = examples.take(order)
    rows = []
    for position, row, text in zip(order, chosen.column(ROW), chosen.texts(), strict=True):
        first, *second = (text,) if isinstance(text, str) else text
        rows.append(
            {
                "row": row,
                "text": first,
                **({"pair": second[0]} if second else {}),
                "true": _names(targets[position], labels),
                "predicted": _names(decided[position], labels),
                "confidence": round(float(confidence[position]), 6),
                **{f"score:{name}": round(float(scores[position, i]), 6) for i, name in enumerate(labels.names)},
            }
        )
    return rows


def _names(value: np.ndarray, labels: LabelSet) -> str:
    if value.ndim:
        return LIST_SEPARATOR.join(labels.names[i] for i in np.flatnonzero(value))
    return labels.names[int(value)]


def write_errors(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write errors.csv, whole or not at all; texts are cut to 1,000 characters and guarded against formulas.

    Args:
        path: Also .tsv, .jsonl, .parquet.
        rows: All with the same keys, see `error_rows`; without any, the file holds the header alone.
    """
    listed = list(rows)
    default: dict[str, Any] = {"row": 0, "text": "", "true": "", "predicted": "", "confidence": 0.0}
    columns = {name: type(value) for name, value in (listed[0] if listed else default).items()}
    with TableWriter(path, columns) as table:
        table.write([[_cut(row[name]) for name in columns] for row in listed])


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_TEXT_CHARACTERS:
        return f"{value[: MAX_TEXT_CHARACTERS - 1]}…"
    return value
