"""The LightningModule under every training of ours: one optimizer step at a time, in stages, stopped by what is not finite."""

from __future__ import annotations

import gc
import hashlib
import random
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from logging import getLogger
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from headrace.errors import RunError, TrainingStopped
from headrace.pages import give_back
from headrace.train.memory import is_out_of_memory
from headrace.train.stages import Groups, Stage, build_optimizer, freeze, rate_factor, set_rates, warmup_steps

logger = getLogger(__name__)


class SteppedModule(lightning.LightningModule, ABC):
    """A model whose training is arithmetic of the step's number: rates, momenta and dropout depend on nothing else.

    One call of `training_step` is one optimizer step. It inherits from `LightningModule` because Lightning demands it.

    Args:
        stage: The first (or only) stage; `enter` begins another.
        seed: Decides the dropout of each step together with the step's number.

    Attributes:
        model: What is trained.
        stage: The stage that is running.
        first_step: The global step at which it began.
        fixed: Names of the groups that do not learn in it.
        max_texts: Texts that are computed at a time at most, since memory did not suffice for more; None for all.
        valid_metrics: Of the last validation.
    """

    model: Any  # an nn.Module with `backbone` and `groups()`, which each subclass names
    unit = "texts"  # what a step's `n_texts` counts

    def __init__(self, *, stage: Stage, seed: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.stage = stage
        self.first_step = 0
        self.fixed: list[str] = []
        self.seed = seed
        self.max_texts: int | None = None
        self.keeps_seen = False  # on for a run of ours: with somebody's own Trainer nobody would ever take them
        self.logs_valid = True  # off for a run of ours: its Curves log these figures, and more
        self.valid_metrics: dict[str, float] = {}

    # -- what a kind of training gives ------------------------------------------------------------------------------

    @abstractmethod
    def learn(self, step: Any) -> Tensor:
        """Compute the gradients of a whole step, and return its mean loss, a scalar.

        Args:
            step: Has `n_local` (what this process computes) and `n_texts` (what all compute), the weights of the loss.
        """

    def epoch_metrics(self) -> dict[str, float]:
        """Return the metrics of what was trained on in this epoch, over all processes, and forget them."""
        return {}

    def kept_state(self) -> dict[str, Any]:
        """Return what a checkpoint in mid-epoch holds besides weights and optimizer; plain values and tensors."""
        return {}

    def put_state(self, state: dict[str, Any], *, rank: int) -> None:
        """Take back what `kept_state` gave; every process gets the same, and its own rank."""

    # -- stages -----------------------------------------------------------------------------------------------------

    def groups(self) -> Groups:
        """Return (name, parameters) from bottom to top; the last is the head."""
        groups: Groups = self.model.groups()
        return groups

    def clipped_together(self) -> list[list[torch.nn.Parameter]]:
        """Return the parameters in parts that learn apart from each other: each has a gradient norm of its own."""
        return [list(self.model.parameters())]

    def enter(self, stage: Stage, *, first_step: int = 0) -> None:
        """Begin a stage: fix the groups that do not learn in it; its optimizer is a new one.

        Raises:
            RecipeError: It trains more groups than there are.
        """
        self.stage, self.first_step = stage, first_step
        self.set_modes()

    def set_modes(self) -> None:
        """Put the model into training mode, and what does not learn into that of evaluation."""
        in_eval = self.model.backbone.frozen_in_eval
        self.fixed = freeze(self.model, self.groups(), self.stage.train, in_eval=in_eval)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the stage's optimizer; the schedule is arithmetic inside `training_step`."""
        self.set_modes()
        return build_optimizer(self.groups(), self.stage)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of a whole epoch."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if data is not None and hasattr(data, "steps_per_epoch"):
            return int(data.steps_per_epoch)
        return int(self.trainer.num_training_batches)

    def _curve(self) -> dict[str, int]:
        per_epoch = self.steps_per_epoch
        n_steps = per_epoch * self.stage.epochs
        return {
            "n_steps": n_steps,
            "n_warmup": warmup_steps(self.stage.warmup, n_steps=n_steps, steps_per_epoch=per_epoch),
        }

    def rate_at(self, step: int) -> float:
        """Return the learning rate of the top group at one global step (from 0) of this stage."""
        return self.stage.learning_rate * rate_factor(self.stage.schedule, step - self.first_step, **self._curve())

    # -- steps ------------------------------------------------------------------------------------------------------

    def training_step(self, step: Any, batch_idx: int) -> dict[str, Tensor]:
        """Take one optimizer step.

        Raises:
            TrainingStopped: The loss or the gradient is not finite; the weights are as they were before the step.
            RunError: There is not enough memory, not even for one text at a time.
        """
        optimizer: Any = self.optimizers()
        number = int(self.global_step)
        set_rates(optimizer.optimizer, self.stage, number - self.first_step, **self._curve())
        loss = self._learnt(step, number, optimizer)
        norm = self._clip(optimizer)
        self._stop_if_not_finite(loss, norm, number, step, optimizer)
        optimizer.step()
        return {"loss": loss, "norm": norm}

    def _learnt(self, step: Any, number: int, optimizer: Any) -> Tensor:
        """Compute the gradients of a step; where memory does not suffice, with half as many texts at a time."""
        while True:
            seed_everything(derived_seed(self.seed, "step", number, self.global_rank))
            optimizer.zero_grad()
            try:
                with self.model.backbone.weights_stand():
                    return self.learn(self.cut(step))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                told = str(error).partition("\n")[0]
            # Here, and not above: an error keeps all that was computed until it is forgotten.
            optimizer.zero_grad()
            self._halve(step, number, told)

    def cut(self, step: Any) -> Any:
        """Return the step in micro-batches of at most `max_texts`; by default it cannot be cut."""
        return step

    def largest(self, step: Any) -> int:
        """Return how many texts are computed at a time; 1 where the step cannot be cut."""
        return 1

    def _halve(self, step: Any, number: int, told: str) -> None:
        n_texts = self.largest(step)
        # several processes would have to agree, and one of them may wait for this one's gradients
        if n_texts <= 1 or self.trainer.world_size > 1:
            raise RunError(
                f"there is not enough memory for step {number + 1}: {told}",
                where=f"step {number + 1}, {self.sizes(step)}",
                next="lower data.max_length, or fit.micro_batch and fit.batch_size; the last checkpoint is kept",
            )
        self.max_texts = n_texts // 2
        gc.collect()
        give_back()
        if self.device.type != "cpu":
            torch.accelerator.empty_cache()
        logger.warning(
            "out of memory in step %d with %d texts at a time: from here on at most %d",
            number + 1,
            n_texts,
            self.max_texts,
        )

    def sizes(self, step: Any) -> str:
        """Return what a person should know of the size of a step."""
        return f"{step.n_texts:,} {self.unit}"

    def gradient_stays_here(self, blocked: bool) -> AbstractContextManager[Any]:
        """Keep the gradients of a micro-batch in this process until the step's last."""
        block: Any = getattr(self.trainer.strategy, "block_backward_sync", None)
        return block() if blocked and block is not None and self.trainer.world_size > 1 else nullcontext()

    def _clip(self, optimizer: Any) -> Tensor:
        learning = {p for group in optimizer.param_groups for p in group["params"] if p.grad is not None}
        limit = self.stage.gradient_clip if self.stage.gradient_clip is not None else float("inf")
        parts = ([p for p in part if p in learning] for part in self.clipped_together())
        norms = torch.stack([torch.nn.utils.clip_grad_norm_(part, limit) for part in parts])
        norm: Tensor = torch.linalg.vector_norm(norms)
        return norm

    def _stop_if_not_finite(self, loss: Tensor, norm: Tensor, number: int, step: Any, optimizer: Any) -> None:
        if bool(torch.isfinite(loss) & torch.isfinite(norm)):
            return
        rates = [group["lr"] for group in optimizer.param_groups]
        what = "loss" if not bool(torch.isfinite(loss)) else "gradient"
        rows = ", ".join(map(str, step.rows[:8].tolist())) + (" …" if len(step.rows) > 8 else "")
        stopped = TrainingStopped(
            f"the {what} is not a finite number at step {number + 1}",
            where=f"step {number + 1}, learning rate {max(rates):.3g}, positions {rows} of the training rows",
            next="look at these rows, or lower fit.learning_rate and give --force or another --out; "
            "the last checkpoint before this step is kept",
        )
        stopped.rows = tuple(step.rows[:8].tolist())
        raise stopped


def derived_seed(seed: int, *parts: object) -> int:
    """Return a seed in [0, 2**63) for one purpose: a pure function of the run's seed and the parts."""
    digest = hashlib.blake2b(repr((seed, *parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch: with it the randomness of a step depends on its number alone, never on a state."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
