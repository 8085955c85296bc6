"""An encoder that guesses masked words: its hidden states at the masked places, a small head, and its own embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from headrace.backbones import transformer
from headrace.backbones._base import ParameterGroups
from headrace.backbones._written import ACTIVATIONS
from headrace.backbones.transformer import Transformer
from headrace.errors import ModelError
from headrace.text.batch import Batch

_NEW_WEIGHT_STD = 0.02  # as BERT draws its own


class MaskedWordOutput(NamedTuple):
    """What one pass over masked places gives.

    Attributes:
        loss_sum: Cross-entropy summed over the places, in nats, a scalar with a gradient.
        n_correct: Places whose likeliest token is the one that stood there, a scalar int64.
        n_tokens: Places.
    """

    loss_sum: Tensor
    n_correct: Tensor
    n_tokens: int


class MaskedWordHead(nn.Module):
    """Dense layer, activation and norm before the tied embedding, as BERT and its descendants have them.

    Args:
        width: Of a hidden state.
        embedding_width: Of a word's vector; ALBERT's and ELECTRA's are narrower than their hidden states.
        n_tokens: Size of the vocabulary.
        settings: `activation` (transformers' name), `eps`, `dense_bias` and `norm_bias`.
    """

    def __init__(self, width: int, embedding_width: int, n_tokens: int, *, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.settings = dict(settings)
        self.dense = nn.Linear(width, embedding_width, bias=bool(settings["dense_bias"]))
        self.norm = nn.LayerNorm(embedding_width, eps=float(settings["eps"]), bias=bool(settings["norm_bias"]))
        self.bias = nn.Parameter(torch.zeros(n_tokens))
        self._activation = _activation(str(settings["activation"]))
        nn.init.normal_(self.dense.weight, std=_NEW_WEIGHT_STD)
        if self.dense.bias is not None:
            nn.init.zeros_(self.dense.bias)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """Return logits, [places, vocabulary], of hidden states, [places, width].

        Args:
            hidden: Of the places.
            embedding: [vocabulary, embedding width], the words' vectors.
        """
        return functional.linear(self.norm(self._activation(self.dense(hidden))), embedding, self.bias)


class MaskedWordModel(nn.Module):
    """A transformer encoder with the head that guesses masked words.

    Args:
        backbone: The encoder.
        head: Before the tied embedding.
        has_new_head: Whether the checkpoint of the encoder had none.
    """

    kind: ClassVar[str] = "masked_word"

    def __init__(self, backbone: Transformer, head: MaskedWordHead, *, has_new_head: bool = False) -> None:
        super().__init__()
        self.has_new_head = has_new_head
        self.backbone = backbone
        self.head = head

    @property
    def embedding(self) -> Tensor:
        """The words' vectors, [vocabulary, embedding width]: the encoder's own."""
        weight: Tensor = self.backbone.encoder.get_input_embeddings().weight
        return weight

    @property
    def vocabulary_size(self) -> int:
        """How many tokens the model knows."""
        return int(self.embedding.shape[0])

    def forward(self, batch: Batch, places: Tensor) -> Tensor:
        """Return the logits of some places, [places, vocabulary].

        Args:
            batch: The texts, masked.
            places: [places] int64, among the texts x tokens of the batch.
        """
        hidden: Tensor = self.backbone(batch)
        chosen = hidden.reshape(-1, hidden.shape[-1]).index_select(0, places)
        logits: Tensor = self.head(chosen, self.embedding)
        return logits

    def learn(self, batch: Batch, places: Tensor, targets: Tensor) -> MaskedWordOutput:
        """Return the loss of guessing the masked places.

        Args:
            batch: The texts, masked.
            places: [places] int64, among the texts x tokens of the batch.
            targets: [places] int64, the tokens that stood there.
        """
        logits = self(batch, places)
        loss = functional.cross_entropy(logits.float(), targets, reduction="sum")
        n_correct = (logits.detach().argmax(dim=-1) == targets).sum()
        return MaskedWordOutput(loss, n_correct, len(targets))

    def groups(self) -> ParameterGroups:
        """Return (name, parameters) from bottom to top: the encoder's groups with the tied embedding, then the head."""
        return [*self.backbone.groups(), ("head", list(self.head.parameters()))]

    def config(self) -> dict[str, Any]:
        """Return what `build` needs, as JSON."""
        return {"kind": self.kind, "backbone": self.backbone.config(), "head": dict(self.head.settings)}


def load(
    name: str, *, weights: str = "pretrained", revision: str | None = None, dropout: float | None = None
) -> MaskedWordModel:
    """Return a pretrained encoder with its own masked-word head, or a new one where the checkpoint has none.

    Args:
        name, weights, revision, dropout: As of `transformer.load`.

    Raises:
        ModelError: The model cannot be found, read or trusted.
    """
    backbone = transformer.load(name, weights=weights, revision=revision, dropout=dropout)
    head = None
    if weights == "pretrained":
        from headrace.backbones import _masked_head  # it imports transformers, which the checkpoint was read through

        head = _masked_head.of_checkpoint(backbone, name, revision)
    if head is None:
        return MaskedWordModel(backbone, _new_head(backbone), has_new_head=True)
    return MaskedWordModel(backbone, head)


def build(config: Mapping[str, Any]) -> MaskedWordModel:
    """Return a model with random weights from what `MaskedWordModel.config` gave.

    Raises:
        ModelError: The config was changed.
    """
    backbone = transformer.build(config.get("backbone", {}))
    try:
        return MaskedWordModel(backbone, head_of(backbone, dict(config["head"])))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"the masked-word head's config is damaged: {error}", where="config.json", next="take the original"
        ) from error


def head_of(backbone: Transformer, settings: Mapping[str, Any]) -> MaskedWordHead:
    """Return a head with random weights that fits a backbone; see `MaskedWordHead`."""
    embedding = backbone.encoder.get_input_embeddings()
    return MaskedWordHead(
        backbone.width, int(embedding.embedding_dim), int(embedding.num_embeddings), settings=settings
    )


def _new_head(backbone: Transformer) -> MaskedWordHead:
    return head_of(backbone, {"activation": "gelu", "eps": 1e-12, "dense_bias": True, "norm_bias": True})


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    if name in ACTIVATIONS:
        return ACTIVATIONS[name]
    from transformers.activations import ACT2FN

    found: Callable[[Tensor], Tensor] = ACT2FN[name]
    return found
