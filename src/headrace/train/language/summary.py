"""What the training of a language model would read: files, tokens, words, and a shown batch; nothing is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headrace.backbones._language import NEXT_WORD
from headrace.bundle.language_model import predicted_by
from headrace.data.audit import Finding
from headrace.recipe import Recipe
from headrace.recipe.schema import RecipeValues
from headrace.text.batch import collate
from headrace.text.masks import Masks
from headrace.text.plan import Plan
from headrace.text.statistics import Lengths, histogram_edges, lengths_of, suggested_length
from headrace.train.language.findings import language_findings
from headrace.train.language.prepare import (
    LanguageData,
    Texts,
    block_of,
    max_length_key,
    max_length_of,
    prepare_language,
)
from headrace.train.language.streams import Streams
from headrace.train.language.training import check_language_settings, unsaved
from headrace.train.stages import refuse_stages

N_SHOWN = 2
N_SHOWN_TOKENS = 24


@dataclass(frozen=True)
class TextSplit:
    """One split of the texts.

    Attributes:
        files: Each file's name and how many of its texts are in this split.
        mean_tokens, longest: After the cut, where there is one.
        cut_share, unknown_share: Of the texts, and of the tokens; in [0, 1].
        lengths: How long the texts are before the cut.
    """

    name: str
    n_texts: int
    n_tokens: int
    mean_tokens: float
    longest: int
    cut_share: float
    unknown_share: float
    files: list[tuple[str, int]]
    lengths: Lengths


@dataclass(frozen=True)
class ShownPair:
    """What the model sees, and what it shall say: tokens as the vocabulary writes them.

    Attributes:
        seen: The inputs.
        wanted: Next words: the inputs one token on. Masked words: what stood there, and nothing elsewhere.
    """

    seen: list[str]
    wanted: list[str]


@dataclass(frozen=True)
class LanguageCheck:
    """What a recipe with `task: language_model` would train on.

    Attributes:
        kind: `next_word` or `masked_word`.
        n_words: Size of the vocabulary.
        n_steps: Optimizer steps of all epochs.
        n_streams: Read side by side, of `sequence_length` tokens a step; of masked words the texts of a step.
        test_share: Share of the test texts that stand among the training texts, too; None without any.
        batch: The beginning of the first step, two streams (or texts) of it.
        max_length: Tokens kept of a text; None for all.
        max_length_key: The recipe's key for it.
        suggested_max_length: As for a classifier; None where texts are kept whole.
        findings: About the texts, but for those that `data.allow` names.
        notes: What a classifier's check has and this one lacks, and why.
    """

    recipe: str
    kind: str
    splits: list[TextSplit]
    n_words: int
    n_steps: int
    n_streams: int
    sequence_length: int | None
    test_share: float | None
    batch: list[ShownPair]
    max_length: int | None
    max_length_key: str
    suggested_max_length: int | None
    findings: list[Finding]
    notes: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found that somebody should look at; findings that are notes do not count."""
        return all(finding.severity == "note" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"task": "language_model", **asdict(self), "is_clean": self.is_clean}


def check_language_model(
    recipe: Recipe,
    *,
    labels: bool = False,
    forecast: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> LanguageCheck:
    """Read recipe and texts as `fit` would, and tell what is there; nothing is trained.

    Args:
        recipe: With `task: language_model`.
        labels: Whether doubtful labels are asked for: a note says that there are none.
        forecast: Whether a forecast is asked for: a note says that there is none.
        progress: Told what is done, how far, and how much there is.

    Raises:
        HeadraceError: The faults of the recipe or of a file.
    """
    values = recipe.values
    check_language_settings(values)
    prepared = prepare_language(values, progress=progress)
    model = unsaved(values, prepared).module.model
    refuse_stages(values.fit.phases, len(model.groups()))
    notes = ["no label is read" + (", so --labels has nothing to rank" if labels else "")]
    notes += ["no forecast: time and memory are foretold for classifiers alone"] if forecast else []
    return look_over_texts(
        values, prepared, recipe=recipe.name, findings=language_findings(values, prepared), notes=notes
    )


def look_over_texts(
    values: RecipeValues,
    prepared: LanguageData,
    *,
    recipe: str,
    findings: Sequence[Finding] = (),
    notes: Sequence[str] = (),
) -> LanguageCheck:
    """Tell what a language model would be trained on.

    Args:
        values: With `task: language_model`.
        prepared: Its texts.
        recipe: The recipe's name.
        findings: About the texts.
        notes: What else a person should know.
    """
    kind = predicted_by(values.backbone.name)
    found = _next_words(values, prepared) if kind == NEXT_WORD else _masked_words(values, prepared)
    batch, n_steps, n_streams, length = found
    max_length, full = max_length_of(values), [part.corpus.full_lengths for part in prepared.parts]
    edges, limit = histogram_edges(np.concatenate(full)), prepared.tokenizer.model_max_length
    beside = ["streams have no padding" if kind == NEXT_WORD else "padding is measured for classifiers alone"]
    beside += ["texts are read whole, so no length is suggested"] if max_length is None else []
    return LanguageCheck(
        recipe=recipe,
        kind=kind,
        splits=[_split(part, edges) for part in prepared.parts],
        n_words=prepared.tokenizer.vocabulary_size,
        n_steps=n_steps * values.fit.epochs,
        n_streams=n_streams,
        sequence_length=length,
        test_share=prepared.test_share,
        batch=batch,
        max_length=max_length,
        max_length_key=max_length_key(values),
        suggested_max_length=None if max_length is None else suggested_length(full[0], limit=limit),
        findings=list(findings),
        notes=[*beside, *notes],
    )


def _split(part: Texts, edges: list[int]) -> TextSplit:
    corpus = part.corpus
    return TextSplit(
        name=part.name,
        n_texts=len(part),
        n_tokens=corpus.n_tokens,
        mean_tokens=float(corpus.lengths.mean()),
        longest=int(corpus.lengths.max()),
        cut_share=corpus.cut_share,
        unknown_share=corpus.unknown_share,
        files=[(file.source, len(file)) for file in part.files],
        lengths=lengths_of(corpus.full_lengths, corpus.lengths, np.array([corpus.n_unknown]), edges=edges),
    )


def _next_words(values: RecipeValues, prepared: LanguageData) -> tuple[list[ShownPair], int, int, int]:
    length = block_of(values).sequence_length
    streams = Streams.of(
        prepared.train.corpus,
        n_streams=values.fit.batch_size,
        sequence_length=length,
        seed=values.seed,
        is_backward=values.backbone.direction == "backward",
    )
    inputs, targets = streams.step(0, 0)
    names = prepared.tokenizer.tokens
    batch = [
        ShownPair(names(seen[:N_SHOWN_TOKENS]), names(wanted[:N_SHOWN_TOKENS]))
        for seen, wanted in zip(inputs[:N_SHOWN], targets[:N_SHOWN], strict=True)
    ]
    return batch, streams.n_steps, streams.n_streams, length


def _masked_words(values: RecipeValues, prepared: LanguageData) -> tuple[list[ShownPair], int, int, None]:
    tokenizer, train = prepared.tokenizer, prepared.train.corpus
    plan = Plan(n_rows=len(train), batch_size=values.fit.batch_size, seed=values.seed)
    rows = plan.rows(0, 0)
    padding: dict[str, Any] = {"pad_id": tokenizer.pad_id, "uses_token_types": tokenizer.uses_token_types}
    masks = Masks.of(tokenizer, seed=values.seed)
    batch = []
    for row in rows[:N_SHOWN]:
        texts = collate(train, rows[rows == row][:1], None, **padding)
        seen, places, stood = masks.of_batch(texts, epoch=0)
        wanted = [""] * seen.shape[1]
        for place, name in zip(places.tolist(), tokenizer.tokens(stood), strict=True):
            wanted[place] = name
        batch.append(ShownPair(tokenizer.tokens(seen[0])[:N_SHOWN_TOKENS], wanted[:N_SHOWN_TOKENS]))
    return batch, plan.n_steps, len(rows), None
