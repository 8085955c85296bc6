"""How the loops are compiled: what numba is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit, types

# Sums may be taken in any order, and what is not finite is told by its bits.
_FAST = {"nsz", "nnan", "ninf", "contract", "reassoc", "arcp"}
_SIGNATURE = types.void(types.CPointer(types.int64))

# A division by zero gives what the processor gives: to look for one is a branch, and a loop with branches is a slow one.
row: Callable[[Any], Any] = njit(fastmath=_FAST, error_model="numpy")
exact_row: Callable[[Any], Any] = njit(error_model="numpy")
loop: Callable[[Any], Any] = njit(_SIGNATURE, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
