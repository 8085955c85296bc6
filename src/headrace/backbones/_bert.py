"""The encoders of BERT, RoBERTa and ELECTRA, written out.

Sources: Devlin et al. 2019 (arXiv 1810.04805, section 3), Liu et al. 2019 (1907.11692), Clark et al. 2020 (2003.10555);
post-norm layers after Vaswani et al. 2017 (1706.03762, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from headrace.backbones._packed import Packed
from headrace.backbones._written import ACTIVATIONS, SelfAttention, Sizes, Written, activated, seen

#: Families whose positions count from the padding id + 1.
_SHIFTED = frozenset({"roberta", "xlm-roberta", "camembert"})
_NARROW = "electra"
FAMILIES = frozenset({"bert", _NARROW, *_SHIFTED})

_NAMES = {
    "n_words": "vocab_size",
    "n_positions": "max_position_embeddings",
    "n_segments": "type_vocab_size",
    "width": "hidden_size",
    "between": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "activation": "hidden_act",
    "eps": "layer_norm_eps",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "std": "initializer_range",
    "pad_id": "pad_token_id",
}
_NO_CHUNKS = "chunk_size_feed_forward"


def sizes_of(architecture: Mapping[str, Any], *, pooler: bool) -> Sizes | None:
    """Return what a config says, or None where it says something that is not known here.

    Args:
        architecture: What `_config.architecture` gave.
        pooler: Whether the family's own pooler is wanted; ELECTRA has none.
    """
    is_narrow = architecture.get("model_type") == _NARROW
    if is_narrow and pooler:
        return None
    embedding = "embedding_size" if is_narrow else "hidden_size"
    rest = set(architecture) - set(_NAMES.values()) - Written.SAYS_NOTHING - {_NO_CHUNKS, embedding}
    if any(not (is_narrow and name.startswith("summary_")) for name in rest) or architecture.get(_NO_CHUNKS):
        return None
    if not {embedding, *_NAMES.values()} <= set(architecture):
        return None
    found = Sizes(embedding_width=architecture[embedding], **{k: architecture[name] for k, name in _NAMES.items()})
    return found if found.are_sane and found.n_segments > 0 else None


class BertEncoder(Written):
    """Embeddings, layers and, if it is wanted, the pooler.

    Args:
        architecture: Its config.
        sizes: What the config says.
        pooler: Whether to build the family's own pooler.
    """

    def __init__(self, architecture: Mapping[str, Any], sizes: Sizes, *, pooler: bool) -> None:
        super().__init__(architecture, sizes)
        self.embeddings = _Embeddings(sizes, is_shifted=self.config.model_type in _SHIFTED)
        self.embeddings_project: nn.Linear | None = None
        if sizes.embedding_width != sizes.width:
            self.embeddings_project = nn.Linear(sizes.embedding_width, sizes.width)
        self.encoder = _Layers(sizes, self.config)
        self.pooler = _Pooler(sizes.width) if pooler else None
        self.draw_weights(sizes.std)

    @property
    def last_attention(self) -> nn.Module:
        """The last layer's attention with its residual."""
        return self.encoder.layer[-1].get_submodule("attention")

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        packed: Packed | None = None,
    ) -> tuple[Tensor]:
        """Return the last hidden states, [texts, tokens, width].

        Args:
            input_ids: [texts, tokens] int64.
            attention_mask: [texts, tokens], 1 for real tokens; None where all are.
            token_type_ids: [texts, tokens] int64, the segments; None for the first.
            position_ids: [1 or texts, tokens] int64; by default each text counts by itself.
            packed: Where the texts lie, if they are laid end to end in one row.
        """
        hidden: Tensor = self.embeddings(input_ids, token_type_ids, position_ids)
        if self.embeddings_project is not None:
            hidden = self.embeddings_project(hidden)
        mask = seen(attention_mask)
        for layer in self.encoder.layer:
            hidden = layer(hidden, mask, packed)
        return (hidden,)


class _Embeddings(nn.Module):
    def __init__(self, sizes: Sizes, *, is_shifted: bool) -> None:
        super().__init__()
        width = sizes.embedding_width
        self.is_shifted = is_shifted
        self.word_embeddings = nn.Embedding(sizes.n_words, width, padding_idx=sizes.pad_id)
        positions = nn.Embedding(sizes.n_positions, width, padding_idx=sizes.pad_id if is_shifted else None)
        if not is_shifted:  # the order in which transformers registers them, which is the optimizer's
            self.position_embeddings = positions
        self.token_type_embeddings = nn.Embedding(sizes.n_segments, width)
        self.LayerNorm = nn.LayerNorm(width, eps=sizes.eps)
        self.dropout = nn.Dropout(sizes.dropout)
        if is_shifted:
            self.position_embeddings = positions

    def forward(self, input_ids: Tensor, segments: Tensor | None, positions: Tensor | None) -> Tensor:
        if positions is None:
            positions = self._positions(input_ids)
        if segments is None:
            segments = torch.zeros_like(input_ids)
        embedded = self.word_embeddings(input_ids) + self.token_type_embeddings(segments)
        embedded = embedded + self.position_embeddings(positions)
        found: Tensor = self.dropout(self.LayerNorm(embedded))
        return found

    def _positions(self, input_ids: Tensor) -> Tensor:
        if not self.is_shifted:
            return torch.arange(input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        pad_id = self.word_embeddings.padding_idx or 0
        is_real = (input_ids != pad_id).long()
        return is_real.cumsum(dim=1) * is_real + pad_id


class _Layers(nn.Module):
    def __init__(self, sizes: Sizes, config: SimpleNamespace) -> None:
        super().__init__()
        self.layer = nn.ModuleList([_Layer(sizes, config) for _ in range(sizes.n_layers)])


class _Layer(nn.Module):
    def __init__(self, sizes: Sizes, config: SimpleNamespace) -> None:
        super().__init__()
        self.attention = _Attention(sizes, config)
        self.intermediate = _Intermediate(sizes)
        self.output = _Joined(sizes.between, sizes)

    def forward(self, hidden: Tensor, mask: Tensor | None, packed: Packed | None) -> Tensor:
        attended = self.attention(hidden, mask, packed)
        found: Tensor = self.output(self.intermediate(attended), attended)
        return found


class _Attention(nn.Module):
    def __init__(self, sizes: Sizes, config: SimpleNamespace) -> None:
        super().__init__()
        self.self = _Projections(sizes, config)
        self.output = _Joined(sizes.width, sizes)

    def forward(self, hidden: Tensor, mask: Tensor | None, packed: Packed | None) -> Tensor:
        found: Tensor = self.output(self.self(hidden, mask, packed), hidden)
        return found


class _Projections(SelfAttention):
    PROJECTIONS = ("query", "key", "value")

    def __init__(self, sizes: Sizes, config: SimpleNamespace) -> None:
        super().__init__(sizes, config)
        self.query = nn.Linear(sizes.width, sizes.width)
        self.key = nn.Linear(sizes.width, sizes.width)
        self.value = nn.Linear(sizes.width, sizes.width)
        self.dropout = nn.Dropout(sizes.attention_dropout)

    def forward(self, hidden: Tensor, mask: Tensor | None, packed: Packed | None) -> Tensor:
        return self.attend(self.project(hidden), self.dropout.p if self.training else 0.0, mask, packed)


class _Intermediate(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.dense = nn.Linear(sizes.width, sizes.between)
        self.activation = ACTIVATIONS[sizes.activation]

    def forward(self, hidden: Tensor) -> Tensor:
        return activated(self.dense, self.activation, hidden)


class _Joined(nn.Module):
    """What a part of a layer gives, joined with what it got."""

    def __init__(self, width: int, sizes: Sizes) -> None:
        super().__init__()
        self.dense = nn.Linear(width, sizes.width)
        self.LayerNorm = nn.LayerNorm(sizes.width, eps=sizes.eps)
        self.dropout = nn.Dropout(sizes.dropout)

    def forward(self, given: Tensor, before: Tensor) -> Tensor:
        found: Tensor = self.LayerNorm(self.dropout(self.dense(given)) + before)
        return found


class _Pooler(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.tanh(self.dense(hidden[:, 0]))
