"""The range test suggests the steepest place and plots it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from headrace.errors import RecipeError
from headrace.train.data import StepBatch
from headrace.train.find_lr import find_lr, smooth, steepest
from headrace.train.module import ClassifierModule
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, write_csv


def test_the_suggestion_is_the_steepest_descent_before_the_minimum() -> None:
    rates = [10.0**-n for n in range(7, 0, -1)]
    assert steepest(rates, [1.0, 1.0, 0.95, 0.6, 0.5, 0.4, 3.0]) == pytest.approx(1e-4)
    assert steepest(rates, [1.0, 0.95, 0.6, 0.4, 0.39, 0.38, 3.0]) == pytest.approx(1e-5)
    assert steepest(rates, [1.0, 0.9, 0.7, 0.1, 9.0, 0.5, 0.4]) == pytest.approx(1e-4)  # not the fall after it


def test_smoothing_is_bias_corrected() -> None:
    assert smooth([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert smooth([1.0, 0.0])[1] == pytest.approx(0.09 / 0.19)


def test_it_writes_a_plot_and_a_table(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", rows())
    rate, plot = find_lr(recipe(train, tiny_folder(tmp_path)), out=tmp_path / "run", echo=silent)
    assert 1e-7 <= rate <= 1.0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "run" / "find_lr.csv").read_text().splitlines()) > 10


def test_rates_are_tried_on_the_device_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[tuple[str, torch.device]] = []

    def watched(kind: type, name: str) -> None:
        def to(self: Any, device: torch.device) -> Any:
            moved.append((name, device))
            return self

        monkeypatch.setattr(kind, "to", to)

    def autocast(device_type: str, *args: Any, **kwargs: Any) -> AbstractContextManager[None]:
        moved.append(("autocast", torch.device(device_type)))
        return nullcontext()

    elsewhere = torch.device("meta")
    monkeypatch.setattr("headrace.train.find_lr.evaluation_device", lambda arguments: elsewhere)
    monkeypatch.setattr("headrace.train.find_lr.N_STEPS", 3)
    monkeypatch.setattr(torch, "autocast", autocast)
    watched(ClassifierModule, "module")
    watched(StepBatch, "step")
    train = write_csv(tmp_path / "train.csv", rows())
    find_lr(recipe(train, tiny_folder(tmp_path)), out=tmp_path / "run", echo=silent)
    # on an accelerator a step of four short texts is one pass
    assert moved == [("module", elsewhere), *[("step", elsewhere), ("autocast", elsewhere)] * 3]


def test_of_several_stages_the_first_is_searched_and_that_is_said(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", rows())
    stages = [{"train": "head"}, {"train": "all"}]
    lines: list[str] = []
    find_lr(recipe(train, tiny_folder(tmp_path), fit__stages=stages), out=tmp_path / "run", echo=lines.append)
    assert "stage 1 of 2 is searched, which trains: head; a later one begins where it ends" in lines


def test_a_rate_on_a_language_model_that_is_yet_to_be_trained_is_not_searched(tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", rows())
    settings = recipe(train, tiny_folder(tmp_path), language_model={"epochs": 1})
    with pytest.raises(RecipeError, match="has yet to train") as caught:
        find_lr(settings, out=tmp_path / "run", echo=silent)
    assert "backbone=RUN/language_model/bundle" in str(caught.value.next)
    assert not (tmp_path / "run").exists()
