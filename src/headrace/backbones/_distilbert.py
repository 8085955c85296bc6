"""The encoder of DistilBERT, written out. Source: Sanh et al. 2019 (arXiv 1910.01108, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from headrace.backbones._packed import Packed
from headrace.backbones._written import ACTIVATIONS, SelfAttention, Sizes, Written, activated, seen

FAMILIES = frozenset({"distilbert"})

_EPS = 1e-12  # the family's own; its config does not say it
_NAMES = {
    "n_words": "vocab_size",
    "n_positions": "max_position_embeddings",
    "width": "dim",
    "between": "hidden_dim",
    "n_layers": "n_layers",
    "n_heads": "n_heads",
    "activation": "activation",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "std": "initializer_range",
    "pad_id": "pad_token_id",
}
_OF_HEADS = frozenset({"qa_dropout", "seq_classif_dropout"})
#: Sine waves fill the positions of a new model alone, a whole feed-forward part needs no chunks.
_OFF = ("chunk_size_feed_forward", "sinusoidal_pos_embds")


def sizes_of(architecture: Mapping[str, Any], *, pooler: bool) -> Sizes | None:
    """Return what a config says, or None where it says something that is not known here.

    Args:
        architecture: What `_config.architecture` gave.
        pooler: Whether the family's own pooler is wanted; it has none.
    """
    if pooler or any(architecture.get(name) for name in _OFF):
        return None
    if set(architecture) - set(_NAMES.values()) - Written.SAYS_NOTHING - _OF_HEADS - set(_OFF):
        return None
    if not set(_NAMES.values()) <= set(architecture):
        return None
    own = {key: architecture[name] for key, name in _NAMES.items()}
    found = Sizes(n_segments=0, embedding_width=own["width"], eps=_EPS, **own)
    return found if found.are_sane else None


class DistilBertEncoder(Written):
    """Embeddings and layers.

    Args:
        architecture: Its config.
        sizes: What the config says.
    """

    def __init__(self, architecture: Mapping[str, Any], sizes: Sizes) -> None:
        super().__init__(architecture, sizes)
        self.embeddings = _Embeddings(sizes)
        self.transformer = _Layers(sizes, self.config)
        self.draw_weights(sizes.std)

    @property
    def last_attention(self) -> nn.Module:
        """The norm behind the last layer's attention and its residual."""
        return self.transformer.layer[-1].get_submodule("sa_layer_norm")

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        packed: Packed | None = None,
    ) -> tuple[Tensor]:
        """Return the last hidden states, [texts, tokens, width].

        Args:
            input_ids: [texts, tokens] int64.
            attention_mask: [texts, tokens], 1 for real tokens; None where all are.
            position_ids: [1 or texts, tokens] int64; by default each text counts by itself.
            packed: Where the texts lie, if they are laid end to end in one row.
        """
        hidden: Tensor = self.embeddings(input_ids, position_ids)
        mask = seen(attention_mask)
        for layer in self.transformer.layer:
            hidden = layer(hidden, mask, packed)
        return (hidden,)


class _Embeddings(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(sizes.n_words, sizes.width, padding_idx=sizes.pad_id)
        self.position_embeddings = nn.Embedding(sizes.n_positions, sizes.width)
        self.LayerNorm = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, input_ids: Tensor, positions: Tensor | None) -> Tensor:
        if positions is None:
            positions = torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        embedded = self.word_embeddings(input_ids) + self.position_embeddings(positions)
        found: Tensor = self.dropout(self.LayerNorm(embedded))
        return found


class _Layers(nn.Module):
    def __init__(self, sizes: Sizes, config: SimpleNamespace) -> None:
        super().__init__()
        self.layer = nn.ModuleList([_Layer(sizes, config) for _ in range(sizes.n_layers)])


class _Layer(nn.Module):
    def __init__(self, sizes: Sizes, config: SimpleNamespace) -> None:
        super().__init__()
        self.attention = _Attention(sizes, config)
        self.sa_layer_norm = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.ffn = _FeedForward(sizes)
        self.output_layer_norm = nn.LayerNorm(sizes.width, eps=sizes.eps)

    def forward(self, hidden: Tensor, mask: Tensor | None, packed: Packed | None) -> Tensor:
        attended = self.sa_layer_norm(self.attention(hidden, mask, packed) + hidden)
        found: Tensor = self.output_layer_norm(self.ffn(attended) + attended)
        return found


class _Attention(SelfAttention):
    PROJECTIONS = ("q_lin", "k_lin", "v_lin")

    def __init__(self, sizes: Sizes, config: SimpleNamespace) -> None:
        super().__init__(sizes, config)
        self.q_lin = nn.Linear(sizes.width, sizes.width)
        self.k_lin = nn.Linear(sizes.width, sizes.width)
        self.v_lin = nn.Linear(sizes.width, sizes.width)
        self.out_lin = nn.Linear(sizes.width, sizes.width)
        self.dropout = nn.Dropout(sizes.attention_dropout)

    def forward(self, hidden: Tensor, mask: Tensor | None, packed: Packed | None) -> Tensor:
        attended = self.attend(self.project(hidden), self.dropout.p if self.training else 0.0, mask, packed)
        found: Tensor = self.out_lin(attended)
        return found


class _FeedForward(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.dropout = nn.Dropout(sizes.dropout)
        self.lin1 = nn.Linear(sizes.width, sizes.between)
        self.lin2 = nn.Linear(sizes.between, sizes.width)
        self.activation = ACTIVATIONS[sizes.activation]

    def forward(self, hidden: Tensor) -> Tensor:
        found: Tensor = self.dropout(self.lin2(activated(self.lin1, self.activation, hidden)))
        return found
