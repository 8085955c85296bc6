"""Finds a backbone family or a task by its file's name, or by an installed entry point of that name."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pkgutil
from types import ModuleType

from headrace.errors import RecipeError, suggestion

KINDS = {"task": "tasks", "backbone": "backbones"}
#: The task without labels: it has a data path and a training of its own, and no file among the tasks.
LANGUAGE_MODEL = "language_model"


def names(kind: str) -> list[str]:
    """Return the sorted names of one kind (`task` or `backbone`), ours and installed ones, importing none."""
    package = _package(kind)
    ours = [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]
    installed = [entry.name for entry in importlib.metadata.entry_points(group=f"headrace.{KINDS[kind]}")]
    return sorted({*ours, *installed})


def kind_of_task(name: str) -> str:
    """Return `multi_label` or `single_label`: how the targets and metrics of a task are shaped, whatever its name."""
    return "multi_label" if find("task", name).MULTI_LABEL else "single_label"


def is_built_in(kind: str, name: str) -> bool:
    """Return whether the module that is called `name` is one of ours."""
    return find(kind, name).__name__.startswith(f"headrace.{KINDS[kind]}.")


def find(kind: str, name: str) -> ModuleType:
    """Import and return the module that is called `name`.

    A file of ours wins over an entry point with the same name.

    Raises:
        RecipeError: There is no such module; offers the nearest name.
    """
    package = _package(kind)
    if name.isidentifier() and not name.startswith("_"):
        full_name = f"{package.__name__}.{name}"
        if importlib.util.find_spec(full_name) is not None:
            return importlib.import_module(full_name)
        for entry in importlib.metadata.entry_points(group=f"headrace.{KINDS[kind]}", name=name):
            module = entry.load()
            if not isinstance(module, ModuleType):
                raise RecipeError(
                    f"the installed {kind} {name!r} is not a module", where=entry.value, next="point it to a module"
                )
            return module
    raise RecipeError(f"there is no {kind} named {name!r}", where=kind, next=suggestion(name, names(kind)))


def _package(kind: str) -> ModuleType:
    return importlib.import_module(f"headrace.{KINDS[kind]}")
