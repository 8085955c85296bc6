"""What stands in a run's folder: whether it was finished, what its weights depend on, and how it is emptied."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headrace.data.examples import BadRow
from headrace.data.faults import MAX_KEPT_BAD_ROWS
from headrace.recipe import Recipe
from headrace.recipe.places import flat
from headrace.recipe.schema import RecipeValues
from headrace.tables import write_rows
from headrace.train.run import FREE_KEYS, LOGGER_IDS, REEVALUATED_KEYS, RunFolder, part_of

FORECAST = "forecast.json"
# Where a file lies does not matter to a run, what it holds does: that is in the fingerprints.
_PLACES = {("data", name) for name in ("train", "valid", "test", "url", "sha256")} | {
    ("language_model", name) for name in ("train", "valid")
}


def report_of(folder: RunFolder) -> dict[str, Any] | None:
    """Return the report of a run that was finished with everything in its place, or None."""
    if folder.status().get("state") != "finished" or not folder.bundle.is_dir():
        return None
    try:
        report: dict[str, Any] = json.loads((folder.path / "report.json").read_text("utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return report


def unchanged_report(recipe: Recipe, folder: RunFolder) -> dict[str, Any] | None:
    """Return the report of a finished run if recipe and files are the very same, without reading data or model again."""
    report = report_of(folder)
    try:
        same = folder.recipe.read_text("utf-8") == recipe.to_yaml()
        kept = json.loads((folder.path / "sources.json").read_text("utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return report if same and kept == marks(recipe.values) else None


def evaluated_so(values: RecipeValues, report: Mapping[str, Any]) -> bool:
    """Return whether the report was made with the same settings of the evaluation."""
    now, then = flat(values.model_dump(mode="json")), flat(dict(report["recipe"]))
    return all(now.get(path) == then.get(path) for path in {*now, *then} if part_of(path, REEVALUATED_KEYS))


def marks(values: RecipeValues) -> dict[str, Any]:
    """Return size and time of each data file: while they stay, its content need not be read to know it again."""
    data, block = values.data, values.language_model
    given = [data.train, data.valid, data.test, *([block.train, block.valid] if block is not None else [])]
    named = [one for value in given if value for one in ([value] if isinstance(value, str) else value)]
    backbone = values.backbone
    models = [backbone.name, backbone.weights, backbone.vocabulary, backbone.backward]
    # a bundle's manifest has the hashes of all its files
    named += [str(path / "manifest.json") if path.is_dir() else str(path) for path in map(Path, filter(None, models))]
    paths = [Path(value) for value in named if not value.endswith("%") and not value.startswith("hub:")]
    return {str(path): [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else None for path in paths}


def clear(folder: RunFolder) -> None:
    """Remove what a run has left in a folder; a language model that was trained in it stays."""
    for name in ("checkpoints", "bundle", "tensorboard", "csv"):
        path = folder.path / name
        if path.is_symlink():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
    names = (
        "run.json",
        "status.json",
        FORECAST,
        LOGGER_IDS,
        "report.html",
        "training.json",
        "report.json",
        "errors.csv",
        "predictions.parquet",
    )
    for name in (*names, "sources.json", "bad_rows.jsonl", "worker_error.json"):
        (folder.path / name).unlink(missing_ok=True)


def identity(values: RecipeValues, fingerprints: Mapping[str, str], model_sha256: str) -> dict[str, Any]:
    """Return what a run's weights depend on, by key of the recipe; the contents of the files stand for their places."""
    leaves = flat(values.model_dump(mode="json"))
    fixed = {path: value for path, value in leaves.items() if not part_of(path, FREE_KEYS | _PLACES)}
    kept = {path: value for path, value in fixed.items() if value != {}}  # `trainer:` without a key that is not free
    found = {".".join(map(str, path)): value for path, value in kept.items()}
    found |= {f"content of {name}": value for name, value in fingerprints.items()}
    found["initial weights"] = model_sha256
    return found


def write_bad_rows(folder: RunFolder, bad_rows: Sequence[BadRow], n_bad_rows: int) -> None:
    """Write the rows that were left out, if there are any, into bad_rows.jsonl.

    Args:
        folder: The run's.
        bad_rows: The first of each source.
        n_bad_rows: How many were left out; a last line tells of those that are not listed.
    """
    if bad_rows:
        rows: list[tuple[str | None, str, str]] = [(bad.where, bad.reason, bad.content) for bad in bad_rows]
        if n_bad_rows > len(bad_rows):
            more = f"{n_bad_rows - len(bad_rows):,} more rows are left out and not listed"
            rows.append((None, f"{more}: of each source the first {MAX_KEPT_BAD_ROWS:,} are", ""))
        write_rows(folder.path / "bad_rows.jsonl", {"where": str, "reason": str, "content": str}, rows)
