"""Exact resume: a callback that counts the steps, keeps checkpoints of step boundaries and the best weights."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning
import torch

from headrace.errors import Interrupted, RunError, TrainingStopped
from headrace.train.checkpoints import AtomicCheckpoints, Best, checkpoint_file, clean, write_best
from headrace.train.curve import Curve
from headrace.train.signals import Signals
from headrace.train.stepped import SteppedModule

logger = logging.getLogger(__name__)

STATE = "headrace"


@dataclass
class Progress:
    """Where training stands at a step boundary; all that a restart needs beside weights and optimizer."""

    epoch: int = 0
    step: int = 0  # inside the epoch
    total: int = 0
    best: Best | None = None
    waited: int = 0
    early_best: float | None = None
    is_over: bool = False
    fit_s: float = 0.0
    n_texts: int = 0
    loss_sum: float = 0.0
    loss_texts: int = 0
    epoch_s: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    curve: Curve = field(default_factory=Curve)
    route: str | None = None  # which library multiplies matrices: the same until the run's end
    loops: bool | None = None  # whether compiled loops compute; their dropout masks are others
    begun: list[list[int]] = field(default_factory=lambda: [[0, 0]])  # of each stage so far: first epoch, first step

    @classmethod
    def of(cls, values: dict[str, Any]) -> Progress:
        """Rebuild it from a checkpoint."""
        best = values.get("best")
        return cls(**{**values, "best": Best(**best) if best else None, "curve": Curve(**values.get("curve", {}))})

    @property
    def stage(self) -> int:
        """The stage that is running, from 0."""
        return len(self.begun) - 1

    @property
    def first_step(self) -> int:
        """The global step at which the running stage began."""
        return self.begun[-1][1]

    @property
    def n_stage_epochs(self) -> int:
        """Whole epochs of the running stage that are behind us."""
        return self.epoch - self.begun[-1][0]

    def begin_stage(self) -> None:
        """Go on to the next stage; what early stopping waited for begins anew, the best stays the best of all."""
        self.begun.append([self.epoch, self.total])
        self.waited, self.early_best, self.is_over = 0, None, False


@dataclass(frozen=True)
class Goal:
    """What is watched on validation.

    Attributes:
        monitor: The figure that picks the best checkpoint.
        stop_monitor: The figure of early stopping; without `patience` it is not looked at.
    """

    monitor: str
    larger_is_better: bool
    patience: int | None = None
    min_delta: float = 0.0
    stop_monitor: str = ""
    stop_larger: bool = True


class Keeper(lightning.Callback):
    """Saves at step boundaries (each epoch's end, every so many seconds, on a signal), and the best weights.

    Args:
        folder: The run's `checkpoints`.
        goal: What is watched on validation.
        checkpoints: Writes the files; the Trainer has the same object.
        every_s: Seconds between checkpoints inside an epoch.
        signals: Tells whether somebody asked the process to stop.
        told: Called after each save and epoch with the progress, for `status.json`.
        n_stages: How many stages the whole training has.
    """

    def __init__(
        self,
        folder: Path,
        goal: Goal,
        *,
        checkpoints: AtomicCheckpoints,
        every_s: float,
        signals: Signals,
        told: Callable[[str, Progress], None],
        n_stages: int = 1,
    ) -> None:
        self.folder = folder
        self.goal = goal
        self.checkpoints = checkpoints
        self.every_s = every_s
        self.signals = signals
        self.told = told
        self.n_stages = n_stages
        self.progress = Progress()
        self.restored: dict[str, Any] | None = None
        self._saved_at = time.monotonic()
        self._mark = time.perf_counter()
        self._saved_step = -1

    # -- restart --------------------------------------------------------------------------------------------------

    def restore(self, module: SteppedModule, checkpoint: dict[str, Any], *, rank: int) -> None:
        """Put weights and counters back; the optimizer follows when Lightning has made it."""
        module.load_state_dict(checkpoint["state_dict"])
        state = dict(checkpoint[STATE])
        self.progress = Progress.of(state.pop("progress"))
        module.put_state(state, rank=rank)
        self.restored = checkpoint
        self._saved_step = self.progress.total

    def begin_stage(self) -> None:
        """Go on to the next stage; its optimizer is a new one."""
        self.progress.begin_stage()
        self.restored = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put the optimizer's state back."""
        if self.restored is not None:
            for optimizer, state in zip(trainer.optimizers, self.restored["optimizer_states"], strict=True):
                optimizer.load_state_dict(state)
            self.restored = None
        self._saved_at = time.monotonic()

    # -- steps ----------------------------------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock before the first batch is asked for."""
        self._mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step; save when it is time; stop when a signal came."""
        progress = self.progress
        progress.step += 1
        progress.total += 1
        progress.n_texts += batch.n_texts
        loss_sum = self._over_all(trainer, float(outputs["loss"]) * batch.n_local)
        progress.loss_sum += loss_sum
        progress.loss_texts += batch.n_texts
        rate = max(float(group["lr"]) for group in trainer.optimizers[0].param_groups)
        progress.curve.add(progress.total, loss=loss_sum / batch.n_texts, norm=float(outputs["norm"]), rate=rate)
        self._count_time()
        signal, is_due = self._agreed(trainer, self.signals.received, time.monotonic() - self._saved_at >= self.every_s)
        at_max = 0 < trainer.max_steps <= progress.total
        if signal or at_max:
            self.save(trainer, pl_module, required=True)
        elif is_due:
            self.save(trainer, pl_module)
        if signal:
            self.stop(signal)
        self._mark = time.perf_counter()

    def _count_time(self) -> None:
        spent = time.perf_counter() - self._mark
        self.progress.fit_s += spent
        self.progress.epoch_s += spent

    def _agreed(self, trainer: lightning.Trainer, signal: int, is_due: bool) -> tuple[int, bool]:
        """Processes stop and save at the same step, whichever of them was asked; the first one's clock counts."""
        if trainer.world_size == 1:
            return signal, is_due
        device = trainer.strategy.root_device
        votes = torch.tensor([signal, int(is_due and trainer.is_global_zero)], device=device)
        torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MAX)
        return int(votes[0]), bool(votes[1])

    def _over_all(self, trainer: lightning.Trainer, value: float) -> float:
        if trainer.world_size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(total)
        return float(total)

    def on_validation_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        """A signal in the middle of validation: the weights stand at a step boundary, so that is what is saved."""
        if self.signals.received and trainer.world_size == 1 and not trainer.sanity_checking:
            self.save(trainer, pl_module, required=True)
            self.stop(self.signals.received)

    def stop(self, signal: int) -> None:
        """Say that a signal ended the training; the state was saved before.

        Raises:
            Interrupted: Always.
        """
        progress = self.progress
        raise Interrupted(
            f"interrupted at step {progress.total} by signal {signal}; the state is saved",
            where=str(self.folder.parent),
            next="run the same command again: it goes on from this step",
            exit_code=128 + signal,
        )

    # -- validation and epochs ------------------------------------------------------------------------------------

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the best weights; count epochs without improvement."""
        if trainer.sanity_checking or not isinstance(pl_module, SteppedModule):
            return
        if not math.isfinite(pl_module.valid_metrics.get("loss", 0.0)):
            raise TrainingStopped(
                f"the validation loss is not a finite number after step {self.progress.total}",
                where=f"step {self.progress.total}, learning rate {pl_module.rate_at(self.progress.total - 1):.3g}",
                next="lower fit.learning_rate, and give --force or another --out",
            )
        value = pl_module.valid_metrics.get(self.goal.monitor)
        if value is not None and self._is_better(value):
            self._keep_best(trainer, pl_module, value)
        self._watch(pl_module.valid_metrics)
        if self.progress.is_over:
            trainer.should_stop = True

    def _is_better(self, value: float) -> bool:
        best = self.progress.best
        if best is None:
            return True
        return value > best.value if self.goal.larger_is_better else value < best.value

    def _keep_best(self, trainer: lightning.Trainer, module: SteppedModule, value: float) -> None:
        progress = self.progress
        best = None
        if trainer.is_global_zero:
            best = write_best(self.folder, module.model, value=value, step=progress.total, epoch=progress.epoch)
        if trainer.world_size > 1:
            shared = [best]
            torch.distributed.broadcast_object_list(shared, src=0)
            best = shared[0]
        progress.best = best

    def keep_last(self, trainer: lightning.Trainer, module: SteppedModule) -> None:
        """Keep the weights as they are: there was no validation to choose by."""
        self._keep_best(trainer, module, float(module.valid_metrics.get(self.goal.monitor, 0.0)))

    def _watch(self, metrics: dict[str, float]) -> None:
        goal, progress = self.goal, self.progress
        if goal.patience is None:
            return
        value = metrics.get(goal.stop_monitor)
        if value is None:
            return
        gain = 0.0 if progress.early_best is None else (value - progress.early_best) * (1 if goal.stop_larger else -1)
        if progress.early_best is None or gain > goal.min_delta:
            progress.early_best, progress.waited = value, 0
            return
        progress.waited += 1
        progress.is_over = progress.waited >= goal.patience

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Close the epoch and save: the next start begins with the next epoch."""
        if self.progress.step == 0:
            return
        if not isinstance(pl_module, SteppedModule):
            return
        if self._is_whole(trainer, pl_module):
            self.finish_epoch(trainer, pl_module)
        else:  # max_steps or max_time ended it in mid-epoch
            self.save(trainer, pl_module, required=True)

    def _is_whole(self, trainer: lightning.Trainer, module: SteppedModule) -> bool:
        return self.progress.step >= module.steps_per_epoch

    def finish_epoch(self, trainer: lightning.Trainer, module: SteppedModule) -> None:
        """Write the epoch's line into the history and move to the next epoch."""
        progress = self.progress
        record: dict[str, Any] = {"epoch": progress.epoch + 1, "step": progress.total, "seconds": progress.epoch_s}
        record["train_loss"] = progress.loss_sum / max(1, progress.loss_texts)
        record["learning_rate"] = module.rate_at(progress.total - 1)
        record["valid"] = dict(module.valid_metrics)
        record["train"] = module.epoch_metrics()
        if self.n_stages > 1:
            record["stage"] = progress.stage + 1
        progress.history.append(record)
        progress.epoch += 1
        progress.step = 0
        progress.loss_sum, progress.loss_texts, progress.epoch_s = 0.0, 0, 0.0
        self.told("epoch", progress)
        if trainer.optimizers:
            self.save(trainer, module, required=progress.n_stage_epochs >= module.stage.epochs)

    # -- files ----------------------------------------------------------------------------------------------------

    def save(self, trainer: lightning.Trainer, module: Any, *, required: bool = False) -> None:
        """Save this step boundary; a failed save that is not required warns and leaves the one before it."""
        progress = self.progress
        if self._saved_step == progress.total and progress.step:
            return
        for one in trainer.loggers:  # what was logged up to this step is not logged again
            with suppress(OSError, RunError):  # a full disk: the checkpoint's own error tells it
                one.save()
        trainer.save_checkpoint(checkpoint_file(self.folder, total=progress.total, epoch=progress.epoch))
        error = self.checkpoints.error
        if trainer.world_size > 1:
            shared = [error]
            torch.distributed.broadcast_object_list(shared, src=0)
            error = shared[0]
        self._saved_at = time.monotonic()
        if error is not None:
            if required:
                raise error
            logger.warning("%s\nTraining goes on; the checkpoint before it is intact.", error)
            return
        self._saved_step = progress.total
        if trainer.is_global_zero:
            clean(self.folder, progress.best)
            self.told("save", progress)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add our progress to Lightning's checkpoint."""
        checkpoint[STATE] = {"progress": asdict(self.progress), **pl_module.kept_state()}


def put_counters(trainer: lightning.Trainer, *, epoch: int, step: int) -> None:
    """Tell Lightning's loops where training stands.

    Resuming by Lightning's own mid-epoch loop state repeats rows (measured with 2.6.6: 12 of 40); here the loops start
    afresh at (epoch, step), and the data module starts at that step.
    """
    epochs = trainer.fit_loop.epoch_progress
    for counter in (epochs.total, epochs.current):
        counter.reset()
        counter.increment_by(epoch)
    steps = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total
    steps.ready = steps.completed = step
    trainer.fit_loop.epoch_loop._batches_that_stepped = step
