"""A classifier on a language model: in one recipe, or on the bundle of an earlier run; words and weights travel together."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from headrace.bundle import Bundle, LanguageModelBundle
from headrace.errors import BundleError, Interrupted, ModelError, RecipeError
from headrace.recipe import load_recipe
from headrace.train.fit import fit
from headrace.train.language.model import check_words
from headrace.train.language.nested import language_values
from headrace.train.language.prepare import texts_trained_on
from headrace.train.module import ClassifierModule
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, training, weights, write_csv
from tiny_language import AWD, language_recipe, write_texts

BLOCK = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-2, "precision": "fp32"}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("data") / "train.csv", n=40)


@pytest.fixture(scope="module")
def language_run(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> Path:
    return fit(language_recipe(texts), out=tmp_path_factory.mktemp("lm") / "run", echo=silent).folder


def nested(texts: Path, **changes: Any) -> dict[str, Any]:
    changes = {"language_model": dict(BLOCK), "trainer": {"accelerator": "cpu"}, "fit__epochs": 1, **changes}
    return {**recipe(texts, Path("awd_lstm"), **changes), "backbone": dict(AWD)}


def test_one_recipe_trains_the_language_model_and_then_the_classifier_on_it(tmp_path: Path, texts: Path) -> None:
    lines: list[str] = []
    run = fit(nested(texts), out=tmp_path / "run", echo=lines.append)
    inner = run.folder / "language_model"
    lm, classifier = LanguageModelBundle.load(inner / "bundle"), Bundle.load(run.bundle)
    assert classifier.subwords.fingerprint == lm.tokenizer.fingerprint
    assert any(line.startswith("language model: ") and "no texts of its own" in line for line in lines)
    report = json.loads((run.folder / "report.json").read_text("utf-8"))
    assert report["language_model"]["metrics"]["perplexity"]["value"] > 1
    page = (run.folder / "report.html").read_text("utf-8")
    assert 'id="language_model"' in page
    assert "perplexity is" in page
    share = report["language_model"]["data"]["valid_texts_in_training"]
    assert 0 < share <= 1
    assert f"The language model has read {100 * share:.1f}" in page
    assert "does not have the expected form" not in page
    again = fit(nested(texts), out=tmp_path / "run", echo=silent)
    assert again.was_finished


def test_the_report_tells_openly_that_the_language_model_has_read_the_tests_texts(tmp_path: Path, texts: Path) -> None:
    test = write_csv(tmp_path / "test.csv", [*rows(10), {"text": "a film that nobody has seen", "label": "good"}])
    block = {**BLOCK, "train": [str(texts), str(test)], "limit": 25}
    asked = [row["text"] for row in csv.DictReader(test.read_text("utf-8").splitlines())]
    for number, train in enumerate((block, dict(BLOCK))):
        out = tmp_path / str(number)
        settings = nested(texts, language_model=train, data__test=str(test))
        run = fit(settings, out=out, echo=silent)
        read = texts_trained_on(language_values(load_recipe(settings).values))
        known = {text for file in read for text in file.texts()}
        share = sum(text in known for text in asked) / len(asked)
        assert 0 < share < 1
        inner = json.loads((run.folder / "report.json").read_text("utf-8"))["language_model"]
        assert inner["data"]["test_texts_in_training"] == pytest.approx(share)
        assert "of the test texts stand among the training texts" in (out / "report.html").read_text("utf-8")


def test_a_nested_run_that_was_cut_in_either_training_ends_bit_equal(tmp_path: Path, texts: Path) -> None:
    from headrace.train import resume

    settings = nested(texts)
    whole = fit(settings, out=tmp_path / "whole", echo=silent).folder
    n_inner = training(whole / "language_model")["total"]
    kept = resume.Keeper.on_train_batch_end
    for cut in (2, n_inner + 3):  # in the language model, in the classifier
        seen = [0]

        def interrupting(self: Any, *args: Any, cut: int = cut, seen: list[int] = seen, **kwargs: Any) -> None:
            seen[0] += 1
            if seen[0] == cut:
                self.signals.received = signal.SIGINT
            kept(self, *args, **kwargs)

        out = tmp_path / f"cut-{cut}"
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(resume.Keeper, "on_train_batch_end", interrupting)
            fit(settings, out=out, echo=silent)
        inner_state = json.loads((out / "language_model" / "status.json").read_text("utf-8"))["state"]
        assert inner_state == ("interrupted" if cut == 2 else "finished")
        assert not (out / "bundle").exists()
        fit(settings, out=out, echo=silent)
        assert weights(out) == weights(whole)


def test_the_classifier_begins_with_the_language_models_encoder(language_run: Path) -> None:
    bundle = LanguageModelBundle.load(language_run / "bundle")
    module = ClassifierModule(str(language_run / "bundle"), ["bad", "good"], head={"pool": "mean"})
    theirs, ours = bundle.model.backbone.state_dict(), module.model.backbone.state_dict()
    assert set(theirs) == set(ours)
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_the_bundle_of_an_earlier_run_is_a_backbone(tmp_path: Path, texts: Path, language_run: Path) -> None:
    settings = recipe(texts, language_run / "bundle", fit__epochs=1, trainer={"accelerator": "cpu"})
    run = fit(settings, out=tmp_path / "run", echo=silent)
    found, lm = Bundle.load(run.bundle), LanguageModelBundle.load(language_run / "bundle")
    assert found.subwords.fingerprint == lm.tokenizer.fingerprint
    assert found.predict("a fun film").label in ("good", "bad")


def test_a_masked_word_model_hands_its_encoder_on_too(tmp_path: Path, texts: Path) -> None:
    encoder = tiny_folder(tmp_path)
    lm = fit(
        language_recipe(texts, backbone={"name": str(encoder)}, fit__epochs=1, data__max_length=32),
        out=tmp_path / "lm",
        echo=silent,
    )
    module = ClassifierModule({"name": str(lm.bundle), "dropout": 0.3}, ["bad", "good"], head={"pool": "mean"})
    theirs = LanguageModelBundle.load(lm.bundle).model.backbone.state_dict()
    assert all(torch.equal(theirs[name], value) for name, value in module.model.backbone.state_dict().items())
    dropouts = {m.p for m in module.model.backbone.modules() if isinstance(m, torch.nn.Dropout)}
    assert dropouts == {0.3}
    run = fit(recipe(texts, lm.bundle, fit__epochs=1), out=tmp_path / "run", echo=silent)
    assert Bundle.load(run.bundle).predict("a fun film").label in ("good", "bad")


def test_an_awd_lstm_without_a_language_model_has_the_words_of_the_training_texts(tmp_path: Path, texts: Path) -> None:
    settings = nested(texts)
    del settings["language_model"]
    run = fit(settings, out=tmp_path / "run", echo=silent)
    assert "film" in Bundle.load(run.bundle).subwords.tokens(range(40))


def test_texts_in_other_words_than_the_encoders_are_refused(tmp_path: Path, language_run: Path) -> None:
    from headrace.text.subwords import Subwords

    with pytest.raises(ModelError, match="the vocabulary does not fit"):
        check_words(str(language_run / "bundle"), Subwords.load(tiny_folder(tmp_path)))


@pytest.mark.parametrize("key", ["direction", "n_layers"])
def test_what_the_bundle_decides_cannot_be_set(key: str, tmp_path: Path, texts: Path, language_run: Path) -> None:
    value = {"direction": "backward", "n_layers": 4}[key]
    settings = recipe(texts, language_run / "bundle", **{f"backbone__{key}": value})
    with pytest.raises(RecipeError, match=f"backbone.{key} is .*: the bundle .*bundle decides this"):
        fit(settings, out=tmp_path / "run", echo=silent)


def test_a_damaged_bundle_is_no_backbone(tmp_path: Path, texts: Path, language_run: Path) -> None:
    import shutil

    folder = shutil.copytree(language_run / "bundle", tmp_path / "bundle")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-5] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match="was changed"):
        fit(recipe(texts, folder), out=tmp_path / "run", echo=silent)


def test_the_block_takes_the_classifiers_texts_or_its_own_files(texts: Path, tmp_path: Path) -> None:
    own = load_recipe(nested(texts)).values
    assert language_values(own).data.train == str(texts)
    assert language_values(own).data.valid == "20%"
    more = nested(texts, language_model={**BLOCK, "train": [str(texts), str(tmp_path / "more.csv")], "limit": 30})
    found = language_values(load_recipe(more).values)
    assert found.data.train == [str(texts), str(tmp_path / "more.csv")]
    assert (found.data.valid, found.data.limit, found.fit.batch_size) == ("10%", 30, 4)
    assert found.task == "language_model"


def test_a_classifier_that_reads_both_ways_stands_on_two_language_models(tmp_path: Path, texts: Path) -> None:
    settings = nested(texts)
    settings["backbone"] |= {"direction": "both"}
    settings["head"] = {"name": "ulmfit", "hidden": 6}
    lines: list[str] = []
    run = fit(settings, out=tmp_path / "run", echo=lines.append)
    assert any(line.startswith("backward language model: ") for line in lines)
    readers = Bundle.load(run.bundle).classifier.readers
    folders = ("language_model", "language_model_backward")
    for reader, folder, direction in zip(readers, folders, ("forward", "backward"), strict=True):
        model = LanguageModelBundle.load(run.folder / folder / "bundle").model
        assert reader.backbone.direction == model.backbone.direction == direction
    page = (run.folder / "report.html").read_text("utf-8")
    assert "Backward language model" in page
    assert fit(settings, out=tmp_path / "run", echo=silent).was_finished

    named = {"name": str(run.folder / "language_model" / "bundle"), "direction": "both"}
    other = {"backward": str(run.folder / "language_model_backward" / "bundle")}
    module = ClassifierModule({**named, **other}, ["bad", "good"], head={"name": "ulmfit", "hidden": 6})
    assert len(module.model.readers) == 2
    with pytest.raises(RecipeError, match="needs the bundle of a backward one"):
        ClassifierModule(named, ["bad", "good"])
    with pytest.raises(ModelError, match="read forward and forward, not forward and backward"):
        ClassifierModule({**named, "backward": named["name"]}, ["bad", "good"])


def test_force_keeps_a_language_model_that_is_the_same(tmp_path: Path, texts: Path) -> None:
    out = tmp_path / "run"
    fit(nested(texts), out=out, echo=silent)
    inner = out / "language_model"
    first = (inner / "report.json").stat().st_mtime_ns
    lines: list[str] = []
    fit(nested(texts, fit__learning_rate=3e-3), out=out, force=True, echo=lines.append)
    assert "language model: already finished: " in "\n".join(lines)
    assert (inner / "report.json").stat().st_mtime_ns == first
    other = {**BLOCK, "learning_rate": 2e-2}
    fit(nested(texts, language_model=other), out=out, force=True, echo=silent)
    assert (inner / "report.json").stat().st_mtime_ns > first
    assert json.loads((inner / "run.json").read_text("utf-8"))["fit.learning_rate"] == 2e-2


def test_the_classifiers_dropout_is_nothing_to_a_language_model_with_its_own(texts: Path) -> None:
    def values(block: float | None, classifier: float) -> Any:
        settings = nested(texts, language_model={**BLOCK, "drop_mult": block})
        settings["backbone"] = {**AWD, "drop_mult": classifier}
        return language_values(load_recipe(settings).values)

    assert values(0.3, 0.5) == values(0.3, 0.8)
    assert values(None, 0.5) != values(None, 0.8)


def test_a_fault_of_the_language_model_is_named_as_in_the_classifiers_recipe(tmp_path: Path, texts: Path) -> None:
    block = {**BLOCK, "stages": [{"train": "9 groups", "epochs": 1}]}
    with pytest.raises(RecipeError, match="trains 9 groups") as caught:
        fit(nested(texts, language_model=block), out=tmp_path / "run", echo=silent)
    assert caught.value.where is not None
    assert caught.value.where.startswith("language_model.stages, stage 1")
