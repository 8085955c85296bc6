"""What makes an LSTM an AWD-LSTM: dropouts of whole words, of whole features, and of the recurrent weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from headrace.backbones._drawn import keep_mask
from headrace.backbones._time_loop import lstm
from headrace.errors import ModelError

#: Of each layer what it carries from one token to the next: output and cell, [texts, size] float32 each.
State = list[tuple[Tensor, Tensor]]

# Above it a mask of 16-bit levels would keep next to nothing.
_MAX_DROPOUT = 0.99


@dataclass(frozen=True)
class Sizes:
    """The sizes of an AWD-LSTM but for its vocabulary; by default those of the published weights.

    Attributes:
        embedding_size: Numbers of an embedding, and of the last layer's output.
        hidden_size: Numbers of the other layers' outputs.
        n_layers: How many layers of LSTM.
    """

    embedding_size: int = 400
    hidden_size: int = 1152
    n_layers: int = 3

    @property
    def layer_widths(self) -> list[int]:
        """What goes into the first layer, and what comes out of each."""
        return [self.embedding_size, *[self.hidden_size] * (self.n_layers - 1), self.embedding_size]


@dataclass(frozen=True)
class Dropouts:
    """The five rates of an AWD-LSTM, each in [0, 0.99].

    Attributes:
        embedding: Of words: one that is dropped is dropped wherever it stands in the chunk.
        input: Of the features of the embeddings, the same ones at every token of a text.
        hidden: Likewise between the layers.
        weight: Of the recurrent weights.
        output: Of the features of the last layer, before the decoder or the head.

    Source: Merity, Keskar & Socher 2018 (arXiv 1708.02182), sections 2 and 4; the rates are fastai 2.8's.
    """

    embedding: float
    input: float
    hidden: float
    weight: float
    output: float

    def times(self, drop_mult: float) -> Dropouts:
        """Return all rates times a factor.

        Raises:
            ModelError: The factor is negative, or a rate would be above 0.99.
        """
        found = Dropouts(**{name: rate * drop_mult for name, rate in asdict(self).items()})
        for name, rate in asdict(found).items():
            if not 0.0 <= rate <= _MAX_DROPOUT:
                most = min(_MAX_DROPOUT / rate for rate in asdict(self).values() if rate)
                raise ModelError(
                    f"with drop_mult {drop_mult:g} the {name} dropout is {rate:g}, not in [0, {_MAX_DROPOUT}]",
                    where="backbone: drop_mult",
                    next=f"a factor from 0 to {math.floor(100 * most) / 100:g}",
                )
        return found


CLASSIFIER = Dropouts(embedding=0.05, input=0.4, hidden=0.3, weight=0.5, output=0.4)
LANGUAGE_MODEL = Dropouts(embedding=0.02, input=0.25, hidden=0.15, weight=0.2, output=0.1)


def dropout_mask(shape: Sequence[int], rate: float, like: Tensor) -> Tensor:
    """Return a fresh mask of the type and device of `like`: 0 with probability `rate`, else 1 / (1 - rate)."""
    if like.device.type == "cpu":
        return keep_mask(torch.Size(shape), rate, like.dtype)
    return like.new_empty(torch.Size(shape)).bernoulli_(1.0 - rate).div_(1.0 - rate)


class VariationalDropout(nn.Module):
    """Drops the same features of a text at every token.

    Args:
        rate: Share dropped, in [0, 0.99].

    Source: Gal & Ghahramani 2016 (arXiv 1512.05287), section 4.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, hidden: Tensor) -> Tensor:
        """Return [texts, tokens, width] with features set to 0 and the others scaled up; outside training as it is."""
        if not self.training or self.rate == 0.0:
            return hidden
        return hidden * dropout_mask((hidden.shape[0], 1, hidden.shape[2]), self.rate, hidden)

    def extra_repr(self) -> str:
        """Return the rate, for the module's printed form."""
        return f"rate={self.rate}"


class WordDropout(nn.Module):
    """Drops whole words of the vocabulary: the embedding of a dropped one is 0 wherever it stands.

    Args:
        n_words: Size of the vocabulary.
        rate: Share dropped, in [0, 0.99].
    """

    def __init__(self, n_words: int, rate: float) -> None:
        super().__init__()
        self.n_words = n_words
        self.rate = rate

    def forward(self, embedded: Tensor, ids: Tensor) -> Tensor:
        """Return the embeddings, [texts, tokens, width], of these ids, [texts, tokens], without the dropped words.

        One mask over the vocabulary holds for all texts of the call. It is looked up at the ids, so the table of all
        embeddings is neither multiplied nor copied.
        """
        if not self.training or self.rate == 0.0:
            return embedded
        mask = dropout_mask((self.n_words,), self.rate, embedded)
        return embedded * mask[ids].unsqueeze(-1)

    def extra_repr(self) -> str:
        """Return the rate, for the module's printed form."""
        return f"rate={self.rate}"


class DroppedLstm(nn.Module):
    """One layer of LSTM whose recurrent weights lose a random share at each call in training.

    The arithmetic is that of `nn.LSTM`, by torch's fused kernels or, where a CPU computes in bfloat16, by a loop of our own
    whose cells are in float32. The weights stay plain parameters: what is dropped is dropped from a copy, so that a state
    dict holds them whole.

    Args:
        input_size: Width of what comes in.
        hidden_size: Width of the output and of the cell.
        weight_dropout: Share of the recurrent weights that is dropped, in [0, 0.99].

    Source: Merity, Keskar & Socher 2018, section 2 (DropConnect on the hidden-to-hidden matrices).
    """

    def __init__(self, input_size: int, hidden_size: int, *, weight_dropout: float) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.weight_dropout = weight_dropout
        # four gates, in the order of torch: input, forget, cell, output
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias_ih = nn.Parameter(torch.empty(4 * hidden_size))
        self.bias_hh = nn.Parameter(torch.empty(4 * hidden_size))
        bound = hidden_size**-0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, hidden: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the outputs, [texts, tokens, hidden_size], and the state after the last token.

        Args:
            hidden: [texts, tokens, input_size].
            state: Output and cell before the first token, [texts, hidden_size] float32 each.
        """
        recurrent: Tensor = self.weight_hh
        if self.training and self.weight_dropout > 0.0:
            recurrent = recurrent * dropout_mask(recurrent.shape, self.weight_dropout, recurrent)
        weights: list[Tensor] = [self.weight_ih, recurrent, self.bias_ih, self.bias_hh]
        device = hidden.device.type
        if not torch.is_autocast_enabled(device):
            return _lstm(hidden, state, weights)
        # Autocast has its own idea of an LSTM's type (float16 on CUDA): the type that is asked for is set here.
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            if device == "cpu" and dtype == torch.bfloat16:
                narrow = (weights[0].to(dtype), weights[1].to(dtype), (weights[2] + weights[3]).to(dtype))
                read, last_cell = lstm(hidden.transpose(0, 1).to(dtype), state[0].to(dtype), state[1], narrow)
                return read.transpose(0, 1), (read[-1].float(), last_cell)
            before = state[0].to(dtype), state[1].to(dtype)
            output, (last, cell) = _lstm(hidden.to(dtype), before, [weight.to(dtype) for weight in weights])
        return output, (last.float(), cell.float())


def _lstm(hidden: Tensor, state: tuple[Tensor, Tensor], weights: list[Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    before = (state[0].unsqueeze(0), state[1].unsqueeze(0))
    # `train` only tells the kernels to keep what a gradient needs: in evaluation an explanation asks for one, too.
    is_learning = torch.is_grad_enabled()
    with _quiet(hidden):
        output, last, cell = torch.lstm(hidden, before, weights, True, 1, 0.0, is_learning, False, True)
    return output, (last.squeeze(0), cell.squeeze(0))


def _quiet(hidden: Tensor) -> AbstractContextManager[object]:
    """Silence cuDNN's warning that the weights lie apart: dropped copies always do, and copying them costs little."""
    if hidden.device.type != "cuda":
        return nullcontext()
    return warnings.catch_warnings(action="ignore", category=UserWarning)
