"""Streams: arithmetic of (seed, epoch, step) over texts of several stores, each token once in an epoch."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from headrace.errors import DataError
from headrace.text.plan import order
from headrace.text.store import TokenStore
from headrace.train.language.corpus import Corpus
from headrace.train.language.streams import Streams


def store(texts: list[list[int]]) -> TokenStore:
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    lengths = np.diff(offsets).astype(np.int32)
    ids = np.array([token for text in texts for token in text], dtype=np.uint16)
    return TokenStore(ids, offsets, lengths, lengths, np.zeros(len(texts), dtype=np.int32))


def some_texts(n: int, seed: int = 0) -> list[list[int]]:
    """Texts whose tokens are all different, so that each token names its place."""
    lengths = np.random.default_rng(seed).integers(1, 12, n)
    tokens = iter(range(10_000))
    return [[next(tokens) for _ in range(length)] for length in lengths]


TEXTS = some_texts(40)


def corpus(texts: list[list[int]] = TEXTS, cut: int = 25) -> Corpus:
    """The texts in two stores, as two files would give them."""
    first, second = texts[:cut], texts[cut:]
    return Corpus.of([store(first), store(second)], [np.arange(len(first)), np.arange(len(second))])


def streams(**changes: object) -> Streams:
    settings = {"n_streams": 4, "sequence_length": 7, "seed": 3, **changes}
    return Streams.of(corpus(), **settings)  # type: ignore[arg-type]


def inputs_of(read: Streams, epoch: int) -> np.ndarray:
    return np.concatenate([read.step(epoch, step)[0] for step in range(read.n_steps)], axis=1)


def test_targets_are_inputs_shifted_by_one_across_steps_too() -> None:
    read = streams()
    steps = [read.step(0, step) for step in range(read.n_steps)]
    for inputs, targets in steps:
        assert np.array_equal(inputs[:, 1:], targets[:, :-1])
    for (_, before), (after, _) in itertools.pairwise(steps):
        assert np.array_equal(before[:, -1], after[:, 0])


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_an_epoch_reads_the_joined_texts_in_their_order_each_token_once(epoch: int) -> None:
    read = streams()
    joined = [token for text in order(len(TEXTS), seed=3, epoch=epoch) for token in TEXTS[text]]
    found = inputs_of(read, epoch)
    assert found.shape == (4, read.length)
    assert found.reshape(-1).tolist() == joined[: 4 * read.length]
    assert 0 < len(joined) - found.size <= 4  # what does not fill all streams, and the last, which has no next


def test_all_steps_but_the_last_have_the_full_length() -> None:
    read = streams()
    widths = [read.step(0, step)[0].shape[1] for step in range(read.n_steps)]
    assert widths[:-1] == [7] * (read.n_steps - 1)
    assert 1 <= widths[-1] <= 7
    assert sum(widths) == read.length


def test_epochs_and_seeds_differ_and_the_same_ones_agree() -> None:
    first = inputs_of(streams(), 0)
    assert np.array_equal(first, inputs_of(streams(), 0))
    assert not np.array_equal(first, inputs_of(streams(), 1))
    assert not np.array_equal(first, inputs_of(streams(seed=4), 0))


def test_a_step_is_the_same_whichever_was_asked_for_before() -> None:
    read, fresh = streams(), streams()
    read.step(1, 0)
    read.step(0, 3)
    assert np.array_equal(read.step(0, 2)[0], fresh.step(0, 2)[0])


def test_without_a_seed_the_order_is_that_of_the_corpus_in_every_epoch() -> None:
    read = streams(seed=None)
    flat = [token for text in TEXTS for token in text]
    assert inputs_of(read, 0).reshape(-1).tolist() == flat[: 4 * read.length]
    assert np.array_equal(inputs_of(read, 0), inputs_of(read, 9))


def test_backward_each_text_is_reversed_and_the_order_of_the_texts_is_not() -> None:
    read = streams(is_backward=True)
    joined = [token for text in order(len(TEXTS), seed=3, epoch=0) for token in reversed(TEXTS[text])]
    assert inputs_of(read, 0).reshape(-1).tolist() == joined[: 4 * read.length]


def test_texts_of_a_step_are_those_whose_tokens_it_reads() -> None:
    read = streams()
    owner = {token: number for number, text in enumerate(TEXTS) for token in text}
    for step in range(read.n_steps):
        expected = sorted({owner[token] for token in read.step(0, step)[0].reshape(-1).tolist()})
        assert read.texts_of(0, step).tolist() == expected


def test_chosen_rows_of_the_stores_are_read_and_no_others() -> None:
    chosen = Corpus.of([store(TEXTS[:25]), store(TEXTS[25:])], [np.array([3, 1]), np.array([14])])
    read = Streams.of(chosen, n_streams=1, sequence_length=1000)
    assert read.step(0, 0)[0].reshape(-1).tolist() == (TEXTS[3] + TEXTS[1] + TEXTS[39])[:-1]


def test_few_tokens_make_fewer_streams_and_one_token_is_refused() -> None:
    assert Streams.of(corpus([[1, 2, 3]], 1), n_streams=64, sequence_length=72, seed=1).n_streams == 2
    assert Streams.of(corpus([[1, 2, 3]], 1), n_streams=64, sequence_length=72).n_streams == 1
    with pytest.raises(DataError, match="1 tokens in all"):
        Streams.of(corpus([[1]], 1), n_streams=1, sequence_length=72)


def test_a_step_beyond_the_epoch_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        streams().step(0, streams().n_steps)


def test_steps_are_those_of_fastais_loader() -> None:
    """The fixture is written by parity/streams.py: forward and backward, four shapes, the texts in their own order."""
    fixture = json.loads((Path(__file__).parents[2] / "fixtures" / "parity" / "streams.json").read_text("utf-8"))
    both = corpus(fixture["texts"], cut=12)
    assert len(fixture["read"]) == 8
    for theirs in fixture["read"]:
        steps = theirs.pop("steps")
        ours = Streams.of(both, **theirs)
        assert ours.n_steps == len(steps) >= 2
        for number, (inputs, targets) in enumerate(steps):
            found = ours.step(0, number)
            assert [part.tolist() for part in found] == [inputs, targets], (theirs, number)
