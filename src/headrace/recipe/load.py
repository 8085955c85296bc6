"""From files, overrides and defaults to one Recipe; all faults at once, each with its line."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from headrace.errors import HeadraceError, RecipeError, suggestion, together
from headrace.files import sha256_of
from headrace.recipe.content import content_faults
from headrace.recipe.document import Document, close_to, parse_override, read_document, yaml_scalar
from headrace.recipe.document import Path as KeyPath
from headrace.recipe.places import OVERRIDE, Places, flat, located
from headrace.recipe.schema import BY_LABEL, RecipeValues

_FILE_KEYS = ("train", "valid", "test")
_MEMORY = "memory:"


@dataclass(frozen=True)
class Recipe:
    """A checked recipe: its values, and where each of them came from."""

    values: RecipeValues
    origins: Mapping[KeyPath, str]
    name: str

    def as_dict(self) -> dict[str, Any]:
        """Return the values as plain data."""
        return self.values.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return the resolved recipe, a comment with the origin behind each value; it runs again unchanged."""
        lines = [f"# resolved from {self.name}"]
        _emit(self.as_dict(), (), self.origins, lines)
        return "\n".join(lines) + "\n"

    def fingerprint(self) -> str:
        """Return the sha256 of the values."""
        return sha256_of(repr(sorted(flat(self.as_dict()).items(), key=lambda item: tuple(map(str, item[0])))))

    @contextmanager
    def locating(self) -> Iterator[None]:
        """Let errors that name a key of the recipe say its line as well."""
        try:
            yield
        except HeadraceError as error:
            line = located(error.where, self.origins) if error.where else None
            if line is not None:
                error.where = f"{line} ({error.where})"
            raise

    def with_values(self, changes: Mapping[str, Any], *, origin: str) -> Recipe:
        """Return a recipe with other values under dotted keys (`data.train`)."""
        raw = self.as_dict()
        origins = dict(self.origins)
        for dotted, value in changes.items():
            path = tuple(dotted.split("."))
            _put(raw, path, value)
            origins[path] = origin
        return Recipe(RecipeValues.model_validate(raw), origins, self.name)


def shipped_recipes() -> dict[str, str]:
    """Return the names of the recipes in the package and each one's first comment line."""
    found = {}
    for entry in importlib.resources.files("headrace").joinpath("recipes").iterdir():
        if entry.name.endswith(".yaml"):
            found[entry.name.removesuffix(".yaml")] = entry.read_text("utf-8").splitlines()[0].lstrip("# ")
    return dict(sorted(found.items()))


def shipped_recipe(name: str) -> str:
    """Return the text of a shipped recipe.

    Raises:
        RecipeError: There is none of this name.
    """
    known = shipped_recipes()
    if name not in known:
        raise RecipeError(f"there is no shipped recipe named {name!r}", where="base", next=suggestion(name, known))
    return importlib.resources.files("headrace").joinpath("recipes", f"{name}.yaml").read_text("utf-8")


def load_recipe(
    source: Recipe | Mapping[str, Any] | str | Path, *, overrides: Iterable[str] = (), folder: Path | None = None
) -> Recipe:
    """Read a recipe and check it whole.

    Args:
        source: A file, the name of a shipped recipe, a mapping, or a Recipe.
        overrides: `fit.epochs=5` and the like; they win over the file.
        folder: Where relative data paths start; the recipe's own folder, or the current one for a mapping. Those
            of `overrides` start at the current one, and `samples/` of a shipped recipe is inside the package.

    Raises:
        RecipeError: All faults of the recipe together.
    """
    if isinstance(source, Recipe):
        places = Places(Document(source.name, source.as_dict(), {}), dict(source.origins))
    else:
        document, folder = _document_of(source, folder)
        places = Places.of_document(document)
    raw, faults = _with_base(places)
    for text in overrides:
        path, value = parse_override(text)
        _put(raw, path, value)
        places.override(path)
    values = _validated(raw, places, faults)
    if faults or values is None:
        raise together(RecipeError, faults, source=places.document.name)
    recipe = Recipe(values, _complete(values, places.origins), places.document.name)
    return _with_absolute_paths(recipe, (folder or Path.cwd()).absolute())


def _document_of(source: Mapping[str, Any] | str | Path, folder: Path | None) -> tuple[Document, Path | None]:
    if isinstance(source, Mapping):
        return Document("the recipe given", deepcopy(dict(source)), {}), folder
    path = Path(source)
    if not path.is_file():
        if isinstance(source, str) and source in shipped_recipes():
            return _shipped_document(source, name=f"{source}.yaml (shipped)"), folder
        beside = [p.name for p in path.absolute().parent.glob("*.y*ml")] if path.absolute().parent.is_dir() else []
        raise RecipeError(
            f"there is no recipe file {str(path)!r}",
            where=str(path.absolute().parent),
            next=suggestion(path.name, [*beside, *shipped_recipes()]) + "; `headrace new DATA` writes one",
        )
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the recipe: {error}", where=str(path), next="save it as UTF-8") from error
    return read_document(text, name=str(path)), folder or path.absolute().parent


def _shipped_document(recipe: str, *, name: str) -> Document:
    """Return a shipped recipe; its paths to shipped samples lead into the installed package."""
    document = read_document(shipped_recipe(recipe), name=name)
    data = document.values.get("data", {})
    package = Path(str(importlib.resources.files("headrace")))
    for key in _FILE_KEYS:
        value = data.get(key)
        if isinstance(value, str) and value.startswith("samples/") and (package / value).is_file():
            data[key] = str(package / value)
    return document


def _with_base(places: Places) -> tuple[dict[str, Any], list[HeadraceError]]:
    own = deepcopy(places.document.values)
    name = own.pop("base", None)
    places.origins.pop(("base",), None)
    if name is None:
        return own, []
    try:
        base = _shipped_document(str(name), name=f"base {name}")
    except RecipeError as error:
        error.where = places.document.value_place(("base",))
        return own, [error]
    if "base" in base.values:
        return own, [
            RecipeError(f"the recipe {name!r} has a base itself", where=base.place(("base",)), next="one level")
        ]
    merged = deepcopy(base.values)
    places.add_base(base)
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict) and key != "trainer":
            merged[key] = {**merged[key], **value}
        elif isinstance(value, dict) and isinstance(merged.get(key), str) and "name" not in value:
            merged[key] = {"name": merged[key], **value}
        else:
            merged[key] = value
    return merged, []


def _validated(raw: dict[str, Any], places: Places, faults: list[HeadraceError]) -> RecipeValues | None:
    for fault in content_faults(raw):
        faults.append(RecipeError(fault.what, where=places.of(fault.path, is_key=fault.is_key), next=fault.next))
    try:
        return RecipeValues.model_validate(raw)
    except ValidationError as error:
        faults.extend(_faults(error, places))
    return None


def _faults(error: ValidationError, places: Places) -> list[HeadraceError]:
    faults: list[HeadraceError] = []
    seen: set[KeyPath] = set()
    # Each branch of a union complains: of a mapping, the word that it could have been says nothing.
    items = sorted(error.errors(), key=lambda item: item["type"] == "literal_error" and isinstance(item["input"], dict))
    for item in items:
        path = _known_part(item["loc"])
        is_word = item["type"] == "literal_error" and isinstance(item["input"], dict)
        if path in seen or (is_word and any(known[: len(path)] == path for known in seen)):
            continue
        seen.add(path)
        dotted = ".".join(map(str, path))
        is_key = item["type"] == "extra_forbidden"
        if is_key:
            known = _keys_at(path[:-1])
            what, next_step = f"there is no key {dotted!r}", close_to(str(path[-1]), known)
        else:
            shown = yaml_scalar(item["input"]) if not isinstance(item["input"], dict) else "a mapping"
            message = item["msg"].removeprefix("Value error, ")
            if item["type"] in ("model_type", "model_attributes_type", "dict_type"):
                message = "a mapping is needed"  # pydantic's own names the class
            what = f"{dotted}: {shown} will not do: {message[0].lower()}{message[1:]}" if dotted else message
            next_step = _help(path)
        faults.append(RecipeError(what, where=places.of(path, is_key=is_key), next=next_step))
    return faults


def _known_part(loc: tuple[str | int, ...]) -> KeyPath:
    """Drop the names of union branches that pydantic puts into a location."""
    path: list[str | int] = []
    model: Any = RecipeValues
    is_name = False  # of a mapping whose keys are the user's own, such as labels
    for part in loc:
        if is_name or (isinstance(part, int) and path):  # or a place in a list of mappings
            path.append(part)
            is_name = False
            continue
        fields = getattr(model, "model_fields", None)
        if fields is None:
            break
        if part == BY_LABEL:
            is_name = True
        if "[" in str(part) or part == model.__name__:
            continue
        path.append(part)
        model = _model_in(fields[part].annotation) if part in fields else None
    return tuple(path)


def _model_in(annotation: Any) -> Any:
    """Return the first model in a type, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(one) for one in getattr(annotation, "__args__", ()))
    return next((model for model in inner if model is not None), None)


def _keys_at(path: KeyPath) -> list[str]:
    model: Any = RecipeValues
    for part in path:
        if part in model.model_fields:  # else a place in a list, or a label
            model = _model_in(model.model_fields[part].annotation)
    return [*model.model_fields, *(["base"] if not path else [])]


def _help(path: KeyPath) -> str:
    model: Any = RecipeValues
    description = None
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:  # a place in a list, or a label
            continue
        description = field.description or description
        model = _model_in(field.annotation)
    return f"{'.'.join(map(str, path))}: {description}" if description else "see docs/recipes.md"


def _put(raw: dict[str, Any], path: KeyPath, value: Any) -> None:
    for part in path[:-1]:
        inner = raw.get(str(part))
        if isinstance(inner, str):  # `backbone: minilm` and then --set backbone.dropout=0
            inner = {"name": inner}
        inner = dict(inner) if isinstance(inner, dict) else {}
        raw[str(part)] = inner
        raw = inner
    raw[str(path[-1])] = value


def _complete(values: RecipeValues, origins: Mapping[KeyPath, str]) -> dict[KeyPath, str]:
    complete = {}
    for path in flat(values.model_dump(mode="json")):
        above = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in origins), None)
        complete[path] = origins[above] if above else "default"
    return complete | {path: origin for path, origin in origins.items() if any(isinstance(part, int) for part in path)}


def _with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    def start(*path: str) -> Path:
        # What is typed on the command line means what the shell completes there.
        return Path.cwd() if recipe.origins.get(path) == OVERRIDE else folder

    def absolute(section: str, key: str, value: str) -> str:
        if value.startswith(("hub:", _MEMORY)) or (key == "valid" and value.endswith("%")):
            return value
        return str((start(section, key) / Path(value).expanduser()).resolve())

    changes: dict[str, Any] = {}
    # with url they are paths inside the archive
    sections = () if recipe.values.data.url else ("data", "language_model")
    for section, key in ((section, key) for section in sections for key in _FILE_KEYS):
        value = getattr(getattr(recipe.values, section), key, None)
        if isinstance(value, list):
            changes[f"{section}.{key}"] = [absolute(section, key, one) for one in value]
        elif value:
            changes[f"{section}.{key}"] = absolute(section, key, value)
    backbone = recipe.values.backbone.name
    place = start("backbone", "name") / backbone
    if place.is_dir() and "/" in backbone:
        changes["backbone.name"] = str(place.resolve())
    for key in ("weights", "vocabulary", "backward"):
        value = getattr(recipe.values.backbone, key)
        if (
            value
            and value not in ("none", "pretrained")
            and (start("backbone", key) / Path(value).expanduser()).exists()
        ):
            changes[f"backbone.{key}"] = absolute("backbone", key, value)
    raw = recipe.as_dict()
    for dotted, value in changes.items():
        _put(raw, tuple(dotted.split(".")), value)
    return Recipe(RecipeValues.model_validate(raw), recipe.origins, recipe.name)


def _emit(values: Mapping[str, Any], above: KeyPath, origins: Mapping[KeyPath, str], lines: list[str]) -> None:
    indent = "  " * len(above)
    for key, value in values.items():
        path = (*above, key)
        if isinstance(value, dict) and value and len(path) < 2:
            lines.append(f"{indent}{key}:")
            _emit(value, path, origins, lines)
        else:
            origin = origins.get(path) or next(
                (o for known, o in origins.items() if known[: len(path)] == path), "default"
            )
            if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
                lines.append(f"{indent}{key}:  # {origin}")
                lines.extend(f"{indent}  - {yaml_scalar(item)}" for item in value)
            else:
                lines.append(f"{indent}{key}: {yaml_scalar(value)}  # {origin}")
