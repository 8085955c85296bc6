"""What stands where a recipe's backbone points to: a run or a bundle in the wrong place is told from a model."""

from __future__ import annotations

from pathlib import Path

from headrace.bundle.language_model import is_language_model
from headrace.bundle.manifest import BUNDLE
from headrace.errors import RecipeError
from headrace.plugins import LANGUAGE_MODEL
from headrace.recipe.schema import RecipeValues


def refuse_misplaced(values: RecipeValues) -> None:
    """Refuse a backbone that names a run, the bundle of a classifier, or a language model where its weights stand.

    Raises:
        RecipeError: It does; tells what to name instead.
    """
    backbone = values.backbone
    for key in ("name", "weights", "backward"):
        place = getattr(backbone, key)
        if place is None:
            continue
        where, folder = f"backbone.{key}", Path(place).expanduser()
        if _is_file(folder / "bundle" / BUNDLE):
            raise RecipeError(
                f"{place} is a run, not a model", where=where, next=f"name its bundle: {folder / 'bundle'}"
            )
        if not _is_file(folder / BUNDLE):
            continue
        if not is_language_model(folder):
            raise RecipeError(
                f"{place} is the bundle of a classifier, and a training begins with an encoder",
                where=where,
                next=f"take the encoder out of it: headrace export {place} --to transformers -o FOLDER, and name FOLDER",
            )
        if key == "weights" and values.task != LANGUAGE_MODEL and values.language_model is None:
            raise RecipeError(
                f"{place} is a language model, whose words come with its weights",
                where=where,
                next=f"write it as the backbone itself: `backbone: {place}`",
            )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is no path, such as one too long
        return False
