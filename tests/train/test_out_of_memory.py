"""Where memory does not suffice a step begins again with half as many texts at a time, and its result is the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from headrace.classifier import Classifier
from headrace.errors import RunError
from headrace.text.batch import Batch
from headrace.train.fit import fit
from headrace.train.memory import is_out_of_memory
from tiny import tiny_folder
from tiny_fits import recipe, rows, silent, stop_at, training, write_csv

TOLD = "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes."


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    backbone = {"name": str(tiny_folder(folder)), "dropout": 0.0}
    found = recipe(write_csv(folder / "train.csv", rows(40)), Path("unused"), fit__batch_size=16)
    return {**found, "backbone": backbone, "head": {"pool": "mean", "dropout": 0.0}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]) -> Path:
    return fit(settings, out=tmp_path_factory.mktemp("whole") / "run", echo=silent).folder


def failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[Batch, int], bool]) -> list[int]:
    """Let training run out of memory where it is told; return the sizes of all passes that were begun."""
    kept, sizes = Classifier.each_logits, list[int]()

    def each_logits(self: Classifier, batch: Batch) -> list[Tensor]:
        sizes.append(len(batch))
        if fails(batch, len(sizes)):
            raise RuntimeError(TOLD)
        return kept(self, batch)

    monkeypatch.setattr(Classifier, "each_logits", each_logits)
    return sizes


def same(one: Path, two: Path) -> None:
    for mine, theirs in zip(training(one)["history"], training(two)["history"], strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-6)
        assert mine["train"] == pytest.approx(theirs["train"], abs=1e-5), "each row was seen once"
        assert mine["valid"] == pytest.approx(theirs["valid"], abs=1e-4)


def test_half_as_many_texts_at_a_time_give_the_same_loss(
    settings: dict[str, Any],
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sizes = failing(monkeypatch, lambda batch, _: len(batch) > 4)
    fit(settings, out=tmp_path / "run", echo=silent)
    same(tmp_path / "run", undisturbed)
    assert [size for size in sizes if size > 4] == [16, 8], "it is tried again from 16 only once"
    assert "out of memory in step 1 with 16 texts at a time: from here on at most 8" in caplog.text


def test_what_a_part_of_the_step_has_left_counts_once(
    settings: dict[str, Any], undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {**settings, "fit": {**settings["fit"], "micro_batch": 8}}
    failing(monkeypatch, lambda batch, call: call == 4)  # in the second pass of the second step
    fit(small, out=tmp_path / "run", echo=silent)
    same(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_a_run_that_goes_on_remembers_it(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = failing(monkeypatch, lambda batch, _: len(batch) > 4)
    stop_at(1, settings, tmp_path / "run")
    assert [size for size in sizes if size > 4] == [16, 8]
    sizes.clear()
    fit(settings, out=tmp_path / "run", echo=silent)
    assert max(sizes) == 4


def test_one_text_that_does_not_fit_is_told_with_its_length(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, lambda *_: True)
    with pytest.raises(RunError, match=r"there is not enough memory for step 1: .*you tried to allocate 7") as caught:
        fit(settings, out=tmp_path / "run", echo=silent)
    assert "16 texts of up to " in str(caught.value.where)
    assert json.loads((tmp_path / "run" / "status.json").read_text("utf-8"))["state"] == "failed"


def test_another_error_is_none_of_it(settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Classifier, batch: Batch) -> list[Tensor]:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Classifier, "each_logits", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fit(settings, out=tmp_path / "run", echo=silent)


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError(TOLD), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, is_it: bool) -> None:
    assert is_out_of_memory(error) is is_it


def test_a_batch_is_cut_into_parts_that_hold_all_of_it() -> None:
    mask = (torch.arange(6) < torch.tensor([6, 2, 3])[:, None]).long()
    ids = torch.arange(18).view(3, 6) * mask
    states = torch.randn(3, 6, 2)
    batch = Batch(ids, mask, None, torch.tensor([7, 8, 9]), torch.tensor([0, 1, 1]), states, 1)
    first, second = batch.parts(2)
    assert (first.input_ids.shape, second.input_ids.shape) == ((2, 6), (1, 3))
    assert torch.equal(second.input_ids, ids[2:, :3])
    assert torch.equal(second.states, states[2:, :3])
    assert (second.rows.tolist(), second.targets.tolist(), second.depth) == ([9], [1], 1)
    assert batch.parts(3) == [batch]
