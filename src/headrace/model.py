"""Makes a Classifier: over a pretrained backbone, or from a config, whose weights a state dict fills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Unpack, get_args, get_origin, get_type_hints

from headrace import plugins
from headrace.backbones._base import Backbone
from headrace.classifier import BothWays, Classifier
from headrace.data.examples import LabelSet
from headrace.errors import ModelError, RecipeError
from headrace.head import HeadSettings, fit_classical

__all__ = ["Classifier", "HeadSettings", "build_classifier", "fit_classical", "load_classifier"]

# The backbone whose names are hub ids and folders: what no backbone is called goes there.
_ANY_ENCODER = "transformer"
_CONFIG_KEYS = {"backbone", "head", "labels", "multi_label"}
_BOTH_WAYS = "both_ways"
_DIRECTIONS = ("forward", "backward")


def load_classifier(
    *,
    backbone: Mapping[str, Any] | str | Sequence[Backbone],
    head: HeadSettings,
    labels: LabelSet | None,
    multi_label: bool,
) -> Classifier:
    """Return a classifier over a pretrained backbone; a head that is not the checkpoint's own is random.

    Args:
        backbone: A name (`minilm`, hub id, folder, or a backbone's file), or a mapping with `name` and the arguments of
            that backbone's `load` (`weights`, `revision`, `dropout`; for `awd_lstm` also `words`, the texts' vocabulary).
            Or backbones that are loaded already, such as a language model's encoder: one, or a forward and a backward one.
        head: Pooling and head.
        labels: The label names; None takes those of a fine-tuned checkpoint (`native` only).
        multi_label: Whether a text may have none or several labels.

    Raises:
        ModelError: The model cannot be found, read or trusted.
        RecipeError: The backbone's settings are not known.
    """
    if not isinstance(backbone, str | Mapping):
        if labels is None:
            raise RecipeError("there are no labels", where="labels", next="only head: native brings its own")
        made = [Classifier(one, settings=head, labels=labels, multi_label=multi_label) for one in backbone]
        return made[0] if len(made) == 1 else BothWays(*made)
    arguments = {"name": backbone} if isinstance(backbone, str) else dict(backbone)
    if arguments.get("direction") == "both":
        sides = [_reading(arguments, direction) for direction in _DIRECTIONS]
        readers = [load_classifier(backbone=one, head=head, labels=labels, multi_label=multi_label) for one in sides]
        return BothWays(*readers)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise RecipeError("the backbone has no name", where="backbone", next="e.g. backbone: minilm")
    module = _backbone_module(name)
    if head.name == "native":
        if labels is None:
            labels = _checkpoint_labels(module, name, arguments)
        loaded = _call(_native(module, "load_native", name), name, arguments, labels=labels.names)
    elif labels is None:
        raise RecipeError("there are no labels", where="labels", next="only head: native brings its own")
    else:
        loaded = _call(module.load, name, arguments, pooler=head.pool == "pooler")
    return Classifier(loaded, settings=head, labels=labels, multi_label=multi_label)


def tokenizer_source(name: str) -> str:
    """Return the folder or hub id of a backbone's tokenizer.

    Args:
        name: `minilm`, a hub id, a folder, or a backbone's file.
    """
    return str(_backbone_module(name).resolve(name))


def build_classifier(config: Mapping[str, Any]) -> Classifier:
    """Return a classifier with random weights from what `Classifier.config` gave.

    Raises:
        ModelError: The config was changed: keys are missing or unknown, or the backbone's config is refused.
    """
    if set(config) == {_BOTH_WAYS}:
        return _build_both(config[_BOTH_WAYS])
    keys = set(config)
    if keys != _CONFIG_KEYS:
        wrong = ", ".join(sorted(keys ^ _CONFIG_KEYS))
        raise ModelError(
            f"the classifier's config lacks or does not know: {wrong}", where="config.json", next="take the original"
        )
    try:
        settings = HeadSettings(**config["head"])
        labels = LabelSet(tuple(str(name) for name in config["labels"]))
        backbone_config = dict(config["backbone"])
        family = str(backbone_config.get("backbone"))
    except (TypeError, ValueError, RecipeError) as error:
        reason = error.what if isinstance(error, RecipeError) else error
        raise ModelError(
            f"the classifier's config is damaged: {reason}", where="config.json", next="take the original"
        ) from error
    try:
        module = plugins.find("backbone", family)
    except RecipeError as error:
        raise ModelError(
            f"the classifier's backbone cannot be had: {error.what}",
            where="config.json",
            next=f"install the package that brings the backbone {family!r}",
        ) from error
    if settings.name == "native":
        backbone = _native(module, "build_native", family)(backbone_config, labels=labels.names)
    else:
        backbone = module.build(backbone_config, pooler=settings.pool == "pooler")
    return Classifier(backbone, settings=settings, labels=labels, multi_label=bool(config["multi_label"]))


def _build_both(configs: object) -> BothWays:
    if not isinstance(configs, list) or len(configs) != len(_DIRECTIONS):
        raise ModelError(
            "a classifier that reads both ways has two configs", where="config.json", next="take the original"
        )
    readers = [build_classifier(config) if isinstance(config, Mapping) else None for config in configs]
    forward, backward = readers
    if forward is None or backward is None or forward.labels != backward.labels:
        raise ModelError("its two readers do not fit each other", where="config.json", next="take the original")
    return BothWays(forward, backward)


def _reading(arguments: Mapping[str, Any], direction: str) -> dict[str, Any]:
    """Return the settings of one of two readers; of a folder that holds weights for both it takes its own file."""
    found = {**arguments, "direction": direction}
    weights = Path(str(arguments.get("weights", "none")))
    if weights.is_dir():
        sides = {"forward": "fwd", "backward": "bwd"}
        own = sorted(path for path in weights.glob("*.pth") if sides[direction] in path.stem)
        if len(own) != 1:
            raise ModelError(
                f"there are {len(own)} files of {direction} weights (*{sides[direction]}*.pth)",
                where=str(weights),
                next="direction: both needs one of each direction, as they are published",
            )
        found["weights"] = str(own[0])
    elif arguments.get("weights", "none") not in ("none", "pretrained"):
        raise ModelError(
            "direction: both needs weights of both directions",
            where="backbone: weights",
            next="name the folder that holds the forward and the backward file",
        )
    return found


def _backbone_module(name: str) -> ModuleType:
    is_family = name != _ANY_ENCODER and name in plugins.names("backbone")
    return plugins.find("backbone", name if is_family else _ANY_ENCODER)


def _native(module: ModuleType, function: str, name: str) -> Any:
    found = getattr(module, function, None)
    if found is None:
        raise ModelError(
            f"the backbone {name!r} has no classification head of its own",
            where="head: native",
            next="use head: linear",
        )
    return found


def _checkpoint_labels(module: ModuleType, name: str, arguments: Mapping[str, Any]) -> LabelSet:
    names = _native(module, "label_names", name)(name, revision=arguments.get("revision"))
    if not names:
        raise ModelError(
            f"the checkpoint {name!r} does not name its labels", where="labels", next="give the label names"
        )
    return LabelSet(tuple(names))


def _call(load: Any, name: str, arguments: Mapping[str, Any], **ours: Any) -> Any:
    known = _settings(load)
    unknown = sorted(set(arguments) - (known - set(ours)))
    if unknown:
        raise RecipeError(
            f"the backbone has no setting {unknown[0]!r}",
            where=f"backbone: {name}",
            next="available: " + ", ".join(sorted({"name", *known} - set(ours))),
        )
    return load(name, **arguments, **ours)


def _settings(load: Any) -> set[str]:
    """Return the names that a backbone's `load` takes by keyword; those of an unpacked TypedDict count."""
    names = set(load.__kwdefaults__ or {})
    for hint in get_type_hints(load).values():
        if get_origin(hint) is Unpack:
            names.update(get_args(hint)[0].__annotations__)
    return names
