"""`task: language_model` from texts to a bundle: it learns, it goes on exactly where it was cut, and it tells its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from headrace.bundle.language_model import LanguageModelBundle
from headrace.errors import DataError, ModelError, RecipeError, RunError
from headrace.train.fit import fit
from headrace.train.run import RunFolder
from tiny import tiny_folder
from tiny_fits import silent, stop_at, training, weights
from tiny_language import language_recipe, write_texts


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("data") / "train.csv")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def settings(texts: Path, encoder: Path) -> dict[str, dict[str, Any]]:
    """A recipe of each kind."""
    masked = language_recipe(texts, backbone={"name": str(encoder)}, data__max_length=32, fit__batch_size=8)
    return {"next_word": language_recipe(texts), "masked_word": masked}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, dict[str, Any]]) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    for kind, recipe in settings.items():
        fit(recipe, out=root / kind, echo=silent)
    return {kind: root / kind for kind in settings}


KINDS = ("next_word", "masked_word")


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text("utf-8"))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_leaves_bundle_report_and_metrics_of_validation(kind: str, undisturbed: dict[str, Path]) -> None:
    found = report(undisturbed[kind])
    assert set(found["metrics"]) == {"loss", "accuracy", "perplexity"}
    assert found["split"] == "valid"
    assert found["kind"] == kind
    history = found["data"]["training"]["history"]
    best = min(record["valid"]["loss"] for record in history)
    assert found["metrics"]["loss"]["value"] == best
    assert history[-1]["valid"]["loss"] < history[0]["valid"]["loss"]
    assert found["timing"]["train_tokens_per_s"] > 0
    bundle = LanguageModelBundle.load(undisturbed[kind] / "bundle")
    assert bundle.kind == kind
    assert bundle.about.metrics["loss"] == best
    assert (undisturbed[kind] / "report.html").is_file()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["first", "middle", "end of the epoch", "second epoch"])
def test_a_run_cut_at_any_step_ends_bit_equal(
    kind: str, place: str, tmp_path: Path, settings: dict[str, dict[str, Any]], undisturbed: dict[str, Path]
) -> None:
    whole = training(undisturbed[kind])
    per_epoch = whole["total"] // 2
    step = {"first": 1, "middle": per_epoch // 2, "end of the epoch": per_epoch, "second epoch": per_epoch + 2}[place]
    stop_at(step, settings[kind], tmp_path / "run")
    assert RunFolder(tmp_path / "run").status()["state"] == "interrupted"
    fit(settings[kind], out=tmp_path / "run", echo=silent)
    assert weights(tmp_path / "run") == weights(undisturbed[kind])
    mine = training(tmp_path / "run")["history"]
    assert [(r["train_loss"], r["valid"], r["train"]) for r in mine] == [
        (r["train_loss"], r["valid"], r["train"]) for r in whole["history"]
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_in_16_bits_a_run_that_was_cut_ends_bit_equal_too(
    kind: str, tmp_path: Path, settings: dict[str, dict[str, Any]]
) -> None:
    recipe = {**settings[kind], "fit": {**settings[kind]["fit"], "precision": "bf16"}}
    whole = fit(recipe, out=tmp_path / "whole", echo=silent)
    stop_at(training(whole.folder)["total"] // 2 + 2, recipe, tmp_path / "run")
    fit(recipe, out=tmp_path / "run", echo=silent)
    assert weights(tmp_path / "run") == weights(whole.folder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_died_between_checkpoints_ends_bit_equal(
    kind: str, tmp_path: Path, settings: dict[str, dict[str, Any]], undisturbed: dict[str, Path]
) -> None:
    """Its last checkpoint is some steps old: the streams are read again from there, with the state of then."""
    from headrace.train import resume

    class Died(BaseException):
        """Nothing catches it, as nothing catches a kill."""

    kept = resume.Keeper.on_train_batch_end

    def dying(self: Any, *args: Any, **kwargs: Any) -> None:
        self.every_s = 0.0 if self.progress.total + 1 == 3 else 1000.0
        kept(self, *args, **kwargs)
        if self.progress.total == 6:
            raise Died

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
        patch.setattr(resume.Keeper, "on_train_batch_end", dying)
        fit(settings[kind], out=tmp_path / "run", echo=silent)
    lines: list[str] = []
    fit(settings[kind], out=tmp_path / "run", echo=lines.append)
    assert any("resumed at step 3 of" in line for line in lines)
    assert weights(tmp_path / "run") == weights(undisturbed[kind])


def test_the_hidden_state_is_part_of_what_is_kept(
    tmp_path: Path, settings: dict[str, dict[str, Any]], undisturbed: dict[str, Path]
) -> None:
    """Without the state of the streams a run that was cut would go on, and end elsewhere."""
    from headrace.train.language import module

    stop_at(3, settings["next_word"], tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.NextWordModule, "put_state", lambda self, state, rank: None)
        fit(settings["next_word"], out=tmp_path / "run", echo=silent)
    assert weights(tmp_path / "run") != weights(undisturbed["next_word"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_run_is_left_as_it_is(
    kind: str, settings: dict[str, dict[str, Any]], undisturbed: dict[str, Path]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed[kind].rglob("*.json")}
    again = fit(settings[kind], out=undisturbed[kind], echo=silent)
    assert again.was_finished
    assert {path: path.stat().st_mtime_ns for path in undisturbed[kind].rglob("*.json")} == before


def test_another_recipe_in_the_same_folder_is_refused(texts: Path, undisturbed: dict[str, Path]) -> None:
    with pytest.raises(RunError, match=r"language_model\.sequence_length: 9 -> 11"):
        fit(language_recipe(texts, language_model__sequence_length=11), out=undisturbed["next_word"], echo=silent)


def test_several_files_are_read_together_and_listed_openly(tmp_path: Path, texts: Path) -> None:
    more = tmp_path / "more.csv"
    more.write_text("text\nthe film is long and fun\nthe film number 3 is great\n", "utf-8")
    test = tmp_path / "test.csv"
    test.write_text("text\nthe film is long and fun\na slow and lovely film\n", "utf-8")
    lines: list[str] = []
    recipe = language_recipe([texts, more], data__test=str(test), fit__epochs=1)
    run = fit(recipe, out=tmp_path / "run", echo=lines.append)
    found = report(run.folder)
    files = found["data"]["splits"]["train"]["files"]
    assert [Path(file["source"]).name for file in files] == ["train.csv", "more.csv"]
    assert sum(file["rows"] for file in files) + found["data"]["splits"]["valid"]["rows"] == 62
    assert found["split"] == "test"
    assert found["data"]["test_texts_in_training"] in (0.0, 0.5)  # by where the text of both was put
    assert any("no label is read" in line and "more.csv" in line for line in lines)
    assert "more.csv" in (run.folder / "report.html").read_text("utf-8")


def test_stages_train_the_head_first(tmp_path: Path, texts: Path) -> None:
    stages = [{"train": "head", "epochs": 1}, {"epochs": 1}]
    run = fit(language_recipe(texts, fit__stages=stages), out=tmp_path / "run", echo=silent)
    assert [record["stage"] for record in training(run.folder)["history"]] == [1, 2]


def test_max_steps_ends_a_run_without_validation_and_still_measures_it(tmp_path: Path, texts: Path) -> None:
    run = fit(language_recipe(texts), out=tmp_path / "run", overrides=["trainer.max_steps=2"], echo=silent)
    assert training(run.folder)["total"] == 2
    assert run.evaluation.metrics["perplexity"].value is not None


def test_the_loss_told_is_that_of_the_streams_from_a_fresh_state(texts: Path, undisturbed: dict[str, Path]) -> None:
    """The validation's figure, recomputed by hand from the bundle over the same joined texts."""
    from headrace.recipe import load_recipe
    from headrace.train.language.prepare import prepare_language

    prepared = prepare_language(load_recipe(language_recipe(texts)).values)
    bundle = LanguageModelBundle.load(undisturbed["next_word"] / "bundle")
    corpus = prepared.valid.corpus
    ids = torch.cat([torch.from_numpy(corpus.ids(row).astype("int64")) for row in range(len(corpus))])
    length = (len(ids) - 1) // 4
    inputs = torch.stack([ids[n * length : (n + 1) * length] for n in range(4)])
    targets = torch.stack([ids[n * length + 1 : (n + 1) * length + 1] for n in range(4)])
    model = bundle.model
    with torch.no_grad():
        expected = float(model.learn(inputs, targets, model.initial_state(4)).loss)  # type: ignore[operator]
    assert report(undisturbed["next_word"])["metrics"]["loss"]["value"] == pytest.approx(expected, abs=1e-5)


def test_a_later_language_model_begins_with_the_weights_of_an_earlier_one(
    tmp_path: Path, texts: Path, undisturbed: dict[str, Path]
) -> None:
    """As ULMFiT does: pre-trained on other texts, the words matched one by one, the others at the mean."""
    from headrace.recipe import load_recipe
    from headrace.train.language.model import load_language_model
    from headrace.train.language.prepare import prepare_language

    other = tmp_path / "other.csv"
    other.write_text("text\n" + "\n".join([f"the film number {i} is a marvel" for i in range(20)]), "utf-8")
    old = LanguageModelBundle.load(undisturbed["next_word"] / "bundle")
    backbone = {"name": "awd_lstm", "weights": str(undisturbed["next_word"] / "bundle")}
    values = load_recipe(language_recipe([other, texts], backbone=backbone)).values
    prepared = prepare_language(values)
    model = load_language_model(values, prepared.tokenizer)
    theirs, ours = old.tokenizer.tokens(range(old.tokenizer.vocabulary_size)), prepared.tokenizer
    words = ours.tokens(range(ours.vocabulary_size))
    was, now = old.model.backbone.embedding.weight, model.backbone.embedding.weight  # type: ignore[union-attr]
    assert torch.equal(now[words.index("film")], was[theirs.index("film")])  # type: ignore[index]
    torch.testing.assert_close(now[words.index("marvel")], was.mean(dim=0))  # type: ignore[index,operator]

    lines: list[str] = []
    run = fit(
        language_recipe([other, texts], backbone=backbone, fit__epochs=1), out=tmp_path / "run", echo=lines.append
    )
    n_known = sum(word in set(theirs) for word in words)
    assert 0 < n_known < len(words)
    assert any(f"knows {n_known} of the {len(words)} words" in line for line in lines)
    found = report(run.folder)["data"]["weights"]
    assert found == {"weights": backbone["weights"], "n_words": len(theirs), "n_matched": n_known}
    assert f"which knew {n_known} of the {len(words)} words" in (run.folder / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("changes", "error", "what"),
    [
        ({"fit__monitor": "f1"}, RecipeError, "'f1' is not a figure of validation for language_model"),
        ({"fit__micro_batch": 2}, RecipeError, "fit.micro_batch is not for next words"),
        ({"trainer": {"accelerator": "cpu", "devices": 2}}, RecipeError, "trained on one device"),
        ({"backbone": {"name": "awd_lstm"}}, ModelError, "the pretrained weights of awd_lstm are not downloaded"),
        ({"backbone__dropout": 0.1}, RecipeError, "backbone.dropout is 0.1"),
        ({"data__train": None}, DataError, "no training data is named"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    changes: dict[str, Any], error: type[Exception], what: str, tmp_path: Path, texts: Path
) -> None:
    with pytest.raises(error, match=what):
        fit(language_recipe(texts, **changes), out=tmp_path / "run", echo=silent)


@pytest.mark.parametrize("arguments", [["--seeds", "2"], ["--find-lr"]])
def test_what_is_for_classifiers_alone_is_refused(
    arguments: list[str], tmp_path: Path, texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    from headrace.cli import run

    path = tmp_path / "lm.yaml"
    path.write_text(yaml.safe_dump(language_recipe(texts)), "utf-8")
    assert run(["fit", str(path), "--out", str(tmp_path / "run"), *arguments]) == 2
    assert "is for classifiers, and this recipe trains a language model" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_and_curves_in_tensorboard(kind: str, tmp_path: Path, settings: dict[str, dict[str, Any]]) -> None:
    changed = {**settings[kind], "logger": "tensorboard"}
    overrides = ["fit.precision=bf16", "fit.epochs=1", "trainer.log_every_n_steps=1"]
    run = fit(changed, out=tmp_path / "run", overrides=overrides, echo=silent)
    assert run.evaluation.metrics["loss"].value is not None
    assert list((run.folder / "tensorboard").glob("events*"))


def test_a_pair_of_texts_is_one_text_with_marked_fields(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    rows = "\n".join(f"a man number {i} plays,a man number {i} is on the stage" for i in range(30))
    path.write_text(f"premise,hypothesis\n{rows}\n", "utf-8")
    run = fit(language_recipe(path, data__text=["premise", "hypothesis"]), out=tmp_path / "run", echo=silent)
    bundle = LanguageModelBundle.load(run.bundle)
    assert bundle.scores([("a man plays", "a man is there")]).shape == (1,)


def test_bad_rows_are_told_together_or_left_out_and_listed(tmp_path: Path, texts: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(texts.read_text("utf-8") + '"a row, of three",cells,too many\n', "utf-8")
    with pytest.raises(DataError, match=r"cells|columns|fields"):
        fit(language_recipe(path), out=tmp_path / "run", echo=silent)
    run = fit(
        language_recipe(path, data__on_bad_row="skip"),
        out=tmp_path / "run",
        overrides=["trainer.max_steps=1"],
        echo=silent,
    )
    assert len((run.folder / "bad_rows.jsonl").read_text("utf-8").splitlines()) == 1


def test_texts_in_memory_are_refused_with_a_way_out(tmp_path: Path, texts: Path) -> None:
    with pytest.raises(RecipeError, match="train is in memory") as caught:
        fit(language_recipe(texts), train=[{"text": "a film"}], out=tmp_path / "run", echo=silent)
    assert ".jsonl" in str(caught.value.next)
