"""Memory pages of the C library: kept for the next tensors, and given back to the system."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache

# Of mallopt(3): how large a free end of the heap may be, and from which size on a block has pages of its own.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_TRIM_BYTES, _MMAP_BYTES = 256 << 20, 32 << 20


def keep_pages() -> None:
    """Let the C library keep the pages of freed tensors for the next ones, for the rest of the process.

    By default glibc gives the end of its heap back whenever some megabytes of it are free, so that each micro-batch
    fetches its pages anew. Who trains gives back what piles up. Does nothing where there
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


@cache
def _glibc(name: str) -> Callable[..., int] | None:
    """Return a function of glibc, or None with another C library."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), name, None)
