"""Looks a recipe and its data over before anything is trained: counts, token lengths, findings, a shown batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace.mislabelled import Suspects, mislabelled
from headrace.plugins import LANGUAGE_MODEL, kind_of_task
from headrace.recipe import Recipe, load_recipe
from headrace.train.data import TextDataModule
from headrace.train.fit import check_settings, data_plan
from headrace.train.language.findings import language_findings
from headrace.train.language.nested import language_values
from headrace.train.language.prepare import LanguageData, overlap
from headrace.train.language.summary import LanguageCheck, check_language_model, look_over_texts
from headrace.train.prepare import prepare
from headrace.train.rehearse import refuse_late_faults, rehearse
from headrace.train.rows import read_rows
from headrace.train.session import untrained
from headrace.train.summary import Check, look_over

__all__ = ["Check", "LanguageCheck", "check"]


def check(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    *,
    overrides: Iterable[str] = (),
    labels: bool = False,
    forecast: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Check | LanguageCheck:
    """Read recipe and data as `fit` would, and tell what is there; nothing is trained.

    Args:
        recipe: A file, the name of a shipped recipe, a mapping, or a Recipe.
        overrides: `fit.epochs=5` and the like.
        labels: Also rank the training rows by how likely they are mislabelled; needs cleanlab. A language model has
            neither labels nor a forecast, and a note says so.
        forecast: Also forecast time and memory, from a probe of about ten seconds in a process of its own.
        progress: Told what is done, how far, and how much there is; 0 where nobody knows.

    Raises:
        HeadraceError: The faults of the recipe or of a data file, all of one input together; what only the model
            shows; with `labels`, that cleanlab is not installed.
    """
    resolved = load_recipe(recipe, overrides=overrides)
    with resolved.locating():
        return _check(resolved, labels=labels, forecast=forecast, progress=progress)


def _check(
    resolved: Recipe, *, labels: bool, forecast: bool, progress: Callable[[str, int, int], None] | None
) -> Check | LanguageCheck:
    values = resolved.values
    if values.task == LANGUAGE_MODEL:
        return check_language_model(resolved, labels=labels, forecast=forecast, progress=progress)
    check_settings(values)
    fit, texts = values.fit, None
    if values.language_model is not None:
        texts = rehearse(values, read_rows(data_plan(values), progress=progress).labels, progress=progress)
    plan, tokenizer = data_plan(values), None if texts is None else texts.tokenizer
    prepared = prepare(plan, tokenizer=tokenizer, progress=progress)
    if texts is None:
        refuse_late_faults(values, untrained(values, prepared).module.model)
    data = TextDataModule.of(
        prepared,
        seed=values.seed,
        batch_size=fit.batch_size,
        sampler=fit.sampler,
        micro_batch=fit.micro_batch,
        accumulate=fit.accumulate,
    )
    data.limit_steps = values.trainer.get("limit_train_batches")
    found = look_over(
        data, task=values.task, epochs=fit.epochs, max_length=values.data.max_length, recipe=resolved.name
    )
    if texts is not None:
        shared = None if prepared.test is None else overlap(prepared.test.examples, texts.train.files)
        found = replace(found, language_model=replace(_before(resolved, texts), test_share=shared))
    if labels:
        found = replace(found, suspects=_suspects(data, values.task, values.seed))
    if forecast:
        from headrace.train.forecast import forecast as expected  # loads Lightning

        foreseen = expected(values, prepared).as_dict()
        if texts is not None and foreseen["reason"] is None:
            foreseen["note"] = "; ".join(filter(None, ["of the classifier alone", foreseen["note"]]))
        found = replace(found, forecast=foreseen)
    return found


def _before(recipe: Recipe, texts: LanguageData) -> LanguageCheck:
    """Return what the language model before the classifier would read."""
    block, values = recipe.values.language_model, language_values(recipe.values)
    name = f"language_model of {recipe.name}"
    if block is not None and not (block.train or block.valid or block.text):
        notes = ["it reads data.train, whose findings stand with the classifier"]
        return look_over_texts(values, texts, recipe=name, notes=notes)
    return look_over_texts(values, texts, recipe=name, findings=language_findings(values, texts))


def _suspects(data: TextDataModule, task: str, seed: int) -> Suspects:
    """Return the doubtful training rows with their places in the file."""
    part = data.ready.train
    found = mislabelled(
        part.examples.texts(),
        part.targets,
        data.ready.labels,
        task=kind_of_task(task),
        seed=seed,
    )
    return found.at([part.examples.where(row.position) for row in found.rows])
