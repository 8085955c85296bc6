"""The training of one run, in this process or in several; it ends with the best weights on disk."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from headrace.errors import DataError, HeadraceError, Interrupted, ModelError, RecipeError, RunError, TrainingStopped
from headrace.files import cache_folder, write_json
from headrace.head import CLASSICAL
from headrace.recipe.schema import RecipeValues
from headrace.train.checkpoints import AtomicCheckpoints, newest_checkpoint
from headrace.train.classical import fit_classical_head
from headrace.train.data import TextDataModule
from headrace.train.module import ClassifierModule
from headrace.train.prepare import Prepared
from headrace.train.progress import Curves, Echo, ProgressLines
from headrace.train.resume import Goal, Keeper, Progress, put_counters
from headrace.train.run import RunFolder
from headrace.train.sample import Sample
from headrace.train.signals import Signals
from headrace.train.stages import Stage
from headrace.train.trainer import (
    build_loggers,
    build_trainer,
    n_devices,
    resolved_precision,
)


@dataclass
class Session:
    """What one training run needs, as plain objects."""

    recipe: RecipeValues
    prepared: Prepared
    folder: RunFolder
    signals: Signals
    say: Echo
    cache: Path = field(default_factory=cache_folder)

    @cached_property
    def module(self) -> ClassifierModule:
        """The classifier with its initial weights: a pure function of recipe and seed."""
        from headrace.train.fit import loss_weights

        values = self.recipe
        backbone = {k: v for k, v in values.backbone.model_dump().items() if v is not None}
        module = ClassifierModule(
            backbone,
            self.prepared.labels.names,
            task=values.task,
            head=values.head.model_dump(),
            stage=self.stage.as_dict(),
            loss=loss_weights(values, self.prepared),
            seed=values.seed,
        )
        longest = module.model.backbone.max_tokens
        if longest is not None and values.data.max_length > longest:
            raise RecipeError(
                f"data.max_length is {values.data.max_length}, and {values.backbone.name} takes {longest} tokens at most",
                where="data.max_length",
                next=f"set data.max_length to {longest} or less",
            )
        return module

    @property
    def stage(self) -> Stage:
        """The one stage of training: all groups."""
        fit = self.recipe.fit
        return Stage(
            epochs=fit.epochs,
            learning_rate=fit.learning_rate,
            layer_decay=fit.layer_decay,
            optimizer=fit.optimizer,
            weight_decay=fit.weight_decay,
            schedule=fit.schedule,
            warmup=fit.warmup,
            gradient_clip=fit.gradient_clip,
        )

    @property
    def limits(self) -> dict[str, Any]:
        """What may end training before its last epoch, and may be another value next time."""
        found = {name: self.recipe.trainer.get(name) for name in ("max_steps", "max_time")}
        return {name: value for name, value in found.items() if value is not None}

    @cached_property
    def initial_sha256(self) -> str:
        """sha256 over the initial weights, so that a run never goes on from another model."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def packs(self) -> bool:
        """Whether a CPU's training lays texts end to end: tried on the model, which is left as it was."""
        backbone = self.module.model.backbone
        backbone.train_on_cpu()
        packs = backbone.packs
        backbone.end_training()
        return packs

    @cached_property
    def initial_sample(self) -> Sample:
        """Some of the initial weights; asked for before training, it tells afterwards what has learnt."""
        return Sample.of(self.module.model)

    @property
    def is_classical(self) -> bool:
        """Whether the head is fitted by scikit-learn on frozen features."""
        return self.recipe.head.name in CLASSICAL

    def train(self) -> None:
        """Train until the end, from wherever an earlier process left it.

        Raises:
            Interrupted: A signal came; the state is saved.
            TrainingStopped: A loss or gradient was not finite.
        """
        if self.result() is not None:
            return
        self.folder.checkpoints.mkdir(parents=True, exist_ok=True)
        if self.is_classical:
            fit_classical_head(self)
        elif n_devices(self.recipe.trainer) > 1 and "LOCAL_RANK" not in os.environ:
            self._launch(n_devices(self.recipe.trainer))
        else:
            self.train_in_this_process()

    def result(self) -> Progress | None:
        """Return where a finished training ended, or None; one that a limit ended goes on under another limit."""
        path = self.folder.path / "training.json"
        if not path.is_file():
            return None
        written = json.loads(path.read_text("utf-8"))
        limits = written.pop("ended_by", {})
        progress = Progress.of(written)
        is_whole = progress.is_over or progress.epoch >= self.recipe.fit.epochs
        return progress if is_whole or (limits and limits == self.limits) else None

    def write_result(self, progress: Progress) -> None:
        """Say that training is over."""
        write_json(self.folder.path / "training.json", {**asdict(progress), "ended_by": self.limits})

    # -- in this process ------------------------------------------------------------------------------------------

    def _goal(self) -> Goal:
        from headrace.train.fit import early_stopping, monitored

        name, larger = monitored(self.recipe)
        stop = early_stopping(self.recipe)
        setting = self.recipe.fit.early_stopping
        if stop is None or setting is None:
            return Goal(name, larger)
        return Goal(name, larger, setting.patience, setting.min_delta, *stop)

    def data(self) -> TextDataModule:
        """Return the data module over the prepared rows."""
        fit = self.recipe.fit
        data = TextDataModule.of(
            self.prepared,
            seed=self.recipe.seed,
            batch_size=fit.batch_size,
            sampler=fit.sampler,
            micro_batch=fit.micro_batch,
            accumulate=fit.accumulate,
        )
        data.limit_steps = self.recipe.trainer.get("limit_train_batches")
        return data

    def train_in_this_process(self) -> None:
        """Train as this process's part of the run; the only process, or one rank of several."""
        values = self.recipe
        data = self.data()
        checkpoints = AtomicCheckpoints()
        keeper = Keeper(
            self.folder.checkpoints,
            self._goal(),
            checkpoints=checkpoints,
            every_s=values.fit.checkpoint_every_s,
            signals=self.signals,
            told=self._told,
        )
        precision, why = resolved_precision(
            values.fit.precision, accelerator=str(values.trainer.get("accelerator", "auto"))
        )
        n_steps = data.steps_per_epoch * values.fit.epochs
        lines = ProgressLines(keeper, self._say_once, n_steps=n_steps)
        self._lines = lines
        trainer = build_trainer(
            self.folder.path,
            values.trainer,
            epochs=values.fit.epochs,
            precision=precision,
            callbacks=[keeper, lines, Curves(keeper, every_steps=int(values.trainer.get("log_every_n_steps", 10)))],
            loggers=build_loggers(values.logger, self.folder.path),
            profiler=values.profiler,
            plugins=[checkpoints],
        )
        checkpoint = newest_checkpoint(self.folder.checkpoints, say=self._say_once)
        if checkpoint is None:
            self._say_once(f"training {n_steps} steps in {precision} ({why})")
        else:
            keeper.restore(trainer, self.module, checkpoint)
            lines.skip_said()
            self._say_once(f"resumed at step {keeper.progress.total} of {n_steps}")
        self._told("begin", keeper.progress, n_steps=n_steps, resumed_at=keeper.progress.total)
        with self.signals.training():
            try:
                self._run(trainer, data, keeper)
            except TrainingStopped as error:
                raise self._with_lines(error) from error
        progress = keeper.progress
        is_whole = progress.epoch >= values.fit.epochs or progress.is_over
        if is_whole or self.limits:
            if not is_whole:
                ended_by = ", ".join(f"trainer.{name}" for name in self.limits)
                self._say_once(f"stopped by {ended_by} at step {progress.total}; a larger one goes on from here")
            if progress.best is None:  # no validation to choose by
                keeper.keep_last(trainer, self.module)
            if trainer.is_global_zero:
                self.write_result(progress)
        if self.signals.received:  # it came after the last step that looks for it
            keeper.stop(self.signals.received)

    def _with_lines(self, error: TrainingStopped) -> TrainingStopped:
        """Return the error with the rows' places in the file instead of their positions."""
        if not error.rows:
            return error
        places = ", ".join(self.prepared.train.examples.where(row) for row in error.rows)
        before = (error.where or "").split(", positions")[0]
        return TrainingStopped(error.what, where=f"{before}, rows {places}", next=error.next)

    def _run(self, trainer: Any, data: TextDataModule, keeper: Keeper) -> None:
        module = self.module
        module.model.train()
        module.keeps_seen = True
        if trainer.strategy.root_device.type == "cpu":
            module.model.backbone.train_on_cpu()
            data.packs = module.model.backbone.packs
        epochs = self.recipe.fit.epochs
        data.trainer = trainer
        if keeper.progress.step >= data.steps_per_epoch:
            # The last step of an epoch was saved and its validation was not: do that first.
            trainer.validate(module, datamodule=data, verbose=False)
            module.model.train()
            keeper.finish_epoch(trainer, module)
            put_counters(trainer, epoch=keeper.progress.epoch, step=keeper.progress.total)
        data.first = (keeper.progress.epoch, keeper.progress.step)
        at_max = 0 < trainer.max_steps <= keeper.progress.total
        if keeper.progress.epoch < epochs and not keeper.progress.is_over and not at_max:
            trainer.fit(module, datamodule=data)

    def _told(self, event: str, progress: Progress, **extra: Any) -> None:
        if int(os.environ.get("RANK", "0")) != 0:
            return
        saved = {"saved_step": progress.total} if event == "save" else {}
        self.folder.set_status("training", epoch=progress.epoch, step=progress.total, **saved, **extra)
        if event == "epoch" and hasattr(self, "_lines"):
            self._lines.say_epochs()

    def _say_once(self, line: str) -> None:
        if int(os.environ.get("RANK", "0")) == 0:
            self.say(line)

    # -- in several processes -------------------------------------------------------------------------------------

    def _launch(self, n_processes: int) -> None:
        """Train in `n_processes` started by torchrun; they find data and tokens in the cache."""
        self.say(f"training in {n_processes} processes")
        self.folder.set_status("training")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n_processes}"]
        command += ["-m", "headrace.train.worker", str(self.folder.path)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // n_processes))}
        failure = self.folder.path / "worker_error.json"
        failure.unlink(missing_ok=True)
        # With the lock's descriptor the folder stays locked while a process of the run lives, even if we are killed.
        held = () if self.folder.lock_descriptor is None else (self.folder.lock_descriptor,)
        # A session of its own: a terminal's Ctrl-C must reach the processes once, through us, or they cannot save.
        child = subprocess.Popen(command, env=environment, start_new_session=True, pass_fds=held)
        try:
            with self.signals.training():  # the children get the signal too and save; the parent waits for them
                code = self._wait(child)
        except BaseException:
            child.terminate()
            child.wait(60)
            raise
        if self.signals.received:
            saved = self.folder.status().get("saved_step", 0)
            raise Interrupted(
                f"interrupted by signal {self.signals.received}; the state of step {saved} is saved",
                where=str(self.folder.path),
                next="run the same command again: it goes on from there",
                exit_code=128 + self.signals.received,
            )
        if code:
            raise _worker_failure(failure, code)

    def _wait(self, child: subprocess.Popen[bytes]) -> int:
        forwarded = False
        while True:
            try:
                return child.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                if self.signals.received and not forwarded:
                    child.send_signal(self.signals.received)
                    forwarded = True


def _worker_failure(file: Path, code: int) -> Exception:
    """Return what a process of the run died of, from the file that it left."""
    if not file.is_file():
        return RuntimeError(f"a training process ended with code {code}; its message stands above")
    told = json.loads(file.read_text("utf-8"))
    file.unlink()
    places = {"where": told["where"], "next": told["next"]}
    if told["error"] == "Interrupted":
        return Interrupted(told["what"], **places, exit_code=told["exit_code"])
    kinds = {kind.__name__: kind for kind in (TrainingStopped, RecipeError, DataError, ModelError, RunError)}
    return kinds.get(told["error"], HeadraceError)(told["what"], **places)
