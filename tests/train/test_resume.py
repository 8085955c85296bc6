"""A run that was stopped anywhere and started again ends bit-equal to one that was not (T1, T3-T7, T9-T13, T15, T20)."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from headrace.errors import DataError, Interrupted, RunError, TrainingStopped
from headrace.train.fit import fit
from headrace.train.resume import AtomicCheckpoints, checkpoints_in, newest_checkpoint
from headrace.train.run import RunFolder
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, training, weights, write_csv

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
    return run(recipe(train_file, backbone), tmp_path_factory.mktemp("runs") / "undisturbed")


def stop_at(step: int, settings: dict[str, Any], out: Path) -> None:
    """Stop a run by a signal that comes right after a step, as a user's Ctrl-C does."""

    def echo(line: str) -> None:
        if line.startswith("training "):
            from headrace.train import resume

            kept = resume.Keeper.on_train_batch_end

            def interrupting(self: Any, *args: Any, **kwargs: Any) -> None:
                if self.progress.total + 1 == step:
                    self.signals.received = signal.SIGINT
                kept(self, *args, **kwargs)

            patch.setattr(resume.Keeper, "on_train_batch_end", interrupting)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted) as caught:
        fit(settings, out=out, echo=echo)
    assert caught.value.exit_code == 130
    assert f"step {step}" in caught.value.what


@pytest.mark.parametrize("step", [1, 3, 7, 8, 9, 15])
def test_a_run_cut_at_any_step_ends_bit_equal(
    step: int, tmp_path: Path, train_file: Path, backbone: Path, undisturbed: Path
) -> None:
    settings = recipe(train_file, backbone)
    stop_at(step, settings, tmp_path / "run")
    assert RunFolder(tmp_path / "run").status()["state"] == "interrupted"
    run(settings, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(undisturbed)
    mine, theirs = training(tmp_path / "run")["history"], training(undisturbed)["history"]
    assert [(r["train_loss"], r["valid"], r["train"]) for r in mine] == [
        (r["train_loss"], r["valid"], r["train"]) for r in theirs
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"fit__accumulate": 2},
        {"fit__micro_batch": 1},
        {"fit__schedule": "one_cycle"},
        {"fit__early_stopping": 1, "fit__monitor": "loss"},
        {"fit__sampler": "length_buckets"},
        {"fit__sampler": "balanced"},
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
    before = {path: path.stat().st_mtime_ns for path in sorted(undisturbed.rglob("*")) if path.is_file()}
    lines: list[str] = []
    again = fit(recipe(train_file, backbone), out=undisturbed, echo=lines.append)
    after = {path: path.stat().st_mtime_ns for path in sorted(undisturbed.rglob("*")) if path.is_file()}
    assert again.was_finished
    assert any("already finished" in line for line in lines)
    assert before == after


def test_a_changed_recipe_or_data_file_is_refused_with_the_difference(
    tmp_path: Path, train_file: Path, backbone: Path
) -> None:
    mine = write_csv(tmp_path / "mine.csv", rows())
    settings = recipe(mine, backbone)
    stop_at(5, settings, tmp_path / "run")
    with pytest.raises(RunError) as caught:
        run(recipe(mine, backbone, fit__learning_rate=5e-3), tmp_path / "run")
    assert "fit.learning_rate: 0.001 -> 0.005" in caught.value.what
    assert "--force" in str(caught.value.next)
    changed = rows()
    changed[3]["text"] = "another text"
    write_csv(mine, changed)
    with pytest.raises(RunError, match="content of train"):
        run(settings, tmp_path / "run")
    run(settings, tmp_path / "run", force=True)
    assert RunFolder(tmp_path / "run").status()["state"] == "finished"


def test_a_second_process_in_the_same_folder_fails_fast_and_a_dead_one_is_taken_over(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    lock = folder.path / ".lock"
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        import socket

        lock.write_text(json.dumps({"pid": owner.pid, "host": socket.gethostname()}))
        with pytest.raises(RunError, match=f"process {owner.pid}"), folder.lock():
            pass
    finally:
        owner.kill()
        owner.wait()
    with folder.lock():
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    assert not lock.exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_newest_checkpoint_falls_back_and_says_what_is_lost(
    damage: str, tmp_path: Path, train_file: Path, backbone: Path, undisturbed: Path
) -> None:
    settings = recipe(train_file, backbone)
    out = tmp_path / "run"
    stop_at(12, settings, out)
    newest, before = checkpoints_in(out / "checkpoints")
    assert (newest.name, before.name) == ("step-00000012.ckpt", "step-00000008.ckpt")
    content = bytearray(newest.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    newest.write_bytes(b"" if damage == "empty" else content[: -1000 if damage == "truncated" else None])
    lines: list[str] = []
    fit(settings, out=out, echo=lines.append)
    assert any("step-00000012.ckpt is damaged" in line and "4 steps are lost" in line for line in lines)
    assert weights(out) == weights(undisturbed)


def test_when_no_checkpoint_can_be_read_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "step-00000001.ckpt"
    AtomicCheckpoints().save_checkpoint({"a": torch.zeros(3)}, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match="no checkpoint of this run can be read"):
        newest_checkpoint(tmp_path, say=silent)


def test_a_checkpoint_is_never_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    class Payload:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {marker}",)

    path = tmp_path / "step-00000001.ckpt"
    AtomicCheckpoints().save_checkpoint({"a": Payload()}, path)
    with pytest.raises(Exception, match=r"[Ww]eights"):
        newest_checkpoint(tmp_path, say=silent)
    assert not marker.exists()


def test_a_full_disk_while_saving_leaves_the_checkpoint_before_it(
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
    assert "bytes are free" in caplog.text
    assert not list((tmp_path / "run" / "checkpoints").glob(".tmp-*"))
    assert weights(tmp_path / "run") == weights(undisturbed)


@pytest.mark.parametrize("rate", [1e30])
def test_a_loss_that_is_not_finite_stops_with_step_rows_and_rate(
    rate: float, tmp_path: Path, train_file: Path, backbone: Path
) -> None:
    settings = recipe(
        train_file, backbone, fit__learning_rate=rate, fit__warmup=0, fit__schedule="constant", fit__gradient_clip=None
    )
    with pytest.raises(TrainingStopped) as caught:
        run(settings, tmp_path / "run")
    assert caught.value.exit_code == 1
    assert "is not a finite number at step" in caught.value.what
    assert "learning rate 1e+30" in str(caught.value.where)
    assert "training rows" in str(caught.value.where)
    assert RunFolder(tmp_path / "run").status()["state"] == "stopped"


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
        run(settings, tmp_path / "run")
    assert expected in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_to_the_process_loses_nothing(
    number: signal.Signals, tmp_path: Path, train_file: Path, backbone: Path
) -> None:
    settings = recipe(train_file, backbone, fit__epochs=40, fit__checkpoint_every_s=0.2)
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(settings))
    out = tmp_path / "run"
    command = [sys.executable, "-m", "headrace", "fit", str(file), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    if process.stderr is None:
        raise AssertionError("no stderr")
    for line in process.stderr:
        if line.startswith("step 20/"):
            break
    time.sleep(0.5)
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
