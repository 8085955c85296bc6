"""What the audit finds in the texts of a language model: `check` shows it, `fit` tells it, the report keeps it."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from headrace.check import check
from headrace.cli_output import check_answer, show
from headrace.errors import HeadraceError
from headrace.train.fit import fit
from headrace.train.language.summary import LanguageCheck
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, write_csv
from tiny_language import AWD, language_recipe

LONG = "a film of such length that nobody who has seen it would ever call it short or even brief"
BLOCK = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-2, "precision": "fp32"}


def texts_of(*texts: str) -> list[dict[str, str]]:
    return [{"text": text, "label": "good"} for text in texts]


@pytest.fixture
def flawed(tmp_path: Path) -> Path:
    """Thirty texts that are good, and four that are not."""
    return write_csv(
        tmp_path / "flawed.csv",
        [*rows(30), *texts_of("", LONG, LONG + "!", "The FILM number 3 is " + rows(4)[3]["text"].split("is ")[1])],
    )


def found_in(settings: dict[str, Any]) -> LanguageCheck:
    found = check(settings)
    assert isinstance(found, LanguageCheck)
    return found


def shown(found: Any) -> tuple[str, int]:
    stream = io.StringIO()
    answer = check_answer(found, recipe="lm.yaml")
    show(answer, as_json=False, stream=stream)
    return stream.getvalue(), answer.exit_code


def test_texts_are_audited_and_the_exit_code_says_so(flawed: Path) -> None:
    found = found_in(language_recipe(flawed))
    told = {f.code: (f.severity, f.count, f.where) for f in found.findings}
    parted = told.pop("valid_near_train", None)  # the split decides it
    assert told == {
        "empty_text": ("warning", 1, (f"{flawed}:32",)),
        "duplicate": ("note", 1, (f"{flawed}:35 = {flawed}:5",)),
        "near_duplicate": ("note", 1, (f"{flawed}:34 ~ {flawed}:33",)),
    }
    assert parted in (None, ("note", 1, (f"{flawed}:34 ~ {flawed}:33",)), ("note", 1, (f"{flawed}:33 ~ {flawed}:34",)))
    assert not found.is_clean
    value = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert value["is_clean"] is False
    assert value["findings"][0]["where"] == [f"{flawed}:32"]
    out, exit_code = shown(found)
    assert exit_code == 1
    assert "warning [empty_text]" in out
    assert "mend these, or accept them by their codes in data.allow" in out


def test_what_is_allowed_is_not_told(flawed: Path) -> None:
    found = found_in(language_recipe(flawed, data__allow=["empty_text", "duplicate"]))
    assert {f.code for f in found.findings} - {"valid_near_train"} == {"near_duplicate"}
    assert found.is_clean
    assert shown(found)[1] == 0


def test_validation_is_compared_with_training_and_test_is_not(tmp_path: Path) -> None:
    train = [write_csv(tmp_path / f"{n}.csv", part) for n, part in enumerate((rows(20), rows(30)[20:]))]
    valid = write_csv(tmp_path / "valid.csv", [*texts_of("a film that nobody has seen", LONG), rows(30)[25]])
    test = write_csv(tmp_path / "test.csv", [rows(30)[2], *texts_of("unheard of", "")])
    found = found_in(language_recipe(train, data__valid=str(valid), data__test=str(test)))
    assert [(f.code, f.count, f.where) for f in found.findings if f.severity == "warning"] == [
        ("empty_text", 1, (f"{test}:4",)),
        ("valid_in_train", 1, (f"{valid}:4 = {train[1]}:7",)),
    ]
    assert found.test_share == pytest.approx(1 / 3)  # told openly, and no finding
    assert not {f.code for f in found.findings} & {"test_in_train", "test_near_train", "test_in_valid"}
    assert "of the test texts stand among the training texts" in shown(found)[0]


def test_lengths_are_shown_and_one_is_suggested_where_there_is_a_cut(tmp_path: Path) -> None:
    texts = write_csv(tmp_path / "texts.csv", rows(40))
    encoder = tiny_folder(tmp_path)
    masked = found_in(language_recipe(texts, backbone={"name": str(encoder)}, data__max_length=8, fit__batch_size=8))
    assert (masked.max_length, masked.max_length_key, masked.suggested_max_length) == (8, "data.max_length", 64)
    train = masked.splits[0]
    assert sum(train.lengths.histogram.counts) == train.n_texts
    assert train.lengths.cut_share == pytest.approx(train.cut_share, abs=1e-3)
    assert train.lengths.longest > 8 == train.longest
    out = shown(masked)[0]
    assert "---- cut here: data.max_length 8 ----" in out
    assert "data.max_length is 8; 64 would keep 95 % of the training texts whole" in out
    whole = found_in(language_recipe(texts))
    assert (whole.max_length, whole.suggested_max_length) == (None, None)
    assert "texts are read whole, so no length is suggested" in shown(whole)[0]
    assert "cut here" not in shown(whole)[0]
    cut = language_recipe(texts)
    cut["language_model"]["max_length"] = 10
    out = shown(found_in(cut))[0]
    assert "---- cut here: language_model.max_length 10 ----" in out
    assert "language_model.max_length is 10; 32 would" in out


def test_what_a_language_model_does_not_have_is_said(tmp_path: Path) -> None:
    settings = language_recipe(write_csv(tmp_path / "texts.csv", rows(40)))
    out = shown(check(settings, labels=True, forecast=True))[0]
    assert "no label is read, so --labels has nothing to rank" in out
    assert "no forecast: time and memory are foretold for classifiers alone" in out
    assert "streams have no padding" in out
    plain = found_in(settings)
    assert "no label is read" in plain.notes
    assert not any("forecast" in note or "--labels" in note for note in plain.notes)


def test_findings_before_a_classifier_are_those_of_texts_of_its_own(tmp_path: Path, flawed: Path) -> None:
    train = write_csv(tmp_path / "train.csv", rows(40))
    changes = {"trainer": {"accelerator": "cpu"}, "data__allow": ["near_empty_text"]}

    def settings(**block: Any) -> dict[str, Any]:
        return {**recipe(train, Path("x"), language_model={**BLOCK, **block}, **changes), "backbone": dict(AWD)}

    found = check(settings(train=str(flawed)))
    assert found.language_model is not None
    assert "empty_text" in {f.code for f in found.language_model.findings}
    assert "empty_text" not in {f.code for f in found.findings}
    assert not found.is_clean
    assert shown(found)[1] == 1
    same = check(settings())
    assert same.language_model.findings == []
    assert same.is_clean
    assert "it reads data.train, whose findings stand with the classifier" in shown(same)[0]


def test_a_run_tells_its_findings_keeps_them_and_stops_if_it_shall(tmp_path: Path, flawed: Path) -> None:
    settings = language_recipe(flawed, fit__epochs=1)
    with pytest.raises(HeadraceError, match="--strict stops") as stopped:
        fit(settings, out=tmp_path / "strict", strict=True, echo=silent)
    assert stopped.value.exit_code == 1
    assert not (tmp_path / "strict" / "training.json").exists()
    lines: list[str] = []
    run = fit(settings, out=tmp_path / "run", echo=lines.append)
    assert any(line.startswith("warning: 1 row of the training data has an empty text") for line in lines)
    expected = check(settings).findings
    assert list(run.findings) == expected
    report = json.loads((run.folder / "report.json").read_text("utf-8"))
    assert report["findings"] == json.loads(json.dumps([asdict(f) for f in expected]))
    page = (run.folder / "report.html").read_text("utf-8")
    assert "What to look at" in page
    assert "1 thing to look at in the texts; see below." in page
    again = fit(settings, out=tmp_path / "run", echo=silent)
    assert (again.was_finished, list(again.findings)) == (True, expected)
    with pytest.raises(HeadraceError, match="--strict stops"):
        fit(settings, out=tmp_path / "run", strict=True, echo=silent)


def test_a_classifiers_run_stops_at_its_language_models_findings_before_that_is_trained(
    tmp_path: Path, flawed: Path
) -> None:
    train = write_csv(tmp_path / "train.csv", rows(40))
    settings = recipe(train, Path("x"), language_model={**BLOCK, "train": str(flawed)}, trainer={"accelerator": "cpu"})
    settings = {**settings, "backbone": dict(AWD), "fit": {**settings["fit"], "epochs": 1}}
    with pytest.raises(HeadraceError, match="--strict stops"):
        fit(settings, out=tmp_path / "run", strict=True, echo=silent)
    assert not list((tmp_path / "run").rglob("training.json"))
    run = fit(settings, out=tmp_path / "run", echo=silent)
    page = (run.folder / "report.html").read_text("utf-8")
    assert "1 thing to look at in the texts; see language_model/report.html." in page
