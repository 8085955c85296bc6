"""Which kind of tokenizer a bundle holds, and that both kinds can stand for one another."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Fast
from tokenizers import models, pre_tokenizers, processors

from headrace.errors import BundleError
from headrace.text.subwords import Subwords
from headrace.text.tokenizer import Tokenizer, tokenizer_from_json
from headrace.text.vocabulary import Vocabulary
from headrace.text.words import Words

TEXTS = ["The mill turns.", "good water", ""]


def subwords() -> Subwords:
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "good": 4, "water": 5}
    fast = Fast(models.WordPiece(vocabulary, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    settings = {"pad_id": 0, "unk_id": 1, "mask_id": None, "uses_token_types": True, "model_max_length": None}
    return Subwords(fast, settings)


def words() -> Words:
    return Words(Vocabulary.of(TEXTS, min_count=1))


KINDS = {"subwords": subwords, "words": words}


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_comes_back_as_the_kind_that_it_was(kind: str) -> None:
    one: Tokenizer = KINDS[kind]()
    again = tokenizer_from_json(one.to_json(), one.settings())
    assert type(again) is type(one)
    assert again.fingerprint == one.fingerprint
    assert again.vocabulary_size == one.vocabulary_size
    found = again.encode(TEXTS, max_length=8, truncate="tail")
    assert [each.ids.tolist() for each in found] == [each.ids.tolist() for each in one.encode(TEXTS, max_length=8)]


@pytest.mark.parametrize("kind", KINDS)
def test_both_kinds_have_all_that_a_tokenizer_has(kind: str) -> None:
    one = KINDS[kind]()
    names = {name for name in (*vars(Tokenizer), *Tokenizer.__annotations__) if not name.startswith("_")}
    assert len(names) >= 14
    for name in names:
        assert hasattr(one, name)
        asked = getattr(Tokenizer, name, None)
        if inspect.isfunction(asked):
            assert (
                inspect.signature(asked).parameters.keys()
                == inspect.signature(getattr(type(one), name)).parameters.keys()
            )
    assert one.unk_id in one.special_ids
    assert one.pad_id in one.special_ids
    assert one.spans("good water").tolist() == [[0, 4], [5, 10]]


def test_subwords_settings_name_no_kind_so_that_older_bundles_are_read() -> None:
    assert "kind" not in subwords().settings()
    assert words().settings()["kind"] == "words"


def test_an_unknown_kind_is_refused_with_the_known_one() -> None:
    with pytest.raises(BundleError) as caught:
        tokenizer_from_json("{}", {"kind": "wordz"})
    assert caught.value.what == "there is no kind of tokenizer called 'wordz'"
    assert "did you mean 'words'?" in str(caught.value.next)


def test_words_import_neither_transformers_nor_torch(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(words().to_json(), "utf-8")
    code = (
        "import sys, pathlib\n"
        "from headrace.text.tokenizer import tokenizer_from_json\n"
        f"text = pathlib.Path({str(tmp_path / 't.json')!r}).read_text('utf-8')\n"
        f"one = tokenizer_from_json(text, {words().settings()!r})\n"
        "assert one.decode(one.encode(['The mill'], max_length=8)[0].ids) == 'The mill'\n"
        "print([name for name in ('transformers', 'torch', 'spacy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
