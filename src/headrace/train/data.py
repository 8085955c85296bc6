"""The LightningDataModule: whole optimizer steps as batches, in an order that is arithmetic of (seed, epoch, step)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from headrace.data.read import Columns
from headrace.plugins import kind_of_task
from headrace.text.batch import Batch, batches_by_length, collate, micro_batches, token_batches
from headrace.text.plan import Plan
from headrace.train.prepare import Part, Prepared, prepare
from headrace.train.rows import DataPlan
from headrace.train.tokenizers import tokenizer_place

# One more pass on a CPU costs as much as about 150 tokens: MiniLM's dense gradient of the word embeddings (47 MB) is
# made and added once a pass. The figure is an estimate from one profile, not a benchmark. A GPU wants the step in one piece.
CPU_PASS_TOKENS = 150
GPU_PASS_TOKENS = 1 << 20
# A pass that costs more than any padding: the step stays in one piece.
WHOLE_STEP = 1 << 50
# Texts that are laid end to end, on a CPU, where the activations of more leave the cache. Short probes with MiniLM, texts/s:
# float32, one thread, AVX2: passes of 2,048 tokens 4.2, of 4,096 4.0, a whole step of some 7,000 3.4;
# bf16, two threads, AVX-512: up to 512 tokens a text 14.8, 16.8, of 8,192 14.8; up to 256 the first two alike.
PACKED_TOKENS = 2048
MAX_PACKED_TOKENS = 4096
VALID_BATCH_TOKENS = 8192
VALID_BATCH_TEXTS = 128

# Gives a batch what was computed before of its rows.
Attach = Callable[[Batch], Batch]


@dataclass(frozen=True)
class StepBatch:
    """All texts of one optimizer step that this process computes, in micro-batches.

    Attributes:
        batches: Micro-batches; together they hold `n_local` texts.
        rows: Global rows of the step, of all processes.
        n_texts: Texts of the step over all processes.
        is_filler: This process has no text of a short last step and computes one with weight 0, to stay in step.
    """

    batches: list[Batch]
    rows: np.ndarray
    n_texts: int
    n_local: int
    is_filler: bool = False

    def to(self, device: torch.device | str, non_blocking: bool = False) -> StepBatch:
        """Return the step on another device."""
        moved = [batch.to(device, non_blocking=non_blocking) for batch in self.batches]
        return StepBatch(moved, self.rows, self.n_texts, self.n_local, self.is_filler)

    def at_most(self, n_texts: int) -> StepBatch:
        """Return the same step in micro-batches of at most so many texts, from 1."""
        return replace(self, batches=[part for batch in self.batches for part in batch.parts(n_texts)])


class StepSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, step) from the first step that is to be taken; it has no state that could be lost."""

    def __init__(self, n_steps: int, *, epoch: int = 0, first_step: int = 0) -> None:
        self.n_steps = n_steps
        self.epoch = epoch
        self.first = (epoch, first_step)

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch; Lightning calls it before each."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        # A generator: Lightning makes the iterator before it tells the epoch of a resumed run.
        start = self.first[1] if self.epoch == self.first[0] else 0
        for step in range(start, self.n_steps):
            yield self.epoch, step

    def __len__(self) -> int:
        return self.n_steps - (self.first[1] if self.epoch == self.first[0] else 0)


class Steps(Dataset[StepBatch]):
    """Makes the batch of one (epoch, step) for one process.

    Args:
        part: The training rows.
        plan: Which of them make which step.
        passes: Texts of a micro-batch at most, and what a pass costs in tokens; see `micro_batches`.
        tokens: How ids become tensors.
        place: This process's rank, and how many there are.

    Attributes:
        packs: Whether the backbone lays texts end to end, so that padding is no matter.
        attach: Gives each micro-batch what is kept of its rows, or None.
    """

    packs = False
    attach: Attach | None = None

    def __init__(
        self, part: Part, plan: Plan, *, passes: tuple[int, int], tokens: dict[str, Any], place: tuple[int, int]
    ) -> None:
        self.part, self.plan = part, plan
        self.micro_batch, self.pass_tokens = passes
        self.tokens = tokens
        self.rank, self.world = place

    def __getitem__(self, place: tuple[int, int]) -> StepBatch:
        epoch, step = place
        whole = self.plan.rows(epoch, step)
        mine = self.plan.share(epoch, step, self.rank, self.world)
        is_filler = len(mine) == 0
        chosen = whole[:1] if is_filler else mine
        batches = [make_batch(self.part, rows, self.tokens, self.attach) for rows in self.passes(chosen)]
        return StepBatch(batches, whole, len(whole), len(mine), is_filler)

    def passes(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return the rows of each micro-batch of a step's rows."""
        lengths = self.part.lengths_of(rows)
        if self.packs:
            groups = token_batches(lengths, max_texts=self.micro_batch, max_tokens=packed_tokens(lengths))
        else:
            groups = micro_batches(lengths, max_texts=self.micro_batch, pass_tokens=self.pass_tokens)
        return [rows[group] for group in groups]


def packed_tokens(lengths: np.ndarray) -> int:
    """Return how many tokens a pass of texts that are laid end to end has at most: eight of the longest, within bounds."""
    return int(np.clip(8 * lengths.max(), PACKED_TOKENS, MAX_PACKED_TOKENS))


class Chunks(Dataset[Batch]):
    """Makes the batches of a split for validation: each row once, like lengths together."""

    def __init__(
        self, part: Part, *, tokens: dict[str, Any], rank: int, world: int, attach: Attach | None = None
    ) -> None:
        self.part, self.tokens, self.attach = part, tokens, attach
        rows = np.arange(len(part))[rank::world]
        groups = batches_by_length(part.lengths_of(rows), max_tokens=VALID_BATCH_TOKENS, max_texts=VALID_BATCH_TEXTS)
        self.groups = [rows[group] for group in groups]

    def __getitem__(self, index: int) -> Batch:
        return make_batch(self.part, self.groups[index], self.tokens, self.attach)

    def __len__(self) -> int:
        return len(self.groups)


def make_batch(part: Part, rows: np.ndarray, tokens: dict[str, Any], attach: Attach | None = None) -> Batch:
    """Return the padded batch of these rows of a split, with what is kept of them."""
    batch = collate(part, rows, part.targets, **tokens)
    return batch if attach is None else attach(batch)


class TextDataModule(lightning.LightningDataModule):
    """Labelled texts as batches for a `ClassifierModule`.

    Use it with `lightning.Trainer(use_distributed_sampler=False)`: it shares out the rows itself, so that the
    global batches are the same for any number of processes.

    Args:
        train: File, folder per label, `hub:` reference, list of dicts, DataFrame or `datasets.Dataset`.
        valid: The same, or a share of train such as "10%".
        test: The same as train, or None.
        text: Column of the text, or two columns for pairs.
        label: Column of the label, or several 0/1 columns for multi-label.
        task: `single_label` or `multi_label`.
        backbone: Whose tokenizer is used: hub id, folder or `minilm`.
        batch_size: Texts of an optimizer step, all devices together.
        settings: Further fields of DataPlan (`max_length`, `truncate`, `limit`, …).
    """

    def __init__(
        self,
        train: Any,
        *,
        valid: Any = "10%",
        test: Any = None,
        text: str | Sequence[str] = "text",
        label: str | Sequence[str] = "label",
        task: str = "single_label",
        backbone: str = "minilm",
        batch_size: int = 32,
        sampler: str = "random",
        micro_batch: int | str = "auto",
        seed: int = 13,
        **settings: Any,
    ) -> None:
        super().__init__()
        columns = Columns(
            text=(text,) if isinstance(text, str) else tuple(text),
            label=(label,) if isinstance(label, str) else tuple(label),
            separator=settings.pop("label_separator", None),
            multi_label=kind_of_task(task) == "multi_label",
            labels=tuple(settings.pop("labels", None) or ()),
            slices=tuple(settings.pop("slices", ())),
        )
        share = float(valid[:-1]) / 100 if isinstance(valid, str) and valid.endswith("%") else None
        sources = {"train": train, "valid": valid if share is None else None, "test": test}
        plan = DataPlan(
            columns=columns,
            tokenizer=tokenizer_place(backbone),
            seed=seed,
            valid_share=0.1 if share is None else share,
            **sources,
            **settings,
        )
        self._begin(plan, batch_size=batch_size, sampler=sampler, micro_batch=micro_batch)

    def _begin(self, plan: DataPlan, *, batch_size: int, sampler: str, micro_batch: int | str) -> None:
        self.data_plan = plan
        self.batch_size = batch_size
        self.sampler = sampler
        self.micro_batch = micro_batch
        self.accumulate = 1
        self.limit_steps: int | float | None = None
        self.packs = False
        self.whole_steps = False  # a batch norm in the head sees all texts of a step
        self.kept: Mapping[str, Attach] = {}  # by split: what a run keeps of its rows
        self.first = (0, 0)
        self.device = torch.device("cpu")  # where steps are computed when there is no Trainer to ask
        self.cache: Path | None = None
        self.prepared: Prepared | None = None

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        *,
        seed: int,
        batch_size: int,
        sampler: str,
        micro_batch: int | str,
        accumulate: int = 1,
    ) -> TextDataModule:
        """Return the module over data that is prepared already."""
        module = cls.__new__(cls)
        lightning.LightningDataModule.__init__(module)
        plan = DataPlan(train=None, columns=Columns(text=("text",)), tokenizer="", seed=seed)
        module._begin(plan, batch_size=batch_size, sampler=sampler, micro_batch=micro_batch)
        module.accumulate = accumulate
        module.prepared = prepared
        return module

    def prepare_data(self, cache: Path | None = None) -> None:
        """Read and tokenize once, into the cache on disk."""
        self.cache = cache
        if self.prepared is None:
            prepare(self.data_plan, cache=cache)

    def setup(self, stage: str | None = None) -> None:
        """Open what `prepare_data` made; afterwards `labels` and `prepared` are there."""
        if self.prepared is None:
            self.prepared = prepare(self.data_plan, cache=self.cache)

    @property
    def ready(self) -> Prepared:
        """The prepared data; sets up when it is not there."""
        if self.prepared is None:
            self.setup()
        if self.prepared is None:
            raise RuntimeError("setup() left no data")
        return self.prepared

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels, in the order of the outputs."""
        return self.ready.labels.names

    @property
    def plan(self) -> Plan:
        """Which rows make which step of training."""
        train = self.ready.train
        return Plan(
            n_rows=len(train),
            batch_size=self.batch_size,
            seed=self.data_plan.seed,
            sampler=self.sampler,
            lengths=train.lengths if self.sampler == "length_buckets" else None,
            targets=train.targets if self.sampler == "balanced" else None,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of a whole epoch."""
        n_steps = self.plan.n_steps
        if isinstance(self.limit_steps, float):
            return max(1, int(n_steps * self.limit_steps))
        return min(n_steps, self.limit_steps) if self.limit_steps else n_steps

    @property
    def tokens(self) -> dict[str, Any]:
        """How ids become tensors."""
        return self.ready.padding

    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    def _passes(self) -> tuple[int, int]:
        """Return the texts of a micro-batch at most, and what a pass costs in tokens."""
        model = getattr(getattr(self.trainer, "lightning_module", None), "model", None)
        if self.whole_steps or getattr(model, "needs_whole_step", False):
            return self.batch_size, WHOLE_STEP
        device = self.device if self.trainer is None else self.trainer.strategy.root_device
        size = self.batch_size if self.micro_batch == "auto" else int(self.micro_batch)
        size = max(1, min(size, -(-self.batch_size // self.accumulate)))
        return size, CPU_PASS_TOKENS if device.type == "cpu" else GPU_PASS_TOKENS

    def steps(self) -> Steps:
        """Return the data set of this process's steps, by (epoch, step)."""
        steps = Steps(self.ready.train, self.plan, passes=self._passes(), tokens=self.tokens, place=self._place())
        steps.packs, steps.attach = self.packs, self.kept.get(self.ready.train.name)
        return steps

    def train_dataloader(self) -> DataLoader[StepBatch]:
        """Return the steps of the current epoch, from the first that is still to be taken."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        first_step = self.first[1] if epoch == self.first[0] else 0
        sampler = StepSampler(self.steps_per_epoch, epoch=epoch, first_step=first_step)
        return DataLoader(self.steps(), batch_size=None, sampler=sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation rows of this process."""
        return self._chunks(self.ready.valid)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test rows of this process."""
        part = self.ready.test
        return self._chunks(part if part is not None else self.ready.valid)

    def _chunks(self, part: Part) -> DataLoader[Batch]:
        rank, world = self._place()
        chunks = Chunks(part, tokens=self.tokens, rank=rank, world=world, attach=self.kept.get(part.name))
        return DataLoader(chunks, batch_size=None, shuffle=False)
