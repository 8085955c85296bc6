"""Sources given in Python: places go into the recipe, objects in memory into the run's folder, so that it runs again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.data.read import Columns, read
from headrace.errors import RecipeError
from headrace.files import cache_folder
from headrace.recipe import Recipe
from headrace.train.stored import store


def with_sources(recipe: Recipe, given: Mapping[str, Any], folder: Path, columns: Columns) -> Recipe:
    """Put sources given in Python into the recipe; those in memory are first written into the run's folder.

    What is not given stays as the recipe has it: some parts may be in memory and others files.

    Args:
        recipe: The resolved recipe.
        given: `train`, `valid` and `test`, each a place, an object in memory, or None.
        folder: The run's folder.
        columns: Which columns of the objects hold what.

    Raises:
        DataError: An object in memory cannot be read, has faults, or has no row.
    """
    named = {name: value for name, value in given.items() if value is not None}
    paths = {name: value for name, value in named.items() if isinstance(value, str | Path)}
    objects = {name: value for name, value in named.items() if name not in paths}
    changes: dict[str, Any] = {}
    for name, value in paths.items():
        changes[f"data.{name}"] = _place(str(value), recipe)
    if objects:
        changes |= _kept_in_folder(recipe, objects, folder, columns)
    return recipe.with_values(changes, origin="given in Python") if changes else recipe


def with_files(recipe: Recipe, given: Mapping[str, Any]) -> Recipe:
    """Put files given in Python into the recipe of a language model, which reads no objects in memory.

    Args:
        recipe: The resolved recipe.
        given: `train` (a place or several), `valid` and `test`, or None.

    Raises:
        RecipeError: One of them is in memory.
    """
    changes: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        places = value if isinstance(value, list | tuple) and name == "train" else [value]
        if not all(isinstance(place, str | Path) for place in places):
            raise RecipeError(
                f"{name} is in memory, and a language model reads files",
                where="fit(train=, valid=, test=)",
                next="write the texts into a .jsonl or .parquet file, and give its path",
            )
        found = [_place(str(place), recipe) for place in places]
        changes[f"data.{name}"] = found if len(found) > 1 else found[0]
    return recipe.with_values(changes, origin="given in Python") if changes else recipe


def _place(text: str, recipe: Recipe) -> str:
    is_path = not text.startswith("hub:") and not text.endswith("%") and not recipe.values.data.url
    return str(Path(text).expanduser().resolve()) if is_path else text


def _kept_in_folder(recipe: Recipe, objects: Mapping[str, Any], folder: Path, columns: Columns) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for name, value in objects.items():
        examples = read(value, columns, on_bad_row=recipe.values.data.on_bad_row, cache=cache_folder(), split=name)
        changes[f"data.{name}"] = str(store(examples, columns, folder / "data", name=name).resolve())
    if "train" in objects and len(columns.label) > 1:
        changes["data.labels"] = list(columns.labels or columns.label)  # in their order, with those that no row has
    return changes
