"""Lengths, histograms, suggested lengths and padding, by hand on small numbers."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.text.statistics import (
    Histogram,
    bars,
    histogram_edges,
    lengths_of,
    padding_of,
    padding_share,
    suggested_length,
)


def test_each_text_falls_into_one_of_about_twenty_bins() -> None:
    lengths = np.concatenate([np.arange(2, 402), [5000]])
    edges = histogram_edges(lengths)
    widths = np.diff(edges)
    assert 10 <= len(widths) <= 22
    assert set(widths[:-1]) == {32}  # 99 % have up to 398 tokens: 20 bins of 16 would hold 320
    assert edges[0] == 0
    assert edges[-1] == 5001
    found = lengths_of(lengths, lengths, np.zeros(401), edges=edges)
    assert sum(found.histogram.counts) == 401
    assert found.histogram.counts[0] == 30  # 2 to 31


def test_the_last_bin_holds_what_is_longer_than_the_edges() -> None:
    found = lengths_of(np.array([3, 900]), np.array([3, 900]), np.zeros(2), edges=[0, 8, 16])
    assert found.histogram.counts == [1, 1]
    assert found.longest == 900


def test_shares_are_of_texts_and_of_tokens() -> None:
    found = lengths_of(np.array([4, 4, 12]), np.array([4, 4, 8]), np.array([0, 1, 3]), edges=[0, 16])
    assert found.cut_share == pytest.approx(1 / 3, abs=1e-4)
    assert found.tokens_cut_share == 0.2  # 4 of 20
    assert found.unknown_share == 0.25  # 4 of 16 kept
    assert (found.mean, found.median, found.longest) == (6.7, 4, 12)


def test_no_texts_give_zeros() -> None:
    none = np.empty(0, dtype=np.int32)
    found = lengths_of(none, none, none, edges=histogram_edges(none))
    assert (found.mean, found.longest, found.cut_share, found.unknown_share) == (0.0, 0, 0.0, 0.0)
    assert found.histogram == Histogram([0, 1], [0])
    assert suggested_length(none) == 32
    assert padding_share(none) == 0.0
    padding = padding_of(none, random_steps=[], batches=[], max_length=8)
    assert (padding.to_max_length, padding.avoided_of_longest, padding.n_steps) == (0.0, 0.0, 0)


@pytest.mark.parametrize(
    ("lengths", "limit", "suggested"),
    [
        ([10] * 100, None, 32),
        ([32] * 95 + [500] * 5, None, 32),  # exactly 95 % are whole
        ([32] * 94 + [500] * 6, None, 512),
        ([33] * 100, None, 64),
        ([400] * 100, 256, 256),
        ([400] * 100, 500, 416),
        ([400] * 100, 410, 410),  # the limit need not be a multiple of 32
    ],
)
def test_a_suggested_length_keeps_95_percent_whole(lengths: list[int], limit: int | None, suggested: int) -> None:
    assert suggested_length(np.array(lengths), limit=limit) == suggested


def test_padding_in_three_ways() -> None:
    lengths = np.array([2, 8, 2, 8])
    found = padding_of(
        lengths,
        random_steps=[np.array([0, 1]), np.array([2, 3])],
        batches=[np.array([0, 2]), np.array([1, 3])],
        max_length=10,
    )
    assert found.to_max_length == 0.5  # 20 of 40
    assert found.to_longest == 0.375  # 20 of 32
    assert found.in_micro_batches == 0.0
    assert found.avoided_of_max_length == 0.5
    assert found.avoided_of_longest == 0.375
    assert found.n_steps == 2
    assert padding_share(lengths) == 0.375


def test_bars_are_in_proportion_and_show_the_cut() -> None:
    lines = bars(Histogram([0, 8, 16, 100], [10, 20, 0]), max_length=16, width=4)
    assert lines == [
        "  0 to 7  ██ 10",
        " 8 to 15  ████ 20",
        "          ---- cut here: data.max_length 16 ----",
        "16 to 99   0",
    ]
    assert bars(Histogram([0, 1, 2], [1000, 1]), max_length=8, width=4) == ["0  ████ 1,000", "1  ▏ 1"]
    assert bars(Histogram([0, 1, 2], [1000, 1]), max_length=None, width=4) == ["0  ████ 1,000", "1  ▏ 1"]
    assert bars(Histogram([0, 1, 2], [1, 1]), max_length=1, key="a.b", width=1)[1] == "   ---- cut here: a.b 1 ----"
