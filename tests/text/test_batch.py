"""Micro-batches, prediction batches and padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import RecipeError
from headrace.text.batch import batches_by_length, collate, micro_batches, token_batches
from headrace.text.store import TokenStore
from headrace.text.subwords import Encoded
from headrace.train.data import packed_tokens

LENGTHS = st.lists(st.integers(1, 512), min_size=0, max_size=80).map(lambda found: np.array(found, dtype=np.int32))


def store(dtype: str = "int32") -> TokenStore:
    texts = [[2, 7, 3], [2, 8, 9, 3, 10, 3], [2, 3], [2, 11, 3, 12, 13, 3]]
    encoded = [
        Encoded(np.array(ids, dtype=dtype), first, len(ids), 0) for ids, first in zip(texts, (3, 4, 2, 3), strict=True)
    ]
    return TokenStore.of(encoded)


@pytest.mark.parametrize("dtype", ["int32", "uint16"])
def test_collate_pads_to_the_longest_text_of_the_batch(dtype: str) -> None:
    targets = np.array([0, 1, 2, 3], dtype=np.int64)
    batch = collate(store(dtype), np.array([1, 2, 0]), targets, pad_id=99, uses_token_types=True)
    assert batch.input_ids.dtype == batch.attention_mask.dtype == torch.int64
    assert batch.input_ids.tolist() == [[2, 8, 9, 3, 10, 3], [2, 3, 99, 99, 99, 99], [2, 7, 3, 99, 99, 99]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]]
    assert batch.token_type_ids is not None
    assert batch.token_type_ids.dtype == torch.int64
    assert batch.token_type_ids.tolist() == [[0, 0, 0, 0, 1, 1], [0] * 6, [0] * 6]
    assert batch.rows.tolist() == [1, 2, 0]
    assert batch.targets is not None
    assert batch.targets.tolist() == [1, 2, 0]


def test_collate_leaves_out_what_is_not_asked_for() -> None:
    batch = collate(store(), np.array([0]), None, pad_id=0, uses_token_types=False)
    assert batch.token_type_ids is None
    assert batch.targets is None
    assert batch.input_ids.shape == (1, 3)


def test_collate_rounds_the_width_up() -> None:
    assert collate(store(), np.array([1]), None, pad_id=0, uses_token_types=True, multiple_of=8).input_ids.shape == (
        1,
        8,
    )
    assert collate(store(), np.array([1]), None, pad_id=0, uses_token_types=True, multiple_of=6).input_ids.shape == (
        1,
        6,
    )


def test_collate_keeps_multi_label_targets_in_float32() -> None:
    targets = np.eye(4, dtype=np.float32)
    batch = collate(store(), np.array([3, 1]), targets, pad_id=0, uses_token_types=False)
    assert batch.targets is not None
    assert batch.targets.dtype == torch.float32
    assert batch.targets.tolist() == targets[[3, 1]].tolist()


def test_collate_of_no_rows_is_a_batch_of_no_texts() -> None:
    batch = collate(store(), np.array([], dtype=np.int64), None, pad_id=0, uses_token_types=True)
    assert len(batch) == 0


def test_a_batch_can_be_written_to_without_touching_the_data() -> None:
    targets, rows = np.array([0, 1, 2, 3], dtype=np.int64), np.array([1, 2])
    rows.flags.writeable = False  # as the plan's rows are
    batch = collate(store(), rows, targets, pad_id=0, uses_token_types=False)
    assert batch.targets is not None
    batch.targets.add_(10)
    batch.rows.add_(10)
    assert (targets.tolist(), rows.tolist()) == ([0, 1, 2, 3], [1, 2])


@given(lengths=LENGTHS, max_texts=st.integers(1, 40), pass_tokens=st.integers(0, 2000))
def test_micro_batches_hold_each_text_once_and_not_too_many(
    lengths: np.ndarray, max_texts: int, pass_tokens: int
) -> None:
    found = micro_batches(lengths, max_texts=max_texts, pass_tokens=pass_tokens)
    assert sorted(np.concatenate(found).tolist() if found else []) == list(range(len(lengths)))
    for positions in found:
        chosen = lengths[positions]
        assert 1 <= len(chosen) <= max_texts
    heads = [int(lengths[positions].max()) for positions in found]
    assert heads == sorted(heads, reverse=True)


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=7), pass_tokens=st.integers(0, 100))
def test_no_other_cut_of_the_sorted_texts_costs_less(lengths: list[int], pass_tokens: int) -> None:
    found = micro_batches(np.array(lengths), max_texts=5, pass_tokens=pass_tokens)
    mine = sum(len(group) * max(lengths[i] for i in group) + pass_tokens for group in found)
    ordered = sorted(lengths)

    def cheapest(rest: list[int]) -> int:
        options = range(1, min(5, len(rest)) + 1)
        return min((k * rest[k - 1] + pass_tokens + cheapest(rest[k:]) for k in options), default=0)

    assert mine == cheapest(ordered)


def test_micro_batches_are_cut_where_padding_costs_more_than_a_pass() -> None:
    (whole,) = micro_batches(np.array([100, 90, 100, 95]), max_texts=4, pass_tokens=50)
    assert sorted(whole.tolist()) == [0, 1, 2, 3]
    found = micro_batches(np.array([10, 100, 10, 100]), max_texts=4, pass_tokens=50)
    assert [positions.tolist() for positions in found] == [[1, 3], [0, 2]]


@given(lengths=LENGTHS, max_tokens=st.integers(1, 4096), max_texts=st.integers(1, 64))
def test_prediction_batches_bound_their_padded_tokens(lengths: np.ndarray, max_tokens: int, max_texts: int) -> None:
    found = batches_by_length(lengths, max_tokens, max_texts)
    assert sorted(np.concatenate(found).tolist() if found else []) == list(range(len(lengths)))
    for rows in found:
        padded = int(lengths[rows].max()) * len(rows)
        assert len(rows) <= max_texts
        assert padded <= max_tokens or len(rows) == 1
    assert np.all(np.diff(lengths[np.concatenate(found)] if found else []) <= 0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: micro_batches(np.array([1]), max_texts=0, pass_tokens=50),
        lambda: batches_by_length(np.array([1]), 10, 0),
    ],
)
def test_no_texts_at_a_time_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(RecipeError) as caught:
        call()
    assert caught.value.what == "max_texts must be at least 1, not 0"
    assert (caught.value.where, caught.value.next) == ("max_texts", "set max_texts to 1 or more")


@given(lengths=LENGTHS, max_tokens=st.integers(1, 4096), max_texts=st.integers(1, 64))
def test_token_batches_hold_each_text_once_within_both_limits(
    lengths: list[int], max_tokens: int, max_texts: int
) -> None:
    array = np.array(lengths, dtype=np.int32)
    found = token_batches(array, max_texts=max_texts, max_tokens=max_tokens)
    assert sorted(np.concatenate(found).tolist() if found else []) == list(range(len(lengths)))
    for group in found:
        assert len(group) == 1 or (len(group) <= max_texts and int(array[group].sum()) <= max_tokens)
    ordered = [length for group in found for length in array[group].tolist()]
    assert ordered == sorted(ordered, reverse=True)


def test_token_batches_are_about_equally_full() -> None:
    lengths = np.full(32, 100)
    sizes = [len(group) for group in token_batches(lengths, max_texts=32, max_tokens=2048)]
    assert sizes == [16, 16]


@pytest.mark.parametrize(("longest", "n_tokens"), [(3, 2048), (256, 2048), (400, 3200), (512, 4096), (8192, 4096)])
def test_a_pass_of_packed_texts_holds_eight_of_the_longest_within_bounds(longest: int, n_tokens: int) -> None:
    assert packed_tokens(np.array([2, longest, 1])) == n_tokens
