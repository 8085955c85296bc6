"""How the loops are compiled, and kept on disk so that it is done once a machine.

numba keeps what it compiled by the place and the date of a function's own file. The loops call each other across files, so
here the name under which one is kept holds a digest of all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import cfunc, njit, types

# Sums may be taken in any order, and what is not finite is told by its bits.
_FAST = {"nsz", "nnan", "ninf", "contract", "reassoc", "arcp"}
_SIGNATURE = types.void(types.CPointer(types.int64))


def _digest() -> str:
    found = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        found.update(file.read_bytes())
    return found.hexdigest()[:16]


_SOURCES = _digest()


def _kept(compiles: Callable[..., Any]) -> Callable[..., Any]:
    """Return a decorator that keeps what it compiles on disk where there is a place for that."""

    def decorate(*args: Any, **options: Any) -> Callable[[Any], Any]:
        def compiled(function: Any) -> Any:
            function.__qualname__ = f"{function.__qualname__}_{_SOURCES}"
            try:
                return compiles(*args, cache=True, **options)(function)
            except (RuntimeError, OSError):  # numba finds no place for it
                return compiles(*args, **options)(function)

        return compiled

    return decorate


# A division by zero gives what the processor gives: to look for one is a branch, and a loop with branches is a slow one.
row: Callable[[Any], Any] = _kept(njit)(fastmath=_FAST, error_model="numpy")
exact_row: Callable[[Any], Any] = _kept(njit)(error_model="numpy")
loop: Callable[[Any], Any] = _kept(cfunc)(_SIGNATURE, error_model="numpy")
