"""The LightningModule: a classifier, its loss, one optimizer step from several micro-batches, and validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headrace import plugins
from headrace.bundle.language_model import is_language_model
from headrace.data.examples import LabelSet
from headrace.evaluate import METRICS, monitor_value
from headrace.model import Classifier, HeadSettings, build_classifier, load_classifier
from headrace.recipe.schema import BackboneSettings
from headrace.text.batch import Batch
from headrace.train.data import StepBatch
from headrace.train.language.model import encoders_of
from headrace.train.stages import Stage
from headrace.train.stepped import SteppedModule, derived_seed


class ClassifierModule(SteppedModule):
    """A classifier that any `lightning.Trainer` can train on a `TextDataModule`.

    One call of `training_step` is one optimizer step over all texts of the step, whatever number of micro-batches
    they come in; so `accumulate_grad_batches` and `gradient_clip_val` belong to the module, not to the Trainer.

    Args:
        backbone: Hub id, folder, `minilm`, the bundle of a language model, a mapping with `name` and settings, or a finished Classifier.
        labels: Names of the labels, in the order of the outputs.
        task: `single_label` or `multi_label`.
        head: Fields of HeadSettings.
        stage: Fields of Stage: epochs, learning rate, schedule and so on.
        loss: `label_smoothing`, `class_weights` (a list, single label) and `pos_weight` (a list, multi-label).
        seed: Decides the dropout of each step together with the step's number.
    """

    model: Classifier

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
        super().__init__(stage=Stage(**(stage or {})), seed=seed)
        self.labels = LabelSet(tuple(labels))
        self.task_name = task
        self.task = plugins.find("task", task)
        self.kind = plugins.kind_of_task(task)
        self.model = self._classifier(backbone, head or {})
        settings = dict(loss or {})
        self.weigh(settings)
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._validated: list[tuple[Tensor, Tensor, Tensor]] = []
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

    def weigh(self, loss: Mapping[str, Any]) -> None:
        """Set the loss's `label_smoothing`, `class_weights` and `pos_weight`, as in the constructor."""
        self.label_smoothing = float(loss.get("label_smoothing", 0.0))
        for name in ("class_weights", "pos_weight"):
            value = loss.get(name)
            weights = None if value is None else torch.as_tensor(value, dtype=torch.float32, device=self.device)
            self.register_buffer(name, weights, persistent=False)

    def _classifier(self, backbone: str | Mapping[str, Any] | Classifier, head: Mapping[str, Any]) -> Classifier:
        if isinstance(backbone, Classifier):
            return backbone
        if isinstance(backbone, Mapping) and "classifier" in backbone:
            return build_classifier(dict(backbone["classifier"]))
        torch.manual_seed(derived_seed(self.seed, "head"))
        settings = {"name": backbone} if isinstance(backbone, str) else dict(backbone)
        is_bundle = is_language_model(str(settings.get("name")))
        return load_classifier(
            backbone=encoders_of(BackboneSettings(**settings)) if is_bundle else settings,
            head=HeadSettings(**head),
            labels=self.labels,
            multi_label=self.kind == "multi_label",
        )

    # -- training -----------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits, [texts, labels] float32."""
        logits: Tensor = self.model(batch)
        return logits

    def learn(self, step: StepBatch) -> Tensor:
        """Compute the gradients of all micro-batches of a step, and return its mean loss."""
        total = torch.zeros((), device=self.device)
        seen = []
        for index, batch in enumerate(step.batches):
            with self.gradient_stays_here(index + 1 < len(step.batches)):
                each = self.model.each_logits(batch)
                # of several readers each learns as if it were alone, and their mean loss is told
                losses = torch.stack([self.losses(logits, batch) for logits in each])
                logits = self.model.joined([one.detach() for one in each])
                if self.keeps_seen and not step.is_filler and batch.targets is not None:
                    seen.append((logits.detach().float().cpu(), batch.targets.cpu()))
                # DDP averages gradients over processes; the mean over all texts of the step is wanted.
                weight = 0.0 if step.is_filler else self.trainer.world_size / step.n_texts
                self.manual_backward(losses.sum() * weight)
                if not step.is_filler:
                    total += losses.detach().mean(dim=0).sum()
        self._seen.extend(seen)  # not before the whole step is done: it may have to begin again
        return total / max(1, step.n_local)

    def cut(self, step: StepBatch) -> StepBatch:
        """Return the step in micro-batches of at most `max_texts`."""
        return step if self.max_texts is None else step.at_most(self.max_texts)

    def largest(self, step: StepBatch) -> int:
        """Return how many texts are computed at a time; 1 where a head sees all of them together."""
        return 1 if self.model.needs_whole_step else max(len(batch) for batch in self.cut(step).batches)

    def sizes(self, step: StepBatch) -> str:
        """Return the texts of a step, and the tokens of its longest."""
        longest = max(batch.input_ids.shape[1] for batch in step.batches)
        return f"{step.n_texts:,} texts of up to {longest:,} tokens"

    def clipped_together(self) -> list[list[torch.nn.Parameter]]:
        """Return the parameters in parts whose gradients are clipped apart: those of each reader."""
        return self.model.clipped_together()

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the training loss of each text, [texts] float32: smoothed and weighted as the recipe says."""
        losses: Tensor = self.task.loss(
            logits,
            batch.targets,
            label_smoothing=self.label_smoothing,
            **{k: getattr(self, k) for k in ("class_weights", "pos_weight") if getattr(self, k) is not None},
        )
        return losses

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
            self.log(f"valid/{name}", value, rank_zero_only=False, sync_dist=False, logger=self.logs_valid)

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

    def epoch_metrics(self) -> dict[str, float]:
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
        """Give back what `take_seen` took."""
        self._seen = [(logits, targets)] if len(logits) else []

    def kept_state(self) -> dict[str, Any]:
        """Return what all processes have seen in this epoch."""
        logits, targets = self.seen_by_all()
        return {"seen_logits": logits, "seen_targets": targets, "max_texts": self.max_texts}

    def put_state(self, state: dict[str, Any], *, rank: int) -> None:
        """Take back what was seen, after a restart in mid-epoch; the first process keeps it for all."""
        self.max_texts = state.get("max_texts")
        if rank == 0:
            self.put_seen(state["seen_logits"], state["seen_targets"])


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
