"""The AWD-LSTM language model: what comes next, with the decoder tied to the embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from headrace.backbones._awd_layers import LANGUAGE_MODEL, State, VariationalDropout
from headrace.backbones._awd_loss import next_word_loss
from headrace.backbones._base import ParameterGroups
from headrace.backbones.awd_lstm import AwdLstm, Settings, build, load_parts
from headrace.errors import ModelError

__all__ = ["NextWordModel", "NextWordOutput", "build_next_word", "load_next_word"]

#: Factors of AR, the activations' mean square, and of TAR, that of their change from a token to the next.
ACTIVATION_PENALTY = 2.0
CHANGE_PENALTY = 1.0


@dataclass(frozen=True)
class NextWordOutput:
    """What one chunk of the streams gave.

    Attributes:
        loss: Mean cross-entropy over the tokens, a number of float32; perplexity is its exponential.
        penalty: AR and TAR, a number of float32 to be added to the loss; 0 in evaluation.
        n_correct: How many next words had the highest logit, int64; no gradient.
        n_tokens: How many there were.
        state: After the last token, cut off from the gradient.
    """

    loss: Tensor
    penalty: Tensor
    n_correct: Tensor
    n_tokens: int
    state: State


class NextWordModel(nn.Module):
    """An AWD-LSTM whose embeddings are its decoder, too.

    Args:
        backbone: With a language model's dropouts; the output dropout among them stands before the decoder.

    Source: Merity, Keskar & Socher 2018 (arXiv 1708.02182), sections 4.5 (tied weights) and 4.6 (AR and TAR). fastai
    leaves TAR out of a batch of a single stream; here it counts from two tokens on.
    """

    kind = "next_word"

    def __init__(self, backbone: AwdLstm) -> None:
        super().__init__()
        self.backbone = backbone
        self.bias = nn.Parameter(torch.zeros(backbone.n_words))
        self.output_dropout = VariationalDropout(backbone.dropouts.output)

    def initial_state(self, n_streams: int) -> State:
        """Return the state before the first token: for each layer two of [streams, its size] float32, all zeros."""
        return self.backbone.initial_state(n_streams)

    def learn(self, ids: Tensor, targets: Tensor, state: State) -> NextWordOutput:
        """Read one chunk of each stream, and compare what it expects with what comes next.

        Args:
            ids: [streams, tokens] int64, in reading order.
            targets: The tokens that follow, [streams, tokens] int64.
            state: What `initial_state` or the chunk before gave; each call draws dropout masks of its own.
        """
        raw, after = self.backbone.read(ids, state)
        dropped = self.output_dropout(raw)
        table = self.backbone.embedding.weight
        loss, n_correct = next_word_loss(dropped.flatten(0, 1), table, self.bias, targets.flatten())
        penalty = self._penalty(raw.float(), dropped.float()) if self.training else loss.new_zeros(())
        return NextWordOutput(loss, penalty, n_correct, targets.numel(), after)

    def next_logits(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the logits of the word after the last one, [streams, words] float32, and the state after it.

        Args:
            ids: [streams, tokens] int64, at least one token; a text of any length is read in one piece.
            state: As in `learn`.
        """
        raw, after = self.backbone.read(ids, state)
        last = self.output_dropout(raw[:, -1:])[:, 0]
        return functional.linear(last, self.backbone.embedding.weight, self.bias).float(), after

    def groups(self) -> ParameterGroups:
        """Return ("layer 0", …) …, then ("head": embeddings and bias): from bottom to top, as fastai splits them.

        The embeddings are the decoder's weights, so they learn first and stand on top.
        """
        (_, embeddings), *layers = self.backbone.groups()
        return [*layers, ("head", [*embeddings, self.bias])]

    def config(self) -> dict[str, Any]:
        """Return what `build_next_word` needs, as JSON."""
        return {"kind": self.kind, "backbone": self.backbone.config()}

    def _penalty(self, raw: Tensor, dropped: Tensor) -> Tensor:
        penalty = ACTIVATION_PENALTY * dropped.pow(2).mean()
        if raw.shape[1] > 1:
            penalty = penalty + CHANGE_PENALTY * (raw[:, 1:] - raw[:, :-1]).pow(2).mean()
        return penalty


def load_next_word(
    name: str = "awd_lstm", *, words: Sequence[str] | None = None, **settings: Unpack[Settings]
) -> NextWordModel:
    """Return a language model, from the files that `awd_lstm.load` reads, or random.

    Args:
        name: `awd_lstm`, for messages.
        words: The vocabulary of the texts; None for that of the weights. A new word gets the mean embedding and bias.
        **settings: See `headrace.backbones.awd_lstm.Settings`.

    Raises:
        ModelError: As in `awd_lstm.load`, or the weights are an encoder alone.
    """
    backbone, bias = load_parts(words, LANGUAGE_MODEL, settings)
    model = NextWordModel(backbone)
    if bias is not None:
        with torch.no_grad():
            model.bias.copy_(bias)
    elif backbone.source.get("weights") != "none":
        raise ModelError(
            f"the weights of {name} are an encoder alone: the decoder's bias (1.decoder.bias) is missing",
            where=f"backbone: weights: {settings.get('weights')}",
            next="take the whole language model",
        )
    return model


def build_next_word(config: Mapping[str, Any]) -> NextWordModel:
    """Return a language model with random weights from what `NextWordModel.config` gave.

    Raises:
        ModelError: The config was changed.
    """
    if set(config) != {"kind", "backbone"} or config["kind"] != NextWordModel.kind:
        raise ModelError("the config is not that of a next-word model", where="config.json", next="take the original")
    backbone = config["backbone"]
    if not isinstance(backbone, Mapping) or backbone.get("backbone") != "awd_lstm":
        raise ModelError(
            "a next-word model has the backbone awd_lstm and no other", where="config.json", next="take the original"
        )
    return NextWordModel(build(backbone))
