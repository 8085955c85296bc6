"""All that a fit computes, counted before it runs: the steps are arithmetic, and the lengths of the texts are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from headrace.predict import MAX_TEXTS, MAX_TOKENS_CPU
from headrace.recipe.schema import RecipeValues
from headrace.text.batch import batches_by_length
from headrace.train.data import GPU_PASS_TOKENS, VALID_BATCH_TEXTS, VALID_BATCH_TOKENS
from headrace.train.prepare import Part, Prepared
from headrace.train.session import Session, untrained

#: Of a probe: these steps are taken in any case; the first warms up and does not count.
N_REQUIRED = 3
#: Steps whose passes are worked out. The tokens of a step vary by some tens of percent: 30 % / sqrt(1,000) is 1 %.
MAX_COUNTED_STEPS = 1_000
#: Tokens of the probe's batches of evaluation: at most a quarter of a real one, and as fast a token. They differ, so
#: that the cost of a batch can be told from that of its tokens.
SCORED_TOKENS = (256, 1_024, 1_024)
# Where the probe's passes stand in the plan's, in order of size and counted by tokens.
_SMALL = 0.1
_QUANTILES = (0.25, 0.75, 0.5, 0.125, 0.875, 0.375, 0.625)
_GROUP_QUANTILES = (0.1, 0.5, 0.9)


class Pass(NamedTuple):
    """The size of one pass through the model.

    Attributes:
        texts: How many.
        width: Tokens of the longest.
        tokens: Tokens of all, without padding.
        pairs: Pairs of tokens of one text, without padding: the sum of the squared lengths.
    """

    texts: int
    width: int
    tokens: int
    pairs: int

    @classmethod
    def of(cls, lengths: np.ndarray) -> Pass:
        """Return the size of a pass over texts of these lengths."""
        lengths = np.asarray(lengths, dtype=np.int64)
        return cls(len(lengths), int(lengths.max(initial=0)), int(lengths.sum()), int((lengths**2).sum()))


def work(steps: Iterable[Sequence[Pass]], *, n_steps: int | None = None, packed: bool = False) -> np.ndarray:
    """Return what steps of passes compute: [4] float64, steps, passes, tokens, pairs of tokens of one text.

    Args:
        steps: The passes of each step.
        n_steps: Count so many steps instead; 0 for passes without an optimizer.
        packed: Texts are laid end to end: padding does not count.
    """
    listed = [list(step) for step in steps]
    found = [one for step in listed for one in step]
    tokens = sum(one.tokens if packed else one.texts * one.width for one in found)
    pairs = sum(one.pairs if packed else one.texts * one.width**2 for one in found)
    n = len(listed) if n_steps is None else n_steps
    return np.array([n, len(found), tokens, pairs], dtype=np.float64)


@dataclass(frozen=True)
class Workload:
    """All that a fit computes, counted from the lengths of its texts.

    Attributes:
        n_steps: Optimizer steps; 0 for a classical head.
        trained, packed: [4] float64, see `work`: training, all epochs together, with padding and without.
        valid: [4] float64, all validations.
        evaluated: [4] float64, the scoring of validation rows and test rows after training.
        costliest: The training pass that takes the most memory.
        n_epochs: Validations, and checkpoints at an epoch's end.
        checkpoint_every_s: Seconds between checkpoints inside an epoch.
        data_bytes: Of texts and tokens, mapped into memory.
        n_trained_rows: Training rows, of which a classical head keeps the features.
        is_classical: The head is fitted by scikit-learn.
        learning: Of each stage what learns, and its epochs.
    """

    n_steps: int
    trained: np.ndarray
    packed: np.ndarray
    valid: np.ndarray
    evaluated: np.ndarray
    costliest: Pass
    n_epochs: int
    checkpoint_every_s: float
    data_bytes: int
    n_trained_rows: int
    is_classical: bool
    learning: tuple[tuple[str, int], ...] = ()

    @property
    def n_tokens(self) -> int:
        """Tokens of the training, padding included."""
        return int(self.trained[2])


@dataclass(frozen=True)
class Picked:
    """The rows that the probe computes, by step and micro-batch, and by batch of evaluation."""

    steps: list[list[np.ndarray]]
    groups: list[np.ndarray]
    n_tokens: int


def workload(values: RecipeValues, prepared: Prepared, *, packs: bool | None = None) -> tuple[Workload, Picked]:
    """Count what a fit computes, and pick what stands for it in a probe.

    Args:
        values: The recipe.
        prepared: Its data.
        packs: Whether training lays texts end to end; None asks the model, which loads it.
    """
    session = untrained(values, prepared)
    if packs is not None:
        session.packs = packs
    part, evaluated = prepared.train, [one for one in (prepared.valid, prepared.test) if one is not None]
    epochs = 1 if session.is_classical else values.fit.epochs
    counted: list[list[np.ndarray]] = []
    n_steps = 0
    if session.is_classical:
        groups = _scored_groups(part)
        trained = packed = work([_passes(part, groups)], n_steps=0)
    else:
        counted, n_steps = _counted_steps(session)
        steps = [_passes(part, step) for step in counted]
        trained, packed = (work(steps, packed=way) * (n_steps / max(1, len(counted))) for way in (False, True))
        groups = [group for step in counted for group in step]
    is_packed = not session.is_classical and session.packs
    costliest = max(groups, key=lambda rows: memory_weight(pass_of(part, rows), packed=is_packed))
    valid = batches_by_length(prepared.valid.lengths, max_tokens=VALID_BATCH_TOKENS, max_texts=VALID_BATCH_TEXTS)
    load = Workload(
        n_steps=n_steps,
        trained=trained,
        packed=packed,
        valid=work([_passes(prepared.valid, valid)], n_steps=0) * epochs,
        evaluated=work([_passes(one, _scored_groups(one)) for one in evaluated], n_steps=0),
        costliest=pass_of(part, costliest),
        n_epochs=epochs,
        checkpoint_every_s=values.fit.checkpoint_every_s,
        data_bytes=_data_bytes(prepared),
        n_trained_rows=len(part),
        is_classical=session.is_classical,
        learning=() if session.is_classical else tuple((stage.train, stage.epochs) for stage in session.stages),
    )
    probed = _picked_steps(part, counted, costliest) if counted else []
    scored = [costliest] if session.is_classical else []
    scored += _picked_groups(part if session.is_classical else evaluated[-1])
    n_tokens = int(work([_passes(part, step) for step in probed[: N_REQUIRED + 1]])[2])
    return load, Picked(probed, scored, n_tokens)


def pass_of(part: Part, rows: np.ndarray) -> Pass:
    """Return the size of one pass over these rows of a split."""
    return Pass.of(part.lengths_of(rows))


def on_accelerator(values: RecipeValues) -> bool:
    """Tell whether the Trainer of this recipe computes on something else than the processor."""
    return values.trainer.get("accelerator", "auto") != "cpu" and torch.accelerator.device_count() > 0


def _passes(part: Part, groups: Sequence[np.ndarray]) -> list[Pass]:
    return [pass_of(part, rows) for rows in groups]


def memory_weight(one: Pass, *, packed: bool = False) -> float:
    """Return about what a pass takes in memory, in no unit.

    Of a base encoder's padded texts, attention weighs as much as the rest at 256 tokens. Laid end to end it keeps a
    byte a head of each pair of tokens, where a token keeps some 18 vectors a layer: as much at 4,608 tokens.
    """
    _, _, tokens, pairs = work([[one]], packed=packed).tolist()
    return float(pairs + (4_608 if packed else 256) * tokens)


def _scored_groups(part: Part) -> list[np.ndarray]:
    return batches_by_length(part.lengths, max_tokens=MAX_TOKENS_CPU, max_texts=MAX_TEXTS)


def _counted_steps(session: Session) -> tuple[list[list[np.ndarray]], int]:
    """Return the micro-batches of each step, or of so many that stand for all, and the number of all steps."""
    data = session.data()
    steps = data.steps()
    if on_accelerator(session.recipe):
        steps.pass_tokens = GPU_PASS_TOKENS
    else:
        with torch.random.fork_rng():  # the head's first weights are drawn from a seed of their own
            steps.packs = session.packs
    n_steps = data.steps_per_epoch * session.recipe.fit.epochs
    limit = session.limits.get("max_steps", -1)
    if 0 < limit < n_steps:
        n_steps = int(limit)
    found = []
    for number in np.unique(np.linspace(0, n_steps - 1, min(n_steps, MAX_COUNTED_STEPS)).astype(np.int64)):
        epoch, step = divmod(int(number), data.steps_per_epoch)
        found.append(steps.passes(steps.plan.rows(epoch, step)))
    return found, n_steps


def _picked_steps(part: Part, counted: Sequence[list[np.ndarray]], costliest: np.ndarray) -> list[list[np.ndarray]]:
    """Return the probe's steps: those that are taken in any case, the costliest pass, and more for when there is time."""
    passes = [group for step in counted for group in step]
    small, *others = _at(part, passes, (_SMALL, *_QUANTILES))
    small = small[: -(-len(small) // 2)]
    half = costliest[: -(-len(costliest) // 2)]
    found = [[small], [small, small], [half], [costliest]]
    # Whole steps have the true number of passes; where one takes too long the single passes still fit.
    whole = [list(counted[i]) for i in np.linspace(0, len(counted) - 1, len(others)).astype(int)]
    for one, step in zip(others, whole, strict=True):
        found += [step, [one]]
    return found


def _picked_groups(part: Part) -> list[np.ndarray]:
    """Return batches of evaluation, short to long, each cut to so many tokens as the probe has time for."""
    groups = _at(part, _scored_groups(part), _GROUP_QUANTILES)
    sized = zip(groups, SCORED_TOKENS, strict=True)
    return [rows[: max(1, n_tokens // max(1, pass_of(part, rows).width))] for rows, n_tokens in sized]


def _at(part: Part, groups: Sequence[np.ndarray], quantiles: Sequence[float]) -> list[np.ndarray]:
    """Return the groups at these quantiles of all tokens, the groups being in order of their tokens."""
    n_tokens = np.array([one.texts * one.width for one in _passes(part, groups)], dtype=np.float64)
    order = np.argsort(n_tokens, kind="stable")
    ends = np.cumsum(n_tokens[order])
    places = np.searchsorted(ends, np.asarray(quantiles) * ends[-1])
    return [groups[order[min(place, len(order) - 1)]] for place in places.tolist()]


def _data_bytes(prepared: Prepared) -> int:
    """Return the bytes of texts and tokens; they are mapped files, resident once they were read."""
    stores = {id(part.store): part.store for part in prepared.parts}
    tables = {id(part.examples.table): part.examples.table for part in prepared.parts}
    n_tokens = sum(store.flat_ids.nbytes + 5 * store.offsets.nbytes // 2 for store in stores.values())
    return n_tokens + sum(int(table.nbytes) for table in tables.values())
