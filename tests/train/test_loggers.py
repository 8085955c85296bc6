"""What the loggers of a run hold: each value once, over interruptions and stages; and how services know a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

from headrace.evaluate import METRICS
from headrace.train.fit import fit
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, stop_at, training, write_csv

EACH_STEP = {"log_every_n_steps": 1}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def train_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("data") / "train.csv", rows())


def test_tensorboard_has_each_value_once_also_of_the_step_at_which_a_run_was_interrupted(
    tmp_path: Path, train_file: Path, backbone: Path
) -> None:
    settings = recipe(train_file, backbone, logger="tensorboard", trainer=EACH_STEP)
    stop_at(12, settings, tmp_path)
    folder = str(tmp_path / "tensorboard")
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
