"""The recipe and the versions that the figures depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from headrace.report.parts.section import Section
from headrace.report.words import clean, mapping, name

MAX_RECIPE_CHARACTERS = 20_000
MAX_VALUE_CHARACTERS = 300
MAX_ITEMS = 200


def settings(report: Mapping[str, Any]) -> Section | None:
    """Return the resolved recipe as YAML, the versions and the fingerprints of the data."""
    recipe, versions = mapping(report, "recipe"), mapping(report, "versions")
    if not recipe and not versions:
        return None
    shown = yaml.safe_dump(_short(recipe), sort_keys=False, allow_unicode=True, width=100) if recipe else ""
    prints = mapping(report, "data", "fingerprints")
    content = {
        "recipe": clean(shown, MAX_RECIPE_CHARACTERS),
        "versions": [(name(key), "not installed" if value is None else name(value)) for key, value in versions.items()],
        "fingerprints": [(name(key), name(value)) for key, value in list(prints.items())[:20]],
    }
    return Section("settings", "Recipe and versions", content)


def _short(value: Any) -> Any:
    """Return plain values, long texts and lists cut: the whole recipe stands in the run's recipe.yaml."""
    if isinstance(value, Mapping):
        items = [(clean(key, MAX_VALUE_CHARACTERS), _short(one)) for key, one in list(value.items())[:MAX_ITEMS]]
        return dict(items)
    if isinstance(value, list | tuple):
        return [_short(one) for one in value[:MAX_ITEMS]]
    return clean(value, MAX_VALUE_CHARACTERS) if isinstance(value, str) else value
