"""A language model's bundle: whole or refused, the same figures in a fresh process, perplexity as counted by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from headrace.backbones import _masked_word
from headrace.backbones._next_word import NextWordModel, load_next_word
from headrace.bundle import LanguageModelBundle, prove_in_fresh_process
from headrace.bundle.language_model import LanguageAbout, is_language_model
from headrace.bundle.manifest import write_manifest
from headrace.errors import BundleError, DataError
from headrace.text.subwords import Subwords
from headrace.text.vocabulary import Vocabulary
from headrace.text.words import Words
from tiny import SENTENCES, tiny_folder


def next_word(direction: str = "forward") -> LanguageModelBundle:
    torch.manual_seed(0)
    words = Words(Vocabulary.of(SENTENCES, min_count=1))
    model = load_next_word(
        words=words.vocabulary.words, embedding_size=8, hidden_size=10, n_layers=2, direction=direction
    )
    return LanguageModelBundle(model, words, LanguageAbout(), recipe="task: language_model\n")


def masked_word(folder: Path) -> LanguageModelBundle:
    torch.manual_seed(0)
    encoder = tiny_folder(folder)
    about = LanguageAbout(max_length=32)
    return LanguageModelBundle(_masked_word.load(str(encoder)), Subwords.load(encoder), about)


@pytest.fixture(params=["next_word", "backward", "masked_word"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> LanguageModelBundle:
    if request.param == "masked_word":
        return masked_word(tmp_path)
    return next_word("backward" if request.param == "backward" else "forward")


def test_what_was_saved_is_loaded_with_the_same_losses(bundle: LanguageModelBundle, tmp_path: Path) -> None:
    bundle.save(tmp_path / "bundle")
    again = LanguageModelBundle.load(tmp_path / "bundle")
    assert again.kind == bundle.kind
    assert again.tokenizer.fingerprint == bundle.tokenizer.fingerprint
    assert again.scores(SENTENCES).tobytes() == bundle.scores(SENTENCES).tobytes()
    assert is_language_model(tmp_path / "bundle")


@pytest.mark.slow
@pytest.mark.fresh_process
def test_a_fresh_process_gives_bit_equal_losses_and_other_ones_are_found_out(tmp_path: Path) -> None:
    bundle = next_word()
    bundle.save(tmp_path / "bundle")
    losses = bundle.scores(SENTENCES)
    prove_in_fresh_process(tmp_path / "bundle", SENTENCES, losses)
    with pytest.raises(BundleError, match="in a fresh process"):
        prove_in_fresh_process(tmp_path / "bundle", SENTENCES, np.nextafter(losses, np.float32(9)))


def test_the_loss_of_a_text_is_that_of_each_word_after_the_one_before() -> None:
    bundle = next_word()
    model = bundle.model
    assert isinstance(model, NextWordModel)
    ids = bundle.tokenizer.encode_flat(SENTENCES[:1], max_length=1000, truncate="head").ids.tolist()
    losses = []
    with torch.no_grad():
        for place in range(1, len(ids)):
            logits, _ = model.next_logits(torch.tensor([ids[:place]]), model.initial_state(1))
            losses.append(-float(logits[0].log_softmax(-1)[ids[place]]))
    assert float(bundle.scores(SENTENCES[:1])[0]) == pytest.approx(np.mean(losses), abs=1e-5)
    assert bundle.perplexity(SENTENCES[:1]) == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)


def test_an_untrained_model_is_about_as_unsure_as_among_all_words() -> None:
    bundle = next_word()
    assert bundle.perplexity(SENTENCES) == pytest.approx(bundle.tokenizer.vocabulary_size, rel=0.05)


def test_texts_without_a_word_to_predict_have_no_perplexity(bundle: LanguageModelBundle) -> None:
    assert bundle.scores([]).shape == (0,)
    assert bundle.scores([""]).tolist() == [0.0]
    with pytest.raises(DataError, match="no word to predict"):
        bundle.perplexity([""])


def test_a_backward_model_writes_no_text() -> None:
    with pytest.raises(BundleError, match="from their end to their beginning"):
        next_word("backward").generate("a film")


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json", "bundle.json"])
def test_a_changed_file_is_refused(file: str, tmp_path: Path) -> None:
    next_word().save(tmp_path / "bundle")
    path = tmp_path / "bundle" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="was changed"):
        LanguageModelBundle.load(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("file", "key", "value", "what"),
    [
        ("config.json", "kind", "next_letter", "no language model of the kind"),
        ("bundle.json", "max_length", 0, "max_length is 0"),
        ("bundle.json", "columns", [], "its text columns are"),
        ("bundle.json", "kind", "classifier", "not a language model"),
    ],
)
def test_a_damaged_bundle_under_a_good_manifest_is_refused(
    file: str, key: str, value: object, what: str, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    next_word().save(folder)
    content = json.loads((folder / file).read_text("utf-8"))
    content[key] = value
    (folder / file).write_text(json.dumps(content), "utf-8")
    write_manifest(folder)
    with pytest.raises(BundleError, match=what):
        LanguageModelBundle.load(folder)


def test_a_vocabulary_larger_than_the_models_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    next_word().save(folder)
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    content["words"] += ["zebra", "zoo"]
    (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    write_manifest(folder)
    with pytest.raises(BundleError, match=r"the model knows \d+ words, its tokenizer \d+"):
        LanguageModelBundle.load(folder)
