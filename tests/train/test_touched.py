"""Embeddings whose gradient costs what a batch has touched give the gradients of torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from headrace.train.touched import touched_rows

BATCHES = ([[1, 2, 2, 0]], [[2, 5, 0, 0]])


def tied(table: nn.Embedding) -> nn.Module:
    """Return a language model's two uses of one table: looked up below, multiplied above."""
    above = nn.Linear(4, 7, bias=False)
    above.weight = table.weight
    return nn.Sequential(table, above)


def gradients(model: nn.Module) -> torch.Tensor:
    for batch in BATCHES:
        model(torch.tensor(batch)).square().sum().backward()
    (weight,) = model.parameters()
    assert weight.grad is not None
    return weight.grad


@pytest.mark.parametrize("is_tied", [False, True])
def test_gradients_are_dense_and_those_of_torch(is_tied: bool) -> None:
    torch.manual_seed(0)
    table = nn.Embedding(7, 4, padding_idx=0)
    model = tied(table) if is_tied else nn.Sequential(table)
    expected = gradients(model).clone()
    model.zero_grad()
    with touched_rows(model):
        assert table.sparse
        found = gradients(model)
    assert found.layout == torch.strided
    torch.testing.assert_close(found, expected)
    assert is_tied or found[0].abs().sum() == 0.0, "padding"
    assert not table.sparse
    assert not table._forward_pre_hooks


def test_nothing_is_kept_where_nothing_learns() -> None:
    table = nn.Embedding(7, 4).requires_grad_(False)
    with touched_rows(table):
        table(torch.tensor([1]))
        assert table.weight.grad is None
        table.requires_grad_(True)
        with torch.no_grad():
            table(torch.tensor([1]))
        assert table.weight.grad is None


def test_the_table_is_as_before_after_an_error() -> None:
    table = nn.Embedding(7, 4)
    with pytest.raises(IndexError), touched_rows(table):
        table(torch.tensor([9]))
    assert not table.sparse
    assert not table._forward_pre_hooks


def test_a_step_begins_with_zeros_in_the_room_of_the_one_before() -> None:
    table = nn.Embedding(7, 4)
    with touched_rows(table):
        first = gradients(table)
        place, kept = first.data_ptr(), first.clone()
        table.zero_grad()
        assert table.weight.grad is None
        second = gradients(table)
    assert second.data_ptr() == place
    assert torch.equal(second, kept)
