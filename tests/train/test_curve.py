"""The loss curve keeps a few hundred points of any length of training, and goes on after a restart."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from headrace.train.curve import MAX_POINTS, Curve


def curve(n_steps: int, *, restart_at: int | None = None) -> Curve:
    found = Curve()
    for step in range(1, n_steps + 1):
        found.add(step, loss=float(step), norm=1.0, rate=step / n_steps)
        if step == restart_at:
            found = Curve(**json.loads(json.dumps(asdict(found))))
    return found


def test_a_short_training_is_kept_step_by_step() -> None:
    assert curve(10).loss == [float(step) for step in range(1, 11)]


@pytest.mark.parametrize("n_steps", [399, 400, 401, 5_000, 100_003])
def test_a_long_training_stays_small_and_keeps_its_means(n_steps: int) -> None:
    found = curve(n_steps)
    assert MAX_POINTS / 2 - 1 <= len(found.steps) < MAX_POINTS
    for step, loss in zip(found.steps, found.loss, strict=True):
        assert loss == pytest.approx(step - (found.stride - 1) / 2)
    assert n_steps - found.steps[-1] == found.pending[0]


def test_a_restart_changes_nothing() -> None:
    assert curve(1_703, restart_at=1_000).as_dict([(0, {"head": 1.0})]) == curve(1_703).as_dict([(0, {"head": 1.0})])


def test_each_group_has_its_share_of_the_rate() -> None:
    rates = curve(4).as_dict([(0, {"head": 1.0, "layer 0": 0.5})])["rates"]
    assert rates == {"head": [0.25, 0.5, 0.75, 1.0], "layer 0": [0.125, 0.25, 0.375, 0.5]}
