"""Attention inside packed texts as one compiled loop (`headrace.compiled`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from headrace import compiled
from headrace.backbones._drawn import Draws
from headrace.backbones._packed import Packed


def is_for(query: Tensor, draws: Draws | None, *, is_learning: bool) -> bool:
    """Return whether there is a loop for such heads; for what learns nothing it has to be asked for.

    Args:
        query: [tokens, heads, head width].
        draws: Of the dropout.
        is_learning: Whether there will be gradients.
    """
    # in this order: who wants none has none compiled
    wanted = compiled.learn(query.dtype) if is_learning else draws is None and compiled.answer(query.dtype)
    return wanted and compiled.attends(query.dtype, query.shape[2])


def answered(query: Tensor, key: Tensor, value: Tensor, packed: Packed, scale: float, window: int | None) -> Tensor:
    """Return [tokens, heads, head width] of queries, keys and values of that shape, for which there is no way back."""
    return compiled.attention(query, key, value, packed.texts, scale=scale, window=window).output


class CompiledAttention(torch.autograd.Function):
    """[tokens, heads, head width] of queries, keys and values of the same shape; nothing is kept that grows with a text's square."""

    @staticmethod
    def forward(
        context: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        packed: Packed,
        scale: float,
        draws: Draws | None,
        window: int | None,
    ) -> Tensor:
        found = compiled.attention(query, key, value, _texts(packed, draws, query), scale=scale, window=window)
        context.save_for_backward(query, key, value, found.output, found.logs)
        context.packed, context.draws = packed, None if draws is None else draws.again()
        context.scale, context.window = scale, window
        return found.output

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, logs = context.saved_tensors
        draws = None if context.draws is None else context.draws.again()
        found = compiled.attention_gradients(
            query,
            key,
            value,
            _texts(context.packed, draws, query),
            compiled.Attended(output, logs),
            gradients[0],
            scale=context.scale,
            window=context.window,
        )
        return (*found, None, None, None, None)


def _texts(packed: Packed, draws: Draws | None, query: Tensor) -> compiled.Texts:
    if draws is None:
        return packed.texts
    n_heads = query.shape[1]
    return compiled.Texts(packed.lengths, [draws.levels(torch.Size((n_heads, n, n))) for n in packed.lengths.tolist()])
