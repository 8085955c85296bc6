"""Before a language model is trained for hours, `fit` and `check` find what its classifier would stumble over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.bundle import LanguageModelBundle
from headrace.check import check
from headrace.errors import HeadraceError, ModelError, RecipeError
from headrace.recipe import load_recipe
from headrace.train.fit import fit
from headrace.train.language.nested import language_values
from headrace.train.language.prepare import texts_trained_on
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, write_csv
from tiny_language import AWD, language_recipe, write_texts

BLOCK = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-2, "precision": "fp32"}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("data") / "train.csv", n=40)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, texts: Path) -> Path:
    """A folder with the runs of a language model and of a classifier."""
    folder = tmp_path_factory.mktemp("runs")
    fit(language_recipe(texts, fit__epochs=1), out=folder / "lm", echo=silent)
    fit(recipe(texts, tiny_folder(folder), fit__epochs=1), out=folder / "classifier", echo=silent)
    return folder


def nested(train: Path, backbone: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    changes = {"language_model": dict(BLOCK), "trainer": {"accelerator": "cpu"}, **changes}
    return {**recipe(train, Path("awd_lstm"), **changes), "backbone": backbone or dict(AWD)}


def refused(settings: dict[str, Any], out: Path) -> HeadraceError:
    """What `fit` refuses before anything is trained, and `check` in the same words."""
    with pytest.raises(HeadraceError) as fitted:
        fit(settings, out=out, echo=silent)
    assert not list(out.rglob("*.ckpt"))
    assert not list(out.rglob("training.json"))
    with pytest.raises(HeadraceError) as checked:
        check(settings)
    assert str(checked.value) == str(fitted.value)
    return fitted.value


@pytest.mark.parametrize(
    ("changes", "what", "where"),
    [
        (
            {"fit__stages": [{"train": "head"}, {"train": "7 groups"}]},
            "trains 7 groups of the backbone, which has 3",
            "fit.stages, stage 2",
        ),
        (
            {"language_model": {**BLOCK, "stages": [{"train": "9 groups"}]}},
            "trains 9 groups",
            "language_model.stages, stage 1",
        ),
        ({"fit__class_weights": {"good": 2.0, "fair": 1.0}}, "there is no label 'fair'", "fit.class_weights"),
        ({"backbone": {**AWD, "weights": "no/such.pth"}}, "the weights 'such.pth' is not there", "no/such.pth"),
        ({"backbone": {**AWD, "weights": "pretrained"}}, "weights", "backbone"),
        ({"backbone": {**AWD, "vocabulary": "words.txt"}}, "vocabulary is 'words.txt'", "backbone: vocabulary"),
        ({"head": {"name": "native"}}, "", "head"),
    ],
)
def test_what_only_the_model_shows_is_told_before_the_language_model_is_trained(
    changes: dict[str, Any], what: str, where: str, tmp_path: Path, texts: Path
) -> None:
    error = refused(nested(texts, **changes), tmp_path / "run")
    assert what in error.what
    assert where in str(error.where)


def test_texts_longer_than_the_encoder_takes_are_told_before(tmp_path: Path, texts: Path) -> None:
    block = {**BLOCK, "max_length": 16}
    settings = nested(texts, {"name": str(tiny_folder(tmp_path))}, language_model=block, data__max_length=100_000)
    assert "data.max_length is 100000" in refused(settings, tmp_path / "run").what


@pytest.mark.parametrize(("key", "value"), [("sequence_length", 30), ("drop_mult", 0.5)])
def test_what_masked_words_have_no_use_for_is_refused(key: str, value: float, tmp_path: Path, texts: Path) -> None:
    settings = nested(texts, {"name": str(tiny_folder(tmp_path))}, language_model={**BLOCK, key: value})
    error = refused(settings, tmp_path / "run")
    assert error.where == f"language_model.{key}"
    assert "masked" in error.what


def test_a_bad_row_of_the_classifier_is_told_before_its_language_model_is_trained(tmp_path: Path, texts: Path) -> None:
    own = write_csv(tmp_path / "own.csv", [*rows(20), {"text": "no label at all", "label": ""}])
    settings = nested(own, language_model={**BLOCK, "train": str(texts)})
    assert "own.csv:22" in str(refused(settings, tmp_path / "run"))


def test_weights_of_one_direction_are_too_few_for_both(tmp_path: Path, texts: Path, runs: Path) -> None:
    backbone = {"name": "awd_lstm", "weights": str(runs / "lm" / "bundle"), "direction": "both"}
    error = refused(nested(texts, backbone), tmp_path / "run")
    assert isinstance(error, ModelError)
    assert "the weights read texts forward, not backward" in error.what


@pytest.mark.parametrize(
    ("backbone", "what", "next_step"),
    [
        ({"name": "{runs}/lm"}, "{runs}/lm is a run, not a model", "name its bundle: {runs}/lm/bundle"),
        ({"name": "{runs}/classifier/bundle"}, "is the bundle of a classifier", "headrace export {runs}/classifier"),
        (
            {"name": "awd_lstm", "weights": "{runs}/lm/bundle"},
            "is a language model, whose words come with its weights",
            "write it as the backbone itself: `backbone: {runs}/lm/bundle`",
        ),
    ],
)
def test_a_backbone_that_is_something_else_is_told_what_it_is(
    backbone: dict[str, str], what: str, next_step: str, tmp_path: Path, texts: Path, runs: Path
) -> None:
    settings = {**recipe(texts, Path("x")), "backbone": {k: v.format(runs=runs) for k, v in backbone.items()}}
    error = refused(settings, tmp_path / "run")
    assert what.format(runs=runs) in error.what
    assert next_step.format(runs=runs) in str(error.next)


def test_sizes_beside_the_weights_of_a_bundle_are_refused(tmp_path: Path, texts: Path, runs: Path) -> None:
    backbone = {"name": "awd_lstm", "weights": str(runs / "lm" / "bundle"), "hidden_size": 16}
    error = refused(nested(texts, backbone), tmp_path / "run")
    assert isinstance(error, RecipeError)
    assert f"backbone.hidden_size is 16: the bundle {runs}/lm/bundle decides this" in error.what


def test_check_tells_what_the_language_model_would_read(tmp_path: Path, texts: Path) -> None:
    test = write_csv(tmp_path / "test.csv", [*rows(6), {"text": "unheard of", "label": "bad"}])
    settings = nested(texts, language_model={**BLOCK, "sequence_length": 9}, data__test=str(test))
    found = check(settings)
    before = found.as_dict()["language_model"]
    read = [text for file in texts_trained_on(language_values(load_recipe(settings).values)) for text in file.texts()]
    assert before["splits"][0]["n_texts"] == len(read)
    assert before["sequence_length"] == 9
    assert before["test_share"] == pytest.approx(sum(row["text"] in read for row in rows(6)) / 7)
    assert [split["name"] for split in found.as_dict()["splits"]] == ["train", "valid", "test"]
    plain = {name: value for name, value in settings.items() if name != "language_model"}
    assert check(plain).as_dict()["language_model"] is None


def test_a_number_is_no_text_to_go_on_with(runs: Path) -> None:
    with pytest.raises(RecipeError, match="the text is a int"):
        LanguageModelBundle.load(runs / "lm" / "bundle").generate(3)  # type: ignore[arg-type]
