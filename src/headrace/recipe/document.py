"""Reads YAML as data with the place of each key and value; refuses what a recipe never needs (tags, aliases, double keys)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from headrace.errors import RecipeError

Path = tuple[str | int, ...]
MAX_BYTES = 1 << 20
MAX_DEPTH = 20
_FLOAT = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+")
_PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge")}


@dataclass(frozen=True)
class Document:
    """A YAML mapping as plain Python values, and where each key stands (`line:column`, both from 1).

    Attributes:
        name: What a message calls it.
        values: Its content.
        places: Of the keys.
        value_places: Of the values that are no mappings; a mapping is found by its key.
    """

    name: str
    values: dict[str, Any]
    places: dict[Path, str]
    value_places: dict[Path, str] = field(default_factory=dict)

    def place(self, path: Sequence[str | int]) -> str:
        """Return `name:line:column` of a key, or of the nearest key above it that exists."""
        for end in range(len(path), -1, -1):
            found = self.places.get(tuple(path[:end]))
            if found:
                return f"{self.name}:{found}"
        return self.name

    def value_place(self, path: Sequence[str | int]) -> str:
        """Return `name:line:column` of a value; of its key where the value is a mapping or is not there."""
        found = self.value_places.get(tuple(path))
        return f"{self.name}:{found}" if found else self.place(path)


def read_document(text: str, *, name: str) -> Document:
    """Read one YAML mapping.

    Raises:
        RecipeError: It is not YAML, not a mapping, too large, or holds tags, aliases or double keys.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise RecipeError("the recipe is larger than 1 MB", where=name, next="a recipe is a page; check the file")
    _refuse_aliases(text, name)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise _not_yaml(error, name) from error
    document = Document(name, {}, {})
    values = {} if node is None else _construct(node, (), document)
    if not isinstance(values, dict):
        raise RecipeError(
            "a recipe is a mapping of keys to values", where=f"{name}:1:1", next="begin with `task: single_label`"
        )
    document.values.update(values)
    return document


def _refuse_aliases(text: str, name: str) -> None:
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            anchor = getattr(event, "anchor", None)
            if anchor:
                mark = event.start_mark
                place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark is not None else name
                raise RecipeError(
                    f"anchors and aliases (here {anchor!r}) are not used in recipes",
                    where=place,
                    next="write the value out",
                )
    except yaml.YAMLError as error:
        raise _not_yaml(error, name) from error


def _not_yaml(error: yaml.YAMLError, name: str) -> RecipeError:
    mark = getattr(error, "problem_mark", None)
    place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
    problem = getattr(error, "problem", None) or str(error)
    return RecipeError(f"this is not valid YAML: {problem}", where=place, next="mind the indentation and the colons")


def _construct(node: yaml.Node, path: Path, document: Document) -> Any:
    """Return a node's value, and note in the document where it and all in it stand."""
    here = _mark(node)
    if node.tag not in _PLAIN_TAGS and not node.tag.endswith(":timestamp"):
        raise RecipeError(
            f"the tag {node.tag!r} is not used in recipes", where=f"{document.name}:{here}", next="remove it"
        )
    if len(path) > MAX_DEPTH:
        raise RecipeError("the recipe is nested too deeply", where=f"{document.name}:{here}", next="it has two levels")
    if isinstance(node, yaml.MappingNode):
        document.places.setdefault(path, here)
        return _mapping(node, path, document)
    document.value_places[path] = here
    if isinstance(node, yaml.SequenceNode):
        return [_construct(child, (*path, index), document) for index, child in enumerate(node.value)]
    return _scalar(node)


def _mapping(node: yaml.MappingNode, path: Path, document: Document) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        place = _mark(key_node)
        where = f"{document.name}:{place}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise RecipeError("a key is a word", where=where, next="write `key: value`")
        key = str(key_node.value)
        if key in values:
            raise RecipeError(f"the key {key!r} stands twice", where=where, next="remove one of them")
        document.places[(*path, key)] = place
        values[key] = _construct(value_node, (*path, key), document)
    return values


def _mark(node: yaml.Node) -> str:
    return f"{node.start_mark.line + 1}:{node.start_mark.column + 1}"


def _scalar(node: yaml.Node) -> Any:
    # YAML 1.1 reads 1e-5 as a string for want of a dot; everybody means a number.
    if node.tag.endswith(":str") and getattr(node, "style", None) is None and _FLOAT.fullmatch(node.value):
        return float(node.value.replace("_", ""))
    if node.tag.endswith((":str", ":timestamp")):
        return str(node.value)
    if node.tag.endswith(":null"):  # `test:` with nothing behind it cannot be serialized alone
        return None
    return yaml.safe_load(yaml.serialize(node))


def parse_override(text: str) -> tuple[Path, Any]:
    """Split `fit.epochs=5` into its path and its YAML value.

    Raises:
        RecipeError: There is no `=`, or the value is not YAML.
    """
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise RecipeError(f"cannot read the override {text!r}", where="--set", next="write --set fit.epochs=5")
    document = read_document(f"value: {value}" if value.strip() else "value: null", name=f"--set {key.strip()}")
    return tuple(key.strip().split(".")), document.values["value"]


class _Dumper(yaml.SafeDumper):
    """Quotes what `read_document` would take for a number and YAML 1.1 would not."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^(?:{_FLOAT.pattern})$"), list("-+0123456789."))


def yaml_scalar(value: Any) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, float):
        return f"{value!r}" if "e" not in repr(value) or "." in repr(value) else repr(value).replace("e", ".0e")
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("...\n").strip()


def close_to(name: str, known: Sequence[str]) -> str:
    """Return the hint for an unknown key."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    listed = f"known keys here: {', '.join(known)}"
    return f"did you mean {found[0]!r}? {listed}" if found else listed
