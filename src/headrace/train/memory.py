"""The memory of a training: how much was resident at most, and pages that nothing uses go back while it runs."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lightning
import torch

# Long enough that new pages, a share of a step to fetch, cost nothing to speak of; short enough that few gaps add up.
GIVE_BACK_EVERY_S = 10.0
#: How torch says it on a processor, and how accelerators and systems do.
OUT_OF_MEMORY = ("allocate memory", "out of memory", "not enough memory")


# Of mallopt(3): how large a free end of the heap may be, and from which size on a block has pages of its own.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_TRIM_BYTES, _MMAP_BYTES = 1 << 30, 32 << 20


class MemoryGiver(lightning.Callback):
    """Keeps free pages for the next micro-batch, and gives them back between two steps, every GIVE_BACK_EVERY_S seconds.

    Tensors of each micro-batch have sizes of their own. glibc keeps what they leave between those that live on, and in
    some hundred steps the resident size grows to twice of what is ever in use at a time.
    """

    def __init__(self) -> None:
        self._next = time.monotonic() + GIVE_BACK_EVERY_S

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Keep pages from now on."""
        keep_pages()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Give back if it is time."""
        if time.monotonic() >= self._next:
            give_back()
            self._next = time.monotonic() + GIVE_BACK_EVERY_S


def keep_pages() -> None:
    """Let the C library keep the pages of freed tensors for the next ones, for the rest of the process.

    By default glibc gives the end of its heap back whenever some megabytes of it are free, so that each micro-batch
    fetches its pages anew: a seventh of a step's time. `MemoryGiver` gives back what piles up. Does nothing where there
    is no such call; who has set glibc's own variables keeps them.
    """
    if any(name in os.environ for name in ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")):
        return
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)


def give_back() -> None:
    """Give the system the free pages of the C library's heap; does nothing where there is no such call."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory could not be had: the processor's or an accelerator's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)


@cache
def _glibc(name: str) -> Callable[..., int] | None:
    """Return a function of glibc, or None with another C library."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), name, None)


def peak_resident_bytes() -> int:
    """Return the largest resident size of this process so far, in bytes.

    On Linux from the memory map itself: `ru_maxrss` of a new process begins with the size of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
