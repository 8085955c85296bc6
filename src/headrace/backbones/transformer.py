"""Any encoder that transformers' AutoModel knows, by hub id, by folder, or `minilm` for the packaged one."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_MAPPING

from headrace.backbones import _config, _layers, _training, _weights
from headrace.backbones._base import Backbone, NativeBackbone, ParameterGroups
from headrace.backbones._packed import Packed
from headrace.backbones._weights import resolve
from headrace.errors import ModelError, suggestion
from headrace.text.batch import Batch

__all__ = ["NativeTransformer", "Transformer", "build", "build_native", "label_names", "load", "load_native", "resolve"]

logger = getLogger(__name__)

_WEIGHTS = ("pretrained", "none")
# Packed and padded hidden states (of size about 1) are apart by rounding: 1e-6 in float32.
_PACKED_TOLERANCE = 1e-4
_ATTENTIONS = ("eager", "sdpa")
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


class Transformer(Backbone):
    """An encoder of transformers.

    Args:
        model: What `AutoModel` would give.
        source: Where the weights come from, for the record: the name and the hub's commit.
    """

    def __init__(self, model: Any, *, source: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.model = model
        self.source = dict(source or {})
        config: PretrainedConfig = model.config
        self.family = str(config.model_type)
        self.width = int(config.hidden_size)
        self.max_tokens = _max_tokens(self.encoder)
        accepted = inspect.signature(self.encoder.forward).parameters
        if "input_ids" not in accepted:
            raise ModelError(f"the family {self.family!r} does not read texts", next="name an encoder, e.g. minilm")
        # RoBERTa has one segment, DeBERTa-v3 none: the ids of a second would be out of range there
        n_segments = getattr(config, "type_vocab_size", None)
        self._takes_segments = "token_type_ids" in accepted and (n_segments is None or n_segments > 1)
        self._takes_positions = "position_ids" in accepted

    @property
    def encoder(self) -> Any:
        """The encoder without a head."""
        return self.model

    def forward(self, batch: Batch) -> Tensor:
        """Return the last hidden states, [texts, tokens, width]; those of padding have no meaning."""
        if self.packs and self.training:
            return self._packed_forward(batch)
        hidden: Tensor = self.encoder(**self._arguments(batch))[0]
        return hidden

    def _packed_forward(self, batch: Batch) -> Tensor:
        packed = Packed.of(batch.attention_mask)
        arguments: dict[str, Any] = {"input_ids": packed.take(batch.input_ids)}
        arguments["position_ids"] = (packed.positions + _first_position(self.encoder)).unsqueeze(0)
        if self._takes_segments and batch.token_type_ids is not None:
            arguments["token_type_ids"] = packed.take(batch.token_type_ids)
        with _training.without_masks():
            hidden: Tensor = self.encoder(**arguments, packed=packed)[0]
        return packed.put(hidden, batch.attention_mask)

    def pooled(self, batch: Batch, hidden: Tensor) -> Tensor | None:
        """Return the output of the family's own pooler, [texts, width], or None where it was not built."""
        pooler = getattr(self.encoder, "pooler", None)
        if pooler is None:
            return None
        if isinstance(pooler, nn.Linear):  # ALBERT keeps the activation beside it
            first: Tensor = self.encoder.pooler_activation(pooler(hidden[:, 0]))
            return first
        output: Tensor = pooler(hidden)
        return output

    def groups(self) -> ParameterGroups:
        """Return (name, parameters) from bottom to top; each parameter stands in exactly one group."""
        return _layers.group_parameters(self.encoder)

    def config(self) -> dict[str, Any]:
        """Return what `build` needs, as JSON."""
        return {
            "backbone": "transformer",
            "architecture": _config.architecture(self.model.config),
            "pooler": getattr(self.encoder, "pooler", None) is not None,
            "source": self.source,
        }

    def use_attention(self, name: str) -> None:
        """Exchange the attention's implementation: `eager` or `sdpa` (transformers' default where the family has it).

        Raises:
            ModelError: There is no such implementation for this family.
        """
        if name not in _ATTENTIONS:
            raise ModelError(f"there is no attention {name!r}", next=suggestion(name, _ATTENTIONS))
        try:
            self.model.set_attn_implementation(name)
        except ValueError as error:
            raise ModelError(f"the family {self.family!r} has no attention {name!r}", next="use eager") from error

    def train_on_cpu(self) -> None:
        """Lay texts end to end where the family can, with dropouts that a CPU can afford: same rates, other masks."""
        _training.exchange(self.model)
        self.packs = self._can_pack()
        if not self.packs:
            logger.info("%s: its texts are padded in training, in micro-batches of like length", self.family)

    def end_training(self) -> None:
        """Take back what `train_on_cpu` changed in the computation outside training."""
        self.packs = False
        _training.restore(self.model)

    def _can_pack(self) -> bool:
        """Return whether packed texts give the hidden states of padded ones, tried on a few tokens."""
        if not (self._takes_positions and _training.is_exchanged(self.model)):
            return False
        flags = [(module, module.training) for module in self.modules()]
        self.eval()
        try:
            batch = _trial(self.encoder.get_input_embeddings().num_embeddings)
            with torch.no_grad():
                apart = (self._packed_forward(batch) - self.forward(batch)).abs()[batch.attention_mask.bool()]
        except TypeError as error:  # it does not hand unknown arguments on to its attention
            logger.debug("%s cannot be packed: %s", self.family, error)
            return False
        finally:
            for module, flag in flags:
                module.training = flag
        return bool(apart.max() < _PACKED_TOLERANCE)

    def _arguments(self, batch: Batch) -> dict[str, Tensor]:
        arguments = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if self._takes_segments and batch.token_type_ids is not None:
            arguments["token_type_ids"] = batch.token_type_ids
        return arguments


class NativeTransformer(Transformer, NativeBackbone):
    """An encoder with its family's own classification head: what `AutoModelForSequenceClassification` would give.

    Args:
        model: The model with its head.
        label_names: The names of the outputs, in their order.
        source: Where the weights come from, for the record.
    """

    def __init__(self, model: Any, *, label_names: Sequence[str], source: Mapping[str, Any] | None = None) -> None:
        super().__init__(model, source=source)
        self.label_names = tuple(label_names)

    @property
    def encoder(self) -> Any:
        """The encoder without its head."""
        return self.model.base_model

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits of the family's own head, [texts, labels]."""
        logits: Tensor = self.model(**self._arguments(batch)).logits
        return logits

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the family's own head."""
        below = {id(parameter) for parameter in self.encoder.parameters()}
        return [parameter for parameter in self.model.parameters() if id(parameter) not in below]

    def config(self) -> dict[str, Any]:
        """Return what `build_native` needs, as JSON."""
        return {**super().config(), "native": True}


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


def _max_tokens(encoder: Any) -> int | None:
    """Return how many tokens fit into the learned positions; None where positions are relative or rotary."""
    learned = _learned_positions(encoder)
    return None if learned is None else learned.num_embeddings - _first_position(encoder)


def _first_position(encoder: Any) -> int:
    """Return the position of a text's first token: RoBERTa counts from padding_idx + 1, the others from 0."""
    learned = _learned_positions(encoder)
    return 0 if learned is None or learned.padding_idx is None else learned.padding_idx + 1


def _learned_positions(encoder: Any) -> nn.Embedding | None:
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module
    return None


def _trial(n_tokens: int) -> Batch:
    """Return four short texts, two of them equally long, of tokens that are no special ones."""
    lengths = (9, 4, 7, 4)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.arange(mask.numel()).view(mask.shape) * 7919 % max(1, n_tokens - 10) + 10
    return Batch(ids.clamp(max=n_tokens - 1), mask, None, torch.arange(len(lengths)))
