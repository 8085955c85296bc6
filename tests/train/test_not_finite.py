"""A loss, a gradient or a validation that is not finite stops the run where it happens, and what was good is kept (T13)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from headrace.errors import TrainingStopped
from headrace.train.checkpoints import newest_checkpoint
from headrace.train.fit import fit
from headrace.train.module import ClassifierModule
from headrace.train.run import RunFolder
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, write_csv

FAR_TOO_HIGH = {
    "fit__learning_rate": 1e30,
    "fit__warmup": 0,
    "fit__schedule": "constant",
    "fit__gradient_clip": None,
}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def train_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "train.csv", rows())


def stopped(settings: dict[str, Any], out: Path) -> TrainingStopped:
    """Fit until it is stopped; the status says so, and the doctor what to do."""
    with pytest.raises(TrainingStopped) as caught:
        fit(settings, out=out, echo=silent)
    assert caught.value.exit_code == 1
    status = RunFolder(out).status()
    assert status["state"] == "stopped"
    assert status["what"] == caught.value.what
    assert [one["code"] for one in status["diagnoses"]] == ["not_finite"]
    return caught.value


def test_a_loss_that_is_not_finite_stops_with_step_rows_and_rate(
    tmp_path: Path, train_file: Path, backbone: Path
) -> None:
    error = stopped(recipe(train_file, backbone, **FAR_TOO_HIGH), tmp_path)
    assert error.what == "the loss is not a finite number at step 2"
    assert str(error.where).startswith(f"step 2, learning rate 1e+30, rows {train_file}:")
    diagnosis = RunFolder(tmp_path).status()["diagnoses"][0]
    assert diagnosis["next"].startswith("--set fit.learning_rate=3.3e+29, ")


def test_a_gradient_that_is_not_finite_stops_before_the_weights_have_moved(
    tmp_path: Path, train_file: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = ClassifierModule.learn

    def learn(self: ClassifierModule, step: Any) -> torch.Tensor:
        loss = kept(self, step)
        if self.global_step == 2:
            self.model.head.output.weight.grad[0, 0] = float("inf")  # type: ignore[union-attr, index]
        return loss

    monkeypatch.setattr(ClassifierModule, "learn", learn)
    error = stopped(recipe(train_file, backbone, fit__checkpoint_every_s=0.0001), tmp_path)
    assert error.what == "the gradient is not a finite number at step 3"
    assert str(error.where).startswith("step 3, learning rate ")
    assert f", rows {train_file}:" in str(error.where)
    last = newest_checkpoint(tmp_path / "checkpoints", say=silent)
    assert last is not None
    assert last["headrace"]["progress"]["total"] == 2
    assert all(bool(torch.isfinite(tensor).all()) for tensor in last["state_dict"].values())


def test_a_validation_loss_that_is_not_finite_stops_with_its_step(
    tmp_path: Path, train_file: Path, backbone: Path
) -> None:
    one_step = {"limit_train_batches": 1}  # its loss is computed before the weights are thrown far away
    error = stopped(recipe(train_file, backbone, trainer=one_step, logger="csv", **FAR_TOO_HIGH), tmp_path)
    assert error.what == "the validation loss is not a finite number after step 1"
    assert error.where == "step 1, learning rate 1e+30"
    assert not list((tmp_path / "checkpoints").glob("best-*"))
