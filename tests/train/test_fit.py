"""From a recipe to a finished run: every task, head and kind of source; what stands in the folder; what is refused."""

from __future__ import annotations

import csv
import functools
import json
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from headrace import Bundle
from headrace.errors import DataError, HeadraceError, RecipeError
from headrace.train.fit import fit
from headrace.train.run import RunFolder
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, weights, write_csv


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def train_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "train.csv", rows(60))


def test_a_run_leaves_everything_that_was_promised(tmp_path: Path, train_file: Path, backbone: Path) -> None:
    test = write_csv(tmp_path / "test.csv", [{**row, "text": f"new: {row['text']}"} for row in rows(21)])
    settings = recipe(train_file, backbone, fit__epochs=3, logger="tensorboard")
    settings["data"]["test"] = str(test)
    lines: list[str] = []
    run = fit(settings, out=tmp_path / "run", echo=lines.append)
    report = json.loads((run.folder / "report.json").read_text("utf-8"))
    assert report["split"] == "test"
    assert report["n_rows"] == run.evaluation.n_rows == 21
    accuracy = report["metrics"]["accuracy"]
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert report["timing"]["fit_s"] > 0
    assert report["timing"]["train_texts_per_s"] > 0
    assert report["timing"]["peak_memory_bytes"] > 50_000_000
    assert [record["epoch"] for record in report["data"]["training"]["history"]] == [1, 2, 3]
    predictions = pq.read_table(run.folder / "predictions.parquet").to_pydict()
    assert predictions["row"] == list(range(2, 23))
    n_right = sum(a == b for a, b in zip(predictions["label"], predictions["predicted"], strict=True))
    assert n_right / 21 == pytest.approx(accuracy["value"])
    with open(run.folder / "errors.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 21 - n_right
    assert RunFolder(run.folder).status()["state"] == "finished"
    assert list((run.folder / "tensorboard").glob("events*"))
    assert [line.split("  ")[0] for line in lines if line.startswith("epoch")] == ["epoch 1", "epoch 2", "epoch 3"]
    found = Bundle.load(run.bundle).predict(["new: the film number 0 is warm"])[0]
    assert found.label == predictions["predicted"][0]
    assert found.scores["good"] == pytest.approx(predictions["score_good"][0], abs=1e-6)


def test_the_bundle_holds_the_best_checkpoint_by_the_monitor(tmp_path: Path, train_file: Path, backbone: Path) -> None:
    run = fit(recipe(train_file, backbone, fit__epochs=4, fit__monitor="loss"), out=tmp_path / "run", echo=silent)
    training = json.loads((run.folder / "report.json").read_text("utf-8"))["data"]["training"]
    losses = [record["valid"]["loss"] for record in training["history"]]
    assert training["best"]["value"] == min(losses)
    assert training["best"]["epoch"] == losses.index(min(losses))
    assert run.evaluation.split == "valid"
    assert run.evaluation.metric("log_loss").value == pytest.approx(min(losses), abs=1e-4)


def test_early_stopping_ends_before_the_last_epoch(tmp_path: Path, train_file: Path, backbone: Path) -> None:
    changes = {"fit__epochs": 30, "fit__early_stopping": {"patience": 2, "min_delta": 10.0, "monitor": "loss"}}
    run = fit(recipe(train_file, backbone, **changes), out=tmp_path / "run", echo=silent)
    history = json.loads((run.folder / "report.json").read_text("utf-8"))["data"]["training"]["history"]
    assert len(history) == 3


def multi_label_rows(n: int = 60) -> list[dict[str, Any]]:
    found = []
    for i in range(n):
        has = [i % 2 == 0, i % 3 == 0]
        words = [word for word, kept in zip(("lovely", "slow"), has, strict=True) if kept]
        found.append(
            {"text": f"film {i} was {' and '.join(words) or 'there'}", "warm": int(has[0]), "long": int(has[1])}
        )
    return found


@pytest.mark.parametrize("kind", ["dicts", "frame", "dataset"])
def test_multi_label_from_memory_is_the_same_from_each_kind_of_object(
    kind: str, tmp_path: Path, backbone: Path
) -> None:
    content = multi_label_rows()
    objects: dict[str, Any] = {"dicts": content, "frame": pd.DataFrame(content)}
    if kind == "dataset":
        import datasets

        objects["dataset"] = datasets.Dataset.from_list(content)
    settings = recipe(Path("unused"), backbone, task="multi_label", data__label=["warm", "long"], data__train=None)
    run = fit(settings, train=objects[kind], out=tmp_path / kind, echo=silent)
    reference = fit(settings, train=content, out=tmp_path / "reference", echo=silent)
    assert weights(run.folder) == weights(reference.folder)
    assert run.evaluation.labels == ("warm", "long")
    answers = Bundle.load(run.bundle).predict(["film 0 was lovely", "nothing"], threshold=0.99)
    assert [answer.label for answer in answers] == [None, None]
    assert [answer.labels for answer in answers] == [(), ()]
    again = fit(settings, train=objects[kind], out=tmp_path / kind, echo=silent)
    assert again.was_finished


def test_pairs_are_read_trained_and_predicted_as_pairs(tmp_path: Path, backbone: Path) -> None:
    content = [
        {"premise": f"film {i} is {a}", "hypothesis": f"it is {b}", "label": "same" if a == b else "other"}
        for i, (a, b) in enumerate([("warm", "warm"), ("warm", "slow"), ("slow", "slow"), ("slow", "warm")] * 12)
    ]
    settings = recipe(Path("unused"), backbone, data__text=["premise", "hypothesis"], data__train=None)
    run = fit(settings, train=content, out=tmp_path / "run", echo=silent)
    assert run.evaluation.labels == ("other", "same")
    found = Bundle.load(run.bundle).predict([("film 1 is warm", "it is warm")])
    assert found[0].label in ("other", "same")


@pytest.mark.parametrize("head", ["logistic", "svm"])
def test_a_classical_head_learns_on_frozen_features(
    head: str, tmp_path: Path, train_file: Path, backbone: Path
) -> None:
    run = fit(recipe(train_file, backbone, head={"name": head, "pool": "mean"}), out=tmp_path / "run", echo=silent)
    majority = 0.5
    value = run.evaluation.metric("accuracy").value
    assert value is not None
    assert value > majority
    names = {path.suffix for path in run.bundle.iterdir()}
    assert names <= {".json", ".yaml", ".safetensors"}


def test_the_native_head_trains_too(tmp_path: Path, train_file: Path, backbone: Path) -> None:
    run = fit(recipe(train_file, backbone, head={"name": "native"}), out=tmp_path / "run", echo=silent)
    assert Bundle.load(run.bundle).predict("a warm film").label in ("good", "bad")


def test_balanced_weights_come_from_the_training_rows(tmp_path: Path, backbone: Path) -> None:
    from headrace.recipe import load_recipe
    from headrace.train.fit import data_plan, loss_weights
    from headrace.train.prepare import prepare

    uneven = [row for row in rows(120) if row["label"] == "good" or int(row["text"].split()[3]) % 4 == 3]
    file = write_csv(tmp_path / "uneven.csv", uneven)
    values = load_recipe(recipe(file, backbone, fit__class_weights="balanced")).values
    prepared = prepare(data_plan(values))
    counts = np.bincount(prepared.train.targets)
    found = loss_weights(values.fit, prepared)["class_weights"]
    assert found == pytest.approx((counts.sum() / (2 * counts)).tolist())


@pytest.mark.parametrize(
    ("changes", "what", "next_step"),
    [
        ({"trainer": {"max_epochs": 3}}, "trainer.max_epochs is decided elsewhere", "use fit.epochs"),
        ({"trainer": {"max_step": 3}}, "lightning.Trainer has no argument 'max_step'", "did you mean 'max_steps'?"),
        ({"fit__monitor": "acuracy"}, "'acuracy' is not a figure of validation", "one of: loss, accuracy"),
        ({"logger": "tensorbord"}, "there is no logger named 'tensorbord'", "did you mean 'tensorboard'?"),
        ({"fit__class_weights": {"god": 2.0}}, "there is no label 'god'", "labels: bad, good"),
        (
            {
                "task": "multi_label",
                "data__label_separator": "|",
                "decide": {"threshold": {"cost": {"god": {"false_positive": 1, "false_negative": 5}}}},
            },
            "there is no label 'god'",
            "did you mean 'good'?",
        ),
    ],
    ids=["owned", "unknown argument", "monitor", "logger", "label", "costs"],
)
def test_what_cannot_be_is_refused_with_the_way_out(
    changes: dict[str, Any], what: str, next_step: str, tmp_path: Path, train_file: Path, backbone: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        fit(recipe(train_file, backbone, **changes), out=tmp_path / "run", echo=silent)
    assert what in caught.value.what
    assert next_step in str(caught.value.next)


@pytest.mark.parametrize(
    ("content", "expected"),
    [([], "no row"), ([{"text": f"a {i}", "label": "one"} for i in range(8)], "one")],
    ids=["no rows", "one class"],
)
def test_data_that_cannot_be_learned_from_end_before_a_model_is_loaded(
    content: list[dict[str, str]], expected: str, tmp_path: Path
) -> None:
    train = write_csv(tmp_path / "train.csv", content)
    settings = recipe(train, tmp_path / "no-such-model")
    (tmp_path / "no-such-model").mkdir()
    with pytest.raises(DataError) as caught:
        fit(settings, out=tmp_path / "run", echo=silent)
    assert expected in str(caught.value)


def test_any_other_trainer_argument_reaches_the_trainer(
    tmp_path: Path, train_file: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []
    kept = lightning.Trainer.__init__

    @functools.wraps(kept)
    def watched(self: lightning.Trainer, **given: Any) -> None:
        made.append(given)
        kept(self, **given)

    monkeypatch.setattr(lightning.Trainer, "__init__", watched)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # Lightning sets it for `deterministic`
    given = {"accelerator": "cpu", "detect_anomaly": True, "limit_val_batches": 1, "deterministic": True}
    settings = recipe(train_file, backbone, trainer={"limit_train_batches": 3, **given})
    try:
        run = fit(settings, out=tmp_path / "run", echo=silent)
    finally:
        torch.use_deterministic_algorithms(False)
    assert run.timing["n_steps"] == 6
    (arguments,) = made
    assert {name: arguments[name] for name in given} == given


@pytest.mark.parametrize(
    ("profiler", "action"),
    [
        ("simple", "run_training_batch"),
        pytest.param("advanced", "run_training_batch", marks=pytest.mark.slow),
        pytest.param("pytorch", "ProfilerStep", marks=pytest.mark.slow),
    ],
)
def test_a_profile_stands_in_the_runs_folder(
    profiler: str, action: str, tmp_path: Path, train_file: Path, backbone: Path
) -> None:
    run = fit(recipe(train_file, backbone, fit__epochs=1, profiler=profiler), out=tmp_path / "run", echo=silent)
    (profile,) = run.folder.glob("*profile*.txt")
    assert action in profile.read_text("utf-8")


def test_strict_stops_at_findings_with_exit_code_1_and_otherwise_they_are_told(tmp_path: Path, backbone: Path) -> None:
    leaking = rows(60)
    train = write_csv(tmp_path / "train.csv", leaking)
    test = write_csv(tmp_path / "test.csv", leaking[:10])
    settings = recipe(train, backbone, fit__epochs=1, data__test=str(test))
    with pytest.raises(HeadraceError) as caught:
        fit(settings, out=tmp_path / "strict", strict=True, echo=silent)
    assert caught.value.exit_code == 1
    assert "test_in_train" in str(caught.value.where)
    lines: list[str] = []
    run = fit(settings, out=tmp_path / "run", echo=lines.append)
    assert any(line.startswith("error: ") and "test data" in line for line in lines)
    assert {finding.code for finding in run.findings} >= {"test_in_train"}
    allowed = {**settings, "data": {**settings["data"], "allow": [finding.code for finding in run.findings]}}
    fit(allowed, out=tmp_path / "allowed", strict=True, echo=silent)


def test_skipped_rows_are_listed_in_the_run(tmp_path: Path, backbone: Path) -> None:
    train = write_csv(tmp_path / "train.csv", rows(60))
    with open(train, "a", encoding="utf-8") as file:
        file.write("one,two,three\n")
    run = fit(recipe(train, backbone, fit__epochs=1, data__on_bad_row="skip"), out=tmp_path / "run", echo=silent)
    listed = [json.loads(line) for line in (run.folder / "bad_rows.jsonl").read_text("utf-8").splitlines()]
    assert len(listed) == 1
    assert listed[0]["where"].endswith("train.csv:62")


def test_where_the_list_of_skipped_rows_is_cut_its_last_line_and_the_log_say_so(
    tmp_path: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("headrace.data.faults.MAX_KEPT_BAD_ROWS", 2)
    monkeypatch.setattr("headrace.train.standing.MAX_KEPT_BAD_ROWS", 2)
    train = write_csv(tmp_path / "train.csv", rows(24))
    with open(train, "a", encoding="utf-8") as file:
        file.write("one,two,three\n" * 5)
    run = fit(recipe(train, backbone, fit__epochs=1, data__on_bad_row="skip"), out=tmp_path / "run", echo=silent)
    *first, last = [json.loads(line) for line in (run.folder / "bad_rows.jsonl").read_text("utf-8").splitlines()]
    assert [row["where"].rsplit(":", 1)[1] for row in first] == ["26", "27"]
    reason = "3 more rows are left out and not listed: of each source the first 2 are"
    assert last == {"where": None, "reason": reason, "content": ""}
    assert f"{train}: 5 bad rows are left out, of which the first 2 are listed" in caplog.messages


def test_slices_of_rows_in_memory_stand_in_the_report(tmp_path: Path, backbone: Path) -> None:
    given = [{**row, "shop": ("north", "south")[i // 2 % 2]} for i, row in enumerate(rows(60))]
    test = [{**row, "text": f"again {row['text']}"} for row in given]
    settings = recipe(Path("unused"), backbone, fit__epochs=1, data__slices=["shop"])
    del settings["data"]["train"]
    run = fit(settings, train=given, test=test, out=tmp_path / "run", echo=silent)
    report = json.loads((run.folder / "report.json").read_text())
    found = {one["value"]: one["n_rows"] for one in report["slices"] if one["column"] == "shop"}
    assert found == {"north": 30, "south": 30}


@pytest.mark.slow
def test_a_second_run_of_the_same_takes_the_forecast_of_the_first(
    tmp_path: Path, train_file: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.train.forecast import Forecast

    asked: list[int] = []

    def counted(*args: object, **kwargs: object) -> Forecast:
        asked.append(1)
        return Forecast(10.0, 1.0, 12.0, 10**9, None, 16, 1.0)

    monkeypatch.setattr("headrace.train.foretold.forecast", counted)
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    lines: list[str] = []
    shorter = {"trainer": {"max_steps": 2}}  # moves no identity of the weights, but is another cost
    for out, changed in (("a", {}), ("b", {}), ("c", {"fit__learning_rate": 2e-3}), ("d", shorter)):
        fit(recipe(train_file, backbone, **changed), out=tmp_path / out, echo=lines.append)
    assert len(asked) == 3
    assert "forecast: about 12 s, as told before" in lines
    assert (tmp_path / "b" / "forecast.json").read_text() == (tmp_path / "a" / "forecast.json").read_text()
    for number, damaged in enumerate(("{", "[]", "{}")):
        for kept in (tmp_path / "cache" / "forecasts").iterdir():
            kept.write_text(damaged, "utf-8")
        fit(recipe(train_file, backbone), out=tmp_path / f"damaged-{number}", echo=lines.append)
        assert len(asked) == 4 + number


def test_pos_weights_of_a_recipe_are_those_of_the_loss(tmp_path: Path, backbone: Path) -> None:
    from headrace.recipe import load_recipe
    from headrace.train.fit import data_plan, loss_weights
    from headrace.train.prepare import prepare

    lines = ["text,rude,loud", *(f"the film number {i} is warm,{int(i % 3 == 0)},{int(i % 5 == 0)}" for i in range(60))]
    path = tmp_path / "train.csv"
    path.write_text("\n".join(lines), "utf-8")
    settings = recipe(path, backbone, task="multi_label", data__label=["rude", "loud"])
    values = load_recipe({**settings, "fit": {**settings["fit"], "pos_weight": "balanced"}}).values
    prepared = prepare(data_plan(values))
    has = prepared.train.targets
    assert loss_weights(values.fit, prepared)["pos_weight"] == pytest.approx(((1 - has).sum(0) / has.sum(0)).tolist())
    named = load_recipe({**settings, "fit": {**settings["fit"], "pos_weight": {"loud": 3.0}}}).values
    expected = [3.0 if name == "loud" else 1.0 for name in prepared.labels.names]
    assert loss_weights(named.fit, prepared)["pos_weight"] == expected
    settings["fit"]["pos_weight"] = {"loud": 3.0}
    run = fit(settings, out=tmp_path / "run", echo=silent)
    assert run.evaluation.n_rows > 0


def test_downsampling_thins_the_training_rows_alone_and_tells_what_cannot_be(tmp_path: Path, backbone: Path) -> None:
    from headrace.recipe import load_recipe
    from headrace.train.fit import data_plan
    from headrace.train.prepare import prepare

    train = write_csv(tmp_path / "train.csv", rows(100))
    test = write_csv(tmp_path / "test.csv", [{**row, "text": f"new: {row['text']}"} for row in rows(30)])
    settings = recipe(train, backbone, data__test=str(test))

    def prepared(**downsample: Any) -> Any:
        data = {**settings["data"], **({"downsample": downsample} if downsample else {})}
        return prepare(data_plan(load_recipe({**settings, "data": data}).values))

    whole, thinned = prepared(), prepared(rows="bad", to=7)
    assert np.bincount(thinned.train.targets).tolist() == [7, int((whole.train.targets == 1).sum())]
    for name in ("valid", "test"):
        assert getattr(thinned, name).examples.texts() == getattr(whole, name).examples.texts()
    assert not [one for one in thinned.findings if one.code == "downsample"]
    too_many = prepared(rows="bad", to=1000)
    (finding,) = [one for one in too_many.findings if one.code == "downsample"]
    assert "asks for 1,000 rows with the label 'bad', but there are" in finding.what
    assert len(too_many.train) == len(whole.train)


def test_a_bundle_that_fails_its_proof_fails_the_run(
    tmp_path: Path, train_file: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = Bundle.scores
    # the run's own process computes other scores than the fresh one will
    monkeypatch.setattr(Bundle, "scores", lambda self, texts, **compute: scores(self, texts, **compute) + 0.25)
    with pytest.raises(HeadraceError, match="in a fresh process"):
        fit(recipe(train_file, backbone), out=tmp_path / "run", echo=silent)
    assert RunFolder(tmp_path / "run").status()["state"] == "failed"
    assert not (tmp_path / "run" / "report.json").exists()
    monkeypatch.undo()
    run = fit(recipe(train_file, backbone), out=tmp_path / "run", echo=silent)  # the same command again: it goes on
    assert RunFolder(run.folder).status()["state"] == "finished"


def test_two_threads_give_the_weights_of_one_but_for_rounding(tmp_path: Path, train_file: Path, backbone: Path) -> None:
    from safetensors.torch import load_file

    before, found = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            run = fit(recipe(train_file, backbone), out=tmp_path / str(n), echo=silent)
            found.append(load_file(run.bundle / "model.safetensors"))
    finally:
        torch.set_num_threads(before)
    # the same rows and the same masks; sums are taken in another order
    assert max(float((found[0][name] - found[1][name]).abs().max()) for name in found[0]) < 1e-3


@pytest.mark.slow
def test_a_hub_id_trains_with_the_tokenizer_that_the_hub_serves(
    tmp_path: Path, train_file: Path, backbone: Path
) -> None:
    import os
    import subprocess
    import sys
    import threading

    from hub_stand_in import COMMIT, StandIn

    server = StandIn({"owner/tiny": backbone})
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        settings = recipe(train_file, backbone)
        settings["backbone"] = {"name": "owner/tiny"}
        (tmp_path / "recipe.yaml").write_text(json.dumps(settings), "utf-8")
        environment = {
            **os.environ,
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(tmp_path / "home"),
            "NO_PROXY": "127.0.0.1",
        }
        for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE"):
            environment.pop(name, None)
        done = subprocess.run(
            [sys.executable, "-m", "headrace", "fit", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    assert any("tokenizer.json" in request for request in server.requests)
    source = json.loads((tmp_path / "run" / "bundle" / "config.json").read_text("utf-8"))["backbone"]["source"]
    assert source["revision"] == COMMIT
    same = fit(recipe(train_file, backbone), out=tmp_path / "local", echo=silent)
    assert weights(tmp_path / "run") == weights(same.folder)
