"""Linear layers that learn in bfloat16 on a CPU, with a weight that is narrowed and laid out once an optimizer step.

oneDNN lays a weight out anew in every product, forward and back, and autocast as Lightning sets it narrows it anew in
every micro-batch. Between two steps of an optimizer a weight stands still; whoever knows this says so with `weights_stand`.
(A weight does not tell that it was changed: torch's fused optimizers leave its version as it was.) Its gradient is
float32, as autocast's is. (In float32 MiniLM gained a hundredth by laying out, and BERT's size would have held 0.7 GB more.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from headrace import matmul

# Of fewer tokens a product takes no longer than laying the weight out does.
_FEW_TOKENS = 256


class _Laid:
    """A layer's weight for the way ahead, its bias, and when it is asked for the weight for the input's gradient."""

    def __init__(self, layer: nn.Linear) -> None:
        self.weight = layer.weight
        self.ahead = matmul.lay_out(layer.weight.detach().to(torch.bfloat16))
        self.bias = None if layer.bias is None else layer.bias.detach().to(torch.bfloat16)
        self._back: Tensor | None = None

    def back(self) -> Tensor:
        if self._back is None:
            self._back = matmul.lay_out(self.weight.detach().to(torch.bfloat16).t().contiguous())
        return self._back


_LAID: ContextVar[dict[nn.Module, _Laid] | None] = ContextVar("laid", default=None)


@contextmanager
def weights_stand() -> Iterator[None]:
    """Inside the block no weight of a linear layer is changed, so that each is laid out once."""
    token = _LAID.set({})
    try:
        yield
    finally:
        _LAID.reset(token)


class LaidLinear(nn.Linear):
    """`nn.Linear` with the products of a laid-out weight under bfloat16 autocast on a CPU, inside `weights_stand`.

    Elsewhere it is itself. It is made by `exchange` out of a layer, whose parameters it keeps.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the product, [..., outputs]."""
        kept = _LAID.get()
        if kept is None or not self._is_worth_it(input):
            return super().forward(input)
        laid = kept.get(self)
        if laid is None or laid.weight is not self.weight:  # one that is computed anew in each call, as some norms do
            laid = kept[self] = _Laid(self)
        product: Tensor = _Product.apply(input.to(torch.bfloat16), self.weight, self.bias, laid)  # type: ignore[no-untyped-call]
        return product

    def _is_worth_it(self, input: Tensor) -> bool:
        return (
            torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16
            and input.device.type == self.weight.device.type == "cpu"
            and self.weight.dtype == torch.float32
            and input.numel() >= _FEW_TOKENS * self.in_features
        )


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, given: Tensor, weight: Tensor, bias: Tensor | None, laid: _Laid) -> Tensor:
        context.back = laid.back() if context.needs_input_grad[0] else None
        context.save_for_backward(given if context.needs_input_grad[1] else None)
        return matmul.times_laid_out(given, laid.ahead, laid.bias)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (above,) = gradients
        (given,) = context.saved_tensors
        d_given = None if context.back is None else matmul.times_laid_out(above, context.back, None)
        flat = above.flatten(0, -2)
        d_weight = None if given is None else (flat.t() @ given.flatten(0, -2)).float()
        d_bias = flat.sum(dim=0).float() if context.needs_input_grad[2] else None
        return d_given, d_weight, d_bias, None


def exchange(model: nn.Module) -> None:
    """Turn the linear layers of one model (in place, this object alone) into laid ones, where the machine has such products."""
    if matmul.lays_out():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = LaidLinear


def restore(model: nn.Module) -> None:
    """Make the model's linear layers what they were."""
    for module in model.modules():
        if type(module) is LaidLinear:
            module.__class__ = nn.Linear  # type: ignore[assignment]  # mypy holds it for what it was
