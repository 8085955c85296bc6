"""Free pages go back between two steps; the peak is the process's own."""

from __future__ import annotations

import ctypes
import os
import subprocess
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


def test_pages_are_kept_unless_somebody_has_set_glibc_already(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(memory, "_glibc", lambda name: lambda *values: asked.append(values))
    for name in ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    memory.MemoryGiver().on_fit_start(None, None)
    assert asked == [(-1, 1 << 30), (-3, 32 << 20)]
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    memory.keep_pages()
    assert len(asked) == 2


@pytest.mark.skipif(not HAS_TRIM, reason="this C library has no mallopt")
def test_kept_pages_are_not_fetched_again() -> None:
    program = """
import resource, sys
import numpy as np
from headrace.train import memory
if sys.argv[1] == "keep":
    memory.keep_pages()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(2):
    before = faults()
    for _ in range(20):
        blocks = [np.ones(12 << 20, dtype=np.uint8) for _ in range(3)]
        del blocks
print(faults() - before)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GLIBC", "MALLOC"))}
    found = {}
    for how in ("keep", "give"):
        command = [sys.executable, "-c", program, how]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        found[how] = int(done.stdout)
    assert found["keep"] < 1000 < found["give"] / 10
