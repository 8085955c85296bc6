"""`headrace generate`: readable text, the same for the same seed, and a clear refusal where a model writes none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from headrace.bundle import LanguageModelBundle
from headrace.bundle.generate import MARKS, Sampling, draw
from headrace.bundle.language_model import LanguageAbout
from headrace.cli import run
from headrace.errors import BundleError, RecipeError
from headrace.text.vocabulary import Vocabulary
from headrace.text.words import Words
from headrace.train.fit import fit
from tiny import tiny_folder
from tiny_fits import silent
from tiny_language import language_recipe, write_texts


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model that has learnt a little: whose texts begin and end as those that it read."""
    root = tmp_path_factory.mktemp("lm")
    recipe = language_recipe(write_texts(root / "train.csv"), fit__epochs=4, fit__learning_rate=3e-2)
    return fit(recipe, out=root / "run", echo=silent).bundle


@pytest.fixture(scope="module")
def untrained() -> LanguageModelBundle:
    """A model of random weights, far from each other: it says all that it may say."""
    from headrace.backbones._next_word import load_next_word

    words = Words(Vocabulary.of(["the film is fine and the plot is good", "a slow film, and a bad plot"], min_count=1))
    torch.manual_seed(0)
    model = load_next_word(words=words.vocabulary.words, embedding_size=8, hidden_size=8, n_layers=2, drop_mult=0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=1.0)
    return LanguageModelBundle(model, words, LanguageAbout())


def test_it_goes_on_with_the_text_and_shows_no_marks(bundle: Path) -> None:
    texts = LanguageModelBundle.load(bundle).generate("The film", words=12, n=3, seed=1)
    assert len(texts) == 3
    for text in texts:
        assert text.startswith("The film")
        assert not any(mark in text for mark in MARKS)


def test_the_beginning_stays_as_it_was_given_though_the_model_does_not_know_its_words(bundle: Path) -> None:
    beginning = "Zounds!! The FILM (of 1951),"
    for text in LanguageModelBundle.load(bundle).generate(beginning, words=6, n=3, seed=1):
        assert text.startswith(beginning)
        assert len(text) > len(beginning)


def test_the_same_seed_writes_the_same_and_another_does_not(bundle: Path) -> None:
    loaded = LanguageModelBundle.load(bundle)

    def written(seed: int) -> list[str]:
        return loaded.generate("the film number 3 is", words=20, n=3, temperature=1.5, seed=seed)

    assert written(1) == written(1)
    assert written(1) != written(2)
    assert len(set(written(1))) > 1


def test_no_unknown_word_is_ever_written_and_so_many_words_as_asked_for(untrained: LanguageModelBundle) -> None:
    texts = untrained.generate("the film", words=15, n=40, temperature=3.0, seed=5)
    assert not any("xx" in text for text in texts)
    counts = [len(untrained.tokenizer.encode_flat([text], max_length=10_000, truncate="head").ids) for text in texts]
    assert max(counts) >= 15  # some went on to the end; others ended their text before


def test_temperature_zero_takes_the_likeliest_word_each_time(untrained: LanguageModelBundle) -> None:
    assert len(set(untrained.generate("the film", words=10, n=4, temperature=0.0))) == 1


def test_top_k_and_top_p_draw_among_the_likeliest() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).expand(2000, -1)
    generator = torch.Generator().manual_seed(0)

    def drawn(**settings: float) -> dict[int, float]:
        ids = draw(logits.clone(), Sampling(**{"temperature": 1.0, **settings}), generator)  # type: ignore[arg-type]
        found, counts = ids.unique(return_counts=True)
        return {int(token): int(count) / 2000 for token, count in zip(found, counts, strict=True)}

    assert set(drawn()) == {0, 1, 2, 3}
    assert set(drawn(top_k=2)) == {0, 1}
    assert drawn(top_k=2)[0] == pytest.approx(0.5 / 0.8, abs=0.04)
    assert set(drawn(top_p=0.6)) == {0, 1}
    assert set(drawn(top_p=0.01)) == {0}
    assert drawn(temperature=0.25)[0] > 0.85


def test_a_masked_word_model_is_refused_and_told_why(tmp_path: Path) -> None:
    recipe = language_recipe(
        write_texts(tmp_path / "train.csv", n=20), backbone={"name": str(tiny_folder(tmp_path))}, data__max_length=32
    )
    made = fit(recipe, out=tmp_path / "run", overrides=["trainer.max_steps=1"], echo=silent)
    with pytest.raises(BundleError, match="it was not trained to go on with one") as caught:
        LanguageModelBundle.load(made.bundle).generate("the film")
    assert "awd_lstm" in str(caught.value.next)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("words", 0),
        ("n", 0),
        ("temperature", -1.0),
        ("temperature", 1e-300),
        ("temperature", float("inf")),
        ("seed", 2**64),
        ("top_k", 0),
        ("top_p", 1.5),
    ],
)
def test_a_setting_out_of_its_range_is_refused(key: str, value: float, untrained: LanguageModelBundle) -> None:
    with pytest.raises(RecipeError, match=f"{key} is {value}"):
        untrained.generate("the film", **{key: value})  # type: ignore[arg-type]


def test_the_verb_answers_as_json_and_as_text(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", str(bundle), "The film", "--words", "8", "--n", "2", "--seed", "3"]
    assert run([*arguments, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["prompt"], len(answer["texts"])) == ("The film", 2)
    assert run(arguments) == 0
    assert capsys.readouterr().out.startswith("The film")


@pytest.mark.parametrize("verb", ["predict", "evaluate", "embed", "similar", "explain"])
def test_verbs_of_classifiers_say_what_a_language_model_is_for(
    verb: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_texts(tmp_path / "texts.csv", n=4)
    rest = {
        "similar": ["a query", str(file)],
        "explain": ["a text"],
        "embed": [str(file), "-o", str(tmp_path / "v.npy")],
    }.get(verb, [str(file)])
    assert run([verb, str(bundle), *rest]) == 2
    shown = capsys.readouterr().err
    assert "not a 'classifier'" in shown
    assert "headrace generate" in shown


def test_check_shows_streams_and_their_shift(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    path = tmp_path / "lm.yaml"
    path.write_text(yaml.safe_dump(language_recipe(write_texts(tmp_path / "train.csv"))), "utf-8")
    assert run(["check", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "next_word"
    for pair in found["batch"]:
        assert pair["seen"][1:] == pair["wanted"][:-1]
    assert found["splits"][0]["files"][0][1] == found["splits"][0]["n_texts"]
    assert run(["check", str(path)]) == 0
    assert "what shall come next" in capsys.readouterr().out


def test_check_shows_what_a_masked_word_model_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    recipe = language_recipe(write_texts(tmp_path / "train.csv"), backbone={"name": str(tiny_folder(tmp_path))})
    path = tmp_path / "lm.yaml"
    path.write_text(yaml.safe_dump(recipe), "utf-8")
    assert run(["check", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "masked_word"
    assert all(any(pair["wanted"]) for pair in found["batch"])
