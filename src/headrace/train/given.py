"""Sources given in Python: places go into the recipe, objects in memory into the run's folder, so that it runs again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.data.examples import SLICE
from headrace.data.read import Columns, read
from headrace.errors import RecipeError
from headrace.files import cache_folder
from headrace.recipe import Recipe
from headrace.tables import write_rows


def with_sources(recipe: Recipe, given: Mapping[str, Any], folder: Path, columns: Columns) -> Recipe:
    """Put sources given in Python into the recipe; those in memory are first written into the run's folder.

    Args:
        recipe: The resolved recipe.
        given: `train`, `valid` and `test`, each a place, an object in memory, or None.
        folder: The run's folder.
        columns: Which columns of the objects hold what.

    Raises:
        RecipeError: Some are in memory and some are files.
    """
    named = {name: value for name, value in given.items() if value is not None}
    paths = {name: value for name, value in named.items() if isinstance(value, str | Path)}
    objects = {name: value for name, value in named.items() if name not in paths}
    changes: dict[str, Any] = {}
    for name, value in paths.items():
        changes[f"data.{name}"] = _place(str(value), recipe)
    if objects:
        changes |= _keep_in_folder(recipe, objects, paths, folder, columns)
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
    is_path = not text.startswith("hub:") and not text.endswith("%") and recipe.values.data.url is None
    return str(Path(text).expanduser().resolve()) if is_path else text


def _keep_in_folder(
    recipe: Recipe, objects: Mapping[str, Any], paths: Mapping[str, Any], folder: Path, columns: Columns
) -> dict[str, Any]:
    data = recipe.values.data
    files = [
        name
        for name in ("train", "valid", "test")
        if name not in objects
        and (name in paths or (getattr(data, name) and not (name == "valid" and data.valid_share)))
    ]
    if files:
        raise RecipeError(
            f"{', '.join(objects)} is in memory and {', '.join(files)} is a file",
            where="fit(train=, valid=, test=)",
            next="give all of them in memory, or all as files",
        )
    clash = sorted({"text", "pair", "label"} & set(columns.slices))
    if clash:  # the file in the run's folder has columns of these names
        raise RecipeError(
            f"a slice cannot be called {clash[0]!r} where the rows are in memory",
            where="data.slices",
            next="rename the column",
        )
    changes: dict[str, Any] = {}
    for name, value in objects.items():
        examples = read(value, columns, cache=cache_folder(), split=name)
        # By content: another call's objects must not overwrite what an interrupted run still needs.
        path = folder / "data" / f"{name}-{examples.fingerprint[:16]}.parquet"
        kinds: dict[str, type] = {"text": str, **({"pair": str} if examples.is_pair else {})}
        kinds["label"] = list if examples.is_multi_label else str
        names = [*kinds, *(SLICE + name for name in examples.slices())]
        kinds |= dict.fromkeys(examples.slices(), str)
        rows = (
            row for a, b in examples.batches() for row in zip(*(examples.column(n, a, b) for n in names), strict=True)
        )
        if columns.slices or not path.is_file():  # the file's name does not tell which columns are kept beside
            write_rows(path, kinds, rows)
        changes[f"data.{name}"] = str(path.resolve())
        changes["data.text"] = ["text", "pair"] if examples.is_pair else "text"
    changes |= {"data.label": "label", "data.label_separator": None}
    if len(columns.label) > 1:
        changes["data.labels"] = list(columns.labels or columns.label)
    return changes
