"""Two or more finished runs side by side: a table of metrics, and a verdict for each pair that matters."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headrace.compare.paired import Paired, holm
from headrace.compare.pooled import mean_over_seeds, pooled
from headrace.compare.runs import FinishedRun, read_run, refuse_other_rows, seed_folders
from headrace.compare.scores import Scored, compare_scored, metric_named, shown_metrics, too_few
from headrace.compare.verdict import Comparison, compared, larger_is_better
from headrace.data.examples import LabelSet
from headrace.errors import RecipeError, RunError, suggestion
from headrace.evaluation import Interval

RESAMPLES = 1000
AGAINST = ("first", "best")


@dataclass(frozen=True)
class Contestant:
    """One run, or one recipe trained with several seeds.

    Attributes:
        name: Its folder's name, with as much of the path as tells it from the others.
        folder: Where it was read from.
        seeds: Of its runs; empty if the report does not say.
        metrics: Name -> value with interval; over several seeds the mean with an interval over rows and seeds.
        spread: Name -> standard deviation over the seeds on these rows; empty for a single run.
        values: Name -> the value of each run.
        runs: What they scored.
    """

    name: str
    folder: Path
    seeds: tuple[int, ...]
    metrics: Mapping[str, Interval]
    spread: Mapping[str, float]
    values: Mapping[str, tuple[float | None, ...]]
    runs: tuple[Scored, ...] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return `name`, `folder`, `seeds`, `metrics`, and over several seeds `spread` and `values` (of each run)."""
        shown: dict[str, Any] = {
            "name": self.name,
            "folder": str(self.folder),
            "seeds": list(self.seeds),
            "metrics": {name: interval.as_dict() for name, interval in self.metrics.items()},
        }
        if len(self.runs) > 1:
            shown |= {"spread": dict(self.spread), "values": {name: list(found) for name, found in self.values.items()}}
        return shown


@dataclass(frozen=True)
class RunComparison:
    """Runs side by side on the same rows.

    Attributes:
        task: `single_label` or `multi_label`.
        split: Which rows: `test` or `valid`.
        n_rows: How many.
        metric: What the verdicts are about.
        contestants: In the order in which they were given.
        verdicts: Each other contestant (b) against the reference (a).
        notes: What a reader must know to read the verdicts right.
    """

    task: str
    split: str
    n_rows: int
    metric: str
    contestants: tuple[Contestant, ...]
    verdicts: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values.

        Returns:
            `task`, `split`, `n_rows`, `metric`, `runs` (list of `Contestant.as_dict()`), `verdicts` (list of
            `Comparison.as_dict(whole=True)`), `notes`.
        """
        return {
            "task": self.task,
            "split": self.split,
            "n_rows": self.n_rows,
            "metric": self.metric,
            "runs": [one.as_dict() for one in self.contestants],
            "verdicts": [one.as_dict(whole=True) for one in self.verdicts],
            "notes": list(self.notes),
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows: a line for each metric, a column for each contestant."""
        header = ["metric", *(one.name for one in self.contestants)]
        names = self.contestants[0].metrics
        return header, [[name, *(_cell(one, name) for one in self.contestants)] for name in names]

    def label_table(self) -> tuple[list[str], list[list[str]]] | None:
        """Return header and rows of the labels' ROC AUCs by DeLong's test; None but for two single runs."""
        if len(self.verdicts) != 1 or not self.verdicts[0].per_label:
            return None
        verdict = self.verdicts[0]
        header = ["ROC AUC", *verdict.names, "difference", "95 % interval", "p (corrected)"]
        return header, [_label_cells(label, found) for label, found in verdict.per_label.items()]

    def lines(self) -> list[str]:
        """Return the verdicts and the notes, a sentence each."""
        several = len(self.verdicts) > 1
        said = [f"{v.names[1]} against {v.names[0]}: {v.sentence}" if several else v.sentence for v in self.verdicts]
        return [*said, *(f"note: {note}" for note in self.notes)]

    def __str__(self) -> str:
        header, rows = self.table()
        widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
        shown = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in [header, *rows]]
        return "\n".join([f"{self.split}: {self.n_rows:,} rows, {self.task}", "", *shown, "", *self.lines()])


def _cell(contestant: Contestant, name: str) -> str:
    interval = contestant.metrics[name]
    shown = str(interval) if interval.value is not None else "none"
    return f"{shown} ± {contestant.spread[name]:.4f}" if name in contestant.spread else shown


def _label_cells(label: str, found: Comparison) -> list[str]:
    values = ["none" if value is None else f"{value:.4f}" for value in found.values]
    difference = found.difference
    if difference.value is None or difference.low is None:
        return [
            label,
            *values,
            "" if difference.value is None else f"{difference.value:+.4f}",
            difference.note or "",
            "",
        ]
    p_value = found.p_corrected if found.p_corrected is not None else found.p_value
    span = f"{difference.low:+.4f} to {difference.high:+.4f}"
    return [label, *values, f"{difference.value:+.4f}", span, _p_cell(p_value)]


def _p_cell(p_value: float | None) -> str:
    return "" if p_value is None else "< 0.0001" if p_value < 0.0001 else f"{p_value:.4f}"


def compare(
    *runs: str | os.PathLike[str], metric: str | None = None, against: str = "first", seed: int = 0
) -> RunComparison:
    """Compare finished runs on the rows that all of them were evaluated on.

    Args:
        *runs: Folders of runs, or of several seeds of one recipe (`fit --seeds`), which are pooled.
        metric: What the verdicts are about; by default accuracy, in multi-label the mean ROC AUC.
        against: The reference: the `first`, or the `best` by the metric. A best that the same rows chose looks better
            than it is; the p-values are then corrected for all pairs.
        seed: Of the resamples.

    Raises:
        RunError: A folder holds no finished run, or fewer than two are given.
        DataError: The runs were not scored on the same rows with the same labels.
        RecipeError: There is no such metric or reference.
    """
    return compare_runs([Path(run) for run in runs], metric=metric, against=against, seed=seed)


def compare_runs(
    folders: Sequence[Path], *, metric: str | None = None, against: str = "first", seed: int = 0
) -> RunComparison:
    """Compare finished runs, see `compare`."""
    if len(folders) < 2:
        raise RunError(f"{len(folders)} run is no comparison", where="compare", next="give two folders of runs or more")
    if against not in AGAINST:
        raise RecipeError(
            f"there is no reference named {against!r}", where="against", next=suggestion(against, AGAINST)
        )
    groups = [_runs_of(Path(folder)) for folder in folders]
    first = groups[0][0]
    for run in [run for group in groups for run in group][1:]:
        refuse_other_rows(first, run)
    labels = LabelSet(first.evaluation.labels)
    name = metric_named(metric, first.targets, len(labels))
    contestants = tuple(
        _contestant(called, Path(folder), group, labels, seed)
        for called, folder, group in zip(_names(folders), folders, groups, strict=True)
    )
    reference = 0 if against == "first" else _best(contestants, name)
    others = [i for i in range(len(contestants)) if i != reference]
    verdicts = [_verdict(contestants[reference], contestants[i], labels, name) for i in others]
    # a reference that the rows chose was compared with all, so all pairs count
    n = len(contestants)
    family = n * (n - 1) // 2 if against == "best" else len(verdicts)
    if family > 1:
        corrected = holm([verdict.p_value for verdict in verdicts], family=family)
        verdicts = [verdict.corrected(p) for verdict, p in zip(verdicts, corrected, strict=True)]
    return RunComparison(
        task=first.evaluation.task,
        split=first.evaluation.split,
        n_rows=first.evaluation.n_rows,
        metric=name,
        contestants=contestants,
        verdicts=tuple(verdicts),
        notes=tuple(_notes(contestants, first.evaluation.split, family)),
    )


def _runs_of(folder: Path) -> list[FinishedRun]:
    return [read_run(path) for path in seed_folders(folder) or [folder]]


def _names(folders: Sequence[Path]) -> list[str]:
    """Return each folder's name, with as many of the folders above as tells all of them apart."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{one[-1]} ({number})" for number, one in enumerate(parts, start=1)]


def _contestant(name: str, folder: Path, group: Sequence[FinishedRun], labels: LabelSet, seed: int) -> Contestant:
    runs = tuple(run.scored(name, labels, seed=seed, resamples=RESAMPLES) for run in group)
    seeds = tuple(run.seed for run in group if run.seed is not None)
    shown = shown_metrics(runs[0].targets, len(labels))
    values = {metric: tuple(run.value(metric) for run in runs) for metric in shown}
    if len(runs) == 1:
        own = group[0].evaluation.metrics
        metrics = {metric: own.get(metric, Interval(values[metric][0])) for metric in shown}
        return Contestant(name, folder, seeds, metrics, {}, values, runs)
    metrics = {metric: _mean(runs, labels, metric, values[metric]) for metric in shown}
    spread = {
        metric: float(np.std([value for value in found if value is not None], ddof=1))
        for metric, found in values.items()
        if None not in found
    }
    return Contestant(name, folder, seeds, metrics, spread, values, runs)


def _mean(runs: Sequence[Scored], labels: LabelSet, metric: str, values: Sequence[float | None]) -> Interval:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return Interval(None, note="the rows do not define it for every run")
    why = too_few(runs[0].targets, labels, metric, [run.decided for run in runs])
    if why is not None:
        return Interval(float(np.mean(known)), note=why)
    return mean_over_seeds(np.array(known), np.stack([run.drawn(metric) for run in runs]))


def _best(contestants: Sequence[Contestant], metric: str) -> int:
    sign = 1.0 if larger_is_better(metric) else -1.0
    found = [one.metrics[metric].value for one in contestants]
    return int(np.argmax([-np.inf if value is None else sign * value for value in found]))


def _verdict(a: Contestant, b: Contestant, labels: LabelSet, metric: str) -> Comparison:
    if len(a.runs) == len(b.runs) == 1:
        return compare_scored(a.runs[0], b.runs[0], labels, metric=metric, whole=True)
    values = a.metrics[metric].value, b.metrics[metric].value
    n_rows = len(a.runs[0].targets)
    why = too_few(a.runs[0].targets, labels, metric, [run.decided for run in (*a.runs, *b.runs)])
    if values[0] is None or values[1] is None:
        paired = Paired(Interval(None, note=f"the rows do not define {metric}"), None, "", None)
    elif why is not None:
        paired = Paired(Interval(values[1] - values[0], note=why), None, "", None)
    else:
        paired = pooled(metric, a.runs, b.runs)
    return compared(metric, (a.name, b.name), values, paired, n_rows)


def _notes(contestants: Sequence[Contestant], split: str, family: int) -> list[str]:
    notes = []
    single = [one.name for one in contestants if len(one.runs) == 1]
    if len(single) == len(contestants):
        notes.append(
            "each run has one seed: the verdict is about these runs; `fit --seeds 5` tells about their recipes"
        )
    elif single:
        notes.append(f"{', '.join(single)} has one seed: the verdict is about that run, not about its recipe")
    few = [one.name for one in contestants if 1 < len(one.runs) < 5]
    if few:
        notes.append(
            f"fewer than 5 seeds of {', '.join(few)}: the spread over seeds is itself uncertain, intervals are wide"
        )
    if split == "valid":
        notes.append(
            "the rows are those of validation, which chose the best checkpoint: the values look a little too good"
        )
    if family > 1:
        notes.append(f"p-values are corrected for {family} comparisons by Holm's procedure; the intervals are not")
    return notes
