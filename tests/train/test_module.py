"""ClassifierModule and TextDataModule work with a Trainer of one's own, and a step is the same in any micro-batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch

from headrace.text.batch import Batch
from headrace.train.data import StepBatch, StepSampler, TextDataModule
from headrace.train.module import ClassifierModule
from headrace.train.stepped import derived_seed
from tiny import tiny_folder
from tiny_fits import rows


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("backbone"))


def data_module(backbone: Path, **settings: Any) -> TextDataModule:
    return TextDataModule(rows(), valid="20%", backbone=str(backbone), batch_size=4, max_length=32, **settings)


def trainer(folder: Path, **settings: Any) -> lightning.Trainer:
    return lightning.Trainer(
        default_root_dir=folder,
        max_epochs=2,
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        accelerator="cpu",
        **settings,
    )


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_they_train_with_a_trainer_of_ones_own_and_load_from_its_checkpoint(tmp_path: Path, backbone: Path) -> None:
    data = data_module(backbone)
    module = ClassifierModule(str(backbone), ["bad", "good"], stage={"epochs": 2, "learning_rate": 1e-3})
    checkpoint = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, monitor="valid/accuracy", mode="max")
    mine = trainer(tmp_path, callbacks=[checkpoint])
    before = module.model.head.output.weight.detach().clone()
    mine.fit(module, datamodule=data)
    assert mine.global_step == 16
    assert set(mine.callback_metrics) >= {"valid/loss", "valid/accuracy"}
    assert not torch.equal(before, module.model.head.output.weight)
    loaded = ClassifierModule.load_from_checkpoint(checkpoint.best_model_path, weights_only=True)
    assert loaded.labels.names == ("bad", "good")
    again = mine.validate(loaded, datamodule=data, verbose=False)[0]
    assert again["valid/accuracy"] == pytest.approx(float(checkpoint.best_model_score))


def micro(batch: Batch, size: int) -> list[Batch]:
    return [
        Batch(
            *(
                None if t is None else t[i : i + size]
                for t in (batch.input_ids, batch.attention_mask, batch.token_type_ids, batch.rows, batch.targets)
            )
        )
        for i in range(0, len(batch), size)
    ]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_one_step_is_the_same_in_one_piece_or_in_micro_batches(tmp_path: Path, backbone: Path) -> None:
    found = []
    for size in (1, 3, 8):
        data = data_module(backbone, micro_batch=size)
        module = ClassifierModule(
            {"name": str(backbone), "dropout": 0.0},
            ["bad", "good"],
            head={"dropout": 0.0},
            stage={"learning_rate": 2e-5, "warmup": 0},
        )
        trainer(tmp_path, max_steps=3).fit(module, datamodule=data)
        # A key's bias moves all scores of a query alike, so its gradient is zero but for rounding: Adam makes steps of it.
        named = ((name, p) for name, p in module.model.named_parameters() if not name.endswith("key.bias"))
        found.append(torch.cat([p.detach().flatten() for _, p in named]))
    assert float((found[0] - found[1]).abs().max()) <= 1e-6
    assert float((found[0] - found[2]).abs().max()) <= 1e-6


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_step_clips_the_norm_of_all_gradients_together(tmp_path: Path, backbone: Path) -> None:
    told, taken = [], []
    for limit in (None, 0.05):
        stage = {"learning_rate": 2e-5, "warmup": 0, "gradient_clip": limit}
        module = ClassifierModule(str(backbone), ["bad", "good"], stage=stage)
        watched = Watched()
        trainer(tmp_path, max_steps=1, callbacks=[watched]).fit(module, datamodule=data_module(backbone))
        told.append(watched.told)
        taken.append(watched.taken)
    assert told[0] == told[1] == pytest.approx(taken[0], rel=1e-5)  # the norm that is told is that before clipping
    assert told[1] > 0.05
    assert taken[1] == pytest.approx(0.05, rel=1e-4)


class Watched(lightning.Callback):
    """The norm of the gradients that a step has told, and of those that it took."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.told = float(outputs["norm"])
        norms = [p.grad.norm() for p in pl_module.parameters() if p.grad is not None]
        self.taken = float(torch.linalg.vector_norm(torch.stack(norms)))


def test_batches_of_two_ranks_are_the_batch_of_one(backbone: Path) -> None:
    data = data_module(backbone)
    data.setup()
    plan = data.plan
    for step in range(plan.n_steps):
        whole = plan.rows(1, step)
        parts = [plan.share(1, step, rank, 2) for rank in range(2)]
        assert sorted(np.concatenate(parts).tolist()) == sorted(whole.tolist())


def test_the_sampler_starts_where_training_stands_and_only_in_that_epoch() -> None:
    sampler = StepSampler(5, epoch=2, first_step=3)
    assert list(sampler) == [(2, 3), (2, 4)]
    assert len(sampler) == 2
    sampler.set_epoch(3)
    assert list(sampler) == [(3, step) for step in range(5)]
    assert len(sampler) == 5


def test_derived_seeds_are_pure_and_differ_by_purpose() -> None:
    assert derived_seed(13, "step", 4, 0) == derived_seed(13, "step", 4, 0)
    seeds = {derived_seed(13, "step", step, rank) for step in range(100) for rank in range(4)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_step_moves_to_a_device_whole(backbone: Path) -> None:
    data = data_module(backbone)
    data.setup()
    step = next(iter(data.train_dataloader()))
    moved = step.to("meta")
    assert isinstance(moved, StepBatch)
    assert {batch.input_ids.device.type for batch in moved.batches} == {"meta"}
    assert sum(len(batch) for batch in moved.batches) == moved.n_texts == moved.n_local == 4
