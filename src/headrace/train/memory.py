"""The memory of a training: how much was resident at most, and pages that nothing uses go back while it runs."""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import lightning
import torch

from headrace.pages import give_back, keep_pages

# Long enough that new pages, a share of a step to fetch, cost nothing to speak of; short enough that few gaps add up.
GIVE_BACK_EVERY_S = 10.0
#: How torch says it on a processor, and how accelerators and systems do.
OUT_OF_MEMORY = ("allocate memory", "out of memory", "not enough memory")


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

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Give back what batches of other sizes have left."""
        give_back()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Give back what nobody needs any more."""
        give_back()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory could not be had: the processor's or an accelerator's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)


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


def peak_device_bytes() -> int | None:
    """Return the most memory that this process has reserved on one GPU so far, in bytes; None if it has used none."""
    reserved = [int(torch.cuda.max_memory_reserved(index)) for index in range(torch.cuda.device_count())]
    return max(reserved, default=0) or None
