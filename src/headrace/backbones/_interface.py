"""Headrace's attention under transformers' attention interface."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from headrace.backbones._packed import Packed
from headrace.backbones._training import ATTENTION, attended, makes_masks


def register() -> None:
    """Make the attention known to transformers by name; no model has it before it is told to."""
    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, _mask)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed: Packed | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention as `attended` has it; without dropout transformers' fused one.

    Args:
        module: The attention layer.
        query, key, value: [texts, heads, tokens, head width].
        attention_mask: Added to the scores, broadcast to [texts, heads, tokens, tokens].
        dropout: Rate on the attention weights.
        scaling: Of the scores; by default 1 / sqrt(head width).
        packed: Where the texts lie, if they are laid end to end.
        sliding_window: A token sees those that are less than so many away; the mask of a padded batch says it, too.
        **kwargs: Of other implementations.

    Returns:
        [texts, tokens, heads, head width], and None for the weights.
    """
    dropout = dropout if module.training else 0.0
    if packed is None and (dropout == 0.0 or query.device.type != "cpu"):
        kwargs["sliding_window"] = sliding_window
        output, weights = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output, weights
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    found = attended(
        query, key, value, attention_mask, dropout=dropout, scale=scale, packed=packed, window=sliding_window
    )
    return found, None


def _mask(*sizes: Any, **kwargs: Any) -> Tensor | None:
    return eager_mask(*sizes, **kwargs) if makes_masks() else None
