"""The dropouts of an AWD-LSTM: what is dropped, how often, and what shares a mask."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from headrace.backbones._awd_layers import (
    CLASSIFIER,
    LANGUAGE_MODEL,
    Dropouts,
    DroppedLstm,
    VariationalDropout,
    WordDropout,
)
from headrace.errors import ModelError


def within(found: float, rate: float, n: int) -> bool:
    """Whether a share of n draws is within five standard deviations of its rate."""
    return abs(found - rate) < 5 * math.sqrt(rate * (1 - rate) / n)


def state(n_texts: int, size: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(n_texts, size), torch.zeros(n_texts, size)


def test_the_rates_are_fastais_times_drop_mult() -> None:
    assert Dropouts(embedding=0.05, input=0.4, hidden=0.3, weight=0.5, output=0.4) == CLASSIFIER
    assert Dropouts(embedding=0.02, input=0.25, hidden=0.15, weight=0.2, output=0.1) == LANGUAGE_MODEL
    assert CLASSIFIER.times(0.5) == Dropouts(embedding=0.025, input=0.2, hidden=0.15, weight=0.25, output=0.2)
    assert CLASSIFIER.times(0.0) == Dropouts(0.0, 0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(("factor", "what"), [(2.0, "weight dropout is 1,"), (-0.1, "embedding dropout is -0.005,")])
def test_a_factor_that_drops_everything_or_less_than_nothing_is_refused(factor: float, what: str) -> None:
    with pytest.raises(ModelError) as caught:
        CLASSIFIER.times(factor)
    assert what in caught.value.what
    assert caught.value.where == "backbone: drop_mult"
    assert caught.value.next == "a factor from 0 to 1.98"
    CLASSIFIER.times(1.98)


def test_variational_dropout_drops_the_same_features_at_every_token_and_others_in_another_text() -> None:
    torch.manual_seed(1)
    found = VariationalDropout(0.4).train()(torch.ones(200, 7, 50))
    assert torch.equal(found, found[:, :1].expand_as(found))
    assert found.unique().tolist() == pytest.approx([0.0, 1 / 0.6], rel=1e-4)
    assert within((found[:, 0] == 0).double().mean().item(), 0.4, 200 * 50)
    assert (found[0] != found[1]).any()


def test_word_dropout_drops_whole_rows_wherever_the_word_stands() -> None:
    torch.manual_seed(1)
    n_words = 5000
    ids = torch.stack([torch.randperm(n_words), torch.randperm(n_words)])
    found = WordDropout(n_words, 0.1).train()(torch.ones(2, n_words, 3), ids)
    assert torch.equal(found, found[:, :, :1].expand_as(found))
    by_word = [torch.zeros(n_words).index_put((ids[text],), found[text, :, 0]) for text in (0, 1)]
    assert torch.equal(by_word[0], by_word[1])
    assert within((by_word[0] == 0).double().mean().item(), 0.1, n_words)
    assert by_word[0].max().item() == pytest.approx(1 / 0.9, rel=1e-4)


def test_the_lstm_drops_recurrent_weights_anew_at_each_call_and_keeps_them_whole() -> None:
    torch.manual_seed(1)
    layer = DroppedLstm(4, 100, weight_dropout=0.3).train()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        # each candidate cell sees each output of the token before with weight one; gates at sigmoid(0)
        layer.weight_hh[200:300] = 1e-3
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    start = (torch.eye(100), torch.zeros(100, 100))
    shares = []
    for _ in range(2):
        output, _ = layer(torch.zeros(100, 1, 4), start)
        dropped = output[:, 0].abs() < 1e-9  # text i and cell j meet the one weight from i to j
        assert within(dropped.double().mean().item(), 0.3, 100 * 100)
        # kept ones are scaled: 0.5 (output gate) x tanh(0.5 (input gate) x tanh(0.001 / 0.7))
        assert output[:, 0][~dropped].unique().detach().numpy() == pytest.approx(0.25e-3 / 0.7, rel=1e-3)
        shares.append(dropped)
    assert (shares[0] != shares[1]).any()
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    assert set(before) == {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}


def test_the_lstm_without_dropout_is_torchs() -> None:
    torch.manual_seed(1)
    ours, theirs = DroppedLstm(5, 7, weight_dropout=0.5).eval(), nn.LSTM(5, 7, batch_first=True)
    theirs.load_state_dict({f"{name}_l0": tensor for name, tensor in ours.state_dict().items()})
    hidden, start = torch.randn(3, 11, 5), (torch.randn(3, 7), torch.randn(3, 7))
    expected, (last, cell) = theirs(hidden, (start[0][None], start[1][None]))
    found, after = ours(hidden, start)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(after, (last[0], cell[0]))


def test_a_gradient_reaches_the_kept_weights_alone() -> None:
    torch.manual_seed(1)
    layer = DroppedLstm(3, 40, weight_dropout=0.5).train()
    layer(torch.randn(8, 5, 3), state(8, 40))[0].square().sum().backward()
    assert layer.weight_hh.grad is not None
    assert within((layer.weight_hh.grad == 0).double().mean().item(), 0.5, layer.weight_hh.numel())


def test_bfloat16_is_what_autocast_asks_for_and_the_state_stays_float32() -> None:
    torch.manual_seed(1)
    layer = DroppedLstm(5, 7, weight_dropout=0.0).train()
    hidden = torch.randn(3, 11, 5)
    exact, _ = layer(hidden, state(3, 7))
    with torch.autocast("cpu", torch.bfloat16):
        found, after = layer(hidden, state(3, 7))
    assert found.dtype == torch.bfloat16
    assert [tensor.dtype for tensor in after] == [torch.float32, torch.float32]
    torch.testing.assert_close(found.float(), exact, rtol=0, atol=0.02)
    found.float().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize(
    "dropped",
    [
        lambda hidden: VariationalDropout(0.5).eval()(hidden),
        lambda hidden: WordDropout(9, 0.5).eval()(hidden, torch.zeros(2, 3, dtype=torch.int64)),
        lambda hidden: VariationalDropout(0.0).train()(hidden),
        lambda hidden: WordDropout(9, 0.0).train()(hidden, torch.zeros(2, 3, dtype=torch.int64)),
    ],
)
def test_nothing_is_dropped_in_evaluation_or_at_rate_zero(dropped: Callable[[Tensor], Tensor]) -> None:
    hidden = torch.randn(2, 3, 4)
    assert dropped(hidden) is hidden
