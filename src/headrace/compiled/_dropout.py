"""Dropout of numbers, a loop that is compiled. What it gives for a number hangs on no other, nor on who computes it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types

from headrace.compiled._language import loop, row
from headrace.compiled._numbers import (
    address_of,
    as_float,
    bits_at,
    floats_at,
    level,
    narrowed,
    next_of,
    widened,
)
from headrace.compiled._sizes import N_ARGS

_ZERO = np.float32(0.0)


@row
def _dropout16(
    values_at: Any, out_at: Any, n: Any, scale: Any, place: Any, first: Any, second: Any, lowest: Any
) -> None:
    values, out = carray(bits_at(values_at), (n,)), carray(bits_at(out_at), (n,))
    for j in range(n):
        keeps = level(place + types.uint32(j), first, second) >= lowest
        out[j] = narrowed(widened(values[j]) * scale) if keeps else types.uint16(0)


@row
def _dropout32(
    values_at: Any, out_at: Any, n: Any, scale: Any, place: Any, first: Any, second: Any, lowest: Any
) -> None:
    values, out = carray(floats_at(values_at), (n,)), carray(floats_at(out_at), (n,))
    for j in range(n):
        keeps = level(place + types.uint32(j), first, second) >= lowest
        out[j] = values[j] * scale if keeps else _ZERO


@loop
def dropout(given: Any) -> None:
    """Dropout of numbers.

    Arguments: 0 next chunk, 1 numbers, 2 numbers a chunk, 3 bytes of each, 4 values, 5 out, 6 the scale's bits, 7
    and 8 seeds, 9 the first place in their stream, 10 the lowest level that is kept.
    """
    a = carray(given, (N_ARGS,))
    n, chunk, size, scale = a[1], a[2], a[3], as_float(types.uint32(a[6]))
    first, second, lowest = types.uint32(a[7]), types.uint32(a[8]), types.uint32(a[10])
    at = address_of(given)
    while True:
        begun = next_of(at) * chunk
        if begun >= n:
            break
        some, offset, place = min(chunk, n - begun), begun * size, types.uint32(a[9] + begun)
        if size == 2:
            _dropout16(a[4] + offset, a[5] + offset, some, scale, place, first, second, lowest)
        else:
            _dropout32(a[4] + offset, a[5] + offset, some, scale, place, first, second, lowest)
