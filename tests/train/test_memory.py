"""Free pages go back between two steps; the peak is the process's own."""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import pytest

from headrace.train import memory

HAS_TRIM = sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "malloc_trim")


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


@pytest.mark.skipif(not HAS_TRIM, reason="this C library has no malloc_trim")
def test_the_gaps_between_what_lives_are_given_back() -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    block = 60_000  # below the size that has a mapping of its own
    blocks = [np.ones(block, dtype=np.uint8) for _ in range(2000)]
    kept = blocks[::16]
    del blocks
    full = resident()
    memory.give_back()
    assert full - resident() > 0.5 * 2000 * block
    assert all(one.all() for one in kept)
