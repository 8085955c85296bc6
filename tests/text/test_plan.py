"""The plan is arithmetic: each row once an epoch, the same global batches for any number of processes."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import RecipeError
from headrace.text.batch import Plan, order
from headrace.text.plan import WINDOW_BATCHES, row_weights

SAMPLERS = ("random", "length_buckets", "balanced")
ROWS = st.integers(1, 400)
SIZES = st.integers(1, 50)
SEEDS = st.integers(0, 2**63)
EPOCHS = st.integers(0, 50)


def plan(sampler: str, n_rows: int, batch_size: int, seed: int) -> Plan:
    random = np.random.default_rng(n_rows)
    more: dict[str, Any] = {
        "random": {},
        "length_buckets": {"lengths": random.integers(1, 200, n_rows)},
        "balanced": {"targets": random.integers(0, 3, n_rows)},
    }[sampler]
    return Plan(n_rows, batch_size, seed, sampler, **more)


def epoch_rows(one: Plan, epoch: int) -> list[list[int]]:
    return [one.rows(epoch, step).tolist() for step in range(one.n_steps)]


@given(n_rows=ROWS, seed=SEEDS, epoch=EPOCHS)
def test_order_is_a_permutation_and_pure(n_rows: int, seed: int, epoch: int) -> None:
    found = order(n_rows, seed=seed, epoch=epoch)
    assert found.dtype == np.int64
    assert sorted(found.tolist()) == list(range(n_rows))
    assert found.tolist() == order(n_rows, seed=seed, epoch=epoch).tolist()


def test_order_is_the_same_on_every_machine_and_release() -> None:
    # Written down once: a change here breaks the resume of every run that exists.
    assert order(10, seed=13, epoch=0).tolist() == EXPECTED_ORDER
    assert order(10, seed=13, epoch=1).tolist() != EXPECTED_ORDER
    assert order(10, seed=14, epoch=0).tolist() != EXPECTED_ORDER


EXPECTED_ORDER = [9, 4, 1, 2, 3, 7, 8, 6, 0, 5]


@given(sampler=st.sampled_from(["random", "length_buckets"]), n_rows=ROWS, size=SIZES, seed=SEEDS, epoch=EPOCHS)
def test_each_row_comes_once_an_epoch_and_only_the_last_batch_is_short(
    sampler: str, n_rows: int, size: int, seed: int, epoch: int
) -> None:
    batches = epoch_rows(plan(sampler, n_rows, size, seed), epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(n_rows))
    assert len(batches) == -(-n_rows // size)
    assert all(len(batch) == size for batch in batches[:-1])
    assert len(batches[-1]) == (n_rows % size or size)


@pytest.mark.slow
@settings(max_examples=40)
@given(sampler=st.sampled_from(SAMPLERS), n_rows=ROWS, size=SIZES, seed=SEEDS, epoch=EPOCHS)
def test_one_to_sixteen_processes_share_the_same_global_batches(
    sampler: str, n_rows: int, size: int, seed: int, epoch: int
) -> None:
    alone = plan(sampler, n_rows, size, seed)
    for step in {0, alone.n_steps // 2, alone.n_steps - 1}:
        whole = alone.rows(epoch, step)
        for world in range(1, 17):
            joined = np.full(len(whole), -1)
            for rank in range(world):
                # each process has a plan of its own
                joined[rank::world] = plan(sampler, n_rows, size, seed).share(epoch, step, rank, world)
            assert joined.tolist() == whole.tolist()


@given(sampler=st.sampled_from(SAMPLERS), n_rows=ROWS, size=SIZES, seed=SEEDS, data=st.data())
def test_a_run_may_be_cut_at_any_step(sampler: str, n_rows: int, size: int, seed: int, data: st.DataObject) -> None:
    undisturbed = plan(sampler, n_rows, size, seed)
    steps = [(epoch, step) for epoch in range(3) for step in range(undisturbed.n_steps)]
    expected = [undisturbed.rows(*place).tolist() for place in steps]
    cut = data.draw(st.integers(0, len(steps)))
    before, after = plan(sampler, n_rows, size, seed), plan(sampler, n_rows, size, seed)
    found = [before.rows(*place).tolist() for place in steps[:cut]] + [
        after.rows(*place).tolist() for place in steps[cut:]
    ]
    assert found == expected
    assert pickle.loads(pickle.dumps(before)).rows(*steps[0]).tolist() == expected[0]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_epochs_and_seeds_differ_and_steps_may_be_asked_in_any_order(sampler: str) -> None:
    one = plan(sampler, 100, 8, 13)
    first, second = epoch_rows(one, 0), epoch_rows(one, 1)
    assert first != second
    assert epoch_rows(plan(sampler, 100, 8, 14), 0) != first
    assert [one.rows(epoch, 3).tolist() for epoch in (0, 1, 0)] == [first[3], second[3], first[3]]


def test_length_buckets_take_the_padding_out_and_stay_shuffled() -> None:
    lengths = np.random.default_rng(0).integers(10, 512, 64 * 120 + 7)
    bucketed, random = (
        Plan(len(lengths), 64, 13, sampler, lengths=lengths) for sampler in ("length_buckets", "random")
    )

    def padding_share(one: Plan) -> float:
        chosen = [lengths[one.rows(0, step)] for step in range(one.n_steps)]
        return 1 - sum(c.sum() for c in chosen) / sum(c.max() * len(c) for c in chosen)

    assert padding_share(random) > 0.4
    assert padding_share(bucketed) < 0.03
    longest = [int(lengths[bucketed.rows(0, step)].max()) for step in range(bucketed.n_steps - 1)]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3
    # a batch holds rows of one window of the permutation
    window = {
        row: place // (64 * WINDOW_BATCHES) for place, row in enumerate(order(len(lengths), seed=13, epoch=0).tolist())
    }
    for step in range(bucketed.n_steps - 1):
        assert len({window[row] for row in bucketed.rows(0, step).tolist()}) == 1


def test_the_short_last_batch_of_length_buckets_is_no_batch_of_long_texts() -> None:
    lengths = np.arange(1, 1004)
    one = Plan(1003, 10, 13, "length_buckets", lengths=lengths)
    last = [float(lengths[one.rows(epoch, one.n_steps - 1)].mean()) for epoch in range(200)]
    assert np.mean(last) == pytest.approx(502, abs=60)


def test_balanced_draws_each_label_equally_often() -> None:
    targets = np.repeat([0, 1, 2], [9000, 900, 100])
    one = Plan(10_000, 100, 13, "balanced", targets=targets)
    drawn = np.bincount(targets[one.epoch_rows(0)], minlength=3)
    assert drawn.sum() == 10_000
    assert drawn == pytest.approx([3333, 3333, 3333], abs=200)
    assert len(np.unique(one.epoch_rows(0)[targets[one.epoch_rows(0)] == 2])) > 95  # all rows of a rare label take part


def test_a_multi_label_row_weighs_by_its_rarest_label_and_clean_rows_are_a_label_of_their_own() -> None:
    targets = np.array([[1, 0], [1, 1], [1, 0], [0, 0], [0, 0]], dtype=np.float32)
    assert row_weights(targets).tolist() == pytest.approx([1 / 3, 1, 1 / 3, 1 / 2, 1 / 2])
    assert row_weights(np.zeros((4, 2), dtype=np.float32)).tolist() == [0.25] * 4
    assert row_weights(np.array([0, 0, 1])).tolist() == [0.5, 0.5, 1]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_rows_make_no_steps(sampler: str) -> None:
    one = plan(sampler, 0, 8, 13)
    assert one.n_steps == 0
    assert len(one.epoch_rows(0)) == 0
    with pytest.raises(IndexError, match="step 0 of an epoch of 0 steps"):
        one.rows(0, 0)


def test_steps_and_ranks_that_do_not_exist_are_refused() -> None:
    one = plan("random", 10, 4, 13)
    for step in (-1, 3):
        with pytest.raises(IndexError, match="of an epoch of 3 steps"):
            one.rows(0, step)
    with pytest.raises(IndexError, match="rank 2 of 2 processes"):
        one.share(0, 0, 2, 2)


def test_the_rows_of_an_epoch_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        plan("random", 10, 4, 13).rows(0, 0)[0] = 7


def test_an_unknown_sampler_offers_the_nearest() -> None:
    with pytest.raises(RecipeError) as caught:
        Plan(10, 4, 13, "balance")
    assert str(caught.value).splitlines() == [
        "there is no sampler named 'balance'",
        "  where: fit.sampler",
        "  next:  did you mean 'balanced'? available: balanced, length_buckets, random",
    ]


def test_a_batch_of_no_texts_is_refused() -> None:
    with pytest.raises(RecipeError, match="batch_size must be at least 1, not 0"):
        Plan(10, 0, 13)


def test_samplers_that_lack_their_arrays_say_which() -> None:
    with pytest.raises(ValueError, match="length_buckets needs lengths of all 10 rows, got none"):
        Plan(10, 4, 13, "length_buckets")
    with pytest.raises(ValueError, match="balanced needs targets of all 10 rows, got 3"):
        Plan(10, 4, 13, "balanced", targets=np.zeros(3))
