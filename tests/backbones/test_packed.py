"""Texts laid end to end give the numbers of padded ones: hidden states, gradients, statistics of dropout."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from headrace import compiled
from headrace.backbones import _attention, _layers, transformer
from headrace.backbones._attention import packed_attention
from headrace.backbones._drawn import DrawnDropout, drawn_dropout
from headrace.backbones._packed import Packed, group_borders
from tiny import FAMILIES, tiny_folder
from tiny_models import PAD_IDS, make_batch

PACKED = tuple(family for family in FAMILIES if family != "deberta-v2")  # its attention cannot be exchanged
LENGTHS = [9, 30, 12, 12, 29, 5, 1]


@pytest.fixture(autouse=True, params=["compiled", "torch"])
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With compiled loops, and with torch's passes where there are none."""
    if request.param == "torch":
        monkeypatch.setattr(compiled, "are_there", lambda: False)
    elif not compiled.are_there():
        pytest.skip("no compiled loops here: no numba, or torch has no OpenMP")


def backbone(tmp_path: Path, family: str) -> transformer.Transformer:
    return transformer.load(str(tiny_folder(tmp_path, family)))


def without_dropout(model: transformer.Transformer) -> transformer.Transformer:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout_prob"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def same_gradients(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        grad = expected[name].grad
        assert (parameter.grad is None) == (grad is None), name
        if grad is not None and parameter.grad is not None:
            assert float((parameter.grad - grad).abs().max()) < 1e-5 * max(1.0, float(grad.abs().max())), name


@pytest.mark.parametrize("family", PACKED)
@pytest.mark.parametrize("lengths", [LENGTHS, [7, 7, 7], [33], [3, 31]], ids=str)
def test_hidden_states_and_gradients_are_those_of_the_padded_model(
    family: str, lengths: list[int], tmp_path: Path
) -> None:
    packed, padded = (without_dropout(backbone(tmp_path, family)) for _ in range(2))
    packed.train().train_on_cpu()
    padded.train()
    assert packed.packs
    batch = make_batch(lengths, pad_id=PAD_IDS[family])
    real = batch.attention_mask.bool()
    found, expected = packed(batch), padded(batch)
    assert float((found - expected).detach()[real].abs().max()) < 1e-5
    assert float(found.detach()[~real].abs().sum()) == 0.0
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(3)) * real.unsqueeze(-1)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    same_gradients(packed, padded)


@pytest.mark.parametrize("family", PACKED)
def test_logits_and_gradients_of_the_familys_own_head_are_those_of_the_padded_model(
    family: str, tmp_path: Path
) -> None:
    folder = str(tiny_folder(tmp_path, family))
    made = []
    for _ in range(2):
        torch.manual_seed(1)  # of the new head
        made.append(transformer.load_native(folder, labels=("a", "b", "c")))
    packed, padded = (without_dropout(model).train() for model in made)
    packed.train_on_cpu()
    assert packed.packs
    batch = make_batch(LENGTHS, pad_id=PAD_IDS[family])
    with counted(packed.encoder) as widths:
        found = packed.logits(batch)
    assert widths == [sum(LENGTHS)]
    expected = padded.logits(batch)
    assert float((found - expected).detach().abs().max()) < 1e-5
    for logits in (found, expected):
        torch.nn.functional.cross_entropy(logits, torch.arange(7) % 3, reduction="sum").backward()
    same_gradients(packed, padded)
    apart = (packed.eval().logits(batch) - padded.eval().logits(batch)).abs()
    assert float(apart.detach().max()) < 1e-5


@contextmanager
def counted(encoder: torch.nn.Module) -> Iterator[list[int]]:
    """Yield the widths of the texts that the encoder is given."""
    widths: list[int] = []
    hook = encoder.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append((args or [kwargs["input_ids"]])[0].shape[1]), with_kwargs=True
    )
    yield widths
    hook.remove()


@pytest.mark.parametrize("native", [False, True], ids=["plain", "native"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "electra"])
def test_where_the_first_token_is_asked_for_the_last_layer_computes_little_else(
    family: str, native: bool, tmp_path: Path
) -> None:
    folder = str(tiny_folder(tmp_path, family))
    made: list[transformer.Transformer] = []
    for _ in range(2):
        torch.manual_seed(1)
        own = transformer.load_native(folder, labels=("a", "b")) if native else transformer.load(folder)
        made.append(without_dropout(own).train())
    narrow, padded = made
    keys = set(narrow.state_dict())
    narrow.first_alone = True
    narrow.train_on_cpu()
    assert set(narrow.state_dict()) == keys
    batch = make_batch(LENGTHS, pad_id=PAD_IDS[family])
    last = _layers.layer_list(narrow.encoder)[1][-1]
    seen: list[int] = []
    hook = last.register_forward_hook(lambda module, args, answer: seen.append(numbers(answer)))

    def answer(model: transformer.Transformer) -> torch.Tensor:
        return model.logits(batch) if native else model(batch)[:, 0]

    found, expected = answer(narrow), answer(padded)
    hook.remove()
    assert seen == [len(LENGTHS) * narrow.width], "one token of each text"
    assert float((found - expected).detach().abs().max()) < 1e-5
    for one in (found, expected):
        (one * torch.linspace(-1, 1, one.numel()).view(one.shape)).sum().backward()
    same_gradients(narrow, padded)
    if not native:
        assert narrow.split_layers() == 1
        narrow.end_training()
        assert torch.allclose(narrow.eval()(batch), padded.eval()(batch), atol=1e-5)


def numbers(answer: torch.Tensor | tuple[torch.Tensor, ...]) -> int:
    return (answer[0] if isinstance(answer, tuple) else answer).numel()


def test_a_head_that_cannot_follow_is_padded(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path, "modernbert")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "classifier_pooling": "mean"}), "utf-8")
    model = transformer.load_native(str(folder), labels=("a", "b")).train()
    model.train_on_cpu()
    assert not model.packs
    assert model.logits(make_batch(LENGTHS)).shape == (7, 2)


def test_a_mask_is_gone_after_the_backward_pass() -> None:
    packed, inputs = three_texts(torch.float32)
    leaves = [tensor.requires_grad_() for tensor in inputs]
    attended = packed_attention(*leaves, packed, scale=0.7, dropout=0.3, window=None)
    for result in (attended, drawn_dropout(leaves[0], 0.3)):
        loss = result.sum()
        loss.backward()
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            loss.backward()


def test_a_family_without_such_a_place_computes_all(tmp_path: Path) -> None:
    model = backbone(tmp_path, "modernbert").train()
    model.first_alone = True
    model.train_on_cpu()
    assert model.packs
    assert not model._narrow


def test_deberta_is_padded_and_itself(tmp_path: Path) -> None:
    model = backbone(tmp_path, "deberta-v2").train()
    model.train_on_cpu()
    assert not model.packs


def test_validation_is_that_of_the_padded_model_and_the_end_of_training_is_padded(tmp_path: Path) -> None:
    model, padded = backbone(tmp_path, "bert"), backbone(tmp_path, "bert").eval()
    model.train().train_on_cpu()
    batch = make_batch(LENGTHS)
    model.eval()
    real = batch.attention_mask.bool()
    assert float((model(batch) - padded(batch))[real].abs().max().detach()) < 1e-5
    model.end_training()
    assert not model.packs
    assert torch.equal(model(batch), padded(batch))


def test_trying_it_draws_nothing_and_leaves_no_gradient(tmp_path: Path) -> None:
    model = backbone(tmp_path, "bert").train()
    before = torch.get_rng_state()
    model.train_on_cpu()
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_dropout_averages_to_the_attention_without_it_and_never_repeats_a_mask() -> None:
    torch.manual_seed(0)
    mask = (torch.arange(6) < torch.tensor([6, 5, 2])[:, None]).long()
    packed = Packed.of(mask)
    query, key, value = (torch.randn(1, 2, 13, 4) for _ in range(3))

    def once(dropout: float) -> torch.Tensor:
        return packed_attention(query, key, value, packed, scale=0.5, dropout=dropout, window=None)

    drawn = torch.stack([once(0.2) for _ in range(3000)])
    assert float((drawn.mean(0) - once(0.0)).abs().max()) < 0.08
    assert float(drawn.std(0).mean()) > 0.1
    assert not any(torch.equal(first, second) for first, second in itertools.pairwise(drawn[:20]))


LENGTHS_OF_THREE = torch.tensor([6, 5, 2])


@pytest.fixture(params=[1, pytest.param(60, marks=pytest.mark.slow), 1 << 20], ids=lambda cells: f"{cells}-cells")
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One head a piece, some heads, all of them."""
    monkeypatch.setattr(_attention, "PIECE_CELLS", request.param)


def three_texts(dtype: torch.dtype, even: int = 1) -> tuple[Packed, list[torch.Tensor]]:
    packed = Packed.of((torch.arange(6) < LENGTHS_OF_THREE[:, None]).long(), even=even)
    drawn = torch.Generator().manual_seed(4)
    return packed, [torch.randn(1, 2, 13, 4, generator=drawn, dtype=torch.float64).to(dtype) for _ in range(3)]


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("even", [1, 4])
def test_the_gradient_is_that_of_the_attention_with_its_mask(even: int, dropout: float, window: int | None) -> None:
    packed, inputs = three_texts(torch.float64, even)

    def attend(*inputs: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(9)
        return packed_attention(*inputs, packed, scale=0.7, dropout=dropout, window=window)

    torch.autograd.gradcheck(attend, [tensor.requires_grad_() for tensor in inputs])


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("even", [1, 4, 32])
def test_each_text_attends_to_itself_alone(even: int, window: int | None) -> None:
    packed, inputs = three_texts(torch.float32, even)
    found = packed_attention(*inputs, packed, scale=0.7, dropout=0.0, window=window)
    for start, length in zip([0, 6, 11], LENGTHS_OF_THREE.tolist(), strict=True):
        query, key, value = (tensor[0, :, start : start + length] for tensor in inputs)
        scores = 0.7 * query @ key.transpose(1, 2)
        if window is not None:
            places = torch.arange(length)
            scores = scores.masked_fill((places[:, None] - places).abs() >= window, float("-inf"))
        expected = (torch.softmax(scores, dim=-1) @ value).transpose(0, 1)
        assert float((found[0, start : start + length] - expected).abs().max()) < 1e-6


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_the_same_but_for_its_rounding(autocast: bool) -> None:
    packed, inputs = three_texts(torch.float32)

    def gradients(inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        torch.manual_seed(9)
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        output = packed_attention(*leaves, packed, scale=0.7, dropout=0.3, window=None)
        return [output.detach(), *torch.autograd.grad(output.float().square().sum(), leaves)]

    expected = gradients(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        found = gradients(inputs if autocast else [tensor.bfloat16() for tensor in inputs])
    assert found[0].dtype == torch.bfloat16
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours.float() - theirs).abs().max()) < 0.03 * float(theirs.abs().max())


def test_a_step_draws_each_layers_masks_anew(tmp_path: Path) -> None:
    model = backbone(tmp_path, "bert").train()
    model.train_on_cpu()
    assert any(isinstance(module, DrawnDropout) for module in model.modules())
    batch = make_batch(LENGTHS)
    torch.manual_seed(5)
    first, second = model(batch), model(batch)
    torch.manual_seed(5)
    assert torch.equal(first, model(batch))
    assert not torch.equal(first, second)


def test_groups_have_even_rows_where_it_is_asked_for() -> None:
    lengths = torch.tensor([70, 70, 64, 40, 33, 30, 3])
    mask = (torch.arange(70) < lengths[:, None]).long()
    packed = Packed.of(mask, even=32)
    assert {group.width for group in packed.groups} <= {96, 64, 32}
    assert packed.groups[-1].ended is not None
    plain = Packed.of(mask)
    assert torch.equal(plain.tokens, packed.tokens)
    assert {group.width for group in plain.groups} <= set(lengths.tolist())


def test_packed_tokens_come_in_few_sizes_filled_up_with_padding() -> None:
    sizes = set()
    for last in range(1, 201):
        mask = (torch.arange(200) < torch.tensor([200] * 9 + [last])[:, None]).long()
        packed = Packed.of(mask)
        n_real = 1800 + last
        sizes.add(len(packed.tokens))
        assert n_real <= len(packed.tokens) <= 1.02 * n_real or last == 200
        assert packed.groups[-1].stop == n_real
        if last < 200:
            assert not mask.reshape(-1)[packed.tokens[n_real:]].any()
        assert (packed.positions == 0).sum() == 10
        rows = torch.randn(1, len(packed.tokens), 3)
        assert torch.equal(packed.take_rows(packed.put(rows, mask))[:, :n_real], rows[:, :n_real])
    assert len(sizes) <= 8


def test_padding_among_packed_tokens_gets_no_attention_and_no_gradient() -> None:
    mask = (torch.arange(90) < torch.tensor([90, 59, 30])[:, None]).long()
    packed = Packed.of(mask)
    n_real, n_rows = 179, len(packed.tokens)
    assert n_rows == 180
    inputs = [torch.randn(1, 2, n_rows, 4, requires_grad=True) for _ in range(3)]
    with torch.no_grad():
        for tensor in inputs:
            tensor[:, :, n_real:] = float("nan")
    output = packed_attention(*inputs, packed, scale=0.5, dropout=0.1, window=None)
    assert torch.equal(output[:, n_real:], torch.zeros(1, 1, 2, 4))
    assert not output.isnan().any()
    output.square().sum().backward()
    for tensor in inputs:
        assert tensor.grad is not None
        assert torch.equal(tensor.grad[:, :, n_real:], torch.zeros(1, 2, 1, 4))
        assert float(tensor.grad[:, :, :n_real].abs().min()) > 0


def test_pieces_have_few_sizes_and_cover_all_heads() -> None:
    sizes: dict[int, set[int]] = {}
    for width in range(32, 513, 32):
        for n_texts in range(1, 65):
            found = list(_attention._piece_sizes(n_texts, 12, width))
            assert sum(found) == 12 * n_texts
            assert max(found) == found[0]
            assert all(size * width**2 <= _attention.PIECE_CELLS or size == 1 for size in found)
            sizes.setdefault(width, set()).update(found)
    assert sum(len(found) for found in sizes.values()) < 40
    assert list(_attention._piece_sizes(2, 7, 2048)) == [1] * 14


@pytest.mark.parametrize("seed", range(6))
def test_the_groups_hold_each_text_once_and_cost_least(seed: int) -> None:
    lengths = np.sort(np.random.default_rng(seed).integers(1, 200, size=9))[::-1]
    borders = group_borders(lengths)
    assert [first for first, _ in borders] == [0, *(stop for _, stop in borders[:-1])]
    assert borders[-1][1] == len(lengths)

    def cost(cuts: tuple[int, ...]) -> int:
        edges = [0, *cuts, len(lengths)]
        return sum(2_000 + (b - a) * int(lengths[a]) ** 2 for a, b in itertools.pairwise(edges))

    every = (c for n in range(len(lengths)) for c in itertools.combinations(range(1, len(lengths)), n))
    assert cost(tuple(stop for _, stop in borders[:-1])) == min(map(cost, every))


def test_what_is_taken_comes_back_to_its_place() -> None:
    batch = make_batch(LENGTHS)
    packed = Packed.of(batch.attention_mask)
    taken = packed.take(batch.input_ids)
    assert taken.shape == (1, sum(LENGTHS))
    back = packed.put(taken.unsqueeze(-1).float(), batch.attention_mask)
    assert torch.equal(back[..., 0].long(), batch.input_ids * batch.attention_mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_stays_so_through_dropout(dtype: torch.dtype, dropout: float, broken: float) -> None:
    packed, inputs = three_texts(dtype)
    leaves = [tensor.clone() for tensor in inputs]
    leaves[0][0, 0, 0, 0] = broken
    leaves = [tensor.requires_grad_() for tensor in leaves]
    found = packed_attention(*leaves, packed, scale=0.7, dropout=dropout, window=None)
    assert not bool(torch.isfinite(found).all())
    found.float().sum().backward()
