"""One recipe trained with several seeds: how much of a result is luck."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

from headrace.compare.runs import SEED_FOLDER, SEEDS_FILE
from headrace.errors import RecipeError, RunError
from headrace.files import write_json
from headrace.recipe import Recipe, load_recipe
from headrace.train.fit import Run, fit, monitored, refuse_language_model, say_to_stderr
from headrace.train.progress import Echo
from headrace.train.run import default_folder


class Options(TypedDict, total=False):
    """What `fit_seeds` hands to each `fit`, see there."""

    train: Any
    valid: Any
    test: Any
    overrides: Iterable[str]
    force: bool
    strict: bool
    echo: Echo | None


@dataclass(frozen=True)
class Spread:
    """A number over the seeds.

    Attributes:
        mean: None if a run has no value.
        deviation: The sample's standard deviation; None for a single seed, or if a run has no value.
        values: Of each run, in the order of the seeds.
    """

    mean: float | None
    deviation: float | None
    values: tuple[float | None, ...]

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        """Summarize the values of the runs."""
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return cls(None, None, tuple(values))
        return cls(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None, tuple(values))

    def as_dict(self) -> dict[str, Any]:
        """Return `mean`, `deviation`, `values`."""
        return {"mean": self.mean, "deviation": self.deviation, "values": list(self.values)}

    def __str__(self) -> str:
        if self.mean is None:
            return "none"
        return f"{self.mean:.4f}" + ("" if self.deviation is None else f" ± {self.deviation:.4f}")


@dataclass(frozen=True)
class SeedsRun:
    """One recipe's runs with several seeds.

    Attributes:
        folder: Holds `seed-N/` (a run each) and seeds.json.
        seeds: In the order in which they were trained.
        runs: In the order of the seeds.
        by: The figure of validation that picks the best.
        validation: That figure over the seeds.
        metrics: Metric's name -> its values on the evaluated rows.
        best_seed: The one with the best validation; chosen without the test rows.
    """

    folder: Path
    seeds: tuple[int, ...]
    runs: tuple[Run, ...]
    by: str
    validation: Spread
    metrics: Mapping[str, Spread]
    best_seed: int

    @property
    def best(self) -> Run:
        """The run with the best validation."""
        return self.runs[self.seeds.index(self.best_seed)]

    def as_dict(self) -> dict[str, Any]:
        """Return what seeds.json holds.

        Returns:
            `seeds`, `best` (the seed), `by`, `values` ({seed: the figure of validation}), `validation` and `metrics`
            ({name: `mean`, `deviation`, `values`}), `split` (which rows the metrics are from).
        """
        return {
            "seeds": list(self.seeds),
            "best": self.best_seed,
            "by": self.by,
            "values": {str(seed): value for seed, value in zip(self.seeds, self.validation.values, strict=True)},
            "validation": self.validation.as_dict(),
            "metrics": {name: spread.as_dict() for name, spread in self.metrics.items()},
            "split": self.runs[0].evaluation.split,
        }

    def __str__(self) -> str:
        split = self.runs[0].evaluation.split
        lines = [f"{len(self.seeds)} seeds ({', '.join(map(str, self.seeds))}), mean ± standard deviation on {split}:"]
        lines += [f"  {name}: {spread}" for name, spread in self.metrics.items()]
        lines.append(f"best by {self.by} on validation: seed {self.best_seed} ({self.best.bundle})")
        return "\n".join(lines)


def fit_seeds(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    seeds: int | Sequence[int] = 5,
    *,
    out: str | Path | None = None,
    **options: Unpack[Options],
) -> SeedsRun:
    """Train a recipe once with each seed, in `seed-N/` of one folder, and say how far the results spread.

    The same call goes on where an earlier one was interrupted; what is finished is not trained again. A later
    call with more seeds adds them; seeds.json tells of those of the last call. A seed also draws the split (`data.valid` as a share), `data.limit` and `data.downsample`; with
    files for validation and test all runs are scored on the same rows, which `compare` needs.

    Args:
        recipe: As for `fit`.
        seeds: How many (the recipe's seed and the numbers after it), or which.
        out: The folder; by default `runs/` and the recipe's name.
        **options: As for `fit`.

    Raises:
        RecipeError: There is no seed, a seed is negative, or one is given twice.
        RunError: The folder holds a single run.
        HeadraceError: Whatever `fit` raises.
    """
    given = list(options.get("overrides", ()))
    resolved = load_recipe(recipe, overrides=given)
    refuse_language_model(resolved.values, "a comparison of several seeds")
    chosen = seeds_from(seeds, first=resolved.values.seed)
    folder = Path(out) if out is not None else default_folder(resolved)
    if (folder / "run.json").exists():
        raise RunError(
            "this folder holds a single run, not several seeds", where=str(folder), next="choose another with --out"
        )
    say = options.get("echo") or say_to_stderr
    runs = []
    for number, seed in enumerate(chosen, start=1):
        say(f"seed {seed} ({number} of {len(chosen)})")
        own: Options = {**options, "overrides": [*given, f"seed={seed}"]}
        runs.append(fit(recipe, out=folder / f"{SEED_FOLDER}{seed}", **own))
    by, larger_is_better = monitored(resolved.values)
    found = _summary(folder, chosen, runs, by, larger_is_better=larger_is_better)
    write_json(folder / SEEDS_FILE, found.as_dict())
    return found


def seeds_from(seeds: int | Sequence[int], *, first: int) -> tuple[int, ...]:
    """Return the seeds to train with: those given, or so many from the recipe's own on.

    Raises:
        RecipeError: There is no seed, a seed is negative, or one is given twice.
    """
    chosen = tuple(range(first, first + seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not chosen:
        raise RecipeError(f"{seeds!r} names no seed", where="seeds", next="give a number from 1 on, such as --seeds 5")
    if len(set(chosen)) < len(chosen) or min(chosen) < 0:
        raise RecipeError(
            f"the seeds {', '.join(map(str, chosen))} are not all different and from 0 on",
            where="seeds",
            next="give each seed once",
        )
    return chosen


def _summary(folder: Path, seeds: tuple[int, ...], runs: Sequence[Run], by: str, *, larger_is_better: bool) -> SeedsRun:
    names = runs[0].evaluation.metrics
    metrics = {name: Spread.of([run.evaluation.metrics[name].value for run in runs]) for name in names}
    values = [_validation(run) for run in runs]
    sign = 1.0 if larger_is_better else -1.0
    best = max(range(len(runs)), key=lambda i: -math.inf if values[i] is None else sign * (values[i] or 0.0))
    return SeedsRun(folder, seeds, tuple(runs), by, Spread.of(values), metrics, seeds[best])


def _validation(run: Run) -> float | None:
    """Return the best figure of validation that a finished run's report holds."""
    report = json.loads((run.folder / "report.json").read_text("utf-8"))
    value = report.get("data", {}).get("training", {}).get("best", {}).get("value")
    return None if value is None else float(value)
