"""Two processes compute what one does: the same weights and every row evaluated exactly once (T16, T17)."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch.distributed
from safetensors.torch import load_file

from headrace.train.fit import fit
from headrace.train.worker import leave_group
from tiny import tiny_folder
from tiny_fits import recipe, rows, training, weights, write_csv

pytestmark = pytest.mark.slow


def fit_heard(heard: pytest.CaptureFixture[str], settings: dict, out: Path, **trainer: Any) -> str:
    """Fit, and return all that its processes wrote to the error stream."""
    heard.readouterr()
    fit({**settings, "trainer": {"accelerator": "cpu", **trainer}}, out=out)
    return heard.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc/self/task to see its threads")
def test_a_process_whose_work_is_done_leaves_no_thread_of_the_group_behind(tmp_path: Path) -> None:
    before = threads()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    came = threads() - before
    assert came
    leave_group()
    assert not torch.distributed.is_initialized()
    until = time.monotonic() + 30  # the system still lists a thread for a moment after it has been waited for
    while came & threads() and time.monotonic() < until:
        time.sleep(0.01)
    assert not came & threads()
    leave_group()  # of a process that had none, nothing is asked


def threads() -> set[str]:
    """Return the numbers of this process's threads: their names come late, a thread gives itself its own."""
    return {task.name for task in Path("/proc/self/task").iterdir()}


def test_two_processes_end_within_1e_6_of_one_and_evaluate_each_row_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    backbone = tiny_folder(tmp_path)
    train = write_csv(tmp_path / "train.csv", rows(67))
    test = write_csv(tmp_path / "test.csv", [{**row, "text": f"test {row['text']}"} for row in rows(41)])
    # Dropout masks depend on how a batch is shared out, so they are off; 54 rows in batches of 7: a short last step.
    settings = recipe(
        train,
        backbone,
        backbone__dropout=0.0,
        head__dropout=0.0,
        fit__batch_size=7,
        fit__micro_batch=2,
        fit__learning_rate=2e-5,
        logger=["csv", "tensorboard"],
    )
    settings["data"]["test"] = str(test)
    one, two = tmp_path / "one", tmp_path / "two"
    fit_heard(capfd, settings, one, max_steps=15)
    said = fit_heard(capfd, settings, two, devices=2, max_steps=15)
    assert "training in 2 processes" in said
    assert training(one)["total"] == training(two)["total"] == 15
    mine, theirs = (load_file(str(folder / "bundle" / "model.safetensors")) for folder in (one, two))
    apart = {name: float((mine[name] - theirs[name]).abs().max()) for name in mine}
    # A key's bias moves all scores of a query alike, so its gradient is zero but for rounding: Adam makes steps of it.
    biases = {name for name in apart if name.endswith("key.bias")}
    assert max(value for name, value in apart.items() if name not in biases) <= 1e-6, apart
    assert max(apart[name] for name in biases) <= 15 * 2e-5
    reports = [json.loads((folder / "report.json").read_text()) for folder in (one, two)]
    assert [report["n_rows"] for report in reports] == [41, 41]
    assert reports[0]["metrics"]["accuracy"] == reports[1]["metrics"]["accuracy"]
    mine, theirs = (pq.read_table(folder / "predictions.parquet").to_pydict() for folder in (one, two))
    names = [name for name in mine if name.startswith("score_")]
    assert len(names) == 2
    for name in names:
        assert theirs.pop(name) == pytest.approx(mine.pop(name), abs=1e-6)
    assert mine == theirs  # rows, labels, and what was predicted
    for folder in (one, two):  # one process logs for all
        with open(folder / "csv" / "metrics.csv", encoding="utf-8", newline="") as file:
            assert [int(row["step"]) for row in csv.DictReader(file)] == [8, 10]
        assert len(list((folder / "tensorboard").glob("events*"))) == 1
    valid = [training(folder)["history"][0]["valid"] for folder in (one, two)]
    assert valid[0]["loss"] == pytest.approx(valid[1]["loss"], abs=1e-6)


def test_a_signal_stops_two_processes_at_one_step_and_they_go_on_from_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = recipe(write_csv(tmp_path / "train.csv", rows(67)), tiny_folder(tmp_path), fit__epochs=12)
    undisturbed, stopped = tmp_path / "undisturbed", tmp_path / "stopped"
    fit_heard(capfd, settings, undisturbed, devices=2)
    command = [sys.executable, "-m", "headrace", "fit", str(undisturbed / "recipe.yaml"), "--out", str(stopped)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        assert process.stderr is not None
        said = ""
        while "epoch 1" not in said:  # it trains, and has eleven epochs to go
            said += process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        said += process.stderr.read()
    assert process.returncode == 143, said
    status = json.loads((stopped / "status.json").read_text())
    assert status["state"] == "interrupted"
    assert 0 < status["saved_step"] < training(undisturbed)["total"]
    assert f"the state of step {status['saved_step']} is saved" in said
    again = fit_heard(capfd, settings, stopped, devices=2)
    assert f"resumed at step {status['saved_step']}" in again
    assert weights(stopped) == weights(undisturbed)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = recipe(
        write_csv(tmp_path / "train.csv", rows(67)),
        tiny_folder(tmp_path),
        backbone__dropout=0.0,
        head__dropout=0.0,
        fit__learning_rate=2e-5,
    )
    one, changed = tmp_path / "one", tmp_path / "changed"
    fit_heard(capfd, settings, one)
    fit_heard(capfd, settings, changed, max_steps=9)
    said = fit_heard(capfd, settings, changed, devices=2)
    assert "resumed at step 9" in said
    assert training(one)["total"] == training(changed)["total"]
    mine, theirs = (load_file(str(folder / "bundle" / "model.safetensors")) for folder in (one, changed))
    apart = {name: float((mine[name] - theirs[name]).abs().max()) for name in mine if not name.endswith("key.bias")}
    assert max(apart.values()) <= 2e-6, apart
