"""What a run says beyond its metrics: each part in its form, true to the run, and made anew without training."""

from __future__ import annotations

import csv
import hashlib
import json
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import html5lib
import numpy as np
import pyarrow.parquet as pq
import pytest

from headrace import Bundle, evaluate
from headrace.decide.calibration import NONE
from headrace.errors import RecipeError, RunError
from headrace.explain import Explanation, explain
from headrace.explain.explanation import TOLERANCE
from headrace.metrics import decisions
from headrace.report import verdict
from headrace.train import evidence, worst
from headrace.train.fit import Run, fit
from headrace.train.forecast import Forecast
from headrace.train.run import RunFolder
from tiny import tiny_folder
from tiny_fits import recipe, silent, training, weights

WORDS = {"good": ["warm", "fine", "lovely", "laughed"], "bad": ["slow", "bad", "worse", "cried"]}
FILLING = ["film", "plot", "pace", "end", "music", "story", "heart", "cast", "stage", "guitar", "phone", "hours", "man"]
LEAKED = 2
NEAR = 1


def sentence(draw: random.Random, *words: str) -> str:
    found = [*draw.choices(FILLING, k=draw.randint(6, 14)), *words]
    draw.shuffle(found)
    return " ".join(found)


def reviews(n: int, seed: int) -> list[dict[str, Any]]:
    """Rows of two labels that one word tells; every tenth label is wrong, so that any model makes mistakes."""
    draw, found = random.Random(seed), []
    for i in range(n):
        label = ("good", "bad")[i % 2]
        text = sentence(draw, draw.choice(WORDS[label]))
        told = label if i % 10 > 1 else ("bad" if label == "good" else "good")
        found.append({"text": text, "label": told, "shop": ("north", "south")[i // 2 % 2]})
    return found


def tags(n: int, seed: int) -> list[dict[str, Any]]:
    """Rows of which one in four has each label: scores stay under 0.5 for a while, whatever their order."""
    draw, found = random.Random(seed), []
    for _ in range(n):
        has = [draw.random() < 0.25 for _ in range(2)]
        words = [word for word, kept in zip(("lovely", "slow"), has, strict=True) if kept]
        found.append({"text": sentence(draw, *words, *words), "warm": int(has[0]), "long": int(has[1])})
    return found


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text("utf-8"))
    return found


def page_of(folder: Path) -> Any:
    """Return report.html as a tree; the parser is strict, and no id stands twice."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    tree = parser.parse((folder / "report.html").read_text("utf-8"))
    ids = [node.get("id") for node in tree.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    return tree


def shown(tree: Any) -> str:
    return plain("".join(tree.itertext()))


def plain(text: str) -> str:
    """Return a text with one space wherever there is room, as the page's may not break."""
    return " ".join(text.split())


def is_interval(value: Any) -> bool:
    return isinstance(value, dict) and {"value", "low", "high"} <= set(value)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> dict[str, Any]:
    """A recipe with files for all three splits; three test rows stand in the training file, one of them nearly."""
    folder = tmp_path_factory.mktemp("data")
    train = reviews(160, 1)
    near = {**train[4], "text": f"{train[4]['text']} x"}
    test = [*reviews(60, 3), *({**row} for row in train[:LEAKED]), near]
    found = recipe(written(folder / "train.csv", train), backbone, fit__learning_rate=3e-3, fit__batch_size=8)
    found["data"] |= {
        "valid": str(written(folder / "valid.csv", reviews(80, 2))),
        "test": str(written(folder / "test.csv", test)),
    }
    return found


@pytest.fixture(scope="module")
def full(settings: dict[str, Any]) -> dict[str, Any]:
    """The same recipe with all that the evidence has."""
    abstain = {"error_rate": 0.6, "confidence": 0.6}  # so much error that it can always be certified
    data = {**settings["data"], "slices": ["shop"]}
    return {**settings, "data": data, "baseline": True, "decide": {"abstain": abstain}}


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, full: dict[str, Any]) -> Run:
    return fit(full, out=tmp_path_factory.mktemp("single") / "run", echo=silent)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]) -> Path:
    """A finished run with nothing decided, no baseline and no slices."""
    return fit(settings, out=tmp_path_factory.mktemp("bare") / "run", echo=silent).folder


@pytest.fixture
def finished(bare: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(bare, tmp_path / "run"))


@pytest.fixture(scope="module")
def multi(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> Run:
    folder = tmp_path_factory.mktemp("multi")
    values = recipe(
        written(folder / "train.csv", tags(260, 5)),
        backbone,
        task="multi_label",
        data__label=["warm", "long"],
        data__valid="40%",
        fit__learning_rate=2e-3,
        baseline=True,
        decide={},
    )
    return fit(values, out=folder / "run", echo=silent)


# -- one label, with test data ------------------------------------------------------------------------------------


def test_each_part_has_the_form_that_was_promised(single: Run) -> None:
    report = report_of(single.folder)
    assert report["split"] == "test"
    decide = report["decide"]
    assert decide["out_of_fold"] is False
    assert decide["thresholds"] is None
    calibration = decide["calibration"]
    assert calibration["method"] == "temperature"
    assert all(is_interval(calibration["before"][name]) for name in ("ece", "brier", "log_loss"))
    assert (calibration["after"] is None) == (not calibration["kept"])
    assert all(0 <= point["share"] <= 1 for point in calibration["before"]["reliability"])
    assert sum(point["n"] for point in calibration["before"]["reliability"]) == report["n_rows"]
    baseline = report["baseline"]
    assert baseline["name"] == "TF-IDF + logistic regression"
    assert set(baseline["metrics"]) == set(report["metrics"]) == set(baseline["majority"]["metrics"])
    found = baseline["verdict"]
    assert found["n_rows"] == report["n_rows"]
    assert found["a"]["value"] == baseline["metrics"]["accuracy"]["value"]
    assert found["b"]["value"] == report["metrics"]["accuracy"]["value"]
    assert found["difference"]["value"] == pytest.approx(found["b"]["value"] - found["a"]["value"])
    assert all(set(one) == {"code", "severity", "what", "next"} for one in report["diagnoses"])
    assert set(report["curves"]) == {"roc", "pr"}
    assert set(report["curves"]["roc"]) == {"good"}  # of two labels the second tells all
    for points in (report["curves"]["roc"]["good"], report["curves"]["pr"]["good"]):
        assert 2 <= len(points) <= 100
        assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y in points)
    assert report["curves"]["roc"]["good"][0] == [0.0, 0.0]
    assert report["curves"]["roc"]["good"][-1] == [1.0, 1.0]
    curve = report["training_curve"]
    assert len(curve["steps"]) == len(curve["loss"]) == report["timing"]["n_steps"] == curve["steps"][-1]
    assert set(curve["rates"]) == {"head", "layer 1", "layer 0", "embeddings"}
    forecast = report["forecast"]
    assert forecast["fit_s"] is None
    assert forecast["reason"].startswith("the training is short (")
    assert forecast["actual_fit_s"] == report["timing"]["fit_s"]
    assert [split["name"] for split in report["check"]["splits"]] == ["train", "valid", "test"]
    assert report["check"]["findings"] == report["findings"]
    assert report["timing"]["evidence_s"] > 0


def test_the_page_is_whole_and_shows_the_verdict(single: Run) -> None:
    report = report_of(single.folder)
    tree = page_of(single.folder)
    head = shown(tree.find(".//header"))
    assert plain(verdict(report)["sentence"]) in head
    assert report["baseline"]["name"] in head
    text = shown(tree)
    assert "cannot be read" not in text
    assert "could not be" not in text
    sections = {section.get("id") for section in tree.iter("section")}
    assert {"data", "training", "metrics", "calibration", "abstention", "slices", "leaks", "errors"} <= sections
    assert report["errors"][0]["text"] in text
    (section,) = [section for section in tree.iter("section") if section.get("id") == "forecast"]
    assert "There was no forecast. The training is short (" in shown(section)


def test_the_evaluated_scores_are_those_of_the_bundle(single: Run, full: dict[str, Any]) -> None:
    with open(full["data"]["test"], encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    bundle = Bundle.load(single.bundle)
    table = pq.read_table(single.folder / "predictions.parquet").to_pydict()
    scores = np.stack([table[f"score_{name}"] for name in bundle.labels], axis=1)
    np.testing.assert_allclose(bundle.scores(texts), scores, rtol=0, atol=2e-6)
    report = report_of(single.folder)
    assert bundle.decision.calibration.as_dict()["parameters"] == report["decide"]["calibration"]["parameters"]
    abstain = report["decide"]["abstain"]
    assert abstain["threshold"] is not None
    assert bundle.decision.abstain_below == abstain["threshold"]
    answered = [prediction.reason is None for prediction in bundle.predict(texts)]
    assert np.mean(answered) == pytest.approx(abstain["coverage"]["value"])
    assert evaluate(bundle, full["data"]["test"]).metrics["log_loss"].value == pytest.approx(
        report["metrics"]["log_loss"]["value"], abs=1e-5
    )


def test_leaking_rows_are_counted_and_the_metrics_are_told_without_them(single: Run) -> None:
    report = report_of(single.folder)
    leaks = report["leaks"]
    assert (leaks["n_exact"], leaks["n_near"], leaks["n_rows_without"]) == (LEAKED, NEAR, 60)
    table = pq.read_table(single.folder / "predictions.parquet").to_pydict()
    right = [a == b for a, b in zip(table["label"], table["predicted"], strict=True)]
    assert leaks["metrics_without"]["accuracy"]["value"] == pytest.approx(np.mean(right[:60]))
    assert set(leaks["metrics_without"]) == set(report["metrics"])


def test_slices_are_parted_by_the_columns_of_the_file(single: Run) -> None:
    found = report_of(single.folder)["slices"]
    shops = {one["value"]: one["n_rows"] for one in found if one["column"] == "shop"}
    assert set(shops) == {"north", "south"}
    assert sum(shops.values()) == 63
    assert {one["column"] for one in found} >= {"true label", "length in tokens", "shop"}
    values = [one["value_of_metric"]["value"] for one in found if one["value_of_metric"]["low"] is not None]
    assert values == sorted(values)
    assert all(is_interval(one["value_of_metric"]) and isinstance(one["is_flagged"], bool) for one in found)


def test_the_worst_errors_are_mistakes_with_their_place_and_the_words_that_misled(single: Run) -> None:
    errors = report_of(single.folder)["errors"]
    table = pq.read_table(single.folder / "predictions.parquet").to_pydict()
    assert 0 < len(errors) <= 20
    assert [one["confidence"] for one in errors] == sorted((one["confidence"] for one in errors), reverse=True)
    for one in errors:
        place = table["row"].index(one["row"])
        assert one["where"].endswith(f"test.csv:{one['row']}")
        assert (one["true"], one["predicted"]) == (table["label"][place], table["predicted"][place])
        assert one["true"] != one["predicted"]
        assert one["confidence"] == pytest.approx(table[f"score_{one['predicted']}"][place])
    explained = errors[: worst.MAX_EXPLAINED]
    for one in explained:
        assert "".join(text for text, _ in one["attributions"]) == one["text"]
        assert any(value for _, value in one["attributions"])
        assert one["explained"] == one["predicted"]
        assert one["is_exact"] == (one["error_share"] <= TOLERANCE)
    for one in errors[worst.MAX_EXPLAINED :]:
        assert one["attributions"] is one["is_exact"] is one["error_share"] is None


# -- several labels, without test data ----------------------------------------------------------------------------


def test_without_test_data_validation_is_evaluated_out_of_fold(multi: Run) -> None:
    report = report_of(multi.folder)
    assert report["split"] == "valid"
    assert report["n_rows"] == 104
    decide = report["decide"]
    assert decide["out_of_fold"] is True
    assert decide["n_fitted"] == 104
    assert decide["calibration"]["method"] in ("platt", "isotonic")
    found = decide["thresholds"]
    assert found["kept"] is True, found["reason"]
    assert set(found["values"]) == {"warm", "long"}
    assert found["rule"] == "f1"
    assert found["default"] == 0.5
    assert is_interval(found["before"]["f1_macro"])
    assert is_interval(found["after"]["f1_macro"])
    assert decide["abstain"] is None
    assert set(report["curves"]["roc"]) == {"warm", "long"}


def test_a_note_says_that_the_same_rows_chose_the_thresholds(multi: Run, single: Run) -> None:
    report = report_of(multi.folder)
    assert evidence.THRESHOLDS_NOTE in report["notes"]
    assert evidence.THRESHOLDS_NOTE in str(multi.evaluation)
    assert "chosen on these same rows" in shown(page_of(multi.folder))
    assert evidence.THRESHOLDS_NOTE not in report_of(single.folder)["notes"]


def test_thresholds_hold_in_the_evaluation_the_predictions_and_the_bundle(multi: Run) -> None:
    report = report_of(multi.folder)
    bundle = Bundle.load(multi.bundle)
    values = report["decide"]["thresholds"]["values"]
    assert bundle.threshold == values
    assert report["threshold"] == [values[name] for name in bundle.labels]
    table = pq.read_table(multi.folder / "predictions.parquet").to_pydict()
    scores = np.stack([table[f"score_{name}"] for name in bundle.labels], axis=1)
    decided = decisions(scores.astype(np.float32), multi_label=True, threshold=np.array(report["threshold"]))
    names = [[name for name, has in zip(bundle.labels, row, strict=True) if has] for row in decided]
    assert table["predicted"] == names
    assert any(names)
    n_right = sum(a == b for a, b in zip(table["label"], table["predicted"], strict=True))
    assert report["metrics"]["accuracy"]["value"] == pytest.approx(n_right / 104)


def test_errors_of_several_labels_are_explained_for_the_label_that_is_farthest_off(multi: Run) -> None:
    errors = report_of(multi.folder)["errors"]
    assert errors
    for one in errors[: worst.MAX_EXPLAINED]:
        given = {name for name in one["true"].split(", ") if name != "(no label)"}
        answered = {name for name in one["predicted"].split(", ") if name != "(no label)"}
        assert one["explained"] in given ^ answered
        assert one["attributions"] is not None


# -- pairs, and what may be missing -------------------------------------------------------------------------------


def test_pairs_have_evidence_too(tmp_path: Path, backbone: Path) -> None:
    content = [
        {"premise": f"film {i} is {a}", "hypothesis": f"it is {b}", "label": "same" if a == b else "other"}
        for i, (a, b) in enumerate([("warm", "warm"), ("warm", "slow"), ("slow", "slow"), ("slow", "warm")] * 20)
    ]
    values = recipe(
        Path("unused"), backbone, data__text=["premise", "hypothesis"], data__train=None, baseline=True, decide={}
    )
    values["data"]["valid"] = "50%"
    run = fit(values, train=content, out=tmp_path / "run", echo=silent)
    report = report_of(run.folder)
    assert report["baseline"]["verdict"]["n_rows"] == report["n_rows"] == 40
    assert "are too few" in report["decide"]["calibration"]["reason"]
    assert report["errors"]
    error = report["errors"][0]
    assert error["pair"].startswith("it is")
    assert "".join(text for text, _ in error["attributions"]) == f"{error['text']} / {error['pair']}"
    assert error["pair"] in shown(page_of(run.folder))


def test_without_captum_a_line_says_so_and_all_else_is_there(
    finished: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    lines: list[str] = []
    fit({**settings, "baseline": True}, out=finished, echo=lines.append)
    (line,) = [line for line in lines if "no attributions" in line]
    assert "captum" in line
    errors = report_of(finished)["errors"]
    assert errors
    assert all(one["attributions"] is None for one in errors)
    page_of(finished)


def test_attributions_that_do_not_add_up_are_carried_as_such(
    finished: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def rough(*given: Any, **options: Any) -> list[Explanation]:
        return [replace(one, error_share=0.137) for one in explain(*given, **options)]

    monkeypatch.setattr(worst, "explain", rough)
    fit({**settings, "baseline": True}, out=finished, echo=silent)
    errors = report_of(finished)["errors"]
    n_explained = min(len(errors), worst.MAX_EXPLAINED)
    assert [one["error_share"] for one in errors[:n_explained]] == [0.137] * n_explained
    assert not any(one["is_exact"] for one in errors)
    assert shown(page_of(finished)).count("do not add up: their sum is 13.7 % off") == n_explained


@pytest.mark.parametrize(("n_tokens", "most"), [(1, 512), (64, 512), (307, 64), (512, 64), (2000, 16), (100_000, 16)])
def test_the_words_of_a_long_mistake_are_weighed_with_fewer_points(n_tokens: int, most: int) -> None:
    how = worst._bounded(n_tokens)
    points = [how.first_steps]
    while 2 * points[-1] <= how.max_steps:
        points.append(2 * points[-1])
    assert points[-1] == most
    assert points[-1] * n_tokens <= worst.MAX_TOKENS_OF_ONE or points == [16]


def test_it_is_told_how_far_the_mistakes_are_explained(
    finished: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def slow(*given: Any, **options: Any) -> list[Explanation]:
        now[0] += 6.0
        return explain(*given, **options)

    monkeypatch.setattr(worst, "explain", slow)
    monkeypatch.setattr(worst.time, "monotonic", lambda: now[0])
    lines: list[str] = []
    fit({**settings, "baseline": True}, out=finished, echo=lines.append)
    n = min(len(report_of(finished)["errors"]), worst.MAX_EXPLAINED)
    told = [line for line in lines if line.startswith("explained ")]
    assert n >= 2
    assert told == [f"explained {done} of {n} mistakes for the report" for done in range(2, n + 1, 2)]


def test_a_run_without_baseline_is_not_compared(bare: Path) -> None:
    report = report_of(bare)
    assert report["baseline"] is None
    assert report["decide"]["calibration"]["kept"] is False
    assert report["decide"]["calibration"]["reason"] == "not asked for"
    assert {one["column"] for one in report["slices"]} == {"true label", "length in tokens", "cut at max_length"}
    assert "TF-IDF" not in shown(page_of(bare).find(".//header"))


def test_settings_of_the_decision_that_do_not_suit_are_told_before_training(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    for decide, what in (
        ({"calibrate": "platt"}, "platt is not for task: single_label"),
        ({"threshold": {"precision": 0.9}}, "threshold"),
    ):
        with pytest.raises(RecipeError, match=what):
            fit({**settings, "decide": decide}, out=tmp_path / "run", echo=silent)
        assert not (tmp_path / "run" / "training.json").exists()
        assert not (tmp_path / "run" / "checkpoints").exists()


# -- evaluated anew, without training -----------------------------------------------------------------------------


def _changes(full: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        "decide": {"decide": {"calibrate": "temperature"}},
        "baseline": {"baseline": True},
        "slices": {"data": full["data"]},
    }


@pytest.mark.parametrize("changed", ["decide", "baseline", "slices"])
def test_another_evaluation_of_a_finished_run_does_not_train(
    changed: str, finished: Path, settings: dict[str, Any], full: dict[str, Any]
) -> None:
    before, weights_before = training(finished), weights(finished)
    trained_at = (finished / "training.json").stat().st_mtime_ns
    old, old_page = report_of(finished), (finished / "report.html").read_bytes()
    values = {**settings, **_changes(full)[changed]}
    lines: list[str] = []
    run = fit(values, out=finished, echo=lines.append)
    assert not run.was_finished
    assert not [line for line in lines if line.startswith(("epoch", "step", "training", "resumed"))]
    assert training(finished) == before
    assert (finished / "training.json").stat().st_mtime_ns == trained_at
    assert weights(finished) == weights_before
    report = report_of(finished)
    assert report["data"]["training"] == old["data"]["training"]
    assert report["timing"]["fit_s"] == old["timing"]["fit_s"]
    assert (finished / "report.html").read_bytes() != old_page
    assert RunFolder(finished).status()["state"] == "finished"
    if changed == "decide":
        assert report["recipe"]["decide"]["calibrate"] == "temperature"
        assert report["decide"]["calibration"]["reason"] != "not asked for"
    elif changed == "baseline":
        assert report["baseline"]["verdict"]["sentence"]
    else:
        assert "shop" in {one["column"] for one in report["slices"]}

    lines.clear()
    stamp = (finished / "report.json").stat().st_mtime_ns
    again = fit(values, out=finished, echo=lines.append)
    assert again.was_finished
    assert lines == [f"already finished: {finished} holds this run; nothing was trained"]
    assert (finished / "report.json").stat().st_mtime_ns == stamp


def test_what_the_new_evaluation_decides_stands_in_the_bundle(finished: Path, settings: dict[str, Any]) -> None:
    text = "the plot is slow and the end is worse"
    plain = Bundle.load(finished / "bundle")
    assert plain.decision.calibration.method == NONE
    assert plain.predict(text).reason is None
    values = {**settings, "decide": {"calibrate": "none", "abstain": {"error_rate": 0.6, "confidence": 0.6}}}
    fit(values, out=finished, echo=silent)
    careful = Bundle.load(finished / "bundle")
    assert careful.decision.abstain_below == report_of(finished)["decide"]["abstain"]["threshold"]
    assert careful.decision.abstain_below is not None
    np.testing.assert_array_equal(careful.scores([text]), plain.scores([text]))
    fit(settings, out=finished, echo=silent)  # and back
    assert Bundle.load(finished / "bundle").decision == plain.decision


def test_a_change_that_moves_weights_is_refused_even_beside_one_that_does_not(
    finished: Path, settings: dict[str, Any]
) -> None:
    values = {**settings, "baseline": True, "fit": {**settings["fit"], "learning_rate": 1e-3}}
    with pytest.raises(RunError, match=r"fit\.learning_rate"):
        fit(values, out=finished, echo=silent)
    assert fit(settings, out=finished, echo=silent).was_finished


def test_a_finished_run_whose_checkpoints_were_removed_stays_finished(finished: Path, settings: dict[str, Any]) -> None:
    shutil.rmtree(finished / "checkpoints")
    with pytest.raises(RunError, match="the best weights of this run are missing"):
        fit({**settings, "baseline": True}, out=finished, echo=silent)
    assert RunFolder(finished).status()["state"] == "finished"
    assert fit(settings, out=finished, echo=silent).was_finished


def test_an_evaluation_that_was_cut_off_is_made_again(
    finished: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {**settings, "baseline": True}
    with monkeypatch.context() as patch:
        patch.setattr("headrace.train.finish.evidence_of", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit(values, out=finished, echo=silent)
    assert RunFolder(finished).status()["state"] == "failed"
    lines: list[str] = []
    run = fit(values, out=finished, echo=lines.append)
    assert not run.was_finished
    assert report_of(finished)["baseline"] is not None
    assert not [line for line in lines if line.startswith("epoch")]


def test_a_recipe_that_was_put_down_without_its_evaluation_is_not_finished(
    finished: Path, settings: dict[str, Any]
) -> None:
    """As a kill between the two leaves it: the new recipe stands there, the report is of the old one."""
    values = {**settings, "baseline": True}
    text = (finished / "recipe.yaml").read_text("utf-8")
    (finished / "recipe.yaml").write_text(text.replace("baseline: false", "baseline: true"), "utf-8")
    assert not fit(values, out=finished, echo=silent).was_finished
    assert report_of(finished)["baseline"] is not None


def test_the_slices_of_rows_in_memory_can_be_changed_too(tmp_path: Path, backbone: Path) -> None:
    rows = reviews(60, 8)
    values = recipe(Path("unused"), backbone, fit__epochs=1, data__train=None)
    run = fit(values, train=rows, out=tmp_path / "run", echo=silent)
    before = weights(run.folder)
    with_slices = {**values, "data": {**values["data"], "slices": ["shop"]}}
    lines: list[str] = []
    run = fit(with_slices, train=rows, out=tmp_path / "run", echo=lines.append)
    assert not run.was_finished
    assert not [line for line in lines if line.startswith("epoch")]
    assert weights(run.folder) == before
    assert "shop" in {one["column"] for one in report_of(run.folder)["slices"]}
    assert fit(with_slices, train=rows, out=tmp_path / "run", echo=silent).was_finished


# -- the forecast -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_forecast_stands_beside_what_came_of_it_and_is_kept_by_the_run(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def cheap(values: Any, prepared: Any, *, max_share: float, **_: Any) -> Forecast:
        asked.append(max_share)
        return Forecast(12.5, 1.0, 20.0, 900_000_000, None, 40, 3.0)

    monkeypatch.setattr("headrace.train.foretold.forecast", cheap)
    lines: list[str] = []
    first = {**settings, "trainer": {"max_steps": 3}}
    fit(first, out=tmp_path / "run", echo=lines.append)
    assert "forecast: about 20 s, 0.9 GB of memory" in lines
    told = report_of(tmp_path / "run")
    assert told["forecast"]["fit_s"] == 12.5
    assert told["forecast"]["peak_memory_bytes"] == 900_000_000
    assert told["forecast"]["actual_fit_s"] == told["timing"]["fit_s"]
    assert told["forecast"]["actual_peak_memory_bytes"] == told["timing"]["peak_memory_bytes"]
    run = fit(settings, out=tmp_path / "run", echo=silent)
    assert not run.was_finished
    report = report_of(run.folder)
    assert report["timing"]["n_steps"] == 40
    assert report["forecast"]["fit_s"] == 12.5
    assert report["forecast"]["actual_fit_s"] == report["timing"]["fit_s"] > told["timing"]["fit_s"]
    assert len(asked) == 1
    assert "forecast" in {section.get("id") for section in page_of(run.folder).iter("section")}
    lines.clear()
    fit(first, out=tmp_path / "run", force=True, echo=lines.append)
    assert len(asked) == 1  # the very same training on the same machine: what was found is kept
    assert "forecast: about 20 s, as told before" in lines
    fit({**settings, "trainer": {"max_steps": 4}}, out=tmp_path / "run", force=True, echo=silent)
    assert len(asked) == 2


@pytest.mark.slow
def test_why_there_is_no_forecast_is_kept_by_a_run_that_goes_on_and_asked_anew_by_one_that_begins(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**settings, "seed": 99}  # another test's training would be known on this machine
    why = iter(("the disk is full", "it is short", "never asked"))
    monkeypatch.setattr(
        "headrace.train.foretold.forecast",
        lambda *_, **__: Forecast(None, None, None, None, None, 40, 0.1, next(why)),
    )
    with monkeypatch.context() as patch:
        patch.setattr("headrace.train.session.Session.train", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit(settings, out=tmp_path / "run", echo=silent)
    fit({**settings, "trainer": {"max_steps": 3}}, out=tmp_path / "run", echo=silent)
    assert report_of(tmp_path / "run")["forecast"]["reason"] == "it is short"
    fit(settings, out=tmp_path / "run", echo=silent)
    assert report_of(tmp_path / "run")["forecast"]["reason"] == "it is short"
    (tmp_path / "run" / "forecast.json").unlink()
    fit({**settings, "baseline": True}, out=tmp_path / "run", echo=silent)
    assert report_of(tmp_path / "run")["forecast"]["reason"] == "the run was begun without one"


def test_the_memory_of_a_gpu_is_told_and_kept_like_the_processor_s(
    finished: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert report_of(finished)["timing"]["peak_device_bytes"] is None
    with monkeypatch.context() as patch:
        patch.setattr("headrace.train.finish.peak_device_bytes", lambda: 3_400_000_000)
        fit({**settings, "baseline": True}, out=finished, echo=silent)
    report = report_of(finished)
    assert report["timing"]["peak_device_bytes"] == report["forecast"]["actual_peak_device_bytes"] == 3_400_000_000
    assert shown(page_of(finished)).count("3.40 GB") == 2
    fit(settings, out=finished, echo=silent)  # evaluated anew by a process that trains nothing
    assert report_of(finished)["timing"]["peak_device_bytes"] == 3_400_000_000


def test_the_memory_of_training_is_not_that_of_a_later_evaluation(
    finished: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = report_of(finished)["timing"]["peak_memory_bytes"]
    monkeypatch.setattr("headrace.train.finish.peak_memory_bytes", lambda: 1000)  # a process that trained nothing
    fit({**settings, "baseline": True}, out=finished, echo=silent)
    assert report_of(finished)["timing"]["peak_memory_bytes"] == before


# -- a task of somebody's own -------------------------------------------------------------------------------------

PLUGIN = '''
"""One label a text, with scores that are surer than the loss would have them."""
import torch
from headrace.tasks import single_label
MULTI_LABEL = False
loss = single_label.loss
decode = single_label.decode


def scores(logits):
    return torch.softmax(3.0 * logits.float(), dim=-1)
'''


@pytest.mark.parametrize("with_test", [True, False])
def test_a_task_of_somebodys_own_keeps_its_scores(
    with_test: bool, tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "surer_task.py").write_text(PLUGIN, "utf-8")
    info = tmp_path / "surer-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: surer\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text("[headrace.tasks]\nsurer = surer_task\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # a process of its own finds the package, too
    data = dict(settings["data"])
    file = data["test"] if with_test else data["valid"]
    if not with_test:
        del data["test"]
    run = fit({**settings, "task": "surer", "data": data, "decide": {}}, out=tmp_path / "run", echo=silent)
    bundle = Bundle.load(run.bundle)
    assert bundle.decision.calibration.method == NONE
    with open(file, encoding="utf-8", newline="") as opened:
        texts = [row["text"] for row in csv.DictReader(opened)]
    table = pq.read_table(run.folder / "predictions.parquet").to_pydict()
    scores = np.stack([table[f"score_{name}"] for name in bundle.labels], axis=1)
    np.testing.assert_allclose(scores, bundle.scores(texts), rtol=0, atol=2e-6)
    report = report_of(run.folder)
    before = report["decide"]["calibration"]["before"]["log_loss"]["value"]
    assert before == pytest.approx(report["metrics"]["log_loss"]["value"], abs=1e-6)
    again = evaluate(bundle, file)
    assert again.metrics["log_loss"].value == pytest.approx(report["metrics"]["log_loss"]["value"], abs=1e-5)


def test_the_bundle_of_a_run_is_the_same_file_by_file_when_it_is_evaluated_alike(
    finished: Path, settings: dict[str, Any]
) -> None:
    def hashes() -> dict[str, str]:
        files = (path for path in (finished / "bundle").iterdir() if path.name not in ("bundle.json", "manifest.json"))
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = hashes()
    fit({**settings, "baseline": True}, out=finished, echo=silent)
    after = hashes()
    assert {name for name in before if before[name] != after[name]} <= {"recipe.yaml"}
