"""What a person sees while it trains: the bar of a terminal or a notebook, and the lines that are kept beside it."""

from __future__ import annotations

import io
import re
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tqdm.std import tqdm

from headrace.train import progress
from headrace.train.fit import fit
from headrace.train.progress import ProgressLines
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, write_csv


def test_the_bar_shows_loss_metric_and_texts_per_second_and_epochs_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = io.StringIO()
    # the clocks of tqdm leave out most of so short a training
    monkeypatch.setattr(progress, "tqdm", partial(tqdm, file=drawn, mininterval=0, miniters=1))
    monkeypatch.setattr("headrace.train.training.ProgressLines", partial(ProgressLines, show_bar=True))
    kept: list[str] = []
    train = write_csv(tmp_path / "train.csv", rows())
    fit(recipe(train, tiny_folder(tmp_path)), out=tmp_path / "run", echo=kept.append)
    shown = [line for line in drawn.getvalue().split("\r") if "loss=" in line]
    steps = {int(found.group(1)) for line in shown if (found := re.search(r" (\d+)/16 ", line))}
    assert steps == set(range(1, 17))
    assert re.search(r"loss=\d\.\d{3}, texts/s=\d+\.\d\]", shown[0])
    assert re.search(r"16/16 .*loss=\d\.\d{3}, texts/s=\d+\.\d, valid accuracy=[01]\.\d{3}\]", shown[-1])
    assert [line.split("  ")[0] for line in kept if line.startswith("epoch")] == ["epoch 1", "epoch 2"]
    assert not [line for line in kept if line.startswith("step ")]  # the bar shows them


def test_a_line_from_time_to_time_has_loss_metric_rate_and_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    monkeypatch.setattr(progress, "LINE_EVERY_STEPS", 2)
    kept: list[str] = []
    train = write_csv(tmp_path / "train.csv", rows())
    fit(recipe(train, tiny_folder(tmp_path), fit__monitor="loss"), out=tmp_path / "run", echo=kept.append)
    lines = [line for line in kept if line.startswith("step ")]
    assert [line.split("  ")[0] for line in lines] == [f"step {n}/16" for n in range(2, 17, 2)]
    assert re.fullmatch(r"step 2/16  loss \d\.\d{4}  \d+\.\d texts/s  .+ left", lines[0])
    assert re.fullmatch(r"step 16/16  loss \d\.\d{4}  valid loss \d\.\d{4}  \d+\.\d texts/s  0 s left", lines[-1])


@pytest.mark.parametrize(("is_notebook", "expected"), [(True, True), (False, False)])
def test_a_notebook_has_a_bar_and_a_log_file_has_none(
    is_notebook: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if is_notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    keeper: Any = None
    assert ProgressLines(keeper, silent, n_steps=1).show_bar is expected
