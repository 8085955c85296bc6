"""Any encoder that transformers' AutoModel knows, by hub id, by folder, or `minilm` for the packaged one.

transformers is imported where it is needed alone: a bundle of BERT's lineage answers without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from headrace.backbones import _bert, _distilbert
from headrace.backbones._encoder import NativeTransformer, Transformer
from headrace.backbones._written import Written
from headrace.backbones._written_heads import WrittenNative, head_rate, needs_pooler

__all__ = [
    "NativeTransformer",
    "Transformer",
    "build",
    "build_native",
    "label_names",
    "load",
    "load_native",
    "resolve",
    "with_dropout",
]


def resolve(name: str) -> Path | str:
    """Return where a pretrained model is: a folder, or its hub id unchanged. Nothing is fetched.

    Args:
        name: `minilm` (the packaged one), a folder, or a hub id as `owner/name`.

    Raises:
        MissingExtra: The package with MiniLM is not installed.
        ModelError: It is neither a folder nor what a hub id looks like.
    """
    found: Path | str = _pretrained().resolve(name)
    return found


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
    found: Transformer = _pretrained().load(name, weights=weights, pooler=pooler, revision=revision, dropout=dropout)
    return found


def build(config: Mapping[str, Any], *, pooler: bool = False) -> Transformer:
    """Return an encoder with random weights from what `Transformer.config` gave.

    Raises:
        ModelError: The config was changed: unknown keys, forbidden keys, absurd sizes.
    """
    has_pooler = pooler or bool(config.get("pooler"))
    written = _written(config.get("architecture"), pooler=has_pooler)
    if written is not None:
        return Transformer(written, source=config.get("source"))
    found: Transformer = _pretrained().build(config, pooler=has_pooler)
    return found


def label_names(name: str, *, revision: str | None = None) -> tuple[str, ...]:
    """Return the label names of a fine-tuned checkpoint in the order of its outputs; () where it names none."""
    found: tuple[str, ...] = _pretrained().label_names(name, revision=revision)
    return found


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
    given = {"weights": weights, "revision": revision, "dropout": dropout}
    found: NativeTransformer = _pretrained().load_native(name, labels=labels, **given)
    return found


def build_native(
    config: Mapping[str, Any], *, labels: Sequence[str], by_transformers: bool = False
) -> NativeTransformer:
    """Return an encoder with its family's own head and random weights, from what `NativeTransformer.config` gave.

    Args:
        config: What a `config` gave.
        labels: The names of the outputs.
        by_transformers: Build transformers' own model, which can be saved as one.

    Raises:
        ModelError: The config was changed, or the family has no classification head.
    """
    written = None if by_transformers else _written_native(config.get("architecture"), len(labels))
    if written is not None:
        return NativeTransformer(written, label_names=labels, source=config.get("source"))
    found: NativeTransformer = _pretrained().build_native(config, labels=labels)
    return found


def with_dropout(backbone: Transformer, dropout: float) -> Transformer:
    """Return an encoder with the same weights and other dropouts.

    Raises:
        ModelError: The rate is not in [0, 1).
    """
    found: Transformer = _pretrained().with_dropout(backbone, dropout)
    return found


def _written(architecture: object, *, pooler: bool) -> Written | None:
    """Return the encoder of a config, or None where it is not one of those that are written out."""
    if not isinstance(architecture, Mapping):
        return None
    family = str(architecture.get("model_type"))
    if family in _bert.FAMILIES:
        sizes = _bert.sizes_of(architecture, pooler=pooler)
        return None if sizes is None else _bert.BertEncoder(architecture, sizes, pooler=pooler)
    if family in _distilbert.FAMILIES:
        sizes = _distilbert.sizes_of(architecture, pooler=pooler)
        return None if sizes is None else _distilbert.DistilBertEncoder(architecture, sizes)
    return None


def _written_native(architecture: object, n_labels: int) -> WrittenNative | None:
    """Return the model with its family's own head, or None where it is not one of those that are written out."""
    if not isinstance(architecture, Mapping):
        return None
    pooler = needs_pooler(str(architecture.get("model_type")))
    encoder, rate = _written(architecture, pooler=pooler), head_rate(architecture)
    return None if encoder is None or rate is None else WrittenNative(encoder, n_labels, rate)


def _pretrained() -> ModuleType:
    """Return the part that needs transformers, whose import takes longer than answering ten texts."""
    from headrace.backbones import _pretrained

    return _pretrained
