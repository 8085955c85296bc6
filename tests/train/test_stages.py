"""Rates are arithmetic of the step, and each parameter learns in exactly one group."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from headrace.train.stages import (
    Stage,
    build_optimizer,
    momentum,
    parameter_groups,
    rate_factor,
    set_rates,
    warmup_steps,
)


def groups() -> list[tuple[str, list[nn.Parameter]]]:
    def pair(n: int) -> list[nn.Parameter]:
        return [nn.Parameter(torch.ones(n, n)), nn.Parameter(torch.ones(n))]

    return [("embeddings", pair(2)), ("layer 0", pair(3)), ("layer 1", pair(4)), ("head", pair(5))]


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [(0.1, 10), (0, 0), (0.0, 0), (7, 7), (500, 100), ("0.33 epochs", 8), ("1 epoch", 25), ("10 epochs", 100), (1, 1)],
)
def test_warmup_is_a_share_steps_or_epochs(warmup: float | int | str, expected: int) -> None:
    assert warmup_steps(warmup, n_steps=100, steps_per_epoch=25) == expected


def test_linear_climbs_over_the_warmup_and_falls_to_zero() -> None:
    found = [rate_factor("linear", step, n_steps=10, n_warmup=4) for step in range(10)]
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[4:] == pytest.approx([1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_cosine_is_half_way_in_the_middle() -> None:
    assert rate_factor("cosine", 50, n_steps=100, n_warmup=0) == pytest.approx(0.5)
    assert rate_factor("cosine", 25, n_steps=100, n_warmup=0) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


def test_constant_stays_at_the_peak_after_its_warmup() -> None:
    assert [rate_factor("constant", s, n_steps=5, n_warmup=2) for s in range(5)] == [0.5, 1.0, 1.0, 1.0, 1.0]


def test_one_cycle_starts_at_a_25th_peaks_and_ends_near_zero() -> None:
    found = [rate_factor("one_cycle", step, n_steps=101, n_warmup=25) for step in range(101)]
    assert found[0] == pytest.approx(1 / 25)
    assert found[25] == pytest.approx(1.0)
    assert max(found) == found[25]
    assert found[100] < 1e-2
    assert rate_factor("one_cycle", 101, n_steps=101, n_warmup=25) == pytest.approx(1e-5)


def test_one_cycle_momentum_mirrors_the_rate_and_others_leave_it_alone() -> None:
    assert momentum("one_cycle", 0, n_steps=100, n_warmup=25) == pytest.approx(0.95)
    assert momentum("one_cycle", 25, n_steps=100, n_warmup=25) == pytest.approx(0.85)
    assert momentum("linear", 3, n_steps=100, n_warmup=25) is None


def test_layer_decay_multiplies_once_per_group_downwards() -> None:
    found = parameter_groups(groups(), Stage(learning_rate=1e-2, layer_decay=0.5))
    rates = {group["name"]: group["lr"] for group in found}
    assert rates == pytest.approx({"head": 1e-2, "layer 1": 5e-3, "layer 0": 2.5e-3, "embeddings": 1.25e-3})


def test_each_parameter_is_in_one_group_and_vectors_do_not_decay() -> None:
    made = groups()
    found = parameter_groups(made, Stage(weight_decay=0.1))
    ids = [id(p) for group in found for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for _, parameters in made for p in parameters)
    for group in found:
        assert group["weight_decay"] == (0.0 if group["params"][0].ndim == 1 else 0.1)


def test_adam_has_no_decay() -> None:
    optimizer = build_optimizer(groups(), Stage(optimizer="adam", weight_decay=0.1))
    assert type(optimizer) is torch.optim.Adam
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}


def test_set_rates_gives_each_group_its_share_of_the_curve() -> None:
    stage = Stage(learning_rate=1.0, layer_decay=0.1, schedule="one_cycle")
    optimizer = build_optimizer(groups(), stage)
    set_rates(optimizer, stage, 25, n_steps=100, n_warmup=25)
    assert {g["name"]: g["lr"] for g in optimizer.param_groups} == pytest.approx(
        {"head": 1.0, "layer 1": 0.1, "layer 0": 0.01, "embeddings": 0.001}
    )
    assert [g["betas"][0] for g in optimizer.param_groups] == pytest.approx([0.85] * len(optimizer.param_groups))
