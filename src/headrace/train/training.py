"""The training of one run in this process: its stages one after the other, from wherever an earlier process left it."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import lightning
import torch

from headrace import compiled
from headrace.errors import TrainingStopped
from headrace.files import write_json
from headrace.matmul import DEFAULT, fastest_route, routed
from headrace.recipe.schema import RecipeValues, TrainSettings
from headrace.train.checkpoints import AtomicCheckpoints, newest_checkpoint
from headrace.train.loggers import build_loggers, close_loggers
from headrace.train.memory import MemoryGiver
from headrace.train.progress import Curves, Echo, ProgressLines
from headrace.train.resume import Goal, Keeper, Progress, put_counters
from headrace.train.run import RunFolder
from headrace.train.sample import Sample
from headrace.train.signals import Signals
from headrace.train.stages import Stage, n_learning, refuse_stages
from headrace.train.stepped import SteppedModule
from headrace.train.touched import touched_rows
from headrace.train.trainer import build_trainer, resolved_precision, seconds_left

RESULT = "training.json"


@dataclass(kw_only=True)
class Training(ABC):
    """What one training needs, as plain objects; a subclass says of what kind it is."""

    recipe: RecipeValues
    folder: RunFolder
    signals: Signals
    say: Echo

    # -- what a kind of training gives ------------------------------------------------------------------------------

    @property
    @abstractmethod
    def module(self) -> SteppedModule:
        """The model with its initial weights: a pure function of recipe and seed. The same object at each call."""

    @abstractmethod
    def data(self, phase: TrainSettings | None = None) -> Any:
        """Return the LightningDataModule of a stage, by default the first: with `first`, `packs`, `steps_per_epoch`."""

    @abstractmethod
    def goal(self, phase: TrainSettings) -> Goal:
        """Return what is watched on validation in a stage."""

    @abstractmethod
    def prepare_stage(self, phase: TrainSettings) -> None:
        """Set what of the module a stage decides besides its rates."""

    def keeping_outputs(self, data: Any, trainer: lightning.Trainer, keeper: Keeper) -> AbstractContextManager[None]:
        """Return a context in which the data give a stage what needs not be computed anew; by default they do not."""
        return nullcontext()

    def explained(self, error: TrainingStopped) -> TrainingStopped:
        """Return the error with places that a person can find."""
        return error

    # -- plain facts ------------------------------------------------------------------------------------------------

    @property
    def phases(self) -> list[TrainSettings]:
        """The settings of each stage."""
        return self.recipe.fit.phases

    @property
    def stages(self) -> list[Stage]:
        """What learns in each stage, how fast, and on which curve."""
        return [Stage.of(phase) for phase in self.phases]

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
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def initial_sample(self) -> Sample:
        """Some of the initial weights; asked for before training, it tells afterwards what has learnt."""
        return Sample.of(self.module.model)

    def is_whole(self, progress: Progress) -> bool:
        """Return whether the last stage has had its epochs, or early stopping ended it."""
        return progress.stage == len(self.phases) - 1 and self.stage_is_over(progress)

    def stage_is_over(self, progress: Progress) -> bool:
        """Return whether the running stage has had its epochs, or early stopping ended it."""
        return progress.is_over or progress.n_stage_epochs >= self.phases[progress.stage].epochs

    def result(self) -> Progress | None:
        """Return where a finished training ended, or None; one that a limit ended goes on under another limit."""
        path = self.folder.path / RESULT
        if not path.is_file():
            return None
        written = json.loads(path.read_text("utf-8"))
        limits = written.pop("ended_by", {})
        progress = Progress.of(written)
        return progress if self.is_whole(progress) or (limits and limits == self.limits) else None

    def write_result(self, progress: Progress) -> None:
        """Say that training is over."""
        write_json(self.folder.path / RESULT, {**asdict(progress), "ended_by": self.limits})

    # -- in this process --------------------------------------------------------------------------------------------

    def train_in_this_process(self) -> None:
        """Train as this process's part of the run; the only process, or one rank of several.

        Raises:
            Interrupted: A signal came; the state is saved.
            TrainingStopped: A loss or gradient was not finite.
        """
        self.folder.checkpoints.mkdir(parents=True, exist_ok=True)
        data = self.data()
        refuse_stages(self.phases, len(self.module.groups()))
        for phase in self.phases:  # a later stage's fault is told before the first begins
            self.prepare_stage(phase)
        checkpoints = AtomicCheckpoints()
        keeper = Keeper(
            self.folder.checkpoints,
            self.goal(self.phases[0]),
            checkpoints=checkpoints,
            every_s=self.phases[0].checkpoint_every_s,
            signals=self.signals,
            told=self._told,
            n_stages=len(self.phases),
        )
        n_steps = data.steps_per_epoch * sum(phase.epochs for phase in self.phases)
        self._lines = ProgressLines(keeper, self.say_once, n_steps=n_steps)
        checkpoint = newest_checkpoint(self.folder.checkpoints, say=self.say_once)
        if checkpoint is not None:
            keeper.restore(self.module, checkpoint, rank=int(os.environ.get("RANK", "0")))
            self._lines.skip_said()
            self.say_once(f"resumed at step {keeper.progress.total} of {n_steps}")
        else:
            precision, why = self.precision(self.phases[0])
            scored = "" if precision == "fp32" else "; the result is scored in fp32"
            self.say_once(f"training {n_steps} steps in {precision} ({why}){scored}")
        self._told("begin", keeper.progress, n_steps=n_steps, resumed_at=keeper.progress.total)
        with self.signals.training(), self._logging(keeper.progress):
            try:
                trainer = self._run_stages(keeper)
            except TrainingStopped as error:
                raise self.explained(error) from error
        self._conclude(keeper, trainer)

    @contextmanager
    def _logging(self, progress: Progress) -> Iterator[None]:
        """Have the loggers, the same ones in all stages."""
        is_validated = progress.step == 0  # inside an epoch its validation has yet to come
        self._loggers = build_loggers(
            self.recipe.logger, self.folder.path, step=progress.total, is_validated=is_validated
        )
        try:
            yield
        finally:
            close_loggers(self._loggers)

    def _run_stages(self, keeper: Keeper) -> lightning.Trainer:
        """Run the stage that is open and those after it; return the last one's Trainer."""
        while True:
            phase = self.phases[keeper.progress.stage]
            keeper.goal, keeper.every_s = self.goal(phase), phase.checkpoint_every_s
            trainer = self._run_stage(phase, keeper)
            is_last = keeper.progress.stage == len(self.phases) - 1
            if is_last or self.signals.received or not self.stage_is_over(keeper.progress):
                return trainer
            keeper.begin_stage()

    def _run_stage(self, phase: TrainSettings, keeper: Keeper) -> lightning.Trainer:
        progress = keeper.progress
        trainer = self._trainer(phase, keeper)
        put_counters(trainer, epoch=progress.epoch, step=progress.total)
        module, data = self.module, self.data(phase)
        module.keeps_seen, module.logs_valid = True, False
        on_cpu = trainer.strategy.root_device.type == "cpu"
        if on_cpu:
            module.model.backbone.train_on_cpu()
            data.packs = module.model.backbone.packs
        self.prepare_stage(phase)
        module.enter(Stage.of(phase), first_step=progress.first_step)
        if len(self.phases) > 1:
            self.say_once(_stage_line(progress, module, n_stages=len(self.phases)))
        data.trainer = trainer
        at_max = 0 < trainer.max_steps <= progress.total
        # several processes have clocks of their own: there Lightning ends it, by the clock of one
        is_late = trainer.world_size == 1 and seconds_left(self.recipe.trainer, progress.fit_s) == 0.0
        is_unseen = progress.step >= data.steps_per_epoch
        if not is_unseen and (self.stage_is_over(progress) or at_max or (is_late and progress.total)):
            return trainer
        on_one_cpu = on_cpu and trainer.world_size == 1
        with (
            self.keeping_outputs(data, trainer, keeper),
            self._cheaply(progress, phase) if on_one_cpu else nullcontext(),
        ):
            if is_unseen:
                # The last step of an epoch was saved and its validation was not: do that first.
                trainer.validate(module, datamodule=data, verbose=False)
                module.set_modes()
                keeper.finish_epoch(trainer, module)
                put_counters(trainer, epoch=progress.epoch, step=progress.total)
            data.first = (progress.epoch, progress.step)
            if not self.stage_is_over(progress) and not at_max and not (is_late and progress.total):
                trainer.fit(module, datamodule=data)
        return trainer

    @contextmanager
    def _cheaply(self, progress: Progress, phase: TrainSettings) -> Iterator[None]:
        """Compute the same at a lower price on one CPU process; a run that goes on does it as it began."""
        if progress.route is None:
            progress.route = fastest_route() if progress.total == 0 else DEFAULT
            if progress.route != DEFAULT:
                self.say_once(f"{progress.route} multiplies float32 matrices: as exact, and faster on this processor")
        is_fp32 = self.precision(phase)[0] == "fp32"
        has_loops = compiled.attends(torch.float32 if is_fp32 else torch.bfloat16, head_width=2)
        if progress.loops is None:
            progress.loops = progress.total == 0 and has_loops
        if progress.loops and not has_loops:
            self.say_once("the run began with compiled loops, which are not here: it goes on, but not to the same bits")
        route = routed(progress.route if is_fp32 else DEFAULT)
        with touched_rows(self.module.model), compiled.learning(progress.loops), route:
            yield

    def _trainer(self, phase: TrainSettings, keeper: Keeper) -> lightning.Trainer:
        values, progress = self.recipe, keeper.progress
        curves = Curves(every_steps=int(values.trainer.get("log_every_n_steps", 10)))
        arguments = dict(values.trainer)
        left_s = seconds_left(arguments, progress.fit_s)
        if left_s is not None:  # the limit is that of the run: of all its stages, and of all calls
            arguments["max_time"] = timedelta(seconds=left_s)
        return build_trainer(
            self.folder.path,
            arguments,
            epochs=progress.epoch - progress.n_stage_epochs + phase.epochs,
            precision=self.precision(phase)[0],
            callbacks=[curves, keeper, self._lines, MemoryGiver()],
            loggers=self._loggers,
            profiler=values.profiler,
            plugins=[keeper.checkpoints],
        )

    def precision(self, phase: TrainSettings) -> tuple[str, str]:
        """Return the precision of a stage, `fp32` or `bf16`, and why it is that."""
        accelerator = str(self.recipe.trainer.get("accelerator", "auto"))
        return resolved_precision(phase.precision, accelerator=accelerator)

    def _conclude(self, keeper: Keeper, trainer: lightning.Trainer) -> None:
        progress = keeper.progress
        if self.signals.received and not self.is_whole(progress):  # between two stages: the state is saved
            keeper.stop(self.signals.received)
        if self.is_whole(progress) or self.limits:
            if not self.is_whole(progress):
                ended_by = ", ".join(f"trainer.{name}" for name in self.limits)
                self.say_once(f"stopped by {ended_by} at step {progress.total}; a larger one goes on from here")
            if progress.best is None:  # no validation to choose by
                keeper.keep_last(trainer, self.module)
            if trainer.is_global_zero:
                self.write_result(progress)
        if self.signals.received:  # it came after the last step that looks for it
            keeper.stop(self.signals.received)

    def _told(self, event: str, progress: Progress, **extra: Any) -> None:
        if int(os.environ.get("RANK", "0")) != 0:
            return
        saved = {"saved_step": progress.total} if event == "save" else {}
        self.folder.set_status("training", epoch=progress.epoch, step=progress.total, **saved, **extra)
        if event == "epoch":
            self._lines.say_epochs()

    def say_once(self, line: str) -> None:
        """Say a line from the first process alone."""
        if int(os.environ.get("RANK", "0")) == 0:
            self.say(line)


def learning_scales(module: SteppedModule, stage: Stage) -> Mapping[str, float]:
    """Return each group's share of the top group's rate in a stage, the top first; 0 for what does not learn."""
    names = [name for name, _ in module.groups()]
    n = n_learning(stage.train, len(names))
    return {name: stage.layer_decay**depth if depth < n else 0.0 for depth, name in enumerate(reversed(names))}


def _stage_line(progress: Progress, module: SteppedModule, *, n_stages: int) -> str:
    names = [name for name, _ in module.groups()]
    learning = [name for name in names if name not in module.fixed]
    what = "everything learns" if not module.fixed else f"{', '.join(reversed(learning))} learn"
    if len(learning) == 1:
        what = f"the {learning[0]} alone learns"
    return f"stage {progress.stage + 1} of {n_stages}: {what}"
