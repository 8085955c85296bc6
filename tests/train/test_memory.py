"""Free pages go back between two steps; the peak is the process's own."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.train import memory


@pytest.mark.slow
def test_the_peak_is_at_least_what_was_just_used() -> None:
    before = memory.peak_resident_bytes()
    filled = np.ones(before + (64 << 20), dtype=np.uint8)
    assert memory.peak_resident_bytes() >= filled.nbytes


def test_it_gives_back_when_it_is_time_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now, given = [100.0], []
    monkeypatch.setattr(memory.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(memory, "give_back", lambda: given.append(now[0]))
    giver = memory.MemoryGiver()
    for now[0] in (105.0, 111.0, 112.0, 122.0):
        giver.on_train_batch_end(None, None)
    assert given == [111.0, 122.0]


def test_pages_are_kept_from_the_start_of_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(memory, "keep_pages", lambda: asked.append("keep"))
    memory.MemoryGiver().on_fit_start(None, None)
    assert asked == ["keep"]


@pytest.mark.parametrize(("reserved", "most"), [([], None), ([0, 0], None), ([3 << 30, 5 << 30], 5 << 30)])
def test_the_peak_of_gpus_is_that_of_the_fullest_one(
    reserved: list[int], most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory.torch.cuda, "device_count", lambda: len(reserved))
    monkeypatch.setattr(memory.torch.cuda, "max_memory_reserved", reserved.__getitem__)
    assert memory.peak_device_bytes() == most
