"""Runs a loop on the threads that torch computes with.

A pool of one's own would stand beside torch's, whose threads go on looking for work for a while after each piece of it:
two pools on the same cores take turns in waiting. So the team is asked of the very library of OpenMP that torch uses.
"""

from __future__ import annotations

import array
import ctypes
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headrace.compiled._sizes import LINE, N_ARGS, ROOM

_log = logging.getLogger(__name__)

# What of torch's own libraries names those that it stands on, OpenMP's among them.
_NAMES_ALL = "libtorch_global_deps.so"


@cache
def team() -> Callable[..., None] | None:
    """Return what starts a team of torch's threads, (function, its argument, threads, flags); None where torch has no such."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / _NAMES_ALL))
        found: Any = library.GOMP_parallel
    except (OSError, AttributeError) as error:
        _log.debug("no team of torch's threads: %s", error)
        return None
    found.argtypes, found.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None
    started: Callable[..., None] = found
    return started


def run(loop: int, n_pieces: int, *args: int, room_bytes: int = 0) -> None:
    """Run a loop, given by its address, until it is through.

    Args:
        loop: Its address.
        n_pieces: What its threads take of it, one by one.
        args: Its arguments from the second on; the first is the number of the next piece.
        room_bytes: What a thread needs while it computes.
    """
    start = team()
    if start is None:
        raise RuntimeError("torch's threads cannot be asked")
    n_threads, each = min(torch.get_num_threads(), max(1, n_pieces)), -(-room_bytes // LINE) * LINE
    room = _room(n_threads * each + LINE)
    first = -(-room.data_ptr() // LINE) * LINE
    given = array.array("q", (0, *args, *[0] * (ROOM - 1 - len(args)), first, each, 0))
    if len(given) != N_ARGS:
        raise ValueError(f"a loop has no {len(args)} arguments")
    start(loop, given.buffer_info()[0], n_threads, 0)
    if given[0] < n_pieces:  # a loop cannot raise: where it has too little room it ends
        raise RuntimeError(f"a compiled loop did {given[0]} of {n_pieces} pieces: {each} bytes are too little room")


def _room(n_bytes: int) -> Tensor:
    return torch.empty(n_bytes, dtype=torch.uint8, device="cpu")
