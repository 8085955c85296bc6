"""Pages of freed tensors are kept for the next, or given back to the system."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest

from headrace import pages

HAS_TRIM = sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "malloc_trim")


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
    pages.give_back()
    assert full - resident() > 0.5 * 2000 * block
    assert all(one.all() for one in kept)


def test_pages_are_kept_unless_somebody_has_set_glibc_already(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(pages, "_glibc", lambda name: lambda *values: asked.append(values))
    for name in ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"):
        monkeypatch.delenv(name, raising=False)
    pages.keep_pages()
    assert asked == [(-1, 256 << 20), (-3, 32 << 20)]
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    pages.keep_pages()
    assert len(asked) == 2


@pytest.mark.skipif(not HAS_TRIM, reason="this C library has no mallopt")
def test_kept_pages_are_not_fetched_again() -> None:
    program = """
import resource, sys
import numpy as np
from headrace import pages
if sys.argv[1] == "keep":
    pages.keep_pages()
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
