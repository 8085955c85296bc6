"""Texts of several files are divided together, by content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.data.examples import Examples
from headrace.data.read import Columns, read
from headrace.data.several import Joined, choose, divide
from headrace.errors import DataError


def file(texts: list[str], cache: Path) -> Examples:
    return read([{"text": text} for text in texts], Columns(text=("text",)), label_required=False, cache=cache)


@pytest.fixture
def files(tmp_path: Path) -> list[Examples]:
    first = [f"the film number {i}" for i in range(60)]
    second = [f"another film {i}" for i in range(30)] + ["The  film number 7", "the film number 8"]
    return [file(first, tmp_path), file(second, tmp_path)]


def texts(files: list[Examples], rows: list[np.ndarray]) -> set[str]:
    return {
        " ".join(str(text).lower().split())
        for one, chosen in zip(files, rows, strict=True)
        for text in one.take(chosen).texts()
    }


def test_files_are_read_as_one_whatever_the_borders(files: list[Examples], tmp_path: Path) -> None:
    files = [files[0].take([5, 7, 9]), file(["left out"], tmp_path).take([]), files[1].take([0, 31])]
    expected = [text for one in files for text in one.texts()]
    joined = Joined(tuple(files))
    assert len(joined) == 5
    assert not joined.is_pair
    assert joined.column("text") == expected
    for start in range(6):
        for stop in range(start, 6):
            assert joined.column("text", start, stop) == expected[start:stop]
            assert joined.take(range(start, stop)).column("text") == expected[start:stop]
    assert joined.take([1, 4]).column("text") == [expected[1], expected[4]]
    assert [joined.where(row) for row in range(5)] == [one.where(row) for one in files for row in range(len(one))]
    assert list(joined.batches(2)) == [(0, 2), (2, 4), (4, 5)]
    with pytest.raises(IndexError):
        joined.where(5)


def test_each_row_is_on_one_side_and_equal_texts_of_two_files_are_on_the_same(files: list[Examples]) -> None:
    for seed in range(5):
        train, valid = divide(files, share=0.2, seed=seed)
        for one, mine, theirs in zip(files, train, valid, strict=True):
            assert sorted([*mine, *theirs]) == list(range(len(one)))
        assert not texts(files, train) & texts(files, valid)
        assert 18 <= sum(map(len, valid)) <= 19


def test_the_division_does_not_depend_on_the_order_of_the_files_but_on_the_seed(files: list[Examples]) -> None:
    _, valid = divide(files, share=0.2, seed=1)
    _, turned = divide(files[::-1], share=0.2, seed=1)
    _, other = divide(files, share=0.2, seed=2)
    assert texts(files, valid) == texts(files[::-1], turned)
    assert texts(files, valid) != texts(files, other)


def test_so_many_rows_are_chosen_as_asked_for(files: list[Examples]) -> None:
    chosen = choose(files, n=17, seed=1)
    assert sum(map(len, chosen)) == 17
    assert [len(rows) for rows in choose(files, n=1000, seed=1)] == [60, 32]


def test_one_text_cannot_be_divided(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be divided"):
        divide([file(["one", "ONE"], tmp_path)], share=0.5, seed=1)
