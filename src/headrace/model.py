"""The Classifier: a backbone, a pooling and a head; its config builds it anew, a state dict fills it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from headrace import plugins
from headrace.backbones._base import Backbone, NativeBackbone, ParameterGroups
from headrace.data.examples import LabelSet
from headrace.errors import ModelError, RecipeError
from headrace.head import CLASSICAL, Head, HeadSettings, fit_classical, pool_hidden
from headrace.text.batch import Batch

__all__ = ["Classifier", "HeadSettings", "build_classifier", "fit_classical", "load_classifier"]

# The backbone whose names are hub ids and folders: what no backbone is called goes there.
_ANY_ENCODER = "transformer"
_CONFIG_KEYS = {"backbone", "head", "labels", "multi_label"}


class Classifier(nn.Module):
    """A backbone with a head.

    Args:
        backbone: Gives hidden states; a `NativeBackbone` brings its own head.
        settings: Pooling and head.
        labels: The names of the logits, in their order.
        multi_label: Whether a text may have none or several labels.
    """

    def __init__(self, backbone: Backbone, *, settings: HeadSettings, labels: LabelSet, multi_label: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.settings = settings
        self.labels = labels
        self.multi_label = multi_label
        self.head: Head | None = None
        if settings.name != "native":
            # a classical head is fitted on features as they are: nothing may be dropped from them
            dropout = 0.0 if settings.name in CLASSICAL else settings.dropout
            self.head = Head(backbone.width, len(labels), hidden=settings.hidden, dropout=dropout)
        elif not isinstance(backbone, NativeBackbone):
            raise ModelError(
                f"the backbone {backbone.family!r} has no classification head of its own",
                where="head: native",
                next="use head: linear",
            )

    def forward(self, batch: Batch) -> Tensor:
        """Return logits, [texts, labels] float32, of a `Batch`."""
        if self.head is None:
            return self._native().logits(batch).float()
        logits: Tensor = self.head(self._pool(batch, self.settings.pool))
        return logits.float()

    def hidden(self, batch: Batch) -> Tensor:
        """Return the last hidden states, [texts, tokens, width]; those of padding have no meaning."""
        hidden: Tensor = self.backbone(batch)
        return hidden

    def embed(self, batch: Batch, pool: str = "mean") -> Tensor:
        """Return one vector a text, [texts, width] float32.

        Args:
            batch: The texts.
            pool: `mean`, `max`, `cls`, or `pooler` where the backbone was built with it.
        """
        return self._pool(batch, pool).float()

    def groups(self) -> ParameterGroups:
        """Return (name, parameters) from bottom to top: the backbone's groups, then ("head", …)."""
        parameters = list(self.head.parameters()) if self.head is not None else self._native().head_parameters()
        return [*self.backbone.groups(), ("head", parameters)]

    def config(self) -> dict[str, Any]:
        """Return what `build_classifier` needs, as JSON."""
        return {
            "backbone": self.backbone.config(),
            "head": asdict(self.settings),
            "labels": list(self.labels.names),
            "multi_label": self.multi_label,
        }

    def _pool(self, batch: Batch, pool: str) -> Tensor:
        hidden = self.backbone(batch)
        if pool != "pooler":
            return pool_hidden(hidden, batch.attention_mask, pool)
        pooled = self.backbone.pooled(batch, hidden)
        if pooled is None:
            raise ModelError(
                f"this {self.backbone.family!r} was built without its pooler",
                where="pool",
                next="use mean, max or cls, or train with head: {pool: pooler}",
            )
        return pooled

    def _native(self) -> NativeBackbone:
        if not isinstance(self.backbone, NativeBackbone):
            raise ModelError(f"the backbone {self.backbone.family!r} has no head of its own", where="head: native")
        return self.backbone


def load_classifier(
    *, backbone: Mapping[str, Any] | str, head: HeadSettings, labels: LabelSet | None, multi_label: bool
) -> Classifier:
    """Return a classifier over a pretrained backbone; a head that is not the checkpoint's own is random.

    Args:
        backbone: A name (`minilm`, hub id, folder, or a backbone's file), or a mapping with `name` and the arguments of
            that backbone's `load` (`weights`, `revision`, `dropout`).
        head: Pooling and head.
        labels: The label names; None takes those of a fine-tuned checkpoint (`native` only).
        multi_label: Whether a text may have none or several labels.

    Raises:
        ModelError: The model cannot be found, read or trusted.
        RecipeError: The backbone's settings are not known.
    """
    arguments = {"name": backbone} if isinstance(backbone, str) else dict(backbone)
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
        module = plugins.find("backbone", str(backbone_config.get("backbone")))
    except (TypeError, ValueError, RecipeError) as error:
        raise ModelError(
            f"the classifier's config is damaged: {error}", where="config.json", next="take the original"
        ) from error
    if settings.name == "native":
        name = str(backbone_config["backbone"])
        backbone = _native(module, "build_native", name)(backbone_config, labels=labels.names)
    else:
        backbone = module.build(backbone_config, pooler=settings.pool == "pooler")
    return Classifier(backbone, settings=settings, labels=labels, multi_label=bool(config["multi_label"]))


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
    known = load.__kwdefaults__ or {}
    unknown = sorted(set(arguments) - (set(known) - set(ours)))
    if unknown:
        raise RecipeError(
            f"the backbone has no setting {unknown[0]!r}",
            where=f"backbone: {name}",
            next="available: " + ", ".join(sorted({"name", *known} - set(ours))),
        )
    return load(name, **arguments, **ours)
