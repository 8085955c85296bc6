"""Numbers, names and texts in the words of the page."""

from __future__ import annotations

import math

import pytest

from headrace.report.parts.rows import tokens
from headrace.report.words import (
    clean,
    count,
    duration,
    finite,
    interval,
    name,
    number,
    p_value,
    percent,
    place,
    rate,
    sentence,
    signed,
    size,
    title,
)


def test_numbers_have_a_true_minus_and_no_negative_zero() -> None:
    assert [number(value) for value in (0.5, -0.25, -0.0001, 1234.5, None)] == [
        "0.500",
        "−0.250",
        "0.000",
        "1,234.500",
        "–",
    ]
    assert [signed(value, 1) for value in (0.52, -0.52, 0.01)] == ["+0.5", "−0.5", "0.0"]
    assert [count(value) for value in (0, 12345, 2.6, None, True, "x")] == ["0", "12,345", "3", "–", "–", "–"]


def test_shares_rates_times_and_sizes() -> None:
    assert [percent(0.0512), percent(0.05, None), percent(0.025, None), percent(None)] == [
        "5.1\u00a0%",
        "5\u00a0%",
        "2.5\u00a0%",
        "–",
    ]
    assert [rate(value) for value in (1e-4, 2.5e-5, 0.01, 0.0, None)] == ["1e−4", "2.5e−5", "0.01", "0", "–"]
    assert [duration(value) for value in (4.21, 59.6, 185, 3725, None)] == [
        "4.2 s",
        "1 min 00 s",
        "3 min 05 s",
        "1 h 02 min",
        "–",
    ]
    assert [size(value) for value in (5e8, 2.31e9)] == ["500 MB", "2.31 GB"]
    assert [p_value(value).replace("\u00a0", " ") for value in (3e-7, 0.0321, None)] == ["p < 0.0001", "p = 0.032", ""]


def test_what_is_no_number_is_none() -> None:
    assert [finite(value) for value in (1, 2.5, math.nan, math.inf, True, "3", None, [])] == [1.0, 2.5] + [None] * 6
    assert interval({"value": 0.5, "low": 0.4, "high": None}).low is None
    assert interval(0.5).value == 0.5
    assert interval("x").value is None


def test_texts_show_what_they_hold_and_disturb_nothing() -> None:
    assert clean("a\x00b\x1b[31m\x7f\n\tc") == "a␀b␛[31m␡\n\tc"
    assert clean("x\u202ey\u2066z\u2069") == "x‹U+202E›y‹U+2066›z‹U+2069›"
    assert clean("\ud800 \ufffe \x85") == "‹U+D800› ‹U+FFFE› ‹U+0085›"
    assert clean("שלום \u200f é 你好 👩‍🚀") == "שלום \u200f é 你好 👩‍🚀"
    assert clean("a" * 50 + "b" * 50, 20) == "a" * 14 + "…" + "b" * 5
    assert len(clean("w" * 10_000)) == 1000


def test_names_stand_in_one_short_line() -> None:
    assert name("  spam\n\tegg ") == "spam egg"
    assert name("") == "(empty)"
    assert name(" \t") == "(empty)"
    assert len(name("w" * 500)) == 80


def test_places_are_told_without_the_whole_path() -> None:
    assert place("/home/me/secret/data/train.csv:12") == "data/train.csv:12"
    assert place("C:\\me\\data\\train.csv:3") == "data/train.csv:3"
    assert place("train.csv:12") == "train.csv:12"
    assert place("/home/me/a/test.csv:6 = /home/me/b/train.csv:3") == "a/test.csv:6 = b/train.csv:3"
    assert place("/home/me/a/test.csv:6 ~ train.csv:3") == "a/test.csv:6 ~ train.csv:3"


def test_sentences_begin_and_end_like_sentences_but_names_stay() -> None:
    assert sentence("no gain") == "No gain."
    assert sentence("data.valid is small!") == "data.valid is small!"
    assert sentence("'spam' and 3 more") == "'spam' and 3 more."
    assert sentence("") == ""


def test_metrics_have_names_for_readers() -> None:
    assert title("roc_auc_macro") == "ROC AUC, mean over labels"
    assert title("accuracy", "multi_label") == "Accuracy, all labels of a row right"
    assert title("my_own_metric") == "my own metric"


def test_tokens_are_marked_by_sign_and_strength_and_join_to_the_text() -> None:
    found = tokens([["Not", 2.0], [" bad", -1.3], [" at", 0.4], [" all", 0.02], [".", None], ["\n\nEnd", 0.8]])
    assert [token["kind"] for token in found] == ["for4", "against3", "for1", "", "", "for2"]
    assert "".join(token["space"] + token["text"] for token in found) == "Not bad at all.\n\nEnd"
    assert tokens([]) == []
    assert [token["kind"] for token in tokens([["a", 0.0], ["b", math.nan], ["c", "x"], "d", ["e"]])] == ["", "", ""]
    assert tokens([["a ", 1.0]] * 2000)[-1]["text"] == "…"


@pytest.mark.parametrize("most", [1, 2, 5, 80])
def test_a_cut_text_is_never_longer_than_it_may_be(most: int) -> None:
    assert len(clean("abcdefghij" * 20, most)) <= most
