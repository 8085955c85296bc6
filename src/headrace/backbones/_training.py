"""What an encoder exchanges while it is trained on a CPU: its dropouts, its linear layers and its attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from headrace.backbones import _laid_linear
from headrace.backbones._attention import EVEN_ROW, packed_attention
from headrace.backbones._drawn import DrawnDropout, drawn_dropout
from headrace.backbones._packed import Packed

ATTENTION = "headrace"
# Up to so many scores a row that ends inside a register is quicker by way of float32; more of them would need new pages.
_FEW_CELLS = 1 << 19
_NO_MASKS: ContextVar[bool] = ContextVar("no_masks", default=False)


def attended(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    added: Tensor | None,
    *,
    dropout: float,
    scale: float,
    packed: Packed | None = None,
    window: int | None = None,
) -> Tensor:
    """Return attention as matrix product, softmax, dropout and matrix product, [texts, tokens, heads, head width].

    Args:
        query, key, value: [texts, heads, tokens, head width].
        added: To the scores, broadcast to [texts, heads, tokens, tokens].
        dropout: Rate on the attention weights.
        scale: Of the scores.
        packed: Where the texts lie, if they are laid end to end.
        window: A token sees those that are less than so many away; the mask of a padded batch says it, too.
    """
    if packed is not None:
        return packed_attention(query, key, value, packed, scale=scale, dropout=dropout, window=window)
    scores = torch.matmul(query * scale, key.transpose(2, 3))
    if added is not None:
        scores = scores + added.to(scores.dtype)
    weights = _softmax(scores)
    if dropout > 0.0:
        weights = drawn_dropout(weights, dropout)
    return torch.matmul(weights, value).transpose(1, 2).contiguous()


def _softmax(scores: Tensor) -> Tensor:
    is_uneven = scores.dtype.itemsize == 2 and scores.shape[-1] % EVEN_ROW and scores.numel() <= _FEW_CELLS
    if is_uneven and scores.device.type == "cpu":
        return torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
    return torch.softmax(scores, dim=-1)


@contextmanager
def without_masks() -> Iterator[None]:
    """Let the model make no attention masks: texts that are laid end to end need none, and it would be huge."""
    token = _NO_MASKS.set(True)
    try:
        yield
    finally:
        _NO_MASKS.reset(token)


def makes_masks() -> bool:
    """Tell whether a model is to make attention masks: outside `without_masks`."""
    return not _NO_MASKS.get()


def exchange(model: Any) -> None:
    """Exchange dropouts and linear layers of one model (in place, this object alone), and its attention where that can be."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, DrawnDropout(child.p).train(child.training))
    _laid_linear.exchange(model)
    exchange_attention(model)


def exchange_attention(model: Any) -> None:
    """Exchange the attention of one model (in place, this object alone) where that can be."""
    if model.config._attn_implementation != "sdpa":
        return
    if not hasattr(model, "architecture"):  # it is transformers' own, which has a register
        from headrace.backbones import _interface

        _interface.register()
    model.set_attn_implementation(ATTENTION)


def restore(model: Any) -> None:
    """Give the model its own linear layers and attention back; `DrawnDropout` does nothing outside training."""
    _laid_linear.restore(model)
    restore_attention(model)


def restore_attention(model: Any) -> None:
    """Give the model its own attention back."""
    if model.config._attn_implementation == ATTENTION:
        model.set_attn_implementation("sdpa")


def is_exchanged(model: Any) -> bool:
    """Return whether the model's attention is the one of this module."""
    return bool(model.config._attn_implementation == ATTENTION)
