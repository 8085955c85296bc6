"""What a model of transformers exchanges while it is trained on a CPU: its dropouts and its attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from headrace.backbones._attention import packed_attention
from headrace.backbones._drawn import DrawnDropout, drawn_dropout
from headrace.backbones._packed import Packed

ATTENTION = "headrace"
_NO_MASKS: ContextVar[bool] = ContextVar("no_masks", default=False)


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
    """Attention as matrix product, softmax, dropout, matrix product; without dropout transformers' fused one.

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
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    if packed is not None:
        return packed_attention(query, key, value, packed, scale=scale, dropout=dropout, window=sliding_window), None
    if dropout == 0.0 or query.device.type != "cpu":
        kwargs["sliding_window"] = sliding_window
        output, weights = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output, weights
    scores = torch.matmul(query * scale, key.transpose(2, 3))
    if attention_mask is not None:
        scores = scores + attention_mask.to(scores.dtype)
    weights = drawn_dropout(torch.softmax(scores, dim=-1), dropout)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), None


@contextmanager
def without_masks() -> Iterator[None]:
    """Let the model make no attention masks: texts that are laid end to end need none, and it would be huge."""
    token = _NO_MASKS.set(True)
    try:
        yield
    finally:
        _NO_MASKS.reset(token)


def _mask(*sizes: Any, **kwargs: Any) -> Tensor | None:
    return None if _NO_MASKS.get() else eager_mask(*sizes, **kwargs)


def exchange(model: Any) -> None:
    """Exchange the dropouts of one model (in place, this object alone), and its attention where that can be."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, DrawnDropout(child.p).train(child.training))
    exchange_attention(model)


def exchange_attention(model: Any) -> None:
    """Exchange the attention of one model (in place, this object alone) where that can be."""
    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(ATTENTION, attention)
        AttentionMaskInterface.register(ATTENTION, _mask)
        model.set_attn_implementation(ATTENTION)


def restore(model: Any) -> None:
    """Give the model transformers' own attention back; `DrawnDropout` does nothing outside training."""
    if model.config._attn_implementation == ATTENTION:
        model.set_attn_implementation("sdpa")


def is_exchanged(model: Any) -> bool:
    """Return whether the model's attention is the one of this module."""
    return bool(model.config._attn_implementation == ATTENTION)
