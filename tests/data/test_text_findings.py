"""Findings about single texts."""

import numpy as np
import pyarrow as pa
import pytest

from headrace.data.examples import Examples
from headrace.data.text_findings import repaired, text_findings


def rows(texts: list, pairs: list | None = None) -> Examples:
    columns: dict = {"text": pa.array(texts, pa.string())}
    if pairs is not None:
        columns["pair"] = pa.array(pairs, pa.string())
    columns["row"] = pa.array(range(2, 2 + len(texts)), pa.int64())
    return Examples(pa.table(columns), np.arange(len(texts)), "a.csv", "f")


GOOD = ["a good text", "schöne Grüße aus Köln", "naïve café, “quoted” – dashes…", "привет, мир", "🙂 nice", "10 € each"]


def codes(texts: list) -> list[tuple[str, str, int, tuple[str, ...]]]:
    return [(f.severity, f.code, f.count, f.where) for f in text_findings("training", rows(texts))]


def test_good_texts_have_no_findings():
    assert codes(GOOD) == []
    assert codes([]) == []


@pytest.mark.parametrize("text", ["ok", ":)", "a b", "!!!", "__ _", "é", "1/2"])
def test_texts_with_hardly_a_letter_are_noted(text):
    assert codes([*GOOD, text]) == [("note", "near_empty_text", 1, ("a.csv:8",))]


@pytest.mark.parametrize("text", ["yes", "a b c", "123", "好", "はい", "네"])
def test_a_short_word_is_a_text(text):
    assert codes([*GOOD, text]) == []


def test_an_empty_text_is_not_nearly_empty_too():
    assert codes(["", "\t \u3000", ".", *GOOD]) == [
        ("warning", "empty_text", 2, ("a.csv:2", "a.csv:3")),
        ("note", "near_empty_text", 1, ("a.csv:4",)),
    ]


def test_either_text_of_a_pair_may_be_nearly_empty():
    found = text_findings("test", rows(["premise", "?", "-", ""], ["-", "hypothesis", "-", "-"]))
    assert [(f.code, f.where) for f in found] == [
        ("empty_text", ("a.csv:5",)),
        ("near_empty_text", ("a.csv:2", "a.csv:3", "a.csv:4")),
    ]


def test_wrongly_decoded_texts_are_shown_with_their_repair():
    garbled = [text.encode("utf-8").decode("windows-1252") for text in ("schöne Grüße", "très élégant", "naïve")]
    found = text_findings("test", rows([*GOOD, *garbled]))
    assert [(f.severity, f.code, f.count) for f in found] == [("warning", "mojibake", 3)]
    assert found[0].where == ("a.csv:8", "a.csv:9", "a.csv:10")
    assert found[0].what == (
        "3 rows of the test data (33.33%) have characters that were decoded wrongly; in a.csv:8 "
        "'schÃ¶ne GrÃ¼ÃŸe' should be 'schöne Grüße'"
    )
    assert "data.encoding" in found[0].next


def test_a_few_wrong_characters_among_many_rows_are_a_note():
    texts = [f"text number {number}" for number in range(400)]
    texts[7] = texts[9] = texts[11] = "it was good\x85 or not"
    assert codes(texts) == [("note", "stray_mojibake", 3, ("a.csv:9", "a.csv:11", "a.csv:13"))]
    assert codes([*GOOD, "he wrote crÃ¨me"]) == [("note", "stray_mojibake", 1, ("a.csv:8",))]


def test_what_cannot_be_repaired_surely_is_left():
    for text in [*GOOD, "the sign Ã.", "���"]:
        assert repaired(text) == text
    assert repaired("voilÃ\xa0 l’Ã©tÃ©") == "voilà l’été"


def test_a_text_that_took_in_other_rows_is_told_and_a_long_one_is_not():
    texts = [f"text number {number} " * 20 for number in range(300)]
    assert codes([*texts, "a long text. " * 700]) == []
    assert codes(["short"] * 300 + ["four thousand letters"[:4] * 1000]) == []
    (found,) = text_findings("training", rows([*texts, "one row\tentailment\nand the next. " * 900]))
    assert (found.severity, found.code, found.where) == ("warning", "swollen_text", ("a.csv:302",))
    assert "1 row of the training data has a text of 29,700 characters, where 99 of 100 have at most 320" in found.what


def test_the_longer_text_of_a_pair_counts():
    found = text_findings("test", rows(["a premise"] * 200, ["a hypothesis"] * 199 + ["row after row, " * 500]))
    assert [(f.code, f.where) for f in found] == [("swollen_text", ("a.csv:201",))]
