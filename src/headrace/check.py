"""Looks a recipe and its data over before anything is trained: counts, token lengths, findings, a shown batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.data.audit import Finding
from headrace.data.labels import label_counts, label_sets
from headrace.recipe import Recipe, load_recipe
from headrace.text.batch import Plan
from headrace.train.fit import data_plan, early_stopping, monitored
from headrace.train.prepare import Part, Prepared, prepare
from headrace.train.trainer import check_trainer_arguments

N_SHOWN_TEXTS = 4
MAX_SHOWN_CHARACTERS = 200
_SERIOUS = ("error", "warning")


@dataclass(frozen=True)
class Lengths:
    """How long the texts of a split are, in tokens before the cut.

    Attributes:
        cut_share: Share of the texts that are longer than `data.max_length`, in [0, 1].
        kept_share: Share of all tokens that the cut keeps, in [0, 1].
    """

    mean: float
    median: int
    p95: int
    longest: int
    cut_share: float
    kept_share: float


@dataclass(frozen=True)
class Split:
    """One split: how many rows, how many of each label, how long.

    Attributes:
        labels: Rows of each label; in multi-label a row counts for each of its labels.
        n_without_label: Rows with no label (multi-label).
    """

    name: str
    n_rows: int
    labels: dict[str, int]
    n_without_label: int
    lengths: Lengths


@dataclass(frozen=True)
class ShownText:
    """A text of the first training step as the model sees it: decoded from its tokens, cut to 200 characters."""

    where: str
    labels: list[str]
    n_tokens: int
    text: str


@dataclass(frozen=True)
class ShownBatch:
    """The first training step.

    Attributes:
        width: Tokens of its longest text.
        padding_share: Share of the batch that padding would be if it were computed in one piece, in [0, 1].
        texts: The first four.
    """

    n_texts: int
    width: int
    padding_share: float
    texts: list[ShownText]


@dataclass(frozen=True)
class Check:
    """What a recipe would train on.

    Attributes:
        n_steps: Optimizer steps of the whole training.
        findings: Those that `data.allow` does not name.
        n_bad_rows: Rows that `data.on_bad_row: skip` leaves out.
    """

    recipe: str
    task: str
    labels: list[str]
    splits: list[Split]
    n_steps: int
    batch: ShownBatch
    findings: list[Finding]
    n_bad_rows: int

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found that somebody should look at; notes do not count."""
        return not any(finding.severity in _SERIOUS for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return it as the `--json` output shows it."""
        return {**asdict(self), "is_clean": self.is_clean}


def check(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    *,
    overrides: Iterable[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> Check:
    """Read recipe and data as `fit` would, and tell what is there; nothing is trained.

    Args:
        recipe: A file, the name of a shipped recipe, a mapping, or a Recipe.
        overrides: `fit.epochs=5` and the like.
        progress: Told what is done, how far, and how much there is.

    Raises:
        HeadraceError: The faults of the recipe or of a data file, all of one input together.
    """
    resolved = load_recipe(recipe, overrides=overrides)
    values = resolved.values
    monitored(values)
    early_stopping(values)
    check_trainer_arguments(values.trainer)
    prepared = prepare(data_plan(values), progress=progress)
    part = prepared.train
    plan = Plan(
        len(part), values.fit.batch_size, values.seed, values.fit.sampler, lengths=part.lengths, targets=part.targets
    )
    return Check(
        recipe=resolved.name,
        task=values.task,
        labels=list(prepared.labels.names),
        splits=[_split(part, prepared) for part in prepared.parts],
        n_steps=plan.n_steps * values.fit.epochs,
        batch=_shown(prepared, plan.rows(0, 0)),
        findings=list(prepared.findings),
        n_bad_rows=prepared.n_bad_rows,
    )


def _split(part: Part, prepared: Prepared) -> Split:
    codes, sets = label_sets(part.examples)
    n_without = int((codes == sets.index(())).sum()) if () in sets else 0
    counts = label_counts(part.examples, prepared.labels)
    return Split(part.name, len(part), counts, n_without, _lengths(part))


def _lengths(part: Part) -> Lengths:
    kept = part.lengths
    full = np.asarray(part.store.full_lengths)[part.rows]
    return Lengths(
        mean=round(float(full.mean()), 1),
        median=int(np.median(full)),
        p95=int(np.percentile(full, 95)),
        longest=int(full.max()),
        cut_share=round(float((full > kept).mean()), 4),
        kept_share=round(float(kept.sum() / max(1, int(full.sum()))), 4),
    )


def _shown(prepared: Prepared, rows: np.ndarray) -> ShownBatch:
    part = prepared.train
    lengths = part.lengths_of(rows)
    width = int(lengths.max())
    return ShownBatch(
        n_texts=len(rows),
        width=width,
        padding_share=round(1 - float(lengths.sum()) / (width * len(rows)), 4),
        texts=[_text(prepared, int(row)) for row in rows[:N_SHOWN_TEXTS]],
    )


def _text(prepared: Prepared, row: int) -> ShownText:
    part = prepared.train
    ids = part.store.ids(int(part.rows[row]))
    text = prepared.subwords.decode(ids)
    if len(text) > MAX_SHOWN_CHARACTERS:
        text = text[: MAX_SHOWN_CHARACTERS - 1] + "…"
    label = part.examples.labels(row, row + 1)[0]
    names = label if isinstance(label, list) else [label]
    return ShownText(where=part.examples.where(row), labels=names, n_tokens=len(ids), text=text)
