"""Drawn dropout has the model's rates and independent masks, and changes nothing outside training."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from headrace.backbones import transformer
from headrace.backbones._drawn import DrawnDropout, Draws, keep_mask
from headrace.backbones._interface import attention
from headrace.text.batch import Batch
from tiny import FAMILIES, tiny_folder

N = 400_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.5, 0.99])
def test_the_rate_and_the_scale_are_those_asked_for(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    mask = keep_mask(torch.Size((4, N // 4)), rate, dtype)
    assert (mask.dtype, mask.shape) == (dtype, (4, N // 4))
    share = float((mask == 0).float().mean())
    assert share == pytest.approx(rate, abs=4 * (rate * (1 - rate) / N) ** 0.5 + 1e-5)
    kept = mask[mask != 0].float()
    assert float(kept.min()) == float(kept.max())
    # one rounding of the type: torch's own dropout has the same
    assert float(kept.max()) == pytest.approx(1 / (1 - rate), rel={torch.float32: 2e-3}.get(dtype, 6e-3))


def test_masks_are_a_function_of_the_seed_and_never_repeat() -> None:
    def draw() -> torch.Tensor:
        return keep_mask(torch.Size((1000,)), 0.5, torch.float32)

    torch.manual_seed(7)
    first, second = draw(), draw()
    torch.manual_seed(7)
    assert torch.equal(first, draw())
    assert not torch.equal(first, second)


def test_masks_are_uncorrelated_within_and_between_draws() -> None:
    torch.manual_seed(1)
    first, second = (keep_mask(torch.Size((N,)), 0.5, torch.float32).numpy() for _ in range(2))
    for a, b in ((first, second), (first[:-1], first[1:]), (first[:-4], first[4:])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / N**0.5


def deviation(*levels: torch.Tensor) -> float:
    """Return how far the joint counts of the levels' first three bits are from equal ones, in standard deviations."""
    cells = np.zeros(len(levels[0]), dtype=np.int64)
    for one in levels:
        cells = (cells << 3) | ((one.numpy().astype(np.int64) + (1 << 15)) >> 13)
    counts = np.bincount(cells, minlength=8 ** len(levels))
    free = len(counts) - 1
    return float(((counts - counts.mean()) ** 2).sum() / counts.mean() - free) / (2 * free) ** 0.5


def test_levels_are_uniform_and_independent_of_each_other() -> None:
    torch.manual_seed(3)
    draws, other = Draws(0.1), Draws(0.1)
    first, second, third = (draws._levels(torch.Size((N,))) for _ in range(3))
    beside = other._levels(torch.Size((N,)))
    assert abs(deviation(first)) < 5
    for slot in range(4):  # each generator gives four levels
        assert abs(deviation(first[slot::4])) < 5
        assert abs(deviation(first[slot::4], second[slot::4])) < 5
    assert abs(deviation(first << 8)) < 5
    assert abs(deviation(first[:-1], first[1:])) < 5
    assert abs(deviation(first[:-4], first[4:])) < 5
    assert abs(deviation(first, second, third)) < 5
    assert abs(deviation(first, beside)) < 5
    # the same levels moved on by one would be seen
    assert deviation(first, first) > 100


@pytest.mark.parametrize("sizes", [(7, 4000, 12), (1 << 20, (1 << 20) + 5, 3 << 20)])
def test_a_stream_is_the_same_from_its_beginning_and_no_part_of_it_comes_twice(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(4)
    draws = Draws(0.5)
    first = [draws.kept(torch.Size((n,))) for n in sizes]
    again = draws.again()
    assert all(torch.equal(one, again.kept(torch.Size((n,)))) for one, n in zip(first, sizes, strict=True))
    for a, b in itertools.combinations(first, 2):
        n = min(len(a), len(b))
        assert abs(float((a[:n] == b[:n]).float().mean()) - 0.5) < 4 * 0.5 / n**0.5 + (n < 10)


def test_what_is_dropped_is_what_is_not_kept() -> None:
    torch.manual_seed(5)
    draws = Draws(0.3)
    kept, dropped = draws.kept(torch.Size((1000,))), draws.again().dropped(torch.Size((1000,)))
    assert torch.equal(kept + dropped, torch.ones(1000, dtype=torch.int16))


def test_dropout_module_is_the_identity_outside_training_and_at_rate_zero() -> None:
    values = torch.randn(3, 5)
    assert torch.equal(DrawnDropout(0.5).eval()(values), values)
    assert torch.equal(DrawnDropout(0.0).train()(values), values)


def test_attention_averages_to_the_one_without_dropout() -> None:
    torch.manual_seed(2)
    query, key, value = (torch.randn(2, 2, 6, 8) for _ in range(3))
    module = nn.Module()
    module.is_causal = False
    plain, _ = attention(module.eval(), query, key, value, None, dropout=0.2)
    module.train()
    drawn = torch.stack([attention(module, query, key, value, None, dropout=0.2)[0] for _ in range(3000)])
    assert float((drawn.mean(0) - plain).abs().max()) < 0.08
    assert float(drawn.std(0).mean()) > 0.1


def batch(n_tokens: int = 9) -> Batch:
    ids = torch.randint(6, 30, (3, n_tokens))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return Batch(ids, mask, torch.zeros_like(ids), torch.arange(3))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_trains_with_it_and_is_itself_afterwards(family: str, tmp_path: Path) -> None:
    backbone = transformer.load(str(tiny_folder(tmp_path, family)), dropout=0.1)
    given = batch()
    with torch.no_grad():
        before = backbone.eval()(given)
    backbone.train_on_cpu()
    backbone.train()
    torch.manual_seed(0)
    first, second = backbone(given), backbone(given)
    torch.manual_seed(0)
    again = backbone(given)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    first.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in backbone.parameters() if p.grad is not None)
    with torch.no_grad():
        during = backbone.eval()(given)
    backbone.end_training()
    with torch.no_grad():
        after = backbone(given)
    real = given.attention_mask.bool()
    assert float((during - before)[real].abs().max()) <= 1e-5
    assert torch.equal(after, before)
