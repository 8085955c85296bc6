"""The training of one run, in this process or in several; it ends with the best weights on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning

from headrace.errors import DataError, HeadraceError, Interrupted, ModelError, RecipeError, RunError, TrainingStopped
from headrace.files import cache_folder
from headrace.head import CLASSICAL, NORMALIZING
from headrace.recipe.schema import RecipeValues, TrainSettings
from headrace.train.classical import fit_classical_head
from headrace.train.data import TextDataModule
from headrace.train.frozen import RECORD as FROZEN_RECORD
from headrace.train.frozen import Computing, Frozen
from headrace.train.frozen_store import KeptRows
from headrace.train.language.model import check_words, words_in
from headrace.train.module import ClassifierModule
from headrace.train.prepare import Prepared
from headrace.train.rehearse import refuse_costs, refuse_long_texts
from headrace.train.resume import Goal, Keeper
from headrace.train.run import RunFolder
from headrace.train.signals import Signals
from headrace.train.tokenizers import AWD_LSTM
from headrace.train.trainer import n_devices
from headrace.train.training import Training


@dataclass(kw_only=True)
class Session(Training):
    """The training of a classifier on prepared rows."""

    prepared: Prepared
    cache: Path = field(default_factory=cache_folder)

    @cached_property
    def module(self) -> ClassifierModule:
        """The classifier with its initial weights: a pure function of recipe and seed."""
        values = self.recipe
        for place in (values.backbone.name, values.backbone.backward):
            if place is not None:
                check_words(place, self.prepared.subwords)
        refuse_costs(values, self.prepared.labels)
        module = ClassifierModule(**self.module_arguments)
        refuse_long_texts(values, module.model.backbone)
        return module

    @property
    def module_arguments(self) -> dict[str, Any]:
        """What the module is made of, as plain values: another process makes the same of it."""
        from headrace.train.fit import loss_weights

        values = self.recipe
        backbone = {k: v for k, v in values.backbone.model_dump().items() if v is not None}
        if values.backbone.name == AWD_LSTM:
            backbone["words"] = words_in(self.prepared.subwords)
        return {
            "backbone": backbone,
            "labels": list(self.prepared.labels.names),
            "task": values.task,
            "head": values.head.model_dump(),
            "stage": self.stages[0].as_dict(),
            "loss": loss_weights(self.phases[0], self.prepared),
            "seed": values.seed,
        }

    @cached_property
    def packs(self) -> bool:
        """Whether a CPU's training lays texts end to end: tried on the model, which is left as it was."""
        backbone = self.module.model.backbone
        backbone.train_on_cpu()
        packs = backbone.packs
        backbone.end_training()
        return packs

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
        if self.is_classical:
            self.folder.checkpoints.mkdir(parents=True, exist_ok=True)
            fit_classical_head(self)
        elif n_devices(self.recipe.trainer) > 1 and "LOCAL_RANK" not in os.environ:
            self._launch(n_devices(self.recipe.trainer))
        else:
            self.train_in_this_process()

    # -- one stage of it --------------------------------------------------------------------------------------------

    def goal(self, phase: TrainSettings) -> Goal:
        """Return what is watched on validation in a stage."""
        from headrace.train.fit import early_stopping, monitored

        name, larger = monitored(self.recipe)
        setting = phase.early_stopping
        stop = early_stopping(self.recipe, phase)
        if stop is None or setting is None:
            return Goal(name, larger)
        return Goal(name, larger, setting.patience, setting.min_delta, *stop)

    def data(self, phase: TrainSettings | None = None) -> TextDataModule:
        """Return the data module over the prepared rows, as a stage has it; by default the first."""
        phase = phase or self.phases[0]
        data = TextDataModule.of(
            self.prepared,
            seed=self.recipe.seed,
            batch_size=self.recipe.fit.batch_size,
            sampler=phase.sampler,
            micro_batch=phase.micro_batch,
            accumulate=phase.accumulate,
        )
        data.limit_steps = self.recipe.trainer.get("limit_train_batches")
        data.whole_steps = self.recipe.head.name in NORMALIZING
        return data

    def prepare_stage(self, phase: TrainSettings) -> None:
        """Give the loss the stage's weights and smoothing."""
        from headrace.train.fit import loss_weights

        self.module.weigh(loss_weights(phase, self.prepared))

    @contextmanager
    def keeping_outputs(self, data: TextDataModule, trainer: lightning.Trainer, keeper: Keeper) -> Iterator[None]:
        """Inside the block the data give what frozen groups once computed; see `train.frozen`."""
        kept = self._kept_outputs(trainer, keeper)
        data.kept = {name: rows.attach for name, rows in kept.items()}
        try:
            yield
        finally:
            for rows in kept.values():
                rows.close()

    def _kept_outputs(self, trainer: lightning.Trainer, keeper: Keeper) -> dict[str, KeptRows]:
        # An epoch over a few batches would compute fewer texts than the pass over all of them.
        is_limited = any(name in self.recipe.trainer for name in ("limit_train_batches", "limit_val_batches"))
        if is_limited or self.stage_is_over(keeper.progress):
            return {}
        frozen = Frozen(
            self.module.model,
            self.prepared,
            stages=self.stages,
            precisions=[self.precision(phase)[0] for phase in self.phases],
            cache=self.cache,
            record=self.folder.checkpoints / FROZEN_RECORD,
            say=self.say_once,
        )
        stage = keeper.progress.stage
        if trainer.world_size > 1:
            if frozen.pays(stage):
                self.say_once("frozen outputs are not kept: there are several processes")
            return {}

        def check() -> None:
            if self.signals.received:
                keeper.stop(self.signals.received)

        how = Computing(trainer.strategy.root_device, trainer.precision_plugin.forward_context, check)
        kept = frozen.before(stage, how)
        keeper.progress.fit_s += frozen.seconds
        return kept

    def explained(self, error: TrainingStopped) -> TrainingStopped:
        """Return the error with the rows' places in the file instead of their positions."""
        if not error.rows:
            return error
        places = ", ".join(self.prepared.train.examples.where(row) for row in error.rows)
        before = (error.where or "").split(", positions")[0]
        return TrainingStopped(error.what, where=f"{before}, rows {places}", next=error.next)

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


def untrained(values: RecipeValues, prepared: Prepared) -> Session:
    """Return the session of a recipe that has no folder: to count its steps, and to look at its model."""

    def silent(line: str) -> None:
        """Nobody reads along."""

    return Session(recipe=values, prepared=prepared, folder=RunFolder(Path()), signals=Signals(), say=silent)


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
