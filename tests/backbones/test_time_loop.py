"""Our own LSTM on a CPU: the numbers and gradients of torch's, and cells that stay in 32 bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from headrace import matmul
from headrace.backbones import _awd_layers
from headrace.backbones._awd_layers import DroppedLstm
from headrace.backbones._time_loop import lstm

TOKENS, TEXTS, WIDTH, SIZE = 7, 3, 5, 4


def given(dtype: torch.dtype, *, scale: float = 0.5) -> list[Tensor]:
    """Return inputs, output, cell, and the weights of input, recurrence and bias."""
    draw = torch.Generator().manual_seed(0)
    shapes = [(TOKENS, TEXTS, WIDTH), (TEXTS, SIZE), (TEXTS, SIZE), (4 * SIZE, WIDTH), (4 * SIZE, SIZE), (4 * SIZE,)]
    return [
        (scale * torch.randn(shape, generator=draw, dtype=torch.float64)).to(dtype).requires_grad_() for shape in shapes
    ]


def ours(inputs: Tensor, output: Tensor, cell: Tensor, *weights: Any) -> tuple[Tensor, Tensor]:
    return lstm(inputs, output, cell, weights)  # type: ignore[arg-type]


def of_torch(inputs: Tensor, output: Tensor, cell: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
    weight_ih, weight_hh, bias = weights
    state = output.unsqueeze(0), cell.unsqueeze(0)
    all_weights = [weight_ih, weight_hh, bias, torch.zeros_like(bias)]
    outputs, _, after = torch.lstm(inputs, state, all_weights, True, 1, 0.0, True, False, False)
    return outputs, after.squeeze(0)


@pytest.mark.parametrize("above", [(1.0, 0.0), (0.0, 1.0), (0.7, -0.4)], ids=["outputs", "cell", "both"])
def test_outputs_cell_and_all_gradients_are_those_of_torch(above: tuple[float, float]) -> None:
    tensors = given(torch.float64, scale=1.0)
    draw = torch.Generator().manual_seed(1)
    of_outputs = above[0] * torch.randn(TOKENS, TEXTS, SIZE, generator=draw, dtype=torch.float64)
    of_cell = above[1] * torch.randn(TEXTS, SIZE, generator=draw, dtype=torch.float64)
    results = []
    for run in (ours, of_torch):
        outputs, after = run(*tensors)
        gradients = torch.autograd.grad([outputs, after], tensors, [of_outputs, of_cell])
        results.append([outputs, after, *gradients])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_small_steps_and_only_those_asked_for_are_taken() -> None:
    tensors = given(torch.float64)
    assert torch.autograd.gradcheck(ours, tensors)
    for frozen in tensors:
        frozen.requires_grad_(False)
        outputs, _ = ours(*tensors)
        outputs.sum().backward()
        assert frozen.grad is None
        assert all(other.grad is not None for other in tensors if other is not frozen)
        for other in tensors:
            other.grad = None
        frozen.requires_grad_(True)


def test_no_text_has_no_output() -> None:
    inputs, output, cell, *weights = given(torch.float64)
    outputs, after = ours(inputs[:, :0], output[:0], cell[:0], *weights)
    assert (outputs.shape, after.shape) == ((TOKENS, 0, SIZE), (0, SIZE))
    (outputs.sum() + after.sum()).backward()
    assert float(sum(weight.grad.abs().sum() for weight in weights)) == 0.0


def test_one_token_is_read_too() -> None:
    inputs, *rest = given(torch.float64)
    found, expected = ours(inputs[:1], *rest), of_torch(inputs[:1], *rest)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(pair[0].sum(), rest) for pair in (found, expected)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("laid_out", [True, False])
def test_in_16_bits_products_are_rounded_and_the_cell_is_not(laid_out: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if laid_out and not matmul.lays_out():
        pytest.skip("torch has no such products here")
    monkeypatch.setattr(matmul, "lays_out", lambda: laid_out)
    exact = given(torch.float64)
    tensors = [(tensor if n == 2 else tensor.bfloat16()).detach() for n, tensor in enumerate(exact)]
    tensors[2] = tensors[2].float()
    for tensor in tensors:
        tensor.requires_grad_()
    outputs, after = ours(*tensors)
    assert (outputs.dtype, after.dtype) == (torch.bfloat16, torch.float32)
    wide = [tensor.detach().double().requires_grad_() for tensor in tensors]  # the same rounded numbers
    expected = of_torch(*wide)
    torch.testing.assert_close(outputs.double(), expected[0], rtol=0.02, atol=0.02)
    torch.testing.assert_close(after.double(), expected[1], rtol=0.02, atol=0.02)
    gradients = torch.autograd.grad(outputs.float().pow(2).sum(), tensors)
    for found, of_wide in zip(gradients, torch.autograd.grad(expected[0].pow(2).sum(), wide), strict=True):
        assert (found.double() - of_wide).norm() < 0.02 * of_wide.norm()


def test_over_many_words_a_cell_in_32_bits_counts_on() -> None:
    """Each word adds a thousandth: a cell of 8 bits' precision would stop at a half, where half a step is more."""
    n_words, size = 1000, 2
    bias = torch.tensor([20.0, 20.0, 0.001, 20.0]).repeat_interleave(size).bfloat16()  # gates open, new is 0.001
    nothing = [torch.zeros(4 * size, width, dtype=torch.bfloat16) for width in (1, size)]
    inputs, output = torch.zeros(n_words, 1, 1, dtype=torch.bfloat16), torch.zeros(1, size, dtype=torch.bfloat16)
    _, cell = lstm(inputs, output, torch.zeros(1, size), (*nothing, bias))  # type: ignore[arg-type]
    torch.testing.assert_close(cell, torch.full((1, size), 1.0), rtol=0.01, atol=0.0)


def test_a_layer_on_a_cpu_in_16_bits_uses_it_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*arguments: Any) -> tuple[Tensor, Tensor]:
        calls.append(arguments)
        return lstm(*arguments)

    monkeypatch.setattr(_awd_layers, "lstm", counted)
    torch.manual_seed(0)
    layer = DroppedLstm(WIDTH, SIZE, weight_dropout=0.0)
    hidden = torch.randn(TEXTS, TOKENS, WIDTH, requires_grad=True)
    state = torch.randn(TEXTS, SIZE), torch.randn(TEXTS, SIZE)
    wide, (last, cell) = layer(hidden, state)
    wide.sum().backward()
    expected = [parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None]
    layer.zero_grad()
    assert not calls
    with torch.autocast("cpu", torch.bfloat16):
        answers, _ = layer.eval()(hidden, state)
        narrow, (narrow_last, narrow_cell) = layer.train()(hidden, state)
        narrow.sum().backward()
    assert len(calls) == 2
    assert torch.equal(answers, narrow)  # nothing is dropped: training and evaluation compute alike
    assert (narrow.dtype, narrow_last.dtype, narrow_cell.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    for found, other in ((narrow.float(), wide), (narrow_last, last), (narrow_cell, cell)):
        torch.testing.assert_close(found, other, rtol=0.03, atol=0.03)
    for parameter, gradient in zip(layer.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert (parameter.grad - gradient).norm() < 0.03 * gradient.norm()
