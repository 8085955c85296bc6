"""What the encoders share that are written out here, so that answers need nothing of transformers.

Importing transformers' models takes longer than answering ten texts does, and a bundle of BERT's lineage is most of
what people load. Such an encoder has the names, the order and the arithmetic of transformers' own, to the last bit;
one with a setting that is not known here goes through transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from headrace.backbones._packed import Packed
from headrace.backbones._training import ATTENTION, attended

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": functional.gelu, "relu": functional.relu}
_SDPA = "sdpa"
_MOST = {"width": 65_536, "between": 262_144, "n_layers": 1024, "n_heads": 4096}
_MOST_ROWS = 10_000_000
#: Scores that a text's attention may write out at a time, 8 MB in 16 bits: 12 heads of 591 tokens.
_MOST_CELLS = 1 << 22


class Sizes(NamedTuple):
    """An encoder's sizes and rates, under one name for all families.

    Attributes:
        n_words, n_positions, n_segments: Rows of the embeddings; a family without segments has none.
        embedding_width: Of a token's vector; ELECTRA's may be narrower than its hidden states.
        width: Of a hidden state.
        between: Of the feed-forward part.
        n_layers, n_heads: As they are called.
        activation: A key of `ACTIVATIONS`.
        eps: Of the norms.
        dropout, attention_dropout: Rates in [0, 1).
        std: Of random weights.
        pad_id: The padding token.
    """

    n_words: int
    n_positions: int
    n_segments: int
    embedding_width: int
    width: int
    between: int
    n_layers: int
    n_heads: int
    activation: str
    eps: float
    dropout: float
    attention_dropout: float
    std: float
    pad_id: int

    @property
    def are_sane(self) -> bool:
        """Whether an encoder can have them; transformers tells the user what is wrong with others."""
        least_one = [self.n_words, self.n_positions, self.embedding_width, self.width, self.between]
        least_one += [self.n_layers, self.n_heads]
        if any(type(size) is not int for size in (*least_one, self.n_segments, self.pad_id)):
            return False
        if min(least_one) < 1 or min(self.n_segments, self.pad_id) < 0 or self.activation not in tuple(ACTIVATIONS):
            return False
        if any(getattr(self, name) > most for name, most in _MOST.items()):
            return False
        if max(self.n_words, self.n_positions, self.n_segments) > _MOST_ROWS or self.pad_id >= self.n_words:
            return False
        rates = (self.dropout, self.attention_dropout, self.eps, self.std)
        if any(isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < 1 for rate in rates):
            return False
        return self.width % self.n_heads == 0 and self.embedding_width <= self.width


class Written(nn.Module):
    """An encoder that is written out; it stands in for transformers' model of the same config.

    Args:
        architecture: Its config as JSON, for the record.
        sizes: What the config says.

    Attributes:
        config: What else asks a model of transformers for.
    """

    #: Keys of a config that say nothing about the encoder, or must have the value given here.
    SAYS_NOTHING: ClassVar[frozenset[str]] = frozenset(
        {"model_type", "bos_token_id", "eos_token_id", "classifier_dropout", "tie_word_embeddings"}
    )

    def __init__(self, architecture: Mapping[str, Any], sizes: Sizes) -> None:
        super().__init__()
        self.architecture = dict(architecture)
        self.config = SimpleNamespace(
            model_type=str(architecture["model_type"]),
            hidden_size=sizes.width,
            type_vocab_size=sizes.n_segments or None,
            _attn_implementation=_SDPA,
        )

    @property
    def last_attention(self) -> nn.Module:
        """The part of the last layer behind which each text's first token can go on alone."""
        raise NotImplementedError

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the words' vectors."""
        found: nn.Embedding = self.get_submodule("embeddings.word_embeddings")  # type: ignore[assignment]
        return found

    def set_attn_implementation(self, name: str) -> None:
        """Exchange the attention: `sdpa`, or the one of `_training`.

        Raises:
            ValueError: There is no such one here.
        """
        if name not in (_SDPA, ATTENTION):
            raise ValueError(name)
        self.config._attn_implementation = name

    def draw_weights(self, std: float, *, of: nn.Module | None = None) -> None:
        """Fill the weights as BERT does: normal, biases zero, norms one.

        Args:
            std: Of the weights.
            of: What is filled; by default the encoder.
        """
        for module in (self if of is None else of).modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                with torch.no_grad():
                    module.weight[module.padding_idx].zero_()


def activated(linear: nn.Module, activation: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
    """Return the activation of what a linear layer gives; a layer that knows how does both at once."""
    at_once: Callable[..., Tensor | None] | None = getattr(linear, "activated", None)
    found = None if at_once is None else at_once(given, activation)
    return activation(linear(given)) if found is None else found


class SelfAttention(nn.Module):
    """Attention of queries, keys and values that a family's own layers make.

    Args:
        sizes: Of the encoder.
        config: The encoder's; it names the attention.

    Attributes:
        joined: A layer that makes all three at once, in the place of `PROJECTIONS`; None where there is none.
    """

    #: The family's names of the layers that make queries, keys and values.
    PROJECTIONS: ClassVar[tuple[str, str, str]]

    def __init__(self, sizes: Sizes, config: SimpleNamespace) -> None:
        super().__init__()
        self.config = config
        self.n_heads = sizes.n_heads
        self.joined: nn.Module | None = None

    def project(self, hidden: Tensor) -> list[Tensor]:
        """Return queries, keys and values of hidden states, [texts, tokens, width] each."""
        if self.joined is not None:
            return list(self.joined(hidden).chunk(3, dim=-1))
        return [self.get_submodule(name)(hidden) for name in self.PROJECTIONS]

    def attend(self, rows: list[Tensor], rate: float, mask: Tensor | None, packed: Packed | None) -> Tensor:
        """Return [texts, tokens, width] of queries, keys and values of that shape.

        Args:
            rows: The three of them.
            rate: Of dropout on the weights; 0 outside training.
            mask: [texts, 1, 1, tokens] bool, true for real tokens; None where all are.
            packed: Where the texts lie, if they are laid end to end.
        """
        query, key, value = (one.view(*one.shape[:2], self.n_heads, -1).transpose(1, 2) for one in rows)
        scale = query.shape[-1] ** -0.5
        is_fused = rate == 0.0 or self.config._attn_implementation == _SDPA or query.device.type != "cpu"
        n_texts, n_tokens = query.shape[0], query.shape[2]
        if query.device.type == "cpu" and query.dtype == torch.bfloat16 and not self.training:
            # torch's fused attention takes three times as long there; but it needs no room for the scores. In float32 the
            # products of so few numbers are not the same to the bit in every process, as the proof of a bundle wants them
            is_fused = n_texts * self.n_heads * n_tokens**2 > _MOST_CELLS
        if packed is None and is_fused:
            found = functional.scaled_dot_product_attention(query, key, value, mask, dropout_p=rate, scale=scale)
            found = found.transpose(1, 2)
        else:
            added = None if mask is None else torch.zeros(mask.shape, dtype=query.dtype, device=mask.device)
            if added is not None and mask is not None:
                added.masked_fill_(~mask, torch.finfo(query.dtype).min)
            found = attended(query, key, value, added, dropout=rate, scale=scale, packed=packed)
        return found.flatten(2)


def seen(attention_mask: Tensor | None) -> Tensor | None:
    """Return [texts, 1, 1, tokens] bool of a batch's mask, [texts, tokens]; None where no token is padding."""
    if attention_mask is None or bool(attention_mask.all()):
        return None
    return attention_mask.bool()[:, None, None, :]
