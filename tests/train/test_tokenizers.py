"""Which tokenizer a backbone has; words of the training texts are counted once."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.data.examples import Examples
from headrace.data.read import Columns, read
from headrace.text.subwords import Subwords
from headrace.text.vocabulary import Vocabulary
from headrace.train import tokenizers
from headrace.train.tokenizers import tokenizer_of, tokenizer_place, words_of
from tiny import tiny_folder


@pytest.fixture
def texts(tmp_path: Path) -> list[Examples]:
    rows = [{"text": "a warm film"}] * 3 + [{"text": "a cold plot"}] * 2
    return [read(rows, Columns(text=("text",)), label_required=False, cache=tmp_path / "cache")]


def test_an_encoder_brings_its_own(tmp_path: Path, texts: list[Examples]) -> None:
    place = tokenizer_place(str(tiny_folder(tmp_path)))
    assert isinstance(tokenizer_of(place, texts, cache=tmp_path), Subwords)


def test_an_awd_lstm_has_the_frequent_words_of_the_training_texts(tmp_path: Path, texts: list[Examples]) -> None:
    assert tokenizer_place("awd_lstm") == "awd_lstm"
    words = tokenizer_of("awd_lstm", texts, cache=tmp_path)
    known = words.tokens(range(words.vocabulary_size))
    assert {"a", "warm", "film"} <= set(known)
    assert not {"cold", "plot"} & set(known)  # seen twice only


def test_words_are_counted_once_and_anew_if_the_file_is_damaged(
    tmp_path: Path, texts: list[Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = words_of(texts, cache=tmp_path)
    kept = next((tmp_path / "vocabularies").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(tokenizers.Vocabulary, "of", lambda *_: pytest.fail("counted again"))
        assert words_of(texts, cache=tmp_path).fingerprint == first.fingerprint
    kept.write_text("[1, 2", "utf-8")
    assert words_of(texts, cache=tmp_path).fingerprint == first.fingerprint
    kept.write_text('["no marks"]', "utf-8")
    assert words_of(texts, cache=tmp_path).fingerprint == first.fingerprint
    assert Vocabulary(first.vocabulary.words) == first.vocabulary
