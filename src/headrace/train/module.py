"""The LightningModule: a classifier, its loss, one optimizer step from several micro-batches, and validation."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from headrace import plugins
from headrace.data.examples import LabelSet
from headrace.errors import TrainingStopped
from headrace.evaluate import METRICS, monitor_value
from headrace.model import Classifier, HeadSettings, build_classifier, load_classifier
from headrace.text.batch import Batch
from headrace.train.data import StepBatch
from headrace.train.stages import Stage, build_optimizer, rate_factor, set_rates, warmup_steps


class ClassifierModule(lightning.LightningModule):
    """A classifier that any `lightning.Trainer` can train on a `TextDataModule`.

    One call of `training_step` is one optimizer step over all texts of the step, whatever number of micro-batches
    they come in; so `accumulate_grad_batches` and `gradient_clip_val` belong to the module, not to the Trainer.

    Args:
        backbone: Hub id, folder, `minilm`, a mapping with `name` and settings, or a finished Classifier.
        labels: Names of the labels, in the order of the outputs.
        task: `single_label` or `multi_label`.
        head: Fields of HeadSettings.
        stage: Fields of Stage: epochs, learning rate, schedule and so on.
        loss: `label_smoothing`, `class_weights` (a list, single label) and `pos_weight` (a list, multi-label).
        seed: Decides the dropout of each step together with the step's number.
    """

    def __init__(
        self,
        backbone: str | Mapping[str, Any] | Classifier,
        labels: Sequence[str],
        *,
        task: str = "single_label",
        head: Mapping[str, Any] | None = None,
        stage: Mapping[str, Any] | None = None,
        loss: Mapping[str, Any] | None = None,
        seed: int = 13,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.labels = LabelSet(tuple(labels))
        self.task_name = task
        self.task = plugins.find("task", task)
        self.kind = plugins.kind_of_task(task)
        self.stage = Stage(**(stage or {}))
        self.seed = seed
        self.model = self._classifier(backbone, head or {})
        settings = dict(loss or {})
        self.label_smoothing = float(settings.get("label_smoothing", 0.0))
        for name in ("class_weights", "pos_weight"):
            value = settings.get(name)
            weights = None if value is None else torch.as_tensor(value, dtype=torch.float32)
            self.register_buffer(name, weights, persistent=False)
        self.keeps_seen = False  # on for a run of ours: with somebody's own Trainer nobody would ever take them
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._validated: list[tuple[Tensor, Tensor, Tensor]] = []
        self.valid_metrics: dict[str, float] = {}
        self.last_validated: tuple[Tensor, Tensor] = (torch.zeros(0), torch.zeros(0))
        # A checkpoint carries the architecture, not the name of weights that may be gone when it is opened.
        self.save_hyperparameters(
            {
                "backbone": {"classifier": self.model.config()},
                "labels": list(labels),
                "task": task,
                "head": dict(head or {}),
                "stage": self.stage.as_dict(),
                "loss": {k: _plain(v) for k, v in settings.items()},
                "seed": seed,
            }
        )

    def _classifier(self, backbone: str | Mapping[str, Any] | Classifier, head: Mapping[str, Any]) -> Classifier:
        if isinstance(backbone, Classifier):
            return backbone
        if isinstance(backbone, Mapping) and "classifier" in backbone:
            return build_classifier(dict(backbone["classifier"]))
        torch.manual_seed(derived_seed(self.seed, "head"))
        settings = {"name": backbone} if isinstance(backbone, str) else dict(backbone)
        return load_classifier(
            backbone=settings,
            head=HeadSettings(**head),
            labels=self.labels,
            multi_label=self.kind == "multi_label",
        )

    # -- training -----------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits, [texts, labels] float32."""
        logits: Tensor = self.model(batch)
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the stage's optimizer; the schedule is arithmetic inside `training_step`."""
        return build_optimizer(self.model.groups(), self.stage)

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
        """Return the learning rate of the top group at one step (from 0)."""
        return self.stage.learning_rate * rate_factor(self.stage.schedule, step, **self._curve())

    def training_step(self, step: StepBatch, batch_idx: int) -> dict[str, Tensor]:
        """Take one optimizer step over all micro-batches of a step.

        Raises:
            TrainingStopped: The loss or the gradient is not finite; the weights are as they were before the step.
        """
        optimizer: Any = self.optimizers()
        number = int(self.global_step)
        set_rates(optimizer.optimizer, self.stage, number, **self._curve())
        seed_everything(derived_seed(self.seed, "step", number, self.global_rank))
        optimizer.zero_grad()
        total = torch.zeros((), device=self.device)
        for index, batch in enumerate(step.batches):
            with self._gradient_stays_here(index + 1 < len(step.batches)):
                logits = self(batch)
                losses = self.losses(logits, batch)
                if self.keeps_seen and not step.is_filler and batch.targets is not None:
                    self._seen.append((logits.detach().float().cpu(), batch.targets.cpu()))
                # DDP averages gradients over processes; the mean over all texts of the step is wanted.
                weight = 0.0 if step.is_filler else self.trainer.world_size / step.n_texts
                self.manual_backward(losses.sum() * weight)
                if not step.is_filler:
                    total += losses.detach().sum()
        norm = self._clip(optimizer)
        self._stop_if_not_finite(total, norm, number, step, optimizer)
        optimizer.step()
        return {"loss": total / max(1, step.n_local), "norm": norm}

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the training loss of each text, [texts] float32: smoothed and weighted as the recipe says."""
        losses: Tensor = self.task.loss(
            logits,
            batch.targets,
            label_smoothing=self.label_smoothing,
            **{k: getattr(self, k) for k in ("class_weights", "pos_weight") if getattr(self, k) is not None},
        )
        return losses

    def _gradient_stays_here(self, blocked: bool) -> AbstractContextManager[Any]:
        block: Any = getattr(self.trainer.strategy, "block_backward_sync", None)
        return block() if blocked and block is not None and self.trainer.world_size > 1 else nullcontext()

    def _clip(self, optimizer: Any) -> Tensor:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        limit = self.stage.gradient_clip if self.stage.gradient_clip is not None else float("inf")
        return torch.nn.utils.clip_grad_norm_(parameters, limit)

    def _stop_if_not_finite(self, total: Tensor, norm: Tensor, number: int, step: StepBatch, optimizer: Any) -> None:
        if bool(torch.isfinite(total) & torch.isfinite(norm)):
            return
        rates = [group["lr"] for group in optimizer.param_groups]
        what = "loss" if not bool(torch.isfinite(total)) else "gradient"
        rows = ", ".join(map(str, step.rows[:8].tolist())) + (" …" if len(step.rows) > 8 else "")
        stopped = TrainingStopped(
            f"the {what} is not a finite number at step {number + 1}",
            where=f"step {number + 1}, learning rate {max(rates):.3g}, positions {rows} of the training rows",
            next="look at these rows, or lower fit.learning_rate and give --force or another --out; "
            "the last checkpoint before this step is kept",
        )
        stopped.rows = tuple(step.rows[:8].tolist())
        raise stopped

    # -- validation ---------------------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score one batch of validation rows."""
        logits = self(batch).float().cpu()
        self._validated.append((batch.rows.cpu(), logits, batch.targets.cpu()))  # type: ignore[union-attr]

    def on_validation_epoch_end(self) -> None:
        """Compute the metrics from all scores at once, each row exactly once whatever the number of processes."""
        logits, targets = self._gathered()
        self._validated.clear()
        if self.trainer.sanity_checking or not len(targets):
            return
        self.last_validated = (logits, targets)
        self.valid_metrics = self.measure(logits, targets)
        for name, value in self.valid_metrics.items():
            self.log(f"valid/{name}", value, rank_zero_only=False, sync_dist=False)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score one batch of test rows."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test rows."""
        logits, targets = self._gathered()
        self._validated.clear()
        for name, value in self.measure(logits, targets).items():
            self.log(f"test/{name}", value, rank_zero_only=False, sync_dist=False)

    def measure(self, logits: Tensor, targets: Tensor) -> dict[str, float]:
        """Return the plain loss and every metric of the task that these rows can tell."""
        loss = self.task.loss(logits, targets).mean()
        scores = self.task.scores(logits).numpy()
        found = {"loss": float(loss)}
        for name in METRICS[self.kind]:
            value = monitor_value(targets.numpy(), scores, name, task=self.kind)
            if value is not None:
                found[name] = float(value)
        return found

    def _gathered(self) -> tuple[Tensor, Tensor]:
        parts = [tuple(t.numpy() for t in part) for part in self._validated]
        if self.trainer.world_size > 1:
            everyone: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(everyone, parts)
            parts = [part for their in everyone for part in their]
        if not parts:
            return torch.zeros(0, len(self.labels)), torch.zeros(0)
        rows, logits, targets = (np.concatenate(column) for column in zip(*parts, strict=True))
        places = np.argsort(rows, kind="stable")
        return torch.from_numpy(logits[places]), torch.from_numpy(targets[places])

    # -- what the epoch has seen ----------------------------------------------------------------------------------

    def take_seen(self) -> tuple[Tensor, Tensor]:
        """Return and forget the logits and targets of the training rows seen since the last call."""
        seen, self._seen = self._seen, []
        if not seen:
            return torch.zeros(0, len(self.labels)), torch.zeros(0)
        return torch.cat([logits for logits, _ in seen]), torch.cat([targets for _, targets in seen])

    def measure_seen(self) -> dict[str, float]:
        """Return the metrics of the training rows seen in this epoch (dropout on), over all processes; forget them."""
        logits, targets = self.seen_by_all()
        self._seen = []
        return self.measure(logits, targets) if len(targets) else {}

    def seen_by_all(self) -> tuple[Tensor, Tensor]:
        """Return the logits and targets of the training rows that all processes have seen in this epoch."""
        logits, targets = self.take_seen()
        self.put_seen(logits, targets)
        if self.trainer.world_size > 1:
            everyone: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(everyone, (logits, targets))
            some = [part for part in everyone if len(part[1])]
            if some:
                logits, targets = (torch.cat(column) for column in zip(*some, strict=True))
        return logits, targets

    def put_seen(self, logits: Tensor, targets: Tensor) -> None:
        """Give back what `take_seen` took, after a restart in mid-epoch."""
        self._seen = [(logits, targets)] if len(logits) else []


def derived_seed(seed: int, *parts: object) -> int:
    """Return a seed in [0, 2**63) for one purpose: a pure function of the run's seed and the parts."""
    digest = hashlib.blake2b(repr((seed, *parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch: with it the randomness of a step depends on its number alone, never on a state."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
