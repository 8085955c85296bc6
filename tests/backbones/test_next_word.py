"""The language model: loss, penalties, state, tied weights, groups."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from headrace.backbones import _awd_loss
from headrace.backbones._awd_layers import LANGUAGE_MODEL
from headrace.backbones._awd_loss import next_word_loss
from headrace.backbones._next_word import NextWordModel, build_next_word, load_next_word
from headrace.errors import ModelError

WORDS = [f"word{number}" for number in range(37)]
SMALL: dict[str, Any] = {"embedding_size": 6, "hidden_size": 10, "n_layers": 3}


def model(**settings: Any) -> NextWordModel:
    torch.manual_seed(0)
    found = load_next_word(words=WORDS, **{**SMALL, **settings})
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.normal_(std=0.5)
    return found


def tokens(n_streams: int = 4, n_tokens: int = 15, *, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, len(WORDS), (n_streams, n_tokens), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("at_a_time", [1 << 24, 37 * 7, 1])
def test_the_loss_and_its_gradients_are_those_of_cross_entropy(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_awd_loss, "_LOGITS_CPU", at_a_time)
    torch.manual_seed(0)
    inputs = [torch.randn(shape, requires_grad=True) for shape in ((25, 8), (37, 8), (37,))]
    targets = torch.randint(0, 37, (25,))
    hidden, table, bias = inputs
    logits = hidden @ table.T + bias
    targets[:9] = logits[:9].argmax(dim=1)
    expected = nn.functional.cross_entropy(logits, targets)
    loss, n_correct = next_word_loss(hidden, table, bias, targets)
    torch.testing.assert_close(loss, expected)
    assert n_correct == (logits.argmax(dim=1) == targets).sum() >= 9
    for found, wanted in zip(
        torch.autograd.grad(3 * loss, inputs), torch.autograd.grad(3 * expected, inputs), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("at_a_time", [160_000_000, 37 * 7, 1])
@pytest.mark.parametrize("rows", [1 << 22, 37 * 2])
def test_in_16_bits_loss_and_gradients_are_near_and_the_count_is_that_of_the_logits(
    at_a_time: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_awd_loss, "_NARROW_LOGITS_CPU", at_a_time)
    monkeypatch.setattr(_awd_loss, "_SOFTMAX_LOGITS", rows)
    torch.manual_seed(0)
    inputs = [torch.randn(shape).bfloat16().float().requires_grad_() for shape in ((25, 8), (37, 8), (37,))]
    targets = torch.randint(0, 37, (25,))
    hidden, table, bias = inputs
    logits = hidden @ table.T + bias
    targets[:9] = logits[:9].argmax(dim=1)
    expected = nn.functional.cross_entropy(logits, targets)
    with torch.autocast("cpu", torch.bfloat16):
        loss, n_correct = next_word_loss(hidden, table, bias, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=0.01, atol=0.0)
    assert n_correct == (logits.bfloat16().argmax(dim=1) == targets).sum() >= 8
    for found, wanted in zip(
        torch.autograd.grad(3 * loss, inputs), torch.autograd.grad(3 * expected, inputs), strict=True
    ):
        assert found.dtype == torch.float32
        assert (found - wanted).norm() < 0.01 * wanted.norm()


def test_in_16_bits_a_loss_without_gradients_has_odds_in_32() -> None:
    """The likeliest word has odds of 0.9989: in 16 bits that is 1, and the loss of the other is off by as much."""
    hidden, table, bias = torch.ones(1, 1), torch.tensor([[6.8125], [0.0]]), torch.zeros(2)
    expected = nn.functional.cross_entropy(torch.tensor([[6.8125, 0.0]]), torch.tensor([0]))
    losses = []
    for learns in (False, True):
        with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(learns):
            losses.append(next_word_loss(hidden.requires_grad_(), table, bias, torch.tensor([0]))[0].item())
    assert losses[0] == pytest.approx(float(expected), rel=1e-5)
    assert losses[1] == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_where_odds_are_in_32_bits_gradients_take_the_type_of_what_they_are_of(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, and in float16 everywhere."""
    monkeypatch.setattr(_awd_loss, "_narrow", _awd_loss._wide)
    torch.manual_seed(0)
    inputs = [torch.randn(shape, requires_grad=True) for shape in ((25, 8), (37, 8), (37,))]
    targets = torch.randint(0, 37, (25,))
    expected = nn.functional.cross_entropy(inputs[0] @ inputs[1].T + inputs[2], targets)
    with torch.autocast("cpu", dtype):
        loss, _ = next_word_loss(*inputs, targets)  # type: ignore[call-arg]
    torch.testing.assert_close(loss, expected, rtol=0.01, atol=0.0)
    for found, wanted in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True):
        assert (found - wanted).norm() < 0.02 * wanted.norm()


def test_in_16_bits_a_target_without_odds_has_a_finite_loss() -> None:
    hidden = torch.tensor([[200.0]], requires_grad=True)
    table, bias = torch.tensor([[1.0], [-1.0]]), torch.zeros(2)
    with torch.autocast("cpu", torch.bfloat16):
        loss, n_correct = next_word_loss(hidden, table, bias, torch.tensor([1]))
    loss.backward()
    assert (loss.item(), n_correct.item()) == (400.0, 0)
    torch.testing.assert_close(hidden.grad, torch.tensor([[2.0]]))


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_in_16_bits_only_gradients_that_are_asked_for_are_taken(frozen: int) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(shape).requires_grad_(n != frozen) for n, shape in enumerate(((5, 8), (37, 8), (37,)))]
    with torch.autocast("cpu", torch.bfloat16):
        next_word_loss(*inputs, torch.arange(5))[0].backward()  # type: ignore[call-arg]
    assert [tensor.grad is None for tensor in inputs] == [n == frozen for n in range(3)]


def test_a_loss_over_huge_logits_stays_finite_and_one_over_nothing_is_zero() -> None:
    hidden, table, bias = torch.full((3, 2), 1e4, requires_grad=True), torch.eye(2), torch.zeros(2)
    loss, _ = next_word_loss(hidden, 1e3 * table, bias, torch.tensor([0, 1, 0]))
    loss.backward()
    assert loss.isfinite()
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()
    assert next_word_loss(hidden[:0], table, bias, torch.zeros(0, dtype=torch.int64))[0] == 0


def test_frozen_parts_get_no_gradient_of_the_loss() -> None:
    hidden, table = torch.randn(5, 3), torch.randn(7, 3)
    bias = torch.zeros(7, requires_grad=True)
    loss, _ = next_word_loss(hidden, table, bias, torch.arange(5))
    loss.backward()
    assert bias.grad is not None
    assert hidden.grad is None
    assert table.grad is None


def test_the_state_carries_a_stream_over_chunks_and_is_cut_off_from_the_gradient() -> None:
    ours = model().eval()
    ids = tokens(n_tokens=31)
    whole = ours.learn(ids[:, :30], ids[:, 1:], ours.initial_state(4))
    first = ours.learn(ids[:, :12], ids[:, 1:13], ours.initial_state(4))
    second = ours.learn(ids[:, 12:30], ids[:, 13:], first.state)
    torch.testing.assert_close((12 * first.loss + 18 * second.loss) / 30, whole.loss)
    assert int(first.n_correct + second.n_correct) == int(whole.n_correct)
    assert (first.n_tokens, second.n_tokens) == (48, 72)
    for ours_after, theirs in zip(second.state, whole.state, strict=True):
        torch.testing.assert_close(ours_after, theirs, rtol=0, atol=1e-6)
    assert [[tuple(part.shape) for part in layer] for layer in first.state] == [[(4, 10)] * 2] * 2 + [[(4, 6)] * 2]
    assert not any(part.requires_grad for layer in first.state for part in layer)


def test_the_logits_of_the_next_word_are_those_that_learning_saw() -> None:
    ours = model().eval()
    ids = tokens()
    logits, state = ours.next_logits(ids[:, :14], ours.initial_state(4))
    assert logits.shape == (4, 37)
    assert logits.dtype == torch.float32
    one_more = ours.learn(ids[:, 14:], ids[:, :1], state)
    again = ours.learn(
        ids[:, :14], torch.cat([ids[:, 1:14], logits.argmax(dim=1)[:, None]], dim=1), ours.initial_state(4)
    )
    for left, right in zip(state, again.state, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-6)
    by_hand = nn.functional.cross_entropy(ours.next_logits(ids[:, 14:], state)[0], ids[:, 0])
    torch.testing.assert_close(one_more.loss, by_hand)


def test_the_penalty_is_ar_plus_tar_and_counts_in_training_alone() -> None:
    ours = model(drop_mult=0.0).train()
    ids = tokens()
    found = ours.learn(ids[:, :-1], ids[:, 1:], ours.initial_state(4))
    raw, _ = ours.backbone.read(ids[:, :-1], ours.initial_state(4))
    expected = 2 * raw.pow(2).mean() + (raw[:, 1:] - raw[:, :-1]).pow(2).mean()
    torch.testing.assert_close(found.penalty, expected)
    assert found.penalty.requires_grad
    one_token = ours.learn(ids[:, :1], ids[:, 1:2], ours.initial_state(4))
    torch.testing.assert_close(one_token.penalty, 2 * raw[:, :1].pow(2).mean())
    assert ours.eval().learn(ids[:, :-1], ids[:, 1:], ours.initial_state(4)).penalty == 0


def test_the_activation_penalty_sees_what_the_output_dropout_left() -> None:
    ours = model(drop_mult=1.0).train()
    ours.backbone.eval()  # no dropout but the one before the decoder
    ids = tokens(n_streams=200, n_tokens=2)
    raw, _ = ours.backbone.read(ids[:, :1], ours.initial_state(200))
    torch.manual_seed(5)
    found = ours.learn(ids[:, :1], ids[:, 1:], ours.initial_state(200))
    torch.manual_seed(5)
    torch.testing.assert_close(found.penalty, 2 * ours.output_dropout(raw).pow(2).mean())
    assert found.penalty > 2 * raw.pow(2).mean()  # 1 / 0.9 in the mean of squares


def test_embeddings_and_decoder_are_one_matrix_in_the_head_group() -> None:
    ours = model()
    names = [name for name, _ in ours.groups()]
    assert names == ["layer 0", "layer 1", "layer 2", "head"]
    grouped = [id(parameter) for _, parameters in ours.groups() for parameter in parameters]
    assert len(grouped) == len(set(grouped)) == 14
    assert set(grouped) == {id(parameter) for parameter in ours.parameters()}
    assert {id(parameter) for parameter in ours.groups()[-1][1]} == {id(ours.backbone.embedding.weight), id(ours.bias)}
    assert set(ours.state_dict()) == {"bias", *(f"backbone.{name}" for name in ours.backbone.state_dict())}


def test_a_new_model_has_a_language_models_dropouts_and_no_bias() -> None:
    ours = load_next_word(words=WORDS, drop_mult=0.3, **SMALL)
    assert ours.backbone.dropouts == LANGUAGE_MODEL.times(0.3)
    assert ours.output_dropout.rate == pytest.approx(0.03)
    assert not ours.bias.any()
    assert ours.kind == "next_word"


def test_it_learns_a_pattern() -> None:
    torch.manual_seed(0)
    ours = load_next_word(words=WORDS[:5], drop_mult=0.1, **SMALL)
    ids = torch.arange(60).remainder(5).repeat(4, 1)
    optimizer = torch.optim.Adam(ours.parameters(), 0.02)
    for _ in range(120):
        found = ours.learn(ids[:, :-1], ids[:, 1:], ours.initial_state(4))
        optimizer.zero_grad()
        (found.loss + found.penalty).backward()
        optimizer.step()
    done = ours.eval().learn(ids[:, :-1], ids[:, 1:], ours.initial_state(4))
    assert done.loss < 0.35  # log(5) is 1.6; of eight seeds the worst had 0.33
    assert done.n_correct > 0.95 * done.n_tokens


def test_the_config_builds_the_same_model_and_a_changed_one_is_refused() -> None:
    ours = model(direction="backward", drop_mult=0.4).eval()
    config = json.loads(json.dumps(ours.config(), allow_nan=False))
    again = build_next_word(config).eval()
    assert again.config() == ours.config()
    again.load_state_dict(ours.state_dict(), strict=True)
    ids = tokens()
    assert torch.equal(
        again.next_logits(ids, again.initial_state(4))[0], ours.next_logits(ids, ours.initial_state(4))[0]
    )
    for broken in ({**config, "kind": "masked_word"}, {"kind": "next_word"}, {**config, "backbone": {"backbone": "x"}}):
        with pytest.raises(ModelError):
            build_next_word(broken)
