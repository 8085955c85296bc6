"""The language model that stands before a classifier: trained in a folder of its own inside the classifier's run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from headrace.errors import RecipeError
from headrace.plugins import LANGUAGE_MODEL
from headrace.recipe import Recipe
from headrace.recipe.schema import BackboneSettings, FitSettings, LanguageModelSettings, RecipeValues
from headrace.train.language.prepare import overlap, texts_trained_on
from headrace.train.prepare import Part
from headrace.train.progress import Echo
from headrace.train.run import RunFolder
from headrace.train.signals import Signals

FOLDER = "language_model"
#: Where the backward language model stands when the classifier reads both ways.
BACKWARD_FOLDER = "language_model_backward"


def fit_before_classifier(
    recipe: Recipe, folder: RunFolder, signals: Signals, say: Echo, *, force: bool = False, strict: bool = False
) -> RecipeValues:
    """Train the language model of a classifier's recipe in a folder of its own inside the run; two for both directions.

    Returns:
        The recipe's values with the language model's bundle as the backbone; as they are without such a block.

    Raises:
        HeadraceError: What is wrong, where, and what to do next.
    """
    from headrace.train.fit import tell_status
    from headrace.train.language.fit import fit_language_model

    values = recipe.values
    if values.language_model is None:
        return values
    if values.language_model.train is None:
        say(
            "language model: no texts of its own are named, so it reads data.train, the classifier's validation texts included"
        )
    folder.set_status("preparing")
    for direction, name in directions(values).items():
        own = Recipe(language_values(values, direction=direction), {}, f"language_model of {recipe.name}")
        inner = RunFolder(folder.path / name)
        called = "language model" if name == FOLDER else "backward language model"

        def told(line: str, *, called: str = called) -> None:
            say(f"{called}: {line}")

        with inner.lock():
            try:
                with _named_as_block(values):
                    fit_language_model(own, inner, signals, told, force=force, keeps_same=True, strict=strict)
            except BaseException as error:  # its folder tells what ended it, as the run's own does
                tell_status(inner, error, own.values, told)
                raise
    return with_encoder(values, folder.path)


@contextmanager
def _named_as_block(values: RecipeValues) -> Iterator[None]:
    """Let errors name a key as the classifier's recipe has it: what the block gives, in the block."""
    try:
        yield
    except RecipeError as error:
        section, _, rest = (error.where or "").partition(".")
        key = rest.split(",")[0].split(".")[0]
        given = values.language_model.model_fields_set if values.language_model is not None else set()
        if section == "fit" or (section == "data" and key in given):
            old, new = f"{section}.{key}", f"language_model.{key}"
            error.where = f"language_model.{rest}"
            error.what = error.what.replace(old, new)
            error.next = error.next and error.next.replace(old, new)
        raise


def with_encoder(values: RecipeValues, folder: Path) -> RecipeValues:
    """Return a classifier's values with the bundle of its language model as the backbone.

    Args:
        values: Of the recipe; without a `language_model` block they stay as they are.
        folder: The run.
    """
    if values.language_model is None or values.task == LANGUAGE_MODEL:
        return values
    old = values.backbone
    places = [str((folder / name / "bundle").absolute()) for name in directions(values).values()]
    own = {"name": places[0], "dropout": old.dropout, "drop_mult": old.drop_mult}
    if len(places) > 1:
        own |= {"direction": "both", "backward": places[1]}
    backbone = BackboneSettings.model_validate(own)
    return values.model_copy(update={"backbone": backbone})


def directions(values: RecipeValues) -> dict[Literal["forward", "backward"] | None, str]:
    """Return the folder of each language model by the direction in which it reads; None as the recipe says."""
    if values.backbone.direction == "both":
        return {"forward": FOLDER, "backward": BACKWARD_FOLDER}
    return {None: FOLDER}


def language_values(values: RecipeValues, *, direction: str | None = None) -> RecipeValues:
    """Return the values of the language model's own run, from the block in a classifier's recipe.

    Args:
        values: Of the classifier's recipe.
        direction: Of one of two language models; None as the recipe says.
    """
    block = values.language_model or LanguageModelSettings.model_validate({})
    data = values.data
    own = block.train is not None
    fields = {
        "train": block.train if own else data.train,
        "valid": block.valid or ("10%" if own else data.valid),
        "text": block.text or data.text,
        "limit": block.limit if own or block.limit else data.limit,
        "max_length": block.max_length or data.max_length,
        **{name: getattr(data, name) for name in ("truncate", "url", "sha256", "on_bad_row", "encoding", "allow")},
    }
    fit = block.model_dump(include=set(FitSettings.model_fields))
    # the classifier's own drop_mult is nothing to a language model that has one
    instead: dict[str, Any] = {"direction": direction} if direction else {}
    instead |= {"drop_mult": None} if block.drop_mult is not None else {}
    inner = {name: getattr(block, name) for name in ("sequence_length", "max_length", "drop_mult")}
    return RecipeValues.model_validate(
        {
            "task": LANGUAGE_MODEL,
            "data": fields,
            "backbone": {**values.backbone.model_dump(), **instead},
            "fit": fit,
            "language_model": inner,
            "logger": values.logger,
            "profiler": values.profiler,
            "trainer": {name: value for name, value in values.trainer.items() if name != "devices"},
            "seed": values.seed,
        }
    )


def nested_report(folder: Path, name: str = FOLDER) -> dict[str, Any] | None:
    """Return the report of the language model inside a classifier's run, or None."""
    try:
        found: dict[str, Any] = json.loads((folder / name / "report.json").read_text("utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    return found


def tell_read_share(values: RecipeValues, part: Part, *reports: dict[str, Any] | None) -> None:
    """Put into the reports of a classifier's language models which share of the texts of its figures they have read.

    They read no label, and the recipe may want it so; but it is told.

    Args:
        values: Of the classifier's recipe.
        part: The rows that its figures are from: test or, without them, validation.
        *reports: What `nested_report` gave; `test_texts_in_training` or `valid_texts_in_training` is put into `data`.
    """
    share = overlap(part.examples, texts_trained_on(language_values(values)))
    for report in reports:
        if report is not None:
            report["data"][f"{part.name}_texts_in_training"] = share
