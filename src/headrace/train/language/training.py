"""The training of one language model in this process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from headrace.backbones._masked_word import MaskedWordModel
from headrace.backbones._next_word import NextWordModel
from headrace.errors import RecipeError, TrainingStopped
from headrace.recipe.schema import RecipeValues, TrainSettings
from headrace.text.masks import Masks
from headrace.text.plan import Plan
from headrace.train.language.data import LanguageDataModule, MaskedSteps, NextWordSteps, Steps
from headrace.train.language.model import load_language_model
from headrace.train.language.module import LanguageModelModule, MaskedWordModule, NextWordModule
from headrace.train.language.prepare import LanguageData, Texts, block_of
from headrace.train.language.streams import Streams
from headrace.train.loggers import check_loggers
from headrace.train.places import refuse_misplaced
from headrace.train.resume import Goal
from headrace.train.run import RunFolder
from headrace.train.signals import Signals
from headrace.train.stepped import derived_seed
from headrace.train.trainer import check_trainer_arguments, n_devices
from headrace.train.training import Training

#: Figure of validation -> whether larger is better.
METRICS = {"loss": False, "perplexity": False, "accuracy": True}


@dataclass(kw_only=True)
class LanguageTraining(Training):
    """The training of a language model on prepared texts."""

    prepared: LanguageData

    @cached_property
    def module(self) -> LanguageModelModule:
        """The model with its initial weights: a pure function of recipe and seed.

        Raises:
            ModelError: The weights cannot be found, read or trusted.
        """
        torch.manual_seed(derived_seed(self.recipe.seed, "head"))
        model = load_language_model(self.recipe, self.prepared.tokenizer)
        first, seed = self.stages[0], self.recipe.seed
        if isinstance(model, NextWordModel):
            self._refuse_micro_batches()
            return NextWordModule(model, stage=first, seed=seed)
        self._check_length(model)
        return MaskedWordModule(model, stage=first, seed=seed)

    def train(self) -> None:
        """Train until the end, from wherever an earlier process left it.

        Raises:
            Interrupted: A signal came; the state is saved.
            TrainingStopped: A loss or gradient was not finite.
            RecipeError: More than one device is asked for.
        """
        check_devices(self.recipe.trainer)
        if self.result() is None:
            self.train_in_this_process()

    def data(self, phase: TrainSettings | None = None) -> LanguageDataModule:
        """Return the data module of a stage, by default the first."""
        phase = phase or self.phases[0]
        data = LanguageDataModule(self._steps(phase))
        data.limit_steps = self.recipe.trainer.get("limit_train_batches")
        return data

    def goal(self, phase: TrainSettings) -> Goal:
        """Return what is watched on validation in a stage."""
        name, larger = monitored(self.recipe.fit.monitor, "fit.monitor")
        setting = phase.early_stopping
        if setting is None:
            return Goal(name, larger)
        stop = monitored(setting.monitor or self.recipe.fit.monitor, "fit.early_stopping.monitor")
        return Goal(name, larger, setting.patience, setting.min_delta, *stop)

    def prepare_stage(self, phase: TrainSettings) -> None:
        """Nothing but rates differs between the stages of a language model."""

    def explained(self, error: TrainingStopped) -> TrainingStopped:
        """Return the error with the texts' places in their files instead of their positions."""
        if not error.rows:
            return error
        places = ", ".join(self.prepared.train.where(row) for row in error.rows)
        before = (error.where or "").split(", positions")[0]
        return TrainingStopped(error.what, where=f"{before}, texts {places}", next=error.next)

    def steps_of(self, texts: Texts) -> Steps:
        """Return the batches of which `texts` are the validation, to measure a model on them."""
        return self._steps(self.phases[0], texts)

    def _steps(self, phase: TrainSettings, valid: Texts | None = None) -> Steps:
        prepared, seed = self.prepared, self.recipe.seed
        train, valid_corpus = prepared.train.corpus, (valid or prepared.valid).corpus
        model, batch_size = self.module.model, self.recipe.fit.batch_size
        if isinstance(model, NextWordModel):
            shape: dict[str, Any] = {
                "n_streams": batch_size,
                "sequence_length": block_of(self.recipe).sequence_length,
                "is_backward": model.backbone.direction == "backward",
            }
            return NextWordSteps(Streams.of(train, seed=seed, **shape), Streams.of(valid_corpus, **shape))
        tokenizer = prepared.tokenizer
        limit = -(-batch_size // phase.accumulate)
        if phase.micro_batch != "auto":
            limit = min(limit, int(phase.micro_batch))
        return MaskedSteps(
            train,
            valid_corpus,
            plan=Plan(n_rows=len(train), batch_size=batch_size, seed=seed),
            masks=Masks.of(tokenizer, seed=seed),
            padding={"pad_id": tokenizer.pad_id, "uses_token_types": tokenizer.uses_token_types},
            micro_batch=limit,
        )

    def _refuse_micro_batches(self) -> None:
        for phase in self.phases:
            if phase.micro_batch != "auto" or phase.accumulate != 1:
                key = "accumulate" if phase.accumulate != 1 else "micro_batch"
                raise RecipeError(
                    f"fit.{key} is not for next words: a step is one sequence of each stream",
                    where=f"fit.{key}",
                    next="a smaller fit.batch_size (streams) or language_model.sequence_length takes less memory",
                )

    def _check_length(self, model: MaskedWordModel) -> None:
        longest = model.backbone.max_tokens
        found = int(self.prepared.train.corpus.lengths.max())
        if longest is not None and found > longest:
            raise RecipeError(
                f"texts are kept up to {found} tokens, and {self.recipe.backbone.name} takes {longest} at most",
                where="language_model.max_length",
                next=f"set it to {longest} or less",
            )


def unsaved(values: RecipeValues, prepared: LanguageData) -> LanguageTraining:
    """Return the training of a recipe that has no folder: to look at its model."""

    def silent(line: str) -> None:
        """Nobody reads along."""

    return LanguageTraining(recipe=values, prepared=prepared, folder=RunFolder(Path()), signals=Signals(), say=silent)


def monitored(name: str, where: str) -> tuple[str, bool]:
    """Return a figure of validation, and whether larger is better; `auto` is the loss.

    Raises:
        RecipeError: A language model has no such figure.
    """
    name = "loss" if name == "auto" else name
    if name not in METRICS:
        raise RecipeError(
            f"{name!r} is not a figure of validation for language_model",
            where=where,
            next=f"one of: {', '.join(METRICS)}",
        )
    return name, METRICS[name]


def check_language_settings(values: RecipeValues) -> None:
    """Refuse what only training would stumble over, before texts are read.

    Raises:
        RecipeError: A figure, a logger or an argument of the Trainer does not exist, or the backbone is no model.
    """
    monitored(values.fit.monitor, "fit.monitor")
    check_trainer_arguments(values.trainer)
    check_devices(values.trainer)
    check_loggers(values.logger)
    refuse_misplaced(values)


def check_devices(trainer: dict[str, Any]) -> None:
    """Refuse more than one device.

    Raises:
        RecipeError: More are asked for.
    """
    if n_devices(trainer) > 1:
        raise RecipeError(
            "a language model is trained on one device: its streams go on from step to step",
            where="trainer.devices",
            next="set trainer.devices to 1; the classifier may have more, in a recipe of its own",
        )
