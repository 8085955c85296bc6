"""The faults of a recipe that types cannot tell: keys that do not go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from headrace import plugins
from headrace.errors import suggestion
from headrace.plugins import LANGUAGE_MODEL
from headrace.recipe.document import Path as KeyPath
from headrace.recipe.schema import FitSettings, LanguageModelSettings

# What a language model has no use for, and the value that a recipe may name all the same.
_CLASSIFIERS_OWN = {"label_smoothing": 0.0, "class_weights": None, "pos_weight": None, "sampler": "random"}
# Of its block these hold in a recipe of its own, too.
_OF_THE_BLOCK = ("sequence_length", "drop_mult", "max_length")


class Fault(NamedTuple):
    """One fault of a recipe's content, and the key that it stands at."""

    what: str
    path: KeyPath
    next: str
    is_key: bool = False  # the key is wrong there, whatever its value


def content_faults(raw: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield the faults that types cannot tell."""
    sections = {key: value for key, value in raw.items() if isinstance(value, Mapping)}
    fit = sections.get("fit", {})
    task = str(raw.get("task", "single_label"))
    yield from _classifiers_own(sections, "language_model")
    if task == LANGUAGE_MODEL:
        yield from _language_model_faults(sections)
        return
    if task not in plugins.names("task"):
        yield Fault(
            f"there is no task named {task!r}", ("task",), suggestion(task, [*plugins.names("task"), LANGUAGE_MODEL])
        )
    if isinstance(sections.get("data", {}).get("train"), list):
        what = "several files of training data are for task: language_model"
        yield Fault(what, ("data", "train"), "name one file, or the folder of a data set")
    if task == "single_label" and isinstance(sections.get("data", {}).get("label"), list):
        yield Fault(
            "several label columns are for task: multi_label",
            ("data", "label"),
            "name one column, or change the task",
        )
    if task == "single_label" and fit.get("pos_weight") is not None:
        what = "fit.pos_weight is for task: multi_label"
        yield Fault(what, ("fit", "pos_weight"), "use fit.class_weights", is_key=True)
    if task == "multi_label" and fit.get("class_weights") is not None:
        what = "fit.class_weights is for task: single_label"
        yield Fault(what, ("fit", "class_weights"), "use fit.pos_weight", is_key=True)
    if "ulmfit" in (raw.get("head"), sections.get("head", {}).get("name")):
        yield from _micro_batch_faults(fit)
        if sections.get("trainer", {}).get("devices", 1) not in (1, "1"):
            what = (
                "head: ulmfit has a batch norm over all texts of a step, and several processes would each have a part"
            )
            yield Fault(
                what, ("trainer", "devices"), "remove devices, or use head: {pool: concat, hidden: 50}", is_key=True
            )
    if raw.get("language_model") is not None:
        head = sections.get("head", {})
        if "native" in (raw.get("head"), head.get("name")) or head.get("pool") == "pooler":
            what = "the encoder of a language model has neither its family's head nor its pooler"
            yield Fault(what, ("head",), "use head: linear with pool: mean, cls, max or concat")
    yield from _decide_faults(task, sections.get("decide", {}))


def _micro_batch_faults(fit: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what would cut a step in pieces under a head whose batch norm sees all its texts."""
    stages = fit.get("stages")
    within: list[tuple[KeyPath, Any]] = [(("fit",), fit)]
    within += [
        (("fit", "stages", place), stage) for place, stage in enumerate(stages if isinstance(stages, list) else [])
    ]
    for path, settings in within:
        for key, plain in (("micro_batch", "auto"), ("accumulate", 1)):
            if isinstance(settings, Mapping) and settings.get(key, plain) != plain:
                what = f"head: ulmfit has a batch norm over all texts of a step, and {key} would cut it in pieces"
                yield Fault(what, (*path, key), f"remove {key}, or lower fit.batch_size", is_key=True)


def _decide_faults(task: str, decide: Mapping[str, Any]) -> Iterator[Fault]:
    calibrate, threshold = decide.get("calibrate"), decide.get("threshold", "auto")
    others = {"single_label": ("platt", "isotonic"), "multi_label": ("temperature",)}
    if calibrate in others.get(task, ()):
        suited = "temperature" if task == "single_label" else "platt or isotonic"
        yield Fault(f"decide.calibrate: {calibrate} is not for task: {task}", ("decide", "calibrate"), f"use {suited}")
    if task == "single_label" and threshold not in ("auto", "default"):
        path: KeyPath = ("decide", "threshold")
        yield Fault("decide.threshold is for task: multi_label", path, "remove it: the highest score wins", is_key=True)


def _language_model_faults(sections: Mapping[str, Mapping[str, Any]]) -> Iterator[Fault]:
    """Yield what does not go with `task: language_model`."""
    yield from _classifiers_own(sections, "fit")
    block = sections.get("language_model", {})
    for key, field in LanguageModelSettings.model_fields.items():
        if key in _OF_THE_BLOCK or key in _CLASSIFIERS_OWN or key not in block or block[key] == field.default:
            continue
        section = "fit" if key in FitSettings.model_fields else "data"
        what = f"language_model.{key} is for the recipe of a classifier, whose language model is trained first"
        yield Fault(what, ("language_model", key), f"write it as {section}.{key}", is_key=True)


def _classifiers_own(sections: Mapping[str, Mapping[str, Any]], section: str) -> Iterator[Fault]:
    for key, plain in _CLASSIFIERS_OWN.items():
        if sections.get(section, {}).get(key, plain) != plain:
            what = f"{section}.{key} is for classifiers: a language model has no labels"
            yield Fault(what, (section, key), "remove it", is_key=True)
