"""Gradients of embeddings that cost what a batch has touched, not what the vocabulary holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def touched_rows(model: nn.Module) -> Iterator[None]:
    """Add the gradient of each embedding to the rows of the batch's tokens alone, on one CPU process.

    A micro-batch touches some hundred of the tens of thousands of rows; torch would fill a gradient of the whole table
    for each and add it up. Within, `.grad` is a dense tensor as ever: clipping and optimizers see no difference.
    """
    tables = [table for table in model.modules() if type(table) is nn.Embedding and not table.sparse]
    room: dict[nn.Parameter, Tensor] = {}  # by parameter: new pages for some tens of megabytes cost more than zeros
    hooks = [table.register_forward_pre_hook(partial(_with_gradient, room=room)) for table in tables]
    for table in tables:
        table.sparse = True
    try:
        yield
    finally:
        for table, hook in zip(tables, hooks, strict=True):
            table.sparse = False
            hook.remove()


def _with_gradient(table: nn.Module, inputs: Any, *, room: dict[nn.Parameter, Tensor]) -> None:
    """Give the table a gradient of zeros: a sparse one is added to a dense one in place, row by row."""
    weight: Any = table.weight
    if weight.requires_grad and weight.grad is None and torch.is_grad_enabled():
        if weight not in room:
            room[weight] = torch.zeros_like(weight)
        weight.grad = room[weight].zero_()
