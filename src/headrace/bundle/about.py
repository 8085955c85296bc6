"""What a bundle says of itself: task, how texts are read, threshold, versions, data."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace import plugins
from headrace.bundle.manifest import BUNDLE, CheckedFiles
from headrace.errors import BundleError, RecipeError

KIND = "classifier"
LANGUAGE_MODEL = "language_model"
Threshold = float | Mapping[str, float]
_VERSIONS_OF = ("headrace", "torch", "transformers", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True)
class TextSettings:
    """How a bundle reads texts: the same in training, prediction and export.

    Attributes:
        max_length: Tokens kept of a text or pair, special ones included.
        truncate: `head`, `tail` or `head_tail`.
        columns: The text's column in a file, or the two of a pair.
        label_columns: The label's columns in the training data.
        separator: Between the names in one multi-label column.
    """

    max_length: int
    truncate: str = "head"
    columns: tuple[str, ...] = ("text",)
    label_columns: tuple[str, ...] = ()
    separator: str | None = None

    @property
    def is_pair(self) -> bool:
        """Whether each input is a pair of texts."""
        return len(self.columns) == 2


@dataclass(frozen=True)
class About:
    """What a bundle says of itself besides weights and tokenizer.

    Attributes:
        task: The task's name.
        text: How texts are read.
        threshold: The one that `predict` uses by default: a number, or numbers by label name; a decision's go before it.
        decision: What `Decision.as_dict` gave: calibration, thresholds, abstention; None for none of them.
        data: Fingerprints of the data it was trained on.
        versions: Of the packages that made it.
        metrics: Of its evaluation, if there was one.
        created: When, in UTC, as ISO 8601.
    """

    task: str
    text: TextSettings
    threshold: Threshold | None = None
    decision: Mapping[str, Any] | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] | None = None
    created: str = ""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a score depends on; nothing is imported."""
    found = {"python": platform.python_version()}
    for name in _VERSIONS_OF:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a source tree on the path
            found[name] = "unknown"
    return found


def read_about(checked: CheckedFiles) -> tuple[About, dict[str, Any]]:
    """Return what bundle.json says, and the tokenizer's settings.

    Raises:
        BundleError: It is not of a classifier's bundle, or a value is missing or not possible.
    """
    raw = checked.json(BUNDLE)
    path = checked.folder / BUNDLE
    if raw.get("kind") != KIND:
        raise _other_kind(raw.get("kind"), checked.folder)
    try:
        about = About(
            task=str(raw["task"]),
            text=text_settings(raw["text"]),
            threshold=raw.get("threshold"),
            decision=raw.get("decision"),
            data=dict(raw.get("data") or {}),
            versions=dict(raw.get("versions") or {}),
            metrics=raw.get("metrics"),
            created=str(raw.get("created", "")),
        )
        tokenizer = dict(raw["tokenizer"])
    except KeyError as error:
        raise damaged(path, f"it lacks {error.args[0]!r}") from error
    except (TypeError, ValueError) as error:
        raise damaged(path, str(error)) from error
    try:
        plugins.find("task", about.task)
    except RecipeError as error:
        raise BundleError(
            f"the bundle's task cannot be had: {error.what}",
            where=str(path),
            next=f"install the package that brings the task {about.task!r}",
        ) from error
    return about, tokenizer


def _other_kind(kind: object, folder: Path) -> BundleError:
    next_step = "take a classifier's bundle"
    if kind == LANGUAGE_MODEL:
        next_step = f"train a classifier on it (`backbone: {folder}`), or let it write: headrace generate {folder} TEXT"
    return BundleError(f"the bundle is a {kind!r}, not a {KIND!r}", where=str(folder / BUNDLE), next=next_step)


def text_settings(raw: Mapping[str, Any]) -> TextSettings:
    """Return the settings from a mapping of their fields; `is_pair` may stand in it, and must fit the columns.

    Raises:
        ValueError: A value is not possible.
        TypeError: A field is missing.
    """
    known = {name: raw[name] for name in TextSettings.__dataclass_fields__ if name in raw}
    columns = tuple(str(name) for name in known.pop("columns", ("text",)))
    label_columns = tuple(str(name) for name in known.pop("label_columns", ()))
    settings = TextSettings(columns=columns, label_columns=label_columns, **known)
    if isinstance(settings.max_length, bool) or not isinstance(settings.max_length, int) or settings.max_length < 1:
        raise ValueError(f"max_length is {settings.max_length!r}")
    if len(columns) not in (1, 2) or bool(raw.get("is_pair", settings.is_pair)) != settings.is_pair:
        raise ValueError(f"text columns {list(columns)!r} do not suit is_pair")
    return settings


def damaged(path: Path, reason: str) -> BundleError:
    """Return the error for a file whose content cannot be right."""
    return BundleError(
        f"the bundle's {path.name} is damaged: {reason}", where=str(path), next="take the original bundle"
    )
