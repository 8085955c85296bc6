"""The language model that a recipe begins with: new, from an encoder's weights, or from an earlier language model."""

from __future__ import annotations

from typing import Any

import torch

from headrace.backbones import _masked_word
from headrace.backbones._awd_layers import LANGUAGE_MODEL
from headrace.backbones._awd_weights import match_words
from headrace.backbones._base import Backbone
from headrace.backbones._language import NEXT_WORD, LanguageModel, encoder_for_classifier
from headrace.backbones._next_word import NextWordModel, load_next_word
from headrace.backbones.awd_lstm import AwdLstm
from headrace.bundle.language_model import LanguageModelBundle, is_language_model, predicted_by
from headrace.errors import ModelError, RecipeError
from headrace.recipe.schema import BackboneSettings, LanguageModelSettings, RecipeValues
from headrace.text.tokenizer import Tokenizer
from headrace.text.words import Words

_AWD_SETTINGS = ("weights", "vocabulary", "embedding_size", "hidden_size", "n_layers", "direction")
_ENCODER_SETTINGS = ("weights", "revision", "dropout")


def load_language_model(values: RecipeValues, tokenizer: Tokenizer) -> LanguageModel:
    """Return the model of a recipe with `task: language_model`; what no weights give is drawn from torch's generator.

    Args:
        values: The recipe.
        tokenizer: The words of the texts, or of the backbone.

    Raises:
        ModelError: The weights cannot be found, read or trusted, or do not fit the words.
        BundleError: The language model's bundle is damaged.
        RecipeError: A setting is not for this backbone.
    """
    backbone = values.backbone
    block = values.language_model
    drop_mult = backbone.drop_mult if block is None or block.drop_mult is None else block.drop_mult
    kind = predicted_by(backbone.name)
    _check_settings(backbone, kind)
    if kind != NEXT_WORD and block is not None:
        _check_block(block)
    if is_language_model(backbone.name):
        model = LanguageModelBundle.load(backbone.name).model
        if isinstance(model, NextWordModel) and drop_mult is not None:
            return _with_words(model, None, None, drop_mult=drop_mult)
        return model
    if kind != NEXT_WORD:
        settings: dict[str, Any] = {name: getattr(backbone, name) for name in _ENCODER_SETTINGS}
        return _masked_word.load(backbone.name, **settings)
    words = words_in(tokenizer)
    if is_language_model(backbone.weights):
        return _from_bundle(backbone, words, drop_mult=1.0 if drop_mult is None else drop_mult)
    given = {name: getattr(backbone, name) for name in _AWD_SETTINGS}
    awd: Any = {name: value for name, value in {**given, "drop_mult": drop_mult}.items() if value is not None}
    return load_next_word(backbone.name, words=words, **awd)


def encoders_of(settings: BackboneSettings) -> list[Backbone]:
    """Return the encoder of a language model's bundle, with a classifier's dropouts; two of them for both directions.

    Returns:
        None of them for any other backbone.

    Raises:
        BundleError: A bundle is damaged.
        RecipeError: A setting is not for this backbone.
        ModelError: The two bundles do not read forward and backward.
    """
    if not is_language_model(settings.name):
        return []
    places = [settings.name]
    if settings.direction == "both":
        if settings.backward is None or not is_language_model(settings.backward):
            raise RecipeError(
                "direction: both over language models needs the bundle of a backward one",
                where="backbone.backward",
                next="train one with `direction: backward`, and name its bundle",
            )
        places.append(settings.backward)
        settings = settings.model_copy(update={"direction": None, "backward": None})
    _check_settings(settings, predicted_by(settings.name))
    models = [LanguageModelBundle.load(place).model for place in places]
    found = [encoder_for_classifier(one, dropout=settings.dropout, drop_mult=settings.drop_mult) for one in models]
    if len(found) > 1:
        directions = [getattr(one, "direction", "none") for one in found]
        if directions != ["forward", "backward"]:
            raise ModelError(
                f"the two language models read {directions[0]} and {directions[1]}, not forward and backward",
                where="backbone",
                next="name the forward bundle under `name`, the backward one under `backward`",
            )
    return found


def matched_line(values: RecipeValues, backbone: Backbone) -> str | None:
    """Return how many words of the texts the weights know, for a person.

    Returns:
        None where no words were matched, or an earlier run has matched them.
    """
    source = backbone.source if isinstance(backbone, AwdLstm) else {}
    if "n_matched" not in source or is_language_model(values.backbone.name):
        return None
    return (
        f"{source['weights']} knows {source['n_matched']:,} of the {backbone.config()['n_words']:,} words; "
        "the others begin with the mean of its own"
    )


def new_head_line(model: LanguageModel) -> str | None:
    """Return what a person should know of a masked-word head that learns from the start, or None."""
    if not getattr(model, "has_new_head", False):
        return None
    return "the weights have no masked-word head: a new one learns from the start"


def weights_lines(values: RecipeValues, model: LanguageModel) -> list[str]:
    """Return what a person should know of the weights with which the training begins."""
    return [line for line in (matched_line(values, model.backbone), new_head_line(model)) if line is not None]


def check_words(backbone: str, tokenizer: Tokenizer) -> None:
    """Refuse texts that were cut into other words than those that a language model's encoder knows.

    Raises:
        ModelError: They were.
        BundleError: The bundle is damaged.
    """
    if not is_language_model(backbone):
        return
    own = LanguageModelBundle.load(backbone).tokenizer
    if own.fingerprint != tokenizer.fingerprint:
        raise ModelError(
            f"the vocabulary does not fit: the texts have {tokenizer.vocabulary_size:,} words, the encoder was trained "
            f"on {own.vocabulary_size:,} others",
            where=f"backbone: {backbone}",
            next="tokenize the texts with the tokenizer of that bundle",
        )


def _check_settings(backbone: BackboneSettings, kind: str) -> None:
    """Refuse what the kind of backbone has no use for."""
    is_bundle = is_language_model(backbone.name)
    decided_by = backbone.name
    refused: dict[str, object] = {}
    if kind == NEXT_WORD:
        refused = {name: getattr(backbone, name) for name in ("revision", "dropout", "backward")}
        next_step = "use drop_mult, the factor of all dropouts" if backbone.dropout is not None else "remove it"
    else:
        names = ("vocabulary", "drop_mult", "direction", "backward", "embedding_size", "hidden_size", "n_layers")
        refused = {name: getattr(backbone, name) for name in names}
        next_step = "it is for `backbone: awd_lstm`; remove it"
    if is_bundle:
        others = ("revision", "vocabulary", "direction", "backward", "embedding_size", "hidden_size", "n_layers")
        refused |= {name: getattr(backbone, name) for name in others}
        refused["weights"] = None if backbone.weights == "pretrained" else backbone.weights
    elif is_language_model(backbone.weights):
        is_bundle, decided_by = True, backbone.weights
        refused |= {
            name: getattr(backbone, name) for name in ("vocabulary", "embedding_size", "hidden_size", "n_layers")
        }
    for name, value in refused.items():
        if value is not None:
            what = f"the bundle {decided_by} decides this" if is_bundle else "this backbone has no such setting"
            raise RecipeError(f"backbone.{name} is {value!r}: {what}", where=f"backbone.{name}", next=next_step)
    if backbone.direction == "both":
        raise RecipeError(
            "one language model reads in one direction",
            where="backbone.direction",
            next="train one run with `direction: forward` and one with `direction: backward`",
        )


def _check_block(block: LanguageModelSettings) -> None:
    """Refuse what a model of masked words has no use for."""
    usual = LanguageModelSettings.model_validate({})
    for name in ("sequence_length", "drop_mult"):
        if getattr(block, name) != getattr(usual, name):
            raise RecipeError(
                f"language_model.{name} is for next words, and this backbone guesses masked ones",
                where=f"language_model.{name}",
                next="remove it; language_model.max_length is the length of its texts",
            )


def words_in(tokenizer: Tokenizer) -> list[str]:
    """Return the words of a tokenizer in the order of their ids.

    Raises:
        ModelError: It has pieces of words.
    """
    if not isinstance(tokenizer, Words):
        raise ModelError("an AWD-LSTM reads words, not pieces of them", where="backbone", next="use an encoder's own")
    return list(tokenizer.vocabulary.words)


def _from_bundle(backbone: BackboneSettings, words: list[str], *, drop_mult: float) -> NextWordModel:
    """Return an earlier language model with its words matched to ours."""
    bundle = LanguageModelBundle.load(backbone.weights)
    if not isinstance(bundle.model, NextWordModel):
        raise ModelError(
            "the weights are those of a masked-word model, not of an AWD-LSTM",
            where="backbone.weights",
            next=f"write `backbone: {backbone.weights}`",
        )
    if backbone.direction not in (None, bundle.model.backbone.direction):
        raise ModelError(
            f"the weights read texts {bundle.model.backbone.direction}, not {backbone.direction}",
            where="backbone.direction",
            next="take the weights of the other direction",
        )
    theirs = words_in(bundle.tokenizer)
    return _with_words(bundle.model, theirs, words, drop_mult=drop_mult, weights=backbone.weights)


def _with_words(
    model: NextWordModel,
    theirs: list[str] | None,
    ours: list[str] | None,
    *,
    drop_mult: float,
    weights: str | None = None,
) -> NextWordModel:
    """Return a model with the same weights, for other words (None for the same), with a language model's dropouts.

    Args:
        weights: What the model's source shall say of where they come from; None for what it says now.
    """
    old = model.backbone
    state = dict(old.state_dict())
    bias = model.bias.detach()
    source = old.source
    if theirs is not None and ours is not None:
        known = set(theirs)
        source = {"weights": weights, "n_words": len(theirs), "n_matched": sum(word in known for word in ours)}
        state["embedding.weight"] = match_words(state["embedding.weight"], theirs=theirs, ours=ours)
        bias = match_words(bias, theirs=theirs, ours=ours)
    backbone = AwdLstm(
        len(bias),
        sizes=old.sizes,
        dropouts=LANGUAGE_MODEL.times(drop_mult),
        direction=old.direction,
        source=source,
    )
    backbone.load_state_dict(state, strict=True)
    new = NextWordModel(backbone)
    with torch.no_grad():
        new.bias.copy_(bias)
    return new
