"""What both sides of the AWD-LSTM benchmarks are given: the same tokens, batches of the kinds that are named, and their ratio."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

NAMES = ("awd_lstm", "awd_lstm_ours", "awd_lstm_profile", "wikitext", "worker", "record")


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    """The scripts as modules, which they are to each other alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        yield {name: importlib.import_module(name) for name in NAMES}
        for name in NAMES:
            sys.modules.pop(name, None)


def reviews_of(scripts, lengths):
    return scripts["awd_lstm_ours"].Reviews([[number + 10] * n for number, n in enumerate(lengths)], [0] * len(lengths))


def test_the_next_step_of_a_stream_begins_with_the_last_target_of_the_step_before(scripts):
    reviews = scripts["awd_lstm_ours"].Reviews([list(range(10, 60)), list(range(60, 111))], [0, 1])
    first, second = scripts["awd_lstm_ours"].language_batches(reviews, 2, streams=4, tokens=10)
    assert [len(row) for row in first] == [11] * 4
    assert [row[0] for row in second] == [row[-1] for row in first]
    assert first[0] == list(range(10, 21))


def test_too_few_tokens_for_the_steps_are_told(scripts):
    with pytest.raises(ValueError, match="too few for 3 steps of 4 x 10"):
        scripts["awd_lstm_ours"].language_batches(reviews_of(scripts, [100]), 3, streams=4, tokens=10)


def test_even_batches_hold_texts_cut_to_one_length(scripts):
    reviews = reviews_of(scripts, [100, 300] * 40)
    batches = scripts["awd_lstm_ours"].classifier_batches(reviews, "even", 2)
    assert [len(text) for texts, _ in batches for text in texts] == [288] * 32
    assert len({text[0] for texts, _ in batches for text in texts}) == 32


def test_sorted_batches_hold_like_lengths_and_span_all_lengths(scripts):
    lengths = [10 + (n * 37) % 800 for n in range(800)]
    batches = scripts["awd_lstm_ours"].classifier_batches(reviews_of(scripts, lengths), "sorted", 4)
    spans = [(min(map(len, texts)), max(map(len, texts))) for texts, _ in batches]
    assert all(longest - shortest < 20 for shortest, longest in spans)
    assert spans[0][0] > 600
    assert spans[-1][1] < 200


def test_random_batches_hold_whole_texts_in_the_order_drawn(scripts):
    lengths = [n + 1 for n in range(40)]
    (texts, targets), _ = scripts["awd_lstm_ours"].classifier_batches(reviews_of(scripts, lengths), "random", 2)
    assert [len(text) for text in texts] == lengths[:16]
    assert len(targets) == 16


def test_a_batch_of_ours_masks_what_it_pads(scripts):
    batch = scripts["awd_lstm_ours"].collated([[5, 6, 7], [8]], [1, 0], pad_id=1)
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 1, 1]]
    assert batch.attention_mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_the_ratio_is_the_median_over_rounds_of_whole_rounds(scripts):
    side = scripts["awd_lstm"].Side
    theirs = side([[(4.0, 2.0), (4.0, 2.0)], [(9.0, 3.0), (9.0, 3.0)], [(6.0, 2.0), (6.0, 2.0)]])
    ours = side([[(2.0, 2.0), (2.0, 2.0)], [(3.0, 3.0), (3.0, 3.0)], [(1.0, 1.0), (1.0, 1.0)]])
    found = scripts["awd_lstm"].summary({"fastai": theirs, "ours_fp32": ours}, 100)
    assert found["ours_fp32_times_as_fast"] == 3.0
    assert found["ours_fp32_times_as_fast_range"] == [2.0, 6.0]
    assert found["ours_fp32_times_as_fast_cpu"] == 1.0
    assert found["ours_fp32_tokens_per_s"] == 50.0


def test_articles_begin_at_their_titles_and_lose_empty_lines(scripts):
    lines = [" ", " = One = ", " ", " a b ", " = = Section = = ", " c ", " = Two = ", " d "]
    assert scripts["wikitext"].articles(lines, None) == ["= One =\na b\n= = Section = =\nc", "= Two =\nd"]


def test_articles_end_at_the_word_that_was_asked_for(scripts):
    lines = [" = One = ", " a b c ", " = Two = ", " d e "]
    assert scripts["wikitext"].articles(lines, 5) == ["= One =\na b"]
    assert scripts["wikitext"].articles(lines, 10) == ["= One =\na b c", "= Two =\nd"]


def test_the_recipe_of_our_run_is_one_that_fit_takes(scripts, tmp_path):
    from headrace.recipe import load_recipe

    options = argparse.Namespace(
        embedding=12,
        hidden=16,
        layers=2,
        sequence_length=9,
        drop_mult=1.0,
        epochs=1,
        streams=4,
        rate=1e-3,
        clip=1.0,
        precision="fp32",
        accelerator="cpu",
        seed=0,
    )
    values = load_recipe(scripts["wikitext"].recipe(options, tmp_path / "train.jsonl", tmp_path / "valid.jsonl")).values
    assert values.fit.schedule == "one_cycle"
    assert (values.backbone.weights, values.backbone.embedding_size) == ("none", 12)
    assert values.language_model is not None
    assert values.language_model.drop_mult == 1.0
