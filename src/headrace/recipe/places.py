"""Where each value of a recipe comes from: a key in a file, the value behind it, or an override."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.recipe.document import Document, Path

OVERRIDE = "--set"


@dataclass
class Places:
    """Where the values of a recipe in the making come from, for messages.

    Attributes:
        document: The recipe's own.
        origins: The place of each value's key, or `--set`.
        values: The place of each value itself, where it is known.
    """

    document: Document
    origins: dict[Path, str]
    values: dict[Path, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.document.places:
            self.values = {path: self.document.value_place(path) for path in self.origins}

    @classmethod
    def of_document(cls, document: Document) -> Places:
        """Return the places of a document's own values."""
        origins = {
            path: document.place(path) if document.places else f"{document.name}: {'.'.join(map(str, path))}"
            for path in flat(document.values)
        }
        return cls(document, origins | {path: document.place(path) for path in _in_lists(document)})

    def add_base(self, base: Document) -> None:
        """Add what a base gives and the recipe does not."""
        for path in [*flat(base.values), *_in_lists(base)]:
            if path not in self.origins and not self._is_hidden(path):
                self.origins[path] = base.place(path)
                self.values[path] = base.value_place(path)

    def _is_hidden(self, path: Path) -> bool:
        """Tell whether the recipe itself has a plain value, or a list, above this key of its base."""
        value: Any = self.document.values
        for key in path[:-1]:
            if not isinstance(value, Mapping) or key not in value:
                return False
            value = value[key]
            if not isinstance(value, Mapping):
                return True
        return False

    def override(self, path: Path) -> None:
        """Let `--set` be the origin of a value and of all in it."""
        for places in (self.origins, self.values):
            for known in [known for known in places if known[: len(path)] == path]:
                del places[known]
        self.origins[path] = OVERRIDE

    def of(self, path: Path, *, is_key: bool) -> str:
        """Return where a key stands, or its value."""
        dotted = ".".join(map(str, path))
        for end in range(len(path), 0, -1):
            origin = self.origins.get(path[:end])
            if origin is not None:
                known = origin if is_key else self.values.get(path[:end], origin)
                return f"{OVERRIDE} {dotted}" if origin == OVERRIDE else known
        if self.document.places:
            return self.document.place(path)
        inside = [origin for known, origin in self.origins.items() if known[: len(path)] == path]
        return inside[0] if inside else f"{self.document.name}: {dotted}"


def located(where: str, origins: Mapping[Path, str]) -> str | None:
    """Return the line of a key that an error names, such as `fit.stages, stage 3` or `head: pool`.

    Args:
        where: What the error says.
        origins: Of a recipe.

    Returns:
        `file:line:column` or `--set`; None where it names no key, or one whose value is the default or was given in
        memory.
    """
    found = re.fullmatch(r"([a-z_]+(?:(?:\.|: )[a-z_]+)*)(?:, stage (\d+))?", where)
    if found is None:
        return None
    path: Path = tuple(re.split(r"\.|: ", found[1]))
    if found[2]:
        path = (*path, int(found[2]) - 1)
    known = [(*path, "name"), *(path[:end] for end in range(len(path), 0, -1))]
    inside = next((origin for key, origin in origins.items() if key[: len(path)] == path), "")
    origin = next((origins[key] for key in known if key in origins), inside)
    return origin if origin == OVERRIDE or re.search(r":\d+:\d+$", origin) else None


def _in_lists(document: Document) -> list[Path]:
    """Return the paths of the mappings that stand in lists, and of their keys."""
    return [path for path in document.places if any(isinstance(part, int) for part in path)]


def flat(values: Mapping[str, Any], above: Path = ()) -> dict[Path, Any]:
    """Return the leaves of nested mappings by their paths; an empty mapping is a leaf."""
    found: dict[Path, Any] = {}
    for key, value in values.items():
        path = (*above, key)
        if isinstance(value, Mapping) and value:
            found.update(flat(value, path))
        else:
            found[path] = value
    return found
