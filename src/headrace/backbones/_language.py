"""Which language model stands on which backbone: next words on an AWD-LSTM, masked words on any encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.backbones import _masked_word, transformer
from headrace.backbones._base import Backbone
from headrace.backbones._masked_word import MaskedWordModel
from headrace.backbones._next_word import NextWordModel, build_next_word
from headrace.errors import ModelError

NEXT_WORD, MASKED_WORD = "next_word", "masked_word"
LanguageModel = NextWordModel | MaskedWordModel


def kind_of_backbone(name: str) -> str:
    """Return what a language model on this backbone predicts: `next_word` or `masked_word`."""
    return NEXT_WORD if name == "awd_lstm" else MASKED_WORD


def n_words(model: LanguageModel) -> int:
    """Return how many tokens a model knows."""
    return model.backbone.n_words if isinstance(model, NextWordModel) else model.vocabulary_size


def build_language_model(config: Mapping[str, Any]) -> LanguageModel:
    """Return a language model with random weights from what its `config` gave.

    Raises:
        ModelError: The config was changed.
    """
    kind = config.get("kind")
    if kind == NEXT_WORD:
        return build_next_word(config)
    if kind == MASKED_WORD:
        return _masked_word.build(config)
    raise ModelError(f"there is no language model of the kind {kind!r}", where="config.json", next="take the original")


def encoder_for_classifier(model: LanguageModel, *, dropout: float | None, drop_mult: float | None) -> Backbone:
    """Return a language model's encoder as a classifier's backbone.

    Args:
        model: The language model.
        dropout: Of an encoder of transformers, instead of its own rates, in [0, 1); None for its own.
        drop_mult: Of an AWD-LSTM, factor of a classifier's rates, from 0; None for 1.

    Raises:
        ModelError: A rate is not possible.
    """
    if isinstance(model, NextWordModel):
        return model.backbone.for_classifier(drop_mult=1.0 if drop_mult is None else drop_mult)
    return model.backbone if dropout is None else transformer.with_dropout(model.backbone, dropout)
