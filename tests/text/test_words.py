"""Words as fastai makes them, ids and places of them, and readable text out of them."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import BundleError, DataError, RecipeError
from headrace.text import _word_rules
from headrace.text._word_split import split
from headrace.text.vocabulary import Vocabulary
from headrace.text.words import RULES, Words, split_words

FIXTURE = json.loads((Path(__file__).parent.parent / "fixtures" / "parity" / "words.json").read_text("utf-8"))
EXPECTED = list(zip(FIXTURE["texts"], FIXTURE["tokens"], strict=True))

TEXTS = [
    "The mill's wheel turns. It won't stop, and it can't be stopped!",
    "The weir is well-known (very old) and very very very wide...",
    "SLUICE gates open; the water RUNS!!!",
]
PAIRS = [(TEXTS[0], TEXTS[1]), (TEXTS[1], "Open.")]


def words(*texts: str | tuple[str, str]) -> Words:
    return Words(Vocabulary.of(texts or (*TEXTS, *PAIRS), min_count=1))


def shown(one: Words, text: str | tuple[str, str], **cut: object) -> list[str]:
    (encoded,) = one.encode([text], **{"max_length": 1000, **cut})  # type: ignore[list-item, arg-type]
    return one.tokens(encoded.ids)


# What the words are


def test_words_are_fastais_token_for_token() -> None:
    assert len(EXPECTED) >= 400
    assert FIXTURE["made_with"]["fastai"].startswith("2.8")
    different = [text for text, tokens in EXPECTED if split_words(text) != tokens.split(" ")]
    assert different == []


def test_pairs_are_fastais_marked_fields() -> None:
    pairs = [(first, second) for first, second in FIXTURE["pairs"]]
    assert len(pairs) >= 15
    one = words(*pairs)
    assert [shown(one, pair) for pair in pairs] == [tokens.split(" ") for tokens in FIXTURE["pair_tokens"]]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Good", "xxbos xxmaj good"),
        ("NASA", "xxbos xxup nasa"),
        ("A I", "xxbos a i"),
        ("iPhone", "xxbos iphone"),
        ("wow!!!!", "xxbos wow xxrep 4 !"),
        ("no No NO no no no.", "xxbos no xxmaj no xxup no xxwrep 3 no ."),
        ("a<br /><br />b &amp; c", "xxbos a \n\n b & & c"),
        ("a\t b", "xxbos a \t▁ b"),
        ("and/or #1", "xxbos and / or # 1"),
        ("don't (isn't) he'd've", "xxbos do n't ( is n't ) he 'd 've"),
        ("good:) :-)", "xxbos good :) :-)"),
        ("site.com, some-site.com", "xxbos site.com , some-site.com"),
        ("10km 5pm 3.50$", "xxbos 10 km 5 pm 3.50 $"),
        ("well-known x--y", "xxbos well - known x -- y"),
    ],
)
def test_the_rules_in_small(text: str, tokens: str) -> None:
    assert split_words(text) == tokens.split(" ")


def test_text_that_only_the_slow_way_reads_is_read_the_same_by_what_was_kept() -> None:
    kept = _word_rules.Chunks(tuple)
    for _ in range(2):
        assert list(kept.of_text("so good !!! 1111 good")) == [
            "so",
            "good",
            "xxrep",
            "3",
            "!",
            "xxrep",
            "4",
            "1",
            "good",
        ]
        assert list(kept.of_text("x" * 1111)) == ["xxrep", "1111", "x"]
    assert list(kept.of_text("so good")) == ["so", "good"]
    assert "good" in kept
    assert "1111" not in kept


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_word_rules, "_KEPT_CHUNKS", 10)
    kept = _word_rules.Chunks(tuple)
    text = " ".join(f"w{number}x" for number in range(95))
    assert list(kept.of_text(text)) == text.split()
    assert len(kept) <= 10
    assert list(kept.of_text("-".join(["long"] * 20)))[:3] == ["long", "-", "long"]
    assert max(map(len, kept)) < 40


def test_white_space_is_what_python_says_it_is() -> None:
    spaces = {chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()} - {" "}
    listed = re.compile(f"[{_word_rules._OTHER_SPACE}]")
    assert {chr(code) for code in range(sys.maxunicode + 1) if listed.match(chr(code))} == spaces


@given(st.text(alphabet=st.characters(exclude_categories=("Cs", "Z")), min_size=1))
def test_splitting_loses_no_character(text: str) -> None:
    chunk = "".join(text.lower().split())
    if chunk:
        assert "".join(split(chunk)) == chunk
        assert all(split(chunk))


# The whole on texts that break things


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \t\n",
        "\ud800",
        "good \udfff bad",
        "\x00",
        "a\x00b",
        "😀😀 👍🏽",
        "שלום",
        "e" + "\u0301" * 10_000,
        "&#xFFFFFFFF; &#0;",
        "xxmaj",
        "İİİ",
    ],
)
def test_no_text_breaks_the_encoding(text: str) -> None:
    one = words()
    first, before, after = one.encode([text, "The wheel", "water"], max_length=16, truncate="head_tail")
    assert 1 <= len(first.ids) <= 16
    assert before.ids.tolist() == one.encode(["The wheel"], max_length=16)[0].ids.tolist()
    assert one.tokens(after.ids) == ["xxbos", "water"]
    (pair,) = one.encode([(text, text)], max_length=16, truncate="tail")
    assert 5 <= len(pair.ids) <= 16
    assert len(one.spans(text)) == one.encode([text], max_length=100_000)[0].n_full - 1


def test_a_lone_surrogate_is_read_as_the_replacement_character() -> None:
    assert split_words("a \ud800 b") == ["xxbos", "a", "\ufffd", "b"]
    assert split_words("\ud83d\ude00") == split_words("😀")


@pytest.mark.parametrize(
    "unit",
    ["()", "a-", "a.", ".:", "ab@", "a.b@", "'s", ":)", "ab ", "a a b ", "\n ", "&amp", "10", "é.", "a…", "xy "],
)
def test_time_grows_with_the_length_and_not_with_its_square(unit: str) -> None:
    def seconds(n: int) -> float:
        text = unit * n
        begin = time.process_time()
        split_words(text)
        return time.process_time() - begin

    short, long = 2_000, 32_000
    seconds(short)
    # 16 times the text: 16 times the time if it grows evenly, 256 times if with the square.
    assert min(seconds(long) for _ in range(2)) < 80 * max(min(seconds(short) for _ in range(3)), 0.002)


# Ids


def test_a_text_is_its_mark_and_its_words_and_nothing_behind() -> None:
    one = words()
    layout = one.layout(pair=False)
    assert (layout.n_special, layout.suffix) == (1, ())
    (found,) = one.encode([TEXTS[2]], max_length=100)
    expected = "xxbos xxup sluice gates open ; the water xxup runs xxrep 3 !"
    assert " ".join(one.tokens(found.ids)) == expected
    assert (found.first_length, found.n_full, found.n_unknown) == (13, 13, 0)
    assert (one.tokens([-1, 10**9]), one.pad_id, one.unk_id) == (["", ""], 1, 0)
    assert (one.mask_id, one.uses_token_types, one.model_max_length) == (None, False, None)


def test_an_unknown_word_is_counted_after_the_cut() -> None:
    one = words()
    assert shown(one, "the zebra the zebra zebra", max_length=4) == ["xxbos", "the", "xxunk", "the"]
    (found,) = one.encode(["the zebra the zebra zebra"], max_length=5)
    assert (found.n_unknown, found.n_full) == (2, 6)


@pytest.mark.parametrize(
    ("truncate", "expected"),
    [
        ("head", "w0 w1 w2 w3 w4 w5 w6 w7"),
        ("tail", "w12 w13 w14 w15 w16 w17 w18 w19"),
        ("head_tail", "w0 w1 w14 w15 w16 w17 w18 w19"),
    ],
)
def test_a_long_text_is_cut_behind_its_mark(truncate: str, expected: str) -> None:
    text = " ".join(f"w{number}" for number in range(20))
    assert shown(words(text), text, max_length=9, truncate=truncate) == ["xxbos", *expected.split()]


def test_each_text_of_a_pair_keeps_its_field() -> None:
    one = words()
    (found,) = one.encode([PAIRS[1]], max_length=11, truncate="tail")
    assert one.tokens(found.ids) == ["xxbos", "xxfld", "1", "very", "wide", "…", "xxfld", "2", "xxmaj", "open", "."]
    assert found.first_length == len(found.ids)  # one segment


def test_flat_and_single_encodings_are_the_same() -> None:
    one = words()
    flat = one.encode_flat(TEXTS, max_length=9, truncate="tail")
    alone = [one.encode([text], max_length=9, truncate="tail")[0].ids for text in TEXTS]
    assert flat.ids.tolist() == np.concatenate(alone).tolist()
    assert one.encode_flat([], max_length=9, truncate="head", pair=True).offsets.tolist() == [0]
    assert one.encode([], max_length=9) == []


def test_what_is_not_a_string_is_named() -> None:
    with pytest.raises(DataError) as caught:
        words().encode(["good", None], max_length=16)  # type: ignore[list-item]
    assert (caught.value.what, caught.value.where) == ("a text must be a string, not None", "text 1")


def test_faults_of_a_cut_are_told() -> None:
    with pytest.raises(RecipeError, match="max_length 6 leaves no room for text: 5 special tokens"):
        words().encode([PAIRS[0]], max_length=6)
    with pytest.raises(RecipeError, match="there is no way to cut called 'middle'"):
        words().encode_flat([], max_length=9, truncate="middle")


# Places


def test_every_token_has_its_place() -> None:
    one = words("x")
    n_tokens = n_verbatim = 0
    for text, _ in EXPECTED:
        tokens, spans = split_words(text)[1:], one.spans(text)
        assert spans.shape == (len(tokens), 2)
        assert spans.dtype == np.int64
        assert spans[:, 0].tolist() == sorted(spans[:, 0].tolist())
        for token, (start, stop) in zip(tokens, spans.tolist(), strict=True):
            assert 0 <= start < stop <= len(text)
            n_tokens += 1
            # What else there is are marks, repetitions, and what the rules read as something shorter, such as HTML.
            n_verbatim += text[start:stop].lower() == token.replace("▁", " ")
    assert n_tokens > 4000
    assert n_verbatim / n_tokens > 0.85


def test_places_of_marks_entities_and_repetitions() -> None:
    text = "Hello WORLD!!! <br />It's caf&eacute;, very very very good... \nİt"
    found = [
        (token, text[start:stop])
        for token, (start, stop) in zip(split_words(text)[1:], words().spans(text).tolist(), strict=True)
    ]
    assert found[:9] == [
        ("xxmaj", "H"),
        ("hello", "Hello"),
        ("xxup", "W"),
        ("world", "WORLD"),
        *(("xxrep", "!!!"), ("3", "!!!"), ("!", "!!!")),
        ("\n", "<br />"),
        ("xxmaj", "I"),
    ]
    assert found[9:] == [
        *(("it", "It"), ("'s", "'s"), ("café", "caf&eacute;"), (",", ",")),
        *((token, "very very very") for token in ("xxwrep", "3", "very")),
        *(("good", "good"), ("…", "..."), ("\n", "\n"), ("i̇t", "İt")),
    ]


# Readable text


@pytest.mark.parametrize(
    "text",
    [
        *TEXTS,
        "I'd say: \"it's great,\" and (maybe) it isn't... He said 'no'.",
        "It costs $10, or 50% of it; well-known, 10/10!\n\nA new day. You cannot go, they're gonna stay.",
        "DON'T STOP!!! Sooooo good. VERY VERY VERY bad bad bad.",
        '"Go" is 10000 miles & 3.5km at 5 pm, (or) "on".',
        "Mr. Smith asked: what? Why! [So] the U.S.A. it is... #1",
    ],
)
def test_a_text_comes_back_as_it_was_written(text: str) -> None:
    one = words(text)
    (found,) = one.encode([text], max_length=1000)
    assert one.decode(found.ids) == text.replace("3.5km", "3.5 km")


def test_no_mark_is_ever_shown() -> None:
    one = words()
    every = list(range(one.vocabulary_size))
    for ids in (every, every[::-1], [*every[:9], *every[:9]]):
        assert "xx" not in one.decode(ids)
    for text, _ in EXPECTED:
        if "xx" not in text.lower():
            (found,) = words(text).encode([text], max_length=5000)
            assert "xx" not in words(text).decode(found.ids)


def test_unknown_words_padding_and_fields_leave_no_trace() -> None:
    one = words()
    assert shown(one, ("The zebra turns.", "Open")).count("xxunk") == 1
    (found,) = one.encode([("The zebra turns.", "Open")], max_length=100)
    assert one.decode([*found.ids, one.pad_id, one.pad_id]) == "The turns. Open"
    assert one.decode([]) == ""
    assert one.decode(np.array([one.pad_id])) == ""


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("xxrep 99999999999999999999 !", "99999999999999999999!"),
        ("xxrep 9999 !", "!" * 1000),
        ("xxrep xxmaj good", "Good"),
        ("xxup xxmaj good", "Good"),
        ("xxwrep 2 xxup very bad", "VERY VERY bad"),
        ("good xxmaj", "good"),
        ("xxwrep", ""),
    ],
)
def test_marks_that_a_model_misplaces_do_no_harm(tokens: str, text: str) -> None:
    one = Words(Vocabulary(("xxunk", "xxpad", "xxbos", *dict.fromkeys(tokens.split()))))
    assert one.decode([one.vocabulary.id_of(token) for token in tokens.split()]) == text


# Travelling


def test_json_round_trip_keeps_fingerprint_and_ids() -> None:
    one = words()
    again = Words.from_json(one.to_json(), json.loads(json.dumps(one.settings())))
    assert again.fingerprint == one.fingerprint
    assert again.vocabulary == one.vocabulary
    assert again.encode(TEXTS, max_length=9)[1].ids.tolist() == one.encode(TEXTS, max_length=9)[1].ids.tolist()
    assert words("other").fingerprint != one.fingerprint
    assert pickle.loads(pickle.dumps(one)).fingerprint == one.fingerprint


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"words": 3}', '{"words": ["a"]}', '{"words": [["xxunk"]]}', "[" * 9999]
)
def test_a_damaged_vocabulary_is_one_clear_error(text: str) -> None:
    with pytest.raises(BundleError) as caught:
        Words.from_json(text, words().settings())
    assert caught.value.what.startswith("the vocabulary cannot be read: ")
    assert caught.value.where == "tokenizer.json"
    assert caught.value.next == "make the bundle anew"


def test_words_of_other_rules_are_refused() -> None:
    with pytest.raises(BundleError, match=f"rules {RULES + 1}, and this Headrace knows rules {RULES} alone"):
        Words.from_json(words().to_json(), {**words().settings(), "rules": RULES + 1})


# Real reviews


def test_real_reviews_keep_their_places_and_come_back(real_data: Path) -> None:
    with gzip.open(real_data / "imdb" / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(next(file))["text"] for _ in range(100)]
    one = Words(Vocabulary.of(texts, min_count=1))
    n_words = n_same = 0
    for text, encoded in zip(texts, one.encode(texts, max_length=5000), strict=True):
        assert len(one.spans(text)) == len(encoded.ids) - 1
        before, after = text.replace("<br />", "\n").split(), one.decode(encoded.ids).split()
        n_words += len(before)
        n_same += len(set(before) & set(after)) + len(before) - len(set(before))
    assert n_same / n_words > 0.95
