"""What a person sees while it trains: a bar or plain lines, one kept line per epoch, and TensorBoard's curves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import lightning
import torch
from tqdm.auto import tqdm

from headrace.metrics import areas_per_label
from headrace.train.fetching import shows_bar
from headrace.train.module import ClassifierModule
from headrace.train.resume import Keeper
from headrace.train.stepped import SteppedModule

# Of the metrics, those that say most; all of them are in report.json and in the logger.
SHOWN_METRICS = ("perplexity", "accuracy", "f1_macro", "roc_auc_macro")
LINE_EVERY_S = 5.0
LINE_EVERY_STEPS = 20

Echo = Callable[[str], None]


def duration(seconds: float) -> str:
    """Return seconds as people say them: 42 s, 3 min 05 s, 1 h 02 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class ProgressLines(lightning.Callback):
    """Shows loss, texts/s and time left; a bar in a terminal or notebook, a line now and then in a log file.

    Args:
        keeper: Counts the steps.
        echo: Takes each line that is kept.
        n_steps: Steps of the whole training.
        show_bar: Draw a bar; by default where the error stream is a terminal or in a notebook.
    """

    def __init__(self, keeper: Keeper, echo: Echo, *, n_steps: int, show_bar: bool | None = None) -> None:
        self.keeper = keeper
        self.echo = echo
        self.n_steps = n_steps
        self.show_bar = shows_bar() if show_bar is None else show_bar
        self._bar: Any = None
        self._loss: float | None = None
        self._line_at = time.monotonic()
        self._said = 0
        self._begun: tuple[float, int] = (0.0, 0)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin the bar where training stands."""
        progress = self.keeper.progress
        self._begun = (progress.fit_s, progress.n_texts)
        if self.show_bar and trainer.is_global_zero:
            self._bar = tqdm(total=self.n_steps, initial=progress.total, unit="step", dynamic_ncols=True, leave=False)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar, or write a line from time to time."""
        loss = float(outputs["loss"])
        self._loss = loss if self._loss is None else 0.95 * self._loss + 0.05 * loss
        progress = self.keeper.progress
        if not trainer.is_global_zero:
            return
        rate = self.texts_per_s()
        monitor, found = self.keeper.goal.monitor, pl_module.valid_metrics
        watched = {f"valid {monitor}": found[monitor]} if monitor in found else {}
        if self._bar is not None:
            shown = {"loss": f"{self._loss:.3f}", f"{pl_module.unit}/s": f"{rate:.1f}"}
            shown |= {name: f"{value:.3f}" for name, value in watched.items()}
            self._bar.set_postfix(shown, refresh=False)  # drawn with the step, and as seldom as tqdm sees fit
            self._bar.update(progress.total - self._bar.n)
            return
        is_time = time.monotonic() - self._line_at >= LINE_EVERY_S
        if progress.total % LINE_EVERY_STEPS == 0 and (is_time or progress.total <= LINE_EVERY_STEPS):
            left = (self.n_steps - progress.total) * progress.fit_s / max(1, progress.total)
            place = f"step {progress.total}/{self.n_steps}"
            metric = "".join(f"  {name} {value:.4f}" for name, value in watched.items())
            self.echo(f"{place}  loss {self._loss:.4f}{metric}  {rate:.1f} {pl_module.unit}/s  {duration(left)} left")
            self._line_at = time.monotonic()

    def texts_per_s(self) -> float:
        """Return the texts trained on per second in this process's run, validation and saving left out."""
        seconds, texts = self._begun
        progress = self.keeper.progress
        return (progress.n_texts - texts) / max(1e-9, progress.fit_s - seconds)

    def say_epochs(self) -> None:
        """Keep one line for each epoch that ended since the last call."""
        for record in self.keeper.progress.history[self._said :]:
            self._keep(epoch_line(record, self.keeper.goal.monitor))
        self._said = len(self.keeper.progress.history)

    def skip_said(self) -> None:
        """Take the epochs of an earlier process as told."""
        self._said = len(self.keeper.progress.history)

    def _keep(self, line: str) -> None:
        if self._bar is not None:
            self._bar.clear()
        self.echo(line)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def epoch_line(record: dict[str, Any], monitor: str) -> str:
    """Return an epoch's kept line: losses, the monitored figure, other metrics, time."""
    valid = record["valid"]
    shown = [name for name in dict.fromkeys((monitor, *SHOWN_METRICS)) if name in valid and name != "loss"]
    metrics = "  ".join(f"{name} {valid[name]:.4f}" for name in shown)
    valid_loss = f"  valid loss {valid['loss']:.4f}" if "loss" in valid else ""
    time_s = duration(record["seconds"])
    stage = f"stage {record['stage']}  " if "stage" in record else ""
    return f"{stage}epoch {record['epoch']}  train loss {record['train_loss']:.4f}{valid_loss}  {metrics}  {time_s}"


class Curves(lightning.Callback):
    """Writes loss, learning rates and metrics to whatever loggers the Trainer has, against the global step.

    It stands before the Keeper, which may end the training at a step: that step's values are written first.
    """

    def __init__(self, *, every_steps: int) -> None:
        self.every_steps = every_steps

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the step's loss and rates."""
        step = trainer.global_step
        if step % self.every_steps:
            return
        values = {"train/loss": float(outputs["loss"]), "train/gradient_norm": float(outputs["norm"])}
        for group in trainer.optimizers[0].param_groups:
            values[f"learning_rate/{group['name']}"] = group["lr"]
        _log(trainer, values, step)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the validation metrics, and each label's ROC AUC on training and validation rows."""
        if trainer.sanity_checking or not trainer.loggers or not isinstance(pl_module, SteppedModule):
            return
        values = {f"valid/{name}": value for name, value in pl_module.valid_metrics.items()}
        if isinstance(pl_module, ClassifierModule):
            values |= per_label_auc(pl_module, *pl_module.last_validated, split="valid")
            logits, targets = pl_module.take_seen()
            pl_module.put_seen(logits, targets)
            values |= per_label_auc(pl_module, logits, targets, split="train")
        _log(trainer, values, trainer.global_step)


def per_label_auc(
    module: ClassifierModule, logits: torch.Tensor, targets: torch.Tensor, *, split: str
) -> dict[str, float]:
    """Return `split/roc_auc/LABEL` for each label with rows of both kinds."""
    if not len(targets):
        return {}
    areas, _ = areas_per_label(targets.numpy(), module.task.scores(logits).numpy())
    named = zip(module.labels.names, areas.tolist(), strict=True)
    return {f"{split}/roc_auc/{label}": area for label, area in named if math.isfinite(area)}


def _log(trainer: lightning.Trainer, values: dict[str, float], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(values, step=step)
