"""A run that was stopped anywhere and started again ends bit-equal to one that was not (T1, T3-T7, T9-T13, T15, T20)."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from headrace.errors import DataError, HeadraceError, Interrupted, RecipeError, RunError
from headrace.train.checkpoints import checkpoints_in
from headrace.train.data import StepBatch
from headrace.train.fit import fit
from headrace.train.module import ClassifierModule
from headrace.train.resume import Keeper
from headrace.train.run import RunFolder
from tiny import tiny_folder
from tiny_fits import interrupt_at, recipe, rows, silent, stop_at, training, weights, write_csv

N_STEPS = 16  # 32 training rows in batches of 4, two epochs


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def train_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "train.csv", rows())


def run(settings: dict[str, Any], out: Path, **arguments: Any) -> Path:
    fit(settings, out=out, echo=silent, **arguments)
    return out


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, train_file: Path, backbone: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    with taken_rows() as taken:
        run(recipe(train_file, backbone), out)
    (out / "rows.json").write_text(json.dumps(taken))
    return out


@contextmanager
def taken_rows() -> Iterator[list[list[int]]]:
    """The rows of each step that is taken inside the block."""
    taken: list[list[int]] = []
    kept = ClassifierModule.learn

    def learn(self: ClassifierModule, step: StepBatch) -> torch.Tensor:
        taken.append(step.rows.tolist())
        return kept(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClassifierModule, "learn", learn)
        yield taken


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=[] if step in (1, 8) else pytest.mark.slow) for step in range(1, N_STEPS + 1)]
)
def test_a_run_cut_at_any_step_ends_bit_equal(
    step: int, tmp_path: Path, train_file: Path, backbone: Path, undisturbed: Path
) -> None:
    settings = recipe(train_file, backbone)
    with taken_rows() as taken:
        stop_at(step, settings, tmp_path / "run")
        assert RunFolder(tmp_path / "run").status()["state"] == "interrupted"
        run(settings, tmp_path / "run")
    assert taken == json.loads((undisturbed / "rows.json").read_text())
    assert weights(tmp_path / "run") == weights(undisturbed)
    mine, theirs = training(tmp_path / "run")["history"], training(undisturbed)["history"]
    assert [(r["train_loss"], r["valid"], r["train"]) for r in mine] == [
        (r["train_loss"], r["valid"], r["train"]) for r in theirs
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"fit__accumulate": 2},
        pytest.param({"fit__micro_batch": 1}, marks=pytest.mark.slow),
        pytest.param({"fit__schedule": "one_cycle"}, marks=pytest.mark.slow),
        {"fit__early_stopping": 1, "fit__monitor": "loss"},
        pytest.param({"fit__sampler": "length_buckets"}, marks=pytest.mark.slow),
        pytest.param({"fit__sampler": "balanced"}, marks=pytest.mark.slow),
        {"fit__optimizer": "adam", "fit__layer_decay": 0.5, "backbone__dropout": 0.3},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_a_cut_run_is_bit_equal_under_other_settings(
    changes: dict[str, Any], tmp_path: Path, train_file: Path, backbone: Path
) -> None:
    settings = recipe(train_file, backbone, **changes)
    whole = run(settings, tmp_path / "whole")
    stop_at(5, settings, tmp_path / "cut")
    run(settings, tmp_path / "cut")
    assert weights(tmp_path / "cut") == weights(whole)


def test_the_same_seed_twice_is_bit_equal_and_another_seed_is_not(
    tmp_path: Path, train_file: Path, backbone: Path, undisturbed: Path
) -> None:
    again = run(recipe(train_file, backbone), tmp_path / "again")
    other = run(recipe(train_file, backbone, seed=14), tmp_path / "other")
    assert weights(again) == weights(undisturbed)
    assert weights(other) != weights(undisturbed)


def test_max_steps_stops_and_a_larger_one_goes_on_exactly(
    tmp_path: Path, train_file: Path, backbone: Path, undisturbed: Path
) -> None:
    settings = recipe(train_file, backbone)
    out = tmp_path / "run"
    fit(settings, out=out, overrides=["trainer.max_steps=5"], echo=silent)
    assert training(out)["total"] == 5
    lines: list[str] = []
    fit(settings, out=out, echo=lines.append)
    assert "resumed at step 5 of 16" in lines
    assert training(out)["total"] == N_STEPS
    assert weights(out) == weights(undisturbed)


def test_a_finished_run_is_left_as_it_is(undisturbed: Path, train_file: Path, backbone: Path) -> None:
    def times() -> dict[Path, int]:
        files = (path for path in undisturbed.rglob("*") if path.is_file() and path.name != ".lock")
        return {path: path.stat().st_mtime_ns for path in files}

    before = times()
    lines: list[str] = []
    again = fit(recipe(train_file, backbone), out=undisturbed, echo=lines.append)
    after = times()
    assert again.was_finished
    assert any("already finished" in line for line in lines)
    assert before == after


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, train_file: Path, backbone: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "stopped"
    stop_at(5, recipe(train_file, backbone), out)
    return out


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"fit__learning_rate": 5e-3}, "fit.learning_rate: 0.001 -> 0.005"),
        ({"seed": 14}, "seed: 13 -> 14"),
        ({"backbone__name": "other"}, "backbone.name: "),
        ({"data__labels": ["good", "bad"]}, 'data.labels: null -> ["good", "bad"]'),
        ({"data__train": "edited"}, "content of train: "),
    ],
    ids=["learning rate", "seed", "model", "label set", "edited row"],
)
def test_a_run_of_something_else_is_refused_with_the_difference(
    changes: dict[str, Any], difference: str, tmp_path: Path, train_file: Path, backbone: Path, stopped: Path
) -> None:
    if "backbone__name" in changes:
        changes = {"backbone__name": str(tiny_folder(tmp_path, "distilbert"))}
    if "data__train" in changes:
        edited = rows()
        edited[3]["text"] = "another text"
        changes = {"data__train": str(write_csv(tmp_path / "edited.csv", edited))}
    with pytest.raises(RunError, match="this folder holds a run of something else") as caught:
        run(recipe(train_file, backbone, **changes), stopped)
    assert difference in caught.value.what
    assert "--force" in str(caught.value.next)
    assert RunFolder(stopped).status()["state"] == "interrupted"


def test_force_starts_anew_where_another_run_was_interrupted(tmp_path: Path, train_file: Path, backbone: Path) -> None:
    stop_at(5, recipe(train_file, backbone), tmp_path)
    run(recipe(train_file, backbone, seed=14, fit__epochs=1), tmp_path, force=True)
    assert RunFolder(tmp_path).status()["state"] == "finished"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_newest_checkpoint_falls_back_and_says_what_is_lost(
    damage: str, tmp_path: Path, train_file: Path, backbone: Path, undisturbed: Path
) -> None:
    settings = recipe(train_file, backbone)
    out = tmp_path / "run"
    stop_at(12, settings, out)
    newest, before = checkpoints_in(out / "checkpoints")
    assert (newest.name, before.name) == ("step-00000012-0001.ckpt", "step-00000008-0001.ckpt")
    content = bytearray(newest.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    newest.write_bytes(b"" if damage == "empty" else content[: -1000 if damage == "truncated" else None])
    lines: list[str] = []
    fit(settings, out=out, echo=lines.append)
    assert any("step-00000012-0001.ckpt is damaged" in line and "4 steps are lost" in line for line in lines)
    assert weights(out) == weights(undisturbed)


def test_a_full_disk_while_saving_in_an_epoch_warns_and_training_goes_on(
    tmp_path: Path, train_file: Path, backbone: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = recipe(train_file, backbone, fit__checkpoint_every_s=0.0001)
    real_save = torch.save
    saves = []

    def full(content: Any, file: Any) -> None:
        saves.append(1)
        if len(saves) == 3:
            file.write(b"x" * 1000)
            raise OSError(28, "No space left on device")
        real_save(content, file)

    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(torch, "save", full)
        run(settings, tmp_path / "run")
    assert "No space left on device" in caplog.text
    assert "Training goes on" in caplog.text
    assert re.search(r"at least [\d,]{6,} bytes are needed, and [\d,]+ bytes are free there", caplog.text)
    assert not list((tmp_path / "run" / "checkpoints").glob(".tmp-*"))
    assert weights(tmp_path / "run") == weights(undisturbed)


@pytest.mark.parametrize("where", ["headrace.train.worst.explain", "headrace.train.forecast.measure"])
def test_a_signal_before_or_after_the_training_ends_the_run_too(
    where: str, tmp_path: Path, train_file: Path, backbone: Path, undisturbed: Path
) -> None:
    def interrupting(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    settings = recipe(train_file, backbone)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted) as caught:
        patch.setattr(where, interrupting)
        if where.endswith("measure"):
            patch.setattr("headrace.train.foretold.FIT_SHARE", math.inf)  # so short a run gets a forecast, too
        run(settings, tmp_path / "run")
    assert caught.value.exit_code == 128 + signal.SIGTERM
    assert RunFolder(tmp_path / "run").status()["state"] == "interrupted"
    run(settings, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(undisturbed)


@pytest.mark.parametrize(("moment", "call"), [("write_best", 1), ("_told", 4)])  # in the first epoch, after the last
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_between_steps_and_saves_ends_with_its_code_and_loses_nothing(
    moment: str, call: int, number: int, tmp_path: Path, train_file: Path, backbone: Path, undisturbed: Path
) -> None:
    from headrace.train import resume
    from headrace.train.session import Session

    settings = recipe(train_file, backbone)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted) as caught:
        target: Any = resume if moment == "write_best" else Session
        kept = getattr(target, moment)
        seen: list[int] = []

        def interrupting(*args: Any, **kwargs: Any) -> Any:
            seen.append(1)
            if len(seen) == call:
                os.kill(os.getpid(), number)
            return kept(*args, **kwargs)

        patch.setattr(target, moment, interrupting)
        run(settings, tmp_path / "run")
    assert caught.value.exit_code == 128 + number
    assert RunFolder(tmp_path / "run").status()["state"] == "interrupted"
    run(settings, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(undisturbed)


def test_force_removes_nothing_before_everything_else_was_found_good(
    tmp_path: Path, train_file: Path, backbone: Path
) -> None:
    out = run(recipe(train_file, backbone), tmp_path / "run")
    before = weights(out)
    for changes in ({"fit__monitor": "acuracy"}, {"data__train": "nowhere.csv"}):
        with pytest.raises((RunError, DataError, RecipeError)):
            run(recipe(train_file, backbone, **changes), out, force=True)
    assert weights(out) == before
    assert RunFolder(out).status()["state"] == "finished"


@pytest.mark.slow
def test_objects_of_another_call_do_not_touch_what_an_interrupted_run_needs(tmp_path: Path, backbone: Path) -> None:
    settings = recipe(Path("unused"), backbone, data__train=None)
    mine, other = rows(), [{**row, "text": "x " + row["text"]} for row in rows()]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        interrupt_at(3, patch)
        run(settings, tmp_path / "run", train=mine)
    with pytest.raises(RunError, match="content of train"):
        run(settings, tmp_path / "run", train=other)
    fit(tmp_path / "run" / "recipe.yaml", out=tmp_path / "run", echo=silent)
    whole = run(settings, tmp_path / "whole", train=mine)
    assert weights(tmp_path / "run") == weights(whole)


def test_a_finished_run_under_strict_still_stops_at_its_findings(tmp_path: Path, backbone: Path) -> None:
    leaking = rows(60)
    train = write_csv(tmp_path / "train.csv", leaking)
    test = write_csv(tmp_path / "test.csv", leaking[:10])
    settings = recipe(train, backbone, fit__epochs=1, data__test=str(test))
    first = fit(settings, out=tmp_path / "run", echo=silent)
    again = fit(settings, out=tmp_path / "run", echo=silent)
    assert again.was_finished
    assert again.findings == first.findings
    with pytest.raises(HeadraceError, match="--strict stops at them"):
        fit(settings, out=tmp_path / "run", strict=True, echo=silent)


def test_max_time_ends_with_a_usable_run_that_a_longer_time_goes_on_with(
    tmp_path: Path, train_file: Path, backbone: Path, undisturbed: Path
) -> None:
    settings = recipe(train_file, backbone)
    stopped = {**settings, "trainer": {"max_time": "00:00:00:00"}}
    fit(stopped, out=tmp_path / "run", echo=silent)
    assert training(tmp_path / "run")["total"] < N_STEPS
    fit(settings, out=tmp_path / "run", echo=silent)
    assert weights(tmp_path / "run") == weights(undisturbed)


@pytest.mark.slow
def test_the_time_of_a_run_is_that_of_all_its_stages_and_calls(
    tmp_path: Path, train_file: Path, backbone: Path
) -> None:
    stages = [{"train": "head", "epochs": 1}, {"train": "all", "epochs": 2}]
    settings = recipe(train_file, backbone, fit__stages=stages)
    with pytest.MonkeyPatch.context() as patch:
        # each step of the first stage takes 10 s by the run's own clock
        kept = Keeper._count_time

        def slow(keeper: Keeper) -> None:
            kept(keeper)
            keeper.progress.fit_s += 10.0

        patch.setattr(Keeper, "_count_time", slow)
        for call in range(2):
            fit({**settings, "trainer": {"max_time": "00:00:00:05"}}, out=tmp_path / "run", echo=silent)
            assert len(training(tmp_path / "run")["begun"]) == 2, call
            assert training(tmp_path / "run")["total"] == training(tmp_path / "run")["begun"][1][1]
    fit(settings, out=tmp_path / "run", echo=silent)
    fit(settings, out=tmp_path / "whole", echo=silent)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_a_time_that_is_none_is_refused(tmp_path: Path, train_file: Path, backbone: Path) -> None:
    for limit in ("soon", 3600):
        settings = {**recipe(train_file, backbone), "trainer": {"max_time": limit}}
        with pytest.raises(RecipeError, match=f"{limit!r} is no time") as caught:
            fit(settings, out=tmp_path / "run", echo=silent)
        assert caught.value.where == "trainer.max_time"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_to_the_process_loses_nothing(
    number: signal.Signals, tmp_path: Path, train_file: Path, backbone: Path
) -> None:
    settings = recipe(train_file, backbone, fit__epochs=16, fit__checkpoint_every_s=0.2)
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(settings))
    out = tmp_path / "run"
    command = [sys.executable, "-m", "headrace", "fit", str(file), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    if process.stderr is None:
        raise AssertionError("no stderr")
    for line in process.stderr:
        if line.startswith("epoch 3 "):
            break
    time.sleep(0.2)
    process.send_signal(number)
    process.stderr.read()
    code = process.wait(timeout=30)
    assert code == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    status = RunFolder(out).status()
    assert status["state"] == ("training" if number == signal.SIGKILL else "interrupted")
    assert status["saved_step"] >= 16
    again = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
    assert "resumed at step" in again.stderr
    whole = run(settings, tmp_path / "whole")
    assert weights(out) == weights(whole)
