"""Pretrained encoders, read and built through transformers; `transformer` says what each function does."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_MAPPING

from headrace.backbones import _config, _weights
from headrace.backbones._encoder import NativeTransformer, Transformer
from headrace.backbones._weights import resolve
from headrace.errors import ModelError, suggestion

__all__ = ["NativeTransformer", "Transformer", "build", "build_native", "label_names", "load", "load_native", "resolve"]

logger = getLogger(__name__)

_WEIGHTS = ("pretrained", "none")
# The names under which the families keep the dropouts inside the encoder.
_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "hidden_dropout",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "embedding_dropout",
    "mlp_dropout",
    "embd_pdrop",
    "attn_pdrop",
    "resid_pdrop",
)


def load(
    name: str,
    *,
    weights: str = "pretrained",
    pooler: bool = False,
    revision: str | None = None,
    dropout: float | None = None,
) -> Transformer:
    """Return a pretrained encoder.

    Args:
        name: `minilm`, a folder, or a hub id.
        weights: `pretrained`, or `none` for random weights of the same architecture.
        pooler: Build the family's own pooler; without a use its parameters would never get a gradient.
        revision: Branch, tag or commit on the hub.
        dropout: Replaces the dropouts inside the encoder, in [0, 1).

    Raises:
        ModelError: The model cannot be found, read or trusted, or lacks any weight.
    """
    folder, config, source = _prepare(name, weights=weights, revision=revision, dropout=dropout)
    model_class = _config.model_class(MODEL_MAPPING, type(config))
    arguments = _pooler_arguments(model_class, config, pooler=pooler)
    if weights == "none":
        model = _weights.build_model(model_class, config, where=name, **arguments)
    else:
        _weights.tensor_shapes(folder)
        loaded = _weights.read_model(model_class, folder, config, **arguments)
        unused = {key for key in loaded.missing if key.startswith("pooler.") and not pooler}
        _weights.refuse_incomplete(loaded, where=str(folder), may_miss=unused)
        model = loaded.model
        _weights.refuse_nonfinite(model, where=str(folder))
    return Transformer(_without_unused_pooler(model, pooler=pooler), source=source)


def build(config: Mapping[str, Any], *, pooler: bool = False) -> Transformer:
    """Return an encoder with random weights from what `Transformer.config` gave.

    Raises:
        ModelError: The config was changed: unknown keys, forbidden keys, absurd sizes.
    """
    transformers_config = _config.make_config(config.get("architecture", {}), where="config.json", strict=True)
    has_pooler = pooler or bool(config.get("pooler"))
    model_class = _config.model_class(MODEL_MAPPING, type(transformers_config))
    arguments = _pooler_arguments(model_class, transformers_config, pooler=has_pooler)
    model = _weights.build_model(model_class, transformers_config, where="config.json", **arguments)
    return Transformer(_without_unused_pooler(model, pooler=has_pooler), source=config.get("source"))


def label_names(name: str, *, revision: str | None = None) -> tuple[str, ...]:
    """Return the label names of a fine-tuned checkpoint in the order of its outputs; () where it names none."""
    folder, _ = _weights.fetch(name, revision=revision, weights=False)
    return _config.label_names(_config.read_config(folder))


def load_native(
    name: str,
    *,
    labels: Sequence[str],
    weights: str = "pretrained",
    revision: str | None = None,
    dropout: float | None = None,
) -> NativeTransformer:
    """Return a pretrained encoder with its family's own classification head.

    The checkpoint's head is kept if it has as many outputs as there are labels; where the checkpoint names them, its
    outputs are put into the order of `labels`. Otherwise the last layer is random (a log line says so).

    Raises:
        ModelError: As in `load`, or the family has no classification head, or the head is incomplete.
    """
    folder, config, source = _prepare(name, weights=weights, revision=revision, dropout=dropout)
    model_class = _native_class(config)
    outputs = _output_layer(model_class, config, where=name)
    config.num_labels = len(labels)
    if weights == "none":
        model = _weights.build_model(model_class, config, where=name)
        return NativeTransformer(model, label_names=labels, source=source)
    shapes = _weights.tensor_shapes(folder)
    loaded = _weights.read_model(model_class, folder, config)
    model = loaded.model
    fresh = outputs & (loaded.missing | loaded.mismatched)
    may_miss = fresh
    if fresh == outputs:
        # no outputs to keep, so what leads to them may be fresh too: the head's other layers and a missing pooler
        encoder_prefix = f"{model.base_model_prefix}."
        may_miss = outputs | {
            key for key in loaded.missing if not key.startswith(encoder_prefix) or ".pooler." in f".{key}"
        }
    if fresh and fresh != outputs:
        may_miss = set()  # half an output layer: a damaged file
    _weights.refuse_incomplete(loaded, where=str(folder), may_miss=may_miss)
    _weights.refuse_nonfinite(model, where=str(folder))
    if fresh:
        counts = sorted({shapes[key][0] for key in fresh if key in shapes})
        reason = f"its head has {counts[0]} outputs, not {len(labels)}" if counts else "it has no classification head"
        logger.info("%s: %s; random weights for %s", name, reason, ", ".join(sorted(may_miss & _all_keys(loaded))))
    else:
        _reorder_outputs(model, outputs, _config.label_names(_config.read_config(folder)), labels, name)
    return NativeTransformer(model, label_names=labels, source=source)


def build_native(config: Mapping[str, Any], *, labels: Sequence[str]) -> NativeTransformer:
    """Return an encoder with its family's own head and random weights, from what `NativeTransformer.config` gave.

    Raises:
        ModelError: The config was changed, or the family has no classification head.
    """
    transformers_config = _config.make_config(config.get("architecture", {}), where="config.json", strict=True)
    transformers_config.num_labels = len(labels)
    model = _weights.build_model(_native_class(transformers_config), transformers_config, where="config.json")
    return NativeTransformer(model, label_names=labels, source=config.get("source"))


def _prepare(
    name: str, *, weights: str, revision: str | None, dropout: float | None
) -> tuple[Path, PretrainedConfig, dict[str, Any]]:
    if weights not in _WEIGHTS:
        raise ModelError(f"there are no weights {weights!r}", where="weights", next=suggestion(weights, _WEIGHTS))
    folder, commit = _weights.fetch(name, revision=revision, weights=weights == "pretrained")
    config = _config.make_config(_config.read_config(folder), where=str(folder / "config.json"))
    if dropout is not None:
        _set_dropout(config, dropout)
    return folder, config, {"name": name, "revision": commit, "weights": weights}


def with_dropout(backbone: Transformer, dropout: float) -> Transformer:
    """Return an encoder with the same weights and other dropouts.

    Raises:
        ModelError: The rate is not in [0, 1).
    """
    given = backbone.config()
    config = _config.make_config(given["architecture"], where="backbone", strict=True)
    _set_dropout(config, dropout)
    changed = build({**given, "architecture": _config.architecture(config)})
    changed.model.load_state_dict(backbone.model.state_dict())
    return changed


def _set_dropout(config: PretrainedConfig, dropout: float) -> None:
    if not 0.0 <= dropout < 1.0:
        raise ModelError(f"a dropout of {dropout} is not in [0, 1)", where="dropout", next="try 0.1")
    known = _config.known_names(config.model_type)
    names = [name for name in _DROPOUTS if name in known]
    if not names:
        raise ModelError(
            f"the family {config.model_type!r} has no dropout that Headrace knows",
            where="dropout",
            next="remove `dropout` from the backbone",
        )
    for name in names:
        setattr(config, name, float(dropout))


def _pooler_arguments(model_class: Any, config: PretrainedConfig, *, pooler: bool) -> dict[str, bool]:
    if "add_pooling_layer" in inspect.signature(model_class.__init__).parameters:
        return {"add_pooling_layer": pooler}
    if pooler:
        raise ModelError(
            f"the family {config.model_type!r} has no pooler", where="head: pool", next="use pool: cls, mean or max"
        )
    return {}


def _without_unused_pooler(model: Any, *, pooler: bool) -> Any:
    """Drop a pooler that the family always builds: without a use its parameters would never get a gradient."""
    if not pooler and getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


def _native_class(config: PretrainedConfig) -> Any:
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ModelError(
            f"the family {config.model_type!r} has no classification head of its own",
            where="head: native",
            next="use head: linear",
        )
    return _config.model_class(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, type(config))


def _output_layer(model_class: Any, config: PretrainedConfig, *, where: str) -> set[str]:
    """Return the names of the parameters whose first dimension is the number of labels, in any family."""
    shapes: list[dict[str, torch.Size]] = []
    for n_labels in (3, 4):
        varied = copy.deepcopy(config)
        varied.num_labels = n_labels
        with torch.device("meta"):  # shapes alone, no memory
            model = _weights.build_model(model_class, varied, where=where)
        shapes.append({key: parameter.shape for key, parameter in model.named_parameters()})
    return {key for key, shape in shapes[0].items() if shape != shapes[1][key]}


def _all_keys(loaded: _weights.Loaded) -> set[str]:
    return loaded.missing | loaded.mismatched


def _reorder_outputs(model: Any, outputs: set[str], theirs: Sequence[str], ours: Sequence[str], name: str) -> None:
    """Put the checkpoint's outputs into the order of our labels, where both name the same ones."""
    folded = {label.casefold(): index for index, label in enumerate(theirs)}
    wanted = [label.casefold() for label in ours]
    if len(folded) != len(theirs) or set(folded) != set(wanted) or len(set(wanted)) != len(wanted):
        logger.warning(
            "%s: its outputs are named %s, not %s; they are taken in this order", name, list(theirs), list(ours)
        )
        return
    order = torch.tensor([folded[label] for label in wanted])
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for key in outputs:
            parameters[key].copy_(parameters[key][order].clone())
