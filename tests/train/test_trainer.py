"""What a recipe's `trainer` means before Lightning sees it: how many devices, which precision, where rows are scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from headrace.errors import RecipeError
from headrace.train.fit import fit
from headrace.train.trainer import evaluation_device, n_devices, resolved_precision
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, write_csv


@pytest.mark.parametrize(
    ("arguments", "n_accelerators", "expected"),
    [
        ({}, 4, 1),
        ({"devices": 2, "accelerator": "cpu"}, 0, 2),
        ({"devices": "2"}, 0, 2),
        ({"devices": [0, 3]}, 4, 2),
        ({"devices": "0,2,3"}, 4, 3),
        ({"devices": "auto"}, 4, 4),
        ({"devices": -1}, 4, 4),
        ({"devices": "auto", "accelerator": "cpu"}, 4, 1),
        ({"devices": "auto"}, 0, 1),
    ],
)
def test_devices_are_counted(
    arguments: dict[str, Any], n_accelerators: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: n_accelerators)
    assert n_devices(arguments) == expected


@pytest.mark.parametrize("devices", [0, "many", 1.5])
def test_what_is_no_number_of_devices_is_refused(devices: Any) -> None:
    with pytest.raises(RecipeError, match="is no number of devices"):
        n_devices({"devices": devices})


def test_auto_takes_bf16_where_the_processor_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for flags, expected in (({"avx2"}, "fp32"), ({"avx2", "avx512_bf16"}, "bf16"), ({"amx_bf16"}, "bf16")):
        monkeypatch.setattr("headrace.train.trainer.processor_flags", lambda flags=flags: frozenset(flags))
        assert resolved_precision("auto")[0] == expected
        assert resolved_precision("bf16")[0] == "bf16"


def test_rows_are_scored_where_the_training_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    assert evaluation_device({}) == torch.device("cuda")
    assert evaluation_device({"accelerator": "cpu"}) == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    assert evaluation_device({"accelerator": "gpu"}) == torch.device("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_a_run_on_an_accelerator_is_evaluated_there_and_proved_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headrace.train import finish

    seen: list[str] = []
    kept = finish.evaluated

    def watched(session: Any) -> Any:
        seen.append(next(session.module.model.parameters()).device.type)
        return kept(session)

    monkeypatch.setattr(finish, "evaluated", watched)
    train = write_csv(tmp_path / "train.csv", rows())
    run = fit(recipe(train, tiny_folder(tmp_path)), out=tmp_path / "run", echo=silent)
    assert seen == ["cuda"]
    assert json.loads((run.folder / "report.json").read_text("utf-8"))["n_rows"] == 8
