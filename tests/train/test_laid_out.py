"""A training in bfloat16 lays each weight out once a step, and learns what it would learn without that."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from torch import nn

from headrace import matmul
from headrace.backbones import _laid_linear, transformer
from headrace.backbones._encoder import Transformer
from headrace.backbones._laid_linear import LaidLinear
from headrace.train.fit import fit
from tiny import FAMILIES, tiny_folder
from tiny_fits import recipe, rows, silent, training, write_csv

EPOCHS = 3
N_STEPS = 12  # 32 training rows in batches of 8


@pytest.fixture(autouse=True)
def needs_such_products() -> None:
    if not matmul.lays_out():
        pytest.skip("torch has no laid-out products in bfloat16 on this processor")


def linear_layers(model: nn.Module, kind: type[nn.Linear] = nn.Linear) -> int:
    return sum(type(module) is kind for module in model.modules())


def test_each_weight_is_laid_out_once_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[nn.Linear] = []

    class Counted(_laid_linear._Laid):
        def __init__(self, layer: nn.Linear) -> None:
            made.append(layer)
            super().__init__(layer)

    monkeypatch.setattr(_laid_linear, "_FEW_TOKENS", 1)
    monkeypatch.setattr(_laid_linear, "_Laid", Counted)
    folder = tiny_folder(tmp_path / "model")
    settings = recipe(
        write_csv(tmp_path / "train.csv", rows()),
        folder,
        fit__precision="bf16",
        fit__epochs=EPOCHS,
        fit__batch_size=8,
        fit__micro_batch=2,
        fit__learning_rate=3e-3,
    )
    settings["backbone"] = {"name": str(folder), "dropout": 0.0}
    found = training(fit(settings, out=tmp_path / "laid", echo=silent).folder)
    assert len(made) == N_STEPS * linear_layers(transformer.load(str(folder)))

    monkeypatch.setattr(Transformer, "weights_stand", lambda backbone: nullcontext())
    made.clear()
    plain = training(fit(settings, out=tmp_path / "plain", echo=silent).folder)
    assert not made
    losses = [[epoch["train_loss"] for epoch in one["history"]] for one in (found, plain)]
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)
    assert losses[0][0] - losses[0][-1] > 0.01  # it has learnt: stale weights would have been seen


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_in_the_middle_of_a_training_leave_the_layers_exchanged(family: str, tmp_path: Path) -> None:
    backbone = transformer.load(str(tiny_folder(tmp_path, family)))
    n_layers = linear_layers(backbone)
    backbone.train_on_cpu()
    for first_alone in (False, True):
        with backbone.scoring_on_cpu(first_alone=first_alone):
            pass
        assert linear_layers(backbone, LaidLinear) == n_layers > 0
    backbone.end_training()
    assert linear_layers(backbone) == n_layers
