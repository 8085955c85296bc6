"""What the loggers of a run hold: each value once, over interruptions and stages; and how services know a run."""

from __future__ import annotations

import csv
import inspect
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch.loggers
import pytest
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from headrace.errors import RecipeError, RunError
from headrace.evaluate import METRICS
from headrace.train.fit import fit
from headrace.train.loggers import LOGGERS, MetricsFile, build_loggers, close_loggers
from headrace.train.run import LOGGER_IDS
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, stop_at, training, write_csv

EACH_STEP = {"log_every_n_steps": 1}
SERVICES = ("wandb", "mlflow", "comet")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def train_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "train.csv", rows())


def logged(folder: Path, column: str) -> list[int]:
    """The steps at which a run's metrics.csv has a value of a column."""
    with open(folder / "csv" / "metrics.csv", encoding="utf-8", newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row[column]]


def test_the_csv_goes_on_after_an_interruption_and_in_the_next_stage(
    tmp_path: Path, train_file: Path, backbone: Path
) -> None:
    stages = [{"train": "head", "epochs": 1}, {"train": "all", "epochs": 1}]
    settings = recipe(train_file, backbone, logger="csv", trainer=EACH_STEP, fit__stages=stages)
    stop_at(8, settings, tmp_path)  # the first stage's last step, before its validation
    with open(tmp_path / "csv" / "metrics.csv", "r+", encoding="utf-8") as file:
        n_columns = file.readline().count(",") + 1
        file.seek(0, 2)
        # as a process leaves it that took a step after its last checkpoint and was killed while it wrote the next
        file.write(",".join(["9"] * n_columns) + "\n10,0.")
    fit(settings, out=tmp_path, echo=silent)
    assert logged(tmp_path, "train/loss") == list(range(1, 17))
    assert logged(tmp_path, "learning_rate/head") == list(range(1, 17))
    assert logged(tmp_path, "valid/loss") == [8, 16]


@pytest.mark.parametrize(("is_validated", "expected"), [(True, [8]), (False, [])])
def test_rows_of_a_validation_that_was_not_kept_are_left_out(
    is_validated: bool, expected: list[int], tmp_path: Path
) -> None:
    first = MetricsFile(tmp_path / "csv", step=0, is_validated=True)
    for step in (7, 8):
        first.log_metrics({"train/loss": 0.5}, step)
    first.save()
    first.log_metrics({"valid/loss": 0.25}, 8)
    first.finalize("failed")
    again = MetricsFile(tmp_path / "csv", step=8, is_validated=is_validated)
    again.log_metrics({"train/loss": 0.5}, 9)
    again.save()
    assert logged(tmp_path, "train/loss") == [7, 8, 9]
    assert logged(tmp_path, "valid/loss") == expected


def test_rows_that_a_full_disk_refused_are_written_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = MetricsFile(tmp_path / "csv", step=0, is_validated=True)
    file.log_metrics({"train/loss": 0.5}, 1)
    file.save()
    file.log_metrics({"train/loss": 0.25}, 2)

    @contextmanager
    def full(path: Path, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with open(path, "a") as opened:
            opened.write("2,0.")
        raise OSError(28, "No space left on device")
        yield

    with monkeypatch.context() as patch:
        patch.setattr("headrace.train.loggers.open", full, raising=False)
        with pytest.raises(RunError, match=r"cannot write metrics\.csv: No space left"):
            file.save()
    file.save()
    assert (tmp_path / "csv" / "metrics.csv").read_text() == "step,train/loss\n1,0.5\n2,0.25\n"


def test_tensorboard_has_each_value_once_also_of_the_step_at_which_a_run_was_interrupted(
    tmp_path: Path, train_file: Path, backbone: Path
) -> None:
    settings = recipe(train_file, backbone, logger="tensorboard", trainer=EACH_STEP)
    stop_at(12, settings, tmp_path)
    folder = str(tmp_path / "tensorboard")
    with SummaryWriter(folder) as killed:  # a process that took a step after its last checkpoint
        killed.add_scalar("train/loss", 0.5, 13)
    fit(settings, out=tmp_path, echo=silent)
    events = EventAccumulator(folder, size_guidance={SCALARS: 0})
    events.Reload()
    found = {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()[SCALARS]}
    rates = [f"learning_rate/{name}" for name in ("embeddings", "layer 0", "layer 1", "head")]
    areas = [f"{split}/roc_auc/{label}" for split in ("train", "valid") for label in ("bad", "good")]
    figures = [f"valid/{name}" for name in ("loss", *METRICS["single_label"])]
    each_step = {tag: list(range(1, 17)) for tag in ("train/loss", "train/gradient_norm", *rates)}
    assert found == each_step | {tag: [8, 16] for tag in (*areas, *figures)}
    history = training(tmp_path)["history"]
    assert [event.value for event in events.Scalars("valid/loss")] == pytest.approx(
        [record["valid"]["loss"] for record in history]
    )


def stand_in(kind: type) -> Any:
    """A logger that takes what Lightning's takes, and keeps it."""

    class StandIn:
        def __init__(self, **given: Any) -> None:
            inspect.signature(kind).bind(**given)  # refuses what the real one does not take
            self.given = given
            self.version = given.get("run_id") or "by the service"
            self.n_ended = 0
            self.experiment = SimpleNamespace(end=self.end)

        def end(self) -> None:
            self.n_ended += 1

    return StandIn


def test_services_are_told_folder_and_name_and_know_the_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished: list[int] = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(finish=lambda: finished.append(1)))
    for name in SERVICES:
        kind = LOGGERS[name]
        monkeypatch.setattr(lightning.pytorch.loggers, kind, stand_in(getattr(lightning.pytorch.loggers, kind)))
    monkeypatch.setattr("headrace.train.loggers._MLFLOW_SERVER", None)
    folder = tmp_path / "runs" / "mine"
    wandb, mlflow, comet = build_loggers(SERVICES, folder)
    ids = json.loads((folder / LOGGER_IDS).read_text("utf-8"))
    assert wandb.given == {"name": "runs/mine", "save_dir": str(folder), "id": ids["wandb"]}
    database = f"sqlite:///{folder / 'mlflow.db'}"
    assert mlflow.given == {"run_name": "runs/mine", "tracking_uri": database, "run_id": None}
    assert comet.given == {
        "name": "runs/mine",
        "offline_directory": str(folder / "comet"),
        "experiment_key": ids["comet"],
    }
    assert ids["mlflow"] == "by the service"
    close_loggers([wandb, mlflow, comet])
    assert (finished, comet.n_ended) == ([1], 1)
    again = build_loggers(SERVICES, folder, step=12)
    assert [one.given[key] for one, key in zip(again, ("id", "run_id", "experiment_key"), strict=True)] == [
        ids[name] for name in SERVICES
    ]
    (other,) = build_loggers(["wandb"], tmp_path / "runs" / "other")
    assert other.given["id"] != ids["wandb"]


def test_a_logger_whose_package_is_not_installed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**given: Any) -> None:
        raise ModuleNotFoundError("No module named 'wandb'")

    monkeypatch.setattr(lightning.pytorch.loggers, "WandbLogger", missing)
    with pytest.raises(RecipeError, match="'wandb' needs a package that is not installed"):
        build_loggers("wandb", tmp_path)
