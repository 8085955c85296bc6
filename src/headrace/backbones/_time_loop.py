"""A layer of LSTM on a CPU, word by word, with products in 16 bits, and sigmoids, tangents and cells in 32.

torch's own kernel carries the cell in 16 bits, too, so that small additions to it are lost, and goes back through the words
at half the speed of the way there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from headrace.matmul import ProductWith


def lstm(inputs: Tensor, output: Tensor, cell: Tensor, weights: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the outputs of a layer, [tokens, texts, size] of the inputs' type, and the cell after the last token.

    Args:
        inputs: [tokens, texts, width], at least one token.
        output: Before the first token, [texts, size], of the inputs' type.
        cell: Likewise, float32; so is the one that is returned. Of inputs in float64 both are float64.
        weights: Those of the input, [4 x size, width], the recurrent ones, [4 x size, size], and the sum of both biases,
            [4 x size], of the inputs' type; the gates in torch's order: input, forget, cell, output.

    Source: Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, as `torch.nn.LSTM` writes it down.
    """
    outputs, after = _Loop.apply(inputs, output, cell, *weights)  # type: ignore[no-untyped-call]
    return outputs, after


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, output: Tensor, cell: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Read the words one after the other; keep the gates, the cells and the outputs."""
        n_tokens, n_texts = inputs.shape[:2]
        size = cell.shape[1]
        gates = torch.addmm(bias, inputs.flatten(0, 1), weight_ih.t()).view(n_tokens, n_texts, 4 * size)
        cells = torch.cat([cell.unsqueeze(0), cell.new_empty(n_tokens, n_texts, size)])
        outputs = torch.cat([output.unsqueeze(0), output.new_empty(n_tokens, n_texts, size)])
        recurrent = ProductWith(weight_hh)
        wide, shown = cell.new_empty(n_texts, 4 * size), torch.empty_like(cell)
        lets_in, keeps, new, lets_out = wide.chunk(4, dim=1)
        lets_in_and_keeps = wide[:, : 2 * size]
        told, held, kept = outputs.unbind(), cells.unbind(), gates.unbind()
        for step in range(n_tokens):
            wide.copy_(recurrent.added(told[step], kept[step]))
            lets_in_and_keeps.sigmoid_()
            lets_out.sigmoid_()
            _tanh(new, out=new)
            kept[step].copy_(wide)  # for the backward pass, in place of what came from below: half of float32's memory
            torch.mul(keeps, held[step], out=held[step + 1]).addcmul_(lets_in, new)
            torch.mul(lets_out, _tanh(held[step + 1], out=shown), out=told[step + 1])
        ctx.save_for_backward(inputs, weight_ih, weight_hh, gates, cells, outputs)
        return outputs[1:], cells[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_outputs: Tensor, of_after: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all six, None of those that nobody asked for."""
        inputs, weight_ih, weight_hh, gates, cells, outputs = ctx.saved_tensors
        of_gates = torch.empty_like(gates)
        back = ProductWith(weight_hh.t())
        of_cell = of_after.clone()
        wide, of_wide = (of_cell.new_empty(gates.shape[1:]) for _ in range(2))
        lets_in, keeps, new, lets_out = wide.chunk(4, dim=1)
        of_in, of_keeps, of_new, of_out = of_wide.chunk(4, dim=1)
        one, other, shown, of_output = (torch.empty_like(of_cell) for _ in range(4))
        above, narrow, held, kept = (tensor.unbind() for tensor in (of_outputs, of_gates, cells, gates))
        for step in reversed(range(len(gates))):
            is_last = step + 1 == len(gates)
            of_output.copy_(above[step] if is_last else back.added(narrow[step + 1], above[step]))
            wide.copy_(kept[step])
            _tanh(held[step + 1], out=shown)
            # s (1 - s) is the sigmoid's slope, 1 - t^2 that of tanh; what both share is computed once
            torch.mul(of_output, lets_out, out=one)
            torch.mul(one, shown, out=other)
            torch.addcmul(other, other, lets_out, value=-1, out=of_out)
            of_cell.add_(one).addcmul_(other, shown, value=-1)
            torch.mul(of_cell, lets_in, out=one)
            torch.mul(one, new, out=other)
            torch.addcmul(one, other, new, value=-1, out=of_new)
            torch.addcmul(other, other, lets_in, value=-1, out=of_in)
            of_cell.mul_(keeps)
            torch.mul(of_cell, held[step], out=one)
            torch.addcmul(one, one, keeps, value=-1, out=of_keeps)
            narrow[step].copy_(of_wide)
        wants = ctx.needs_input_grad
        flat = of_gates.flatten(0, 1)
        return (
            (flat @ weight_ih).view(inputs.shape) if wants[0] else None,
            back(narrow[0]) if wants[1] else None,
            of_cell if wants[2] else None,
            flat.t() @ inputs.flatten(0, 1) if wants[3] else None,
            flat.t() @ outputs[:-1].flatten(0, 1) if wants[4] else None,
            flat.sum(dim=0) if wants[5] else None,
        )


def _tanh(values: Tensor, *, out: Tensor) -> Tensor:
    """Write the hyperbolic tangent by way of the sigmoid, which torch computes eight times as fast on a CPU."""
    return torch.mul(values, 2, out=out).sigmoid_().mul_(2).sub_(1)
