"""Linear layers with laid-out weights give autocast's products and gradients, and follow their weights."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from headrace import matmul
from headrace.backbones import _laid_linear
from headrace.backbones._laid_linear import LaidLinear

N_TOKENS = 300


@pytest.fixture(autouse=True)
def needs_such_products() -> None:
    if not matmul.lays_out():
        pytest.skip("torch has no laid-out products in bfloat16 on this processor")


def layers(*, bias: bool = True) -> tuple[nn.Linear, LaidLinear]:
    """Return a linear layer, and a laid one with the same weights."""
    torch.manual_seed(0)
    plain = nn.Linear(64, 96, bias=bias)
    laid = nn.Sequential(copy.deepcopy(plain))
    _laid_linear.exchange(laid)
    assert type(laid[0]) is LaidLinear
    return plain, laid[0]


def narrow() -> AbstractContextManager[None]:
    return torch.autocast("cpu", torch.bfloat16)


def learnt(layer: nn.Linear, given: Tensor, above: Tensor) -> tuple[Tensor, ...]:
    """Return the product under autocast, and the gradients of the input, the weight and the bias."""
    given = given.clone().requires_grad_()
    layer.zero_grad()
    with narrow(), _laid_linear.weights_stand():
        output = layer(given)
    output.backward(above)
    assert given.grad is not None
    gradients = [one.grad for one in layer.parameters() if one.grad is not None]
    assert all(gradient.dtype == torch.float32 for gradient in gradients)
    return output.detach(), given.grad, *gradients


def some(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(1, N_TOKENS, 64, dtype=dtype), torch.randn(1, N_TOKENS, 96).bfloat16()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_products_and_gradients_are_autocasts(bias: bool, dtype: torch.dtype) -> None:
    plain, laid = layers(bias=bias)
    found, expected = learnt(laid, *some(dtype)), learnt(plain, *some(dtype))
    assert len(found) == len(expected) == 3 + bias
    assert torch.equal(found[0], expected[0])
    for ours, torchs in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-2, atol=1e-2 * float(torchs.abs().mean()))


def test_a_weight_is_laid_out_once_where_it_stands_and_anew_where_it_may_have_changed() -> None:
    plain, laid = layers()
    given, above = some()
    optimizer = torch.optim.AdamW(laid.parameters(), lr=0.1, fused=True)  # leaves the weights' versions as they are
    for _ in range(3):
        plain.load_state_dict(laid.state_dict())
        found, expected = learnt(laid, given, above), learnt(plain, given, above)
        assert torch.equal(found[0], expected[0])
        torch.testing.assert_close(found[1], expected[1], rtol=1e-2, atol=1e-2)
        optimizer.step()
    with narrow(), _laid_linear.weights_stand():
        first = laid(given)
        with torch.no_grad():
            laid.weight.zero_()
        assert torch.equal(laid(given), first)
    with narrow(), _laid_linear.weights_stand():
        assert torch.equal(laid(given)[0, 0], laid.bias.bfloat16())


def test_gradients_of_several_passes_and_of_a_layer_that_is_called_twice_add_up() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(64, 64)
    laid = nn.Sequential(copy.deepcopy(plain))
    _laid_linear.exchange(laid)
    given, _ = some()
    for layer in (plain, laid):
        with narrow(), _laid_linear.weights_stand():
            for part in (given, -2.0 * given):
                layer(layer(part)).float().square().mean().backward()  # inside autocast, as Lightning does it
    assert plain.weight.grad is not None
    torch.testing.assert_close(laid[0].weight.grad, plain.weight.grad, rtol=2e-2, atol=1e-4)
    torch.testing.assert_close(laid[0].bias.grad, plain.bias.grad, rtol=2e-2, atol=1e-4)


def test_a_weight_that_is_made_anew_in_each_call_is_laid_out_anew() -> None:
    _, laid = layers()
    given, _ = some()
    nn.utils.parametrize.register_parametrization(laid, "weight", nn.Softplus())
    with narrow(), _laid_linear.weights_stand(), torch.no_grad():
        laid(given)
        laid.parametrizations.weight.original.fill_(-200.0)  # type: ignore[union-attr]
        assert torch.equal(laid(given)[0, 0], laid.bias.bfloat16())


def test_a_weight_that_is_fixed_gets_no_gradient_and_hands_it_on() -> None:
    plain, laid = layers()
    for layer in (plain, laid):
        layer.requires_grad_(False)
    found, expected = learnt(laid, *some()), learnt(plain, *some())
    assert len(found) == 2
    torch.testing.assert_close(found[1], expected[1], rtol=1e-2, atol=1e-2)
    assert laid.weight.grad is None


def test_nothing_is_laid_out_in_float32_or_of_few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, laid = layers()
    given, _ = some()
    made: list[nn.Linear] = []
    monkeypatch.setattr(_laid_linear, "_Laid", made.append)
    with _laid_linear.weights_stand():
        assert torch.equal(laid(given), plain(given))
        with narrow():
            assert torch.equal(laid(given[:, :5]), plain(given[:, :5]))
    with narrow():  # where nobody says that the weight stands
        assert torch.equal(laid(given), plain(given))
    assert not made


def test_a_restored_model_computes_as_it_did() -> None:
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 3))
    given, _ = some()
    with narrow():
        before = model(given)
    _laid_linear.exchange(model)
    assert [type(model[0]), type(copy.deepcopy(model)[2])] == [LaidLinear, LaidLinear]
    _laid_linear.restore(model)
    assert [type(model[0]), type(model[2])] == [nn.Linear, nn.Linear]
    with narrow(), _laid_linear.weights_stand():
        assert torch.equal(model(given), before)
