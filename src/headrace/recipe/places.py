"""Where each value of a recipe comes from: a key in a file, the value behind it, or an override."""

from __future__ import annotations

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
        return cls(document, origins)

    def add_base(self, base: Document) -> None:
        """Add what a base gives and the recipe does not."""
        for path in flat(base.values):
            if path not in self.origins:
                self.origins[path] = base.place(path)
                self.values[path] = base.value_place(path)

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
