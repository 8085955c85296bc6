"""Finished runs, read back from their folders: what they scored, and whether it was the same rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headrace.compare.scores import Scored
from headrace.data.examples import LabelSet
from headrace.errors import DataError, RunError
from headrace.evaluation import Evaluation
from headrace.plugins import LANGUAGE_MODEL

REPORT = "report.json"
PREDICTIONS = "predictions.parquet"
SEEDS_FILE = "seeds.json"
SEED_FOLDER = "seed-"


@dataclass(frozen=True)
class FinishedRun:
    """One run as its folder tells it.

    Attributes:
        folder: Where it was read from.
        evaluation: Of its report.
        fingerprint: The sha256 of the rows that it was evaluated on.
        rows: int64 [rows], the rows' numbers in their file.
        targets: int64 [rows] or bool [rows, labels], in the order of `evaluation.labels`.
        scores: float32 [rows, labels].
        decided: In the form of the targets; what the run decided, with its own thresholds.
        seed: That it was trained with; None if the report does not say.
    """

    folder: Path
    evaluation: Evaluation
    fingerprint: str
    rows: np.ndarray = field(repr=False)
    targets: np.ndarray = field(repr=False)
    scores: np.ndarray = field(repr=False)
    decided: np.ndarray = field(repr=False)
    seed: int | None = None

    def scored(self, name: str, labels: LabelSet, *, seed: int, resamples: int) -> Scored:
        """Return its scores with the columns in the order of these labels."""
        own = self.evaluation.labels
        order = [own.index(label) for label in labels.names]
        targets, decided = self.targets, self.decided
        if self.evaluation.task == "multi_label":
            targets, decided = targets[:, order], decided[:, order]
        elif order != list(range(len(own))):
            place = np.argsort(order)
            targets, decided = place[targets], place[decided]
        return Scored(name, targets, np.ascontiguousarray(self.scores[:, order]), decided, seed, resamples)


def seed_folders(folder: Path) -> list[Path]:
    """Return the runs of a folder that holds one recipe trained with several seeds; none for a single run.

    Raises:
        RunError: seeds.json names a seed whose run is not finished, or cannot be read.
    """
    path = folder / SEEDS_FILE
    if path.is_file():
        try:
            seeds = [int(seed) for seed in json.loads(path.read_text("utf-8"))["seeds"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{SEEDS_FILE} cannot be read: {type(error).__name__} {error}",
                where=str(path),
                next="run the same `headrace fit … --seeds` again, which writes it anew",
            ) from error
        return [folder / f"{SEED_FOLDER}{seed}" for seed in seeds]
    if (folder / REPORT).is_file():
        return []
    named = [path for path in folder.glob(f"{SEED_FOLDER}*") if path.name.removeprefix(SEED_FOLDER).isdigit()]
    found = [path for path in named if (path / REPORT).is_file()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(SEED_FOLDER)))


def read_run(folder: Path) -> FinishedRun:
    """Read a finished run.

    Raises:
        RunError: The folder holds no finished run, or its report and its predictions do not belong together.
    """
    report = _report(folder)
    evaluation = Evaluation.from_dict(report)
    prints = report.get("data", {}).get("fingerprints", {})
    if evaluation.split not in prints:
        raise RunError(
            f"the report does not say on which rows the run was evaluated: no fingerprint of {evaluation.split!r}",
            where=str(folder / REPORT),
            next="fit again with this version of Headrace",
        )
    table = _predictions(folder)
    names = evaluation.labels
    wanted = ["row", "label", "predicted", *(f"score_{name}" for name in names)]
    missing = [name for name in wanted if name not in table]
    n_rows = len(table["row"]) if "row" in table else 0
    if missing or n_rows != evaluation.n_rows:
        what = f"no column {missing[0]!r}" if missing else f"{n_rows:,} rows where the report has {evaluation.n_rows:,}"
        raise RunError(
            f"the predictions are not those of the report: {what}",
            where=str(folder / PREDICTIONS),
            next="fit again with --force: one of the two files was changed or belongs to another run",
        )
    scores = np.stack([np.asarray(table[f"score_{name}"], dtype=np.float32) for name in names], axis=1)
    recipe = report.get("recipe")
    seed = recipe.get("seed") if isinstance(recipe, Mapping) else None
    multi_label = evaluation.task == "multi_label"
    return FinishedRun(
        folder=folder,
        evaluation=evaluation,
        fingerprint=str(prints[evaluation.split]),
        rows=np.asarray(table["row"], dtype=np.int64),
        targets=_indices(table["label"], names, multi_label=multi_label, otherwise=None),
        scores=scores,
        decided=_indices(table["predicted"], names, multi_label=multi_label, otherwise=scores.argmax(axis=1)),
        seed=seed if isinstance(seed, int) else None,
    )


def _report(folder: Path) -> dict[str, Any]:
    path = folder / REPORT
    try:
        report = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        above = folder.name == "bundle" and (folder.parent / REPORT).is_file()
        mend = (
            f"give the run's folder: {folder.parent}"
            if above
            else "give the folder of a run that `headrace fit` finished"
        )
        raise RunError(f"there is no finished run in {folder}: no {REPORT}", where=str(folder), next=mend) from None
    except (OSError, ValueError) as error:
        raise RunError(f"the report cannot be read: {error}", where=str(path), next="fit again with --force") from error
    if not isinstance(report, dict):
        raise RunError("the report is no JSON object", where=str(path), next="fit again with --force")
    if report.get("task") == LANGUAGE_MODEL:
        raise RunError(
            "a language model has no predictions by row to compare",
            where=str(folder),
            next="compare the perplexity in the two reports, if both read the same words and validation texts",
        )
    return report


def _predictions(folder: Path) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / PREDICTIONS
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise RunError(
            f"the predictions cannot be read: {error}", where=str(path), next="fit again with --force"
        ) from error
    # scores as arrays: as Python floats 100,000 rows of six labels would take 20 MB and a second
    columns = {name: table.column(name) for name in table.column_names}
    return {
        name: column.to_numpy() if name.startswith("score_") or name == "row" else column.to_pylist()
        for name, column in columns.items()
    }


def _indices(
    values: Sequence[Any], names: tuple[str, ...], *, multi_label: bool, otherwise: np.ndarray | None
) -> np.ndarray:
    """Return label names as indices, or as bool [rows, labels]; a row without an answer takes the one given."""
    place = {name: i for i, name in enumerate(names)}
    try:
        if multi_label:
            found = np.zeros((len(values), len(names)), dtype=bool)
            for row, labels in enumerate(values):
                found[row, [place[label] for label in labels or ()]] = True
            return found
        if otherwise is None:
            return np.array([place[value] for value in values], dtype=np.int64)
        pairs = zip(values, otherwise, strict=True)
        return np.array([other if value is None else place[value] for value, other in pairs], dtype=np.int64)
    except KeyError as error:
        raise RunError(
            f"the predictions name a label that the report has not: {error.args[0]!r}",
            where=PREDICTIONS,
            next="fit again with --force: one of the two files was changed or belongs to another run",
        ) from None


def refuse_other_rows(first: FinishedRun, other: FinishedRun) -> None:
    """Go on only if two runs were scored on the same rows with the same labels.

    Raises:
        DataError: They were not; the error says in what they differ.
    """
    one, two = first.evaluation, other.evaluation
    where = f"{first.folder}, {other.folder}"
    if one.task != two.task or set(one.labels) != set(two.labels):
        alone = sorted(set(one.labels) ^ set(two.labels))
        what = f"the tasks are {one.task} and {two.task}" if one.task != two.task else f"only one has {alone[0]!r}"
        raise DataError(
            f"the runs do not sort into the same labels: {what}", where=where, next="compare runs of one task"
        )
    if first.fingerprint == other.fingerprint and (first.rows == other.rows).all():
        own = first.scored("", LabelSet(one.labels), seed=0, resamples=1).targets
        theirs = other.scored("", LabelSet(one.labels), seed=0, resamples=1).targets
        if (own == theirs).all():
            return
    counts = f"{one.n_rows:,} {one.split} rows and {two.n_rows:,} {two.split} rows"
    mend = "evaluate all on the same test file (data.test), and fit again"
    if "valid" in (one.split, two.split):
        mend = "name a test file (data.test), or a file in data.valid: a share such as 10% is drawn by the run's seed"
    raise DataError(f"the runs were not scored on the same rows ({counts})", where=where, next=mend)
