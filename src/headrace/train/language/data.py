"""The LightningDataModule of a language model: whole optimizer steps as batches, for next words and for masked ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from headrace.text.batch import Batch, batches_by_length, collate, micro_batches, token_batches
from headrace.text.masks import Masks
from headrace.text.plan import Plan
from headrace.train.data import (
    CPU_PASS_TOKENS,
    GPU_PASS_TOKENS,
    VALID_BATCH_TEXTS,
    VALID_BATCH_TOKENS,
    StepSampler,
    packed_tokens,
)
from headrace.train.language.corpus import Corpus
from headrace.train.language.streams import Streams


@dataclass(frozen=True)
class SequenceStep:
    """One sequence of each stream: an optimizer step of a next-word model.

    Attributes:
        inputs: [streams, tokens] int64.
        targets: [streams, tokens] int64, the inputs one token on.
        step: Of the epoch, from 0; at 0 the hidden state begins anew.
        rows: Texts of which tokens are read.
        n_texts, n_local: The tokens: they weigh the mean of the loss.
    """

    inputs: Tensor
    targets: Tensor
    step: int
    rows: np.ndarray

    @property
    def n_texts(self) -> int:
        """Tokens of the step."""
        return self.targets.numel()

    @property
    def n_local(self) -> int:
        """Tokens of the step that this process computes: all of them."""
        return self.targets.numel()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SequenceStep:
        """Return the step on another device."""
        moved = [tensor.to(device, non_blocking=non_blocking) for tensor in (self.inputs, self.targets)]
        return SequenceStep(moved[0], moved[1], self.step, self.rows)


@dataclass(frozen=True)
class MaskedPass:
    """Some texts with hidden tokens.

    Attributes:
        batch: The texts as the model sees them.
        places: [masked] int64, the hidden places among the texts x tokens.
        targets: [masked] int64, what stood there.
    """

    batch: Batch
    places: Tensor
    targets: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MaskedPass:
        """Return the pass on another device."""
        places, targets = (tensor.to(device, non_blocking=non_blocking) for tensor in (self.places, self.targets))
        return MaskedPass(self.batch.to(device, non_blocking), places, targets)


@dataclass(frozen=True)
class MaskedStep:
    """The texts of an optimizer step of a masked-word model, in micro-batches.

    Attributes:
        passes: The micro-batches.
        rows: The texts.
        n_texts, n_local: All tokens of the texts, hidden or not: they weigh the mean of the loss.
    """

    passes: Sequence[MaskedPass]
    rows: np.ndarray
    n_texts: int
    n_local: int

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MaskedStep:
        """Return the step on another device."""
        moved = [one.to(device, non_blocking) for one in self.passes]
        return MaskedStep(moved, self.rows, self.n_texts, self.n_local)


class Steps(Protocol):
    """The batches of a language model: of training by (epoch, step), of validation by their number."""

    packs: bool

    @property
    def n_steps(self) -> int:
        """Optimizer steps of an epoch."""

    def training(self, *, on_cpu: bool) -> Dataset[Any]:
        """Return the data set of the steps, by (epoch, step)."""

    def validation(self) -> Dataset[Any]:
        """Return the batches of validation, in their order."""


class _Items(Dataset[Any]):
    """A data set of what a function makes."""

    def __init__(self, make: Any, n: int) -> None:
        self.make, self.n = make, n

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, tuple) and index >= self.n:
            raise IndexError(index)
        return self.make(index)

    def __len__(self) -> int:
        return self.n


class NextWordSteps:
    """Streams as steps.

    Args:
        train, valid: The streams of both splits.
    """

    packs = False

    def __init__(self, train: Streams, valid: Streams) -> None:
        self.train, self.valid = train, valid

    @property
    def n_steps(self) -> int:
        """Optimizer steps of an epoch."""
        return self.train.n_steps

    def training(self, *, on_cpu: bool) -> Dataset[SequenceStep]:
        """Return the steps by (epoch, step)."""
        return _Items(lambda place: sequence_step(self.train, *place), self.n_steps)

    def validation(self) -> Dataset[SequenceStep]:
        """Return the sequences of validation in their order: the hidden state goes from one to the next."""
        return _Items(lambda step: sequence_step(self.valid, 0, step), self.valid.n_steps)


def sequence_step(streams: Streams, epoch: int, step: int) -> SequenceStep:
    """Return one step of streams as tensors."""
    inputs, targets = streams.step(epoch, step)
    return SequenceStep(torch.from_numpy(inputs), torch.from_numpy(targets), step, streams.texts_of(epoch, step))


class MaskedSteps:
    """Texts with masks as steps.

    Args:
        train, valid: The texts.
        plan: Which texts make which step.
        masks: Which tokens of them are hidden.
        padding: How ids become tensors: `pad_id`, `uses_token_types`.
        micro_batch: Texts in memory at a time, or None for as many as are cheapest.
    """

    packs = False

    def __init__(
        self,
        train: Corpus,
        valid: Corpus,
        *,
        plan: Plan,
        masks: Masks,
        padding: dict[str, Any],
        micro_batch: int | None,
    ) -> None:
        self.train, self.valid = train, valid
        self.plan, self.masks, self.padding = plan, masks, padding
        self.micro_batch = micro_batch

    @property
    def n_steps(self) -> int:
        """Optimizer steps of an epoch."""
        return self.plan.n_steps

    def training(self, *, on_cpu: bool) -> Dataset[MaskedStep]:
        """Return the steps by (epoch, step)."""
        pass_tokens = CPU_PASS_TOKENS if on_cpu else GPU_PASS_TOKENS

        def made(place: tuple[int, int]) -> MaskedStep:
            epoch, step = place
            rows = self.plan.rows(epoch, step)
            lengths = self.train.lengths_of(rows)
            max_texts = min(self.micro_batch or len(rows), len(rows))
            if self.packs:
                groups = token_batches(lengths, max_texts=max_texts, max_tokens=packed_tokens(lengths))
            else:
                groups = micro_batches(lengths, max_texts=max_texts, pass_tokens=pass_tokens)
            n_tokens = int(lengths.sum())
            passes = [self._pass(self.train, rows[group], epoch) for group in groups]
            return MaskedStep(passes, rows, n_tokens, n_tokens)

        return _Items(made, self.n_steps)

    def validation(self) -> Dataset[MaskedPass]:
        """Return the texts of validation, like lengths together, always under the same masks."""
        groups = batches_by_length(self.valid.lengths, max_tokens=VALID_BATCH_TOKENS, max_texts=VALID_BATCH_TEXTS)
        return _Items(lambda number: self._pass(self.valid, groups[number], None), len(groups))

    def _pass(self, corpus: Corpus, rows: np.ndarray, epoch: int | None) -> MaskedPass:
        batch = collate(corpus, rows, None, **self.padding)
        return masked(batch, self.masks, epoch=epoch)


def masked(batch: Batch, masks: Masks, *, epoch: int | None) -> MaskedPass:
    """Return a batch with its hidden tokens; None for the epoch hides those of validation."""
    seen, places, targets = masks.of_batch(batch, epoch=epoch)
    hidden = Batch(torch.from_numpy(seen), batch.attention_mask, batch.token_type_ids, batch.rows)
    return MaskedPass(hidden, torch.from_numpy(places), torch.from_numpy(targets))


class LanguageDataModule(lightning.LightningDataModule):
    """The steps of a language model for a Lightning Trainer.

    Args:
        steps: Of both splits.

    Attributes:
        first: (epoch, step) at which this process begins.
        packs: Whether the model lays texts end to end.
        limit_steps: Steps of an epoch at most; a share of them as float; None for all.
    """

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.steps = steps
        self.first = (0, 0)
        self.packs = False
        self.limit_steps: int | float | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of a whole epoch."""
        n_steps = self.steps.n_steps
        if isinstance(self.limit_steps, float):
            return max(1, int(n_steps * self.limit_steps))
        return min(n_steps, self.limit_steps) if self.limit_steps else n_steps

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the steps of the current epoch, from the first that is still to be taken."""
        trainer = self.trainer
        epoch = trainer.current_epoch if trainer is not None else 0
        first_step = self.first[1] if epoch == self.first[0] else 0
        sampler = StepSampler(self.steps_per_epoch, epoch=epoch, first_step=first_step)
        on_cpu = trainer is None or trainer.strategy.root_device.type == "cpu"
        self.steps.packs = self.packs
        return DataLoader(self.steps.training(on_cpu=on_cpu), batch_size=None, sampler=sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the batches of validation, in their order."""
        return DataLoader(self.steps.validation(), batch_size=None, shuffle=False)
