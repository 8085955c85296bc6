"""What a training would see: counts, lengths, padding, findings and the first step of prepared data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from headrace.data.audit import Finding
from headrace.data.labels import label_counts, label_sets
from headrace.mislabelled import Suspects
from headrace.text.batch import micro_batches
from headrace.text.plan import Plan
from headrace.text.statistics import (
    Lengths,
    Padding,
    histogram_edges,
    lengths_of,
    padding_of,
    padding_share,
    suggested_length,
)
from headrace.text.tokenizer import Tokenizer
from headrace.train.data import Steps, TextDataModule
from headrace.train.language.summary import LanguageCheck
from headrace.train.prepare import Part, Prepared

N_SHOWN_TEXTS = 4
N_FIRST_TOKENS = 56
N_LAST_TOKENS = 8
MAX_CO_OCCURRENCE_LABELS = 50
# Steps that padding is measured on: 100 of 32 texts are 3,200 texts, enough for the second digit of a share.
MAX_MEASURED_STEPS = 100
_SERIOUS = ("error", "warning")


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
class CoOccurrence:
    """Which labels stand together on training rows (multi-label).

    Attributes:
        labels: The labels, in their order; of more than 50 the 50 with most rows.
        counts: [labels][labels] rows that have both; on the diagonal the rows of the label.
    """

    labels: list[str]
    counts: list[list[int]]


@dataclass(frozen=True)
class ShownToken:
    """A token as the model sees it.

    Attributes:
        text: Decoded, with the space before it where there is one; a special token as the vocabulary writes it.
        is_special: Whether it stands for no piece of text: it begins, separates or ends texts, or is unknown.
    """

    text: str
    is_special: bool


@dataclass(frozen=True)
class ShownText:
    """A text of the first training step as the model sees it.

    Attributes:
        where: `file:row`.
        n_tokens: Tokens after the cut, special tokens included.
        tokens: All of up to 64; else the first 56.
        n_left_out: Tokens of a longer text that are not shown.
        last_tokens: The last 8 of a longer text.
    """

    where: str
    labels: list[str]
    n_tokens: int
    tokens: list[ShownToken]
    n_left_out: int
    last_tokens: list[ShownToken]


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
        recipe: Its name.
        n_steps: Optimizer steps of the whole training.
        max_length: Tokens kept of a text.
        suggested_max_length: Smallest multiple of 32 tokens that keeps 95 % of the training texts whole, but no more
            than the tokenizer says that the backbone takes.
        co_occurrence: None for a single label.
        findings: Those that `data.allow` does not name.
        n_bad_rows: Rows that `data.on_bad_row: skip` leaves out.
        suspects: Training rows that may be mislabelled, where they were asked for; they are no findings.
        forecast: What `Forecast.as_dict` gives, where it was asked for.
        language_model: What the language model before the classifier would read, if the recipe has one.
    """

    recipe: str
    task: str
    labels: list[str]
    splits: list[Split]
    n_steps: int
    max_length: int
    suggested_max_length: int
    padding: Padding
    co_occurrence: CoOccurrence | None
    batch: ShownBatch
    findings: list[Finding]
    n_bad_rows: int
    suspects: Suspects | None = field(default=None)
    forecast: Mapping[str, Any] | None = field(default=None)
    language_model: LanguageCheck | None = field(default=None)

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found that somebody should look at; notes and suspects do not count."""
        before = self.language_model is None or self.language_model.is_clean
        return before and not any(finding.severity in _SERIOUS for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return it as the `--json` output shows it.

        Returns:
            The fields by name, nested objects as mappings (`splits[].lengths.histogram.edges` and so on), `suspects`
            as its own `as_dict` has it or None, and `is_clean`.
        """
        suspects = None if self.suspects is None else self.suspects.as_dict()
        before = None if self.language_model is None else self.language_model.as_dict()
        return {**asdict(self), "suspects": suspects, "language_model": before, "is_clean": self.is_clean}


def summary_of(data: TextDataModule, *, task: str, epochs: int, max_length: int) -> dict[str, Any]:
    """Return what stands at the head of a run's report: `Check.as_dict()` without what is asked for or trained beside.

    Args:
        data: The run's data, prepared.
        task: The recipe's.
        epochs: Of the whole training.
        max_length: Tokens kept of a text.
    """
    found = look_over(data, task=task, epochs=epochs, max_length=max_length).as_dict()
    beside = ("recipe", "suspects", "forecast", "language_model")
    return {name: value for name, value in found.items() if name not in beside}


def look_over(data: TextDataModule, *, task: str, epochs: int, max_length: int, recipe: str = "") -> Check:
    """Count, measure and show prepared data; nothing is trained.

    Args:
        data: Prepared or not; its plan decides which rows make the first step.
        task: The recipe's.
        epochs: Of the whole training.
        max_length: Tokens kept of a text.
        recipe: Its name.
    """
    prepared, steps = data.ready, data.steps()
    full = [_full_lengths(part) for part in prepared.parts]
    edges = histogram_edges(np.concatenate(full))
    return Check(
        recipe=recipe,
        task=task,
        labels=list(prepared.labels.names),
        splits=[_split(part, prepared, edges) for part in prepared.parts],
        n_steps=data.steps_per_epoch * epochs,
        max_length=max_length,
        suggested_max_length=suggested_length(full[0], limit=prepared.subwords.model_max_length),
        padding=_padding(steps, max_length),
        co_occurrence=_co_occurrence(prepared.train.targets, prepared.labels.names),
        batch=_shown(prepared, steps.plan.rows(0, 0)),
        findings=list(prepared.findings),
        n_bad_rows=prepared.n_bad_rows,
    )


def _split(part: Part, prepared: Prepared, edges: list[int]) -> Split:
    codes, sets = label_sets(part.examples)
    n_without = int((codes == sets.index(())).sum()) if () in sets else 0
    counts = label_counts(part.examples, prepared.labels)
    n_unknown = np.asarray(part.store.n_unknown)[part.rows]
    lengths = lengths_of(_full_lengths(part), part.lengths, n_unknown, edges=edges)
    return Split(part.name, len(part), counts, n_without, lengths)


def _full_lengths(part: Part) -> np.ndarray:
    found: np.ndarray = np.asarray(part.store.full_lengths)[part.rows]
    return found


def _padding(steps: Steps, max_length: int) -> Padding:
    plan, lengths = steps.plan, steps.part.lengths
    n_steps = min(plan.n_steps, MAX_MEASURED_STEPS)
    drawn = Plan(plan.n_rows, plan.batch_size, plan.seed)
    batches = []
    for step in range(n_steps):
        rows = plan.rows(0, step)
        groups = micro_batches(lengths[rows], max_texts=steps.micro_batch, pass_tokens=steps.pass_tokens)
        batches += [rows[group] for group in groups]
    random_steps = [drawn.rows(0, step) for step in range(n_steps)]
    return padding_of(lengths, random_steps=random_steps, batches=batches, max_length=max_length)


def _co_occurrence(targets: np.ndarray, names: Sequence[str]) -> CoOccurrence | None:
    if targets.ndim == 1:
        return None
    present = targets > 0
    often = np.argsort(-present.sum(axis=0), kind="stable")[:MAX_CO_OCCURRENCE_LABELS]
    kept = np.sort(often)
    chosen = present[:, kept].astype(np.float32)  # its product is a fast one, and exact up to 2**24 rows
    counts = (chosen.T @ chosen).astype(np.int64)
    return CoOccurrence([names[label] for label in kept], counts.tolist())


# -- the shown batch --------------------------------------------------------------------------------------------------


def _shown(prepared: Prepared, rows: np.ndarray) -> ShownBatch:
    lengths = prepared.train.lengths_of(rows)
    return ShownBatch(
        n_texts=len(rows),
        width=int(lengths.max()),
        padding_share=padding_share(lengths),
        texts=[_text(prepared, int(row)) for row in rows[:N_SHOWN_TEXTS]],
    )


def _text(prepared: Prepared, row: int) -> ShownText:
    part, subwords = prepared.train, prepared.subwords
    ids = part.ids(row)
    special = special_ids(subwords, is_pair=part.examples.is_pair)
    n_left_out = max(0, len(ids) - N_FIRST_TOKENS - N_LAST_TOKENS)
    first, last = (ids[:N_FIRST_TOKENS], ids[-N_LAST_TOKENS:]) if n_left_out else (ids, ids[:0])
    label = part.examples.labels(row, row + 1)[0]
    return ShownText(
        where=part.examples.where(row),
        labels=list(label) if isinstance(label, list) else [label],
        n_tokens=len(ids),
        tokens=shown_tokens(first, subwords, special=special),
        n_left_out=n_left_out,
        last_tokens=shown_tokens(last, subwords, special=special),
    )


def special_ids(subwords: Tokenizer, *, is_pair: bool) -> frozenset[int]:
    """Return the ids of the tokens that are no piece of text: those around and between texts, unknown, mask, padding."""
    layout = subwords.layout(pair=is_pair)
    found = {*layout.prefix, *layout.middle, *layout.suffix, subwords.pad_id, subwords.unk_id, subwords.mask_id}
    return frozenset(id for id in found if id is not None)


def shown_tokens(ids: Sequence[int] | np.ndarray, subwords: Tokenizer, *, special: frozenset[int]) -> list[ShownToken]:
    """Return tokens as text; joined, those between two special tokens are the text that the tokenizer decodes.

    A character of several tokens stands with the last of them, and the others are empty.
    """
    found: list[ShownToken] = []
    run: list[int] = []
    shown = ""
    for id, name in zip(map(int, ids), subwords.tokens(ids), strict=True):
        if id in special:
            found.append(ShownToken(name, True))
            run, shown = [], ""
            continue
        run.append(id)
        decoded = subwords.decode(run)
        if not decoded.startswith(shown):  # the decoder tidied up what came before, such as "do n't": begin anew
            run, shown, decoded = [id], "", subwords.decode([id])
        # U+FFFD at the end: bytes of a character whose other bytes are still to come.
        text = "" if decoded.endswith("\ufffd") else decoded[len(shown) :]
        shown += text
        found.append(ShownToken(text, False))
    return found
