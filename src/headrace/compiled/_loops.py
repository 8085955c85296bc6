"""The loops. Each is a C function of one address, where its arguments stand as int64 (`_threads.run` puts them there).

All threads of a team run the same loop and take the next rows until none is left; what a row gives hangs on no other row,
so the numbers are the same whoever computes them. The small functions at the beginning become a few instructions on as many
numbers at a time as fit into the processor's registers. Importing this module compiles it, some seconds long, or reads what
was compiled before from numba's cache; that cache looks at a function's own file alone, so all are in this one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

_LAST_BIT, _11, _14, _15, _16, _17, _23 = (np.uint32(n) for n in (1, 11, 14, 15, 16, 17, 23))
_BELOW_HALF = np.uint32(0x7FFF)
_FACTORS = np.uint32(0xED5AD4BB), np.uint32(0xAC4C1B51), np.uint32(0x31848BAB)
_SIGN_PLACE, _ALL_BUT_SIGN = np.int32(31), np.int32(0x7FFFFFFF)
_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)
_LOWEST_EXPONENT = np.float32(-87.0)
_LOG2_E, _LN2_HIGH, _LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
_EXP = tuple(np.float32(c) for c in (1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2))
_INFINITE, _MINUS_INFINITE = np.int32(0x7F800000), np.int32(~0x7F800000)  # as `ordered` has them
N_ARGS = 16
# Sums may be taken in any order, and what is not finite is told by its bits.
_FAST = {"nsz", "nnan", "ninf", "contract", "reassoc", "arcp"}
_SIGNATURE = types.void(types.CPointer(types.int64))
_NAN, _NAN_BITS = np.uint16(0x7FC0), np.uint32(0x7FC00000)
_SIGN, _REST = np.uint16(0x8000), np.uint16(0x7FFF)
_LEAST, _MOST = np.int32(-0x80000000), np.int32(0x7FFFFFFF)


def _kept(compiles: Callable[..., Any]) -> Callable[..., Any]:
    """Return a decorator that keeps what it compiles on disk where there is a place for that."""

    def decorate(*args: Any, **options: Any) -> Callable[[Any], Any]:
        def compiled(function: Any) -> Any:
            try:
                return compiles(*args, cache=True, **options)(function)
            except (RuntimeError, OSError):  # numba finds no place for it, or the disk is full
                return compiles(*args, **options)(function)

        return compiled

    return decorate


# A division by zero gives what the processor gives: to look for one is a branch, and a loop with branches is a slow one.
_row = _kept(njit)(fastmath=_FAST, error_model="numpy")
_loop = _kept(cfunc)(_SIGNATURE, error_model="numpy")


def _address_as(kind: Any) -> Any:
    @intrinsic
    def at(typing_context: Any, address: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], context.get_value_type(types.CPointer(kind)))

        return types.CPointer(kind)(types.int64), build

    return at


def _same_bits(of: Any, to: Any, made: Any) -> Any:
    @intrinsic
    def cast(typing_context: Any, value: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], made)

        return to(of), build

    return cast


bits_at, floats_at, wholes_at = _address_as(types.uint16), _address_as(types.float32), _address_as(types.int64)
as_float = _same_bits(types.uint32, types.float32, ir.FloatType())
as_bits = _same_bits(types.float32, types.uint32, ir.IntType(32))


@intrinsic
def address_of(typing_context: Any, pointer: Any) -> Any:
    """The address that a pointer to int64 holds."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(args[0], ir.IntType(64))

    return types.int64(types.CPointer(types.int64)), build


@intrinsic
def next_of(typing_context: Any, address: Any) -> Any:
    """The int64 at an address, which is moved on by one; no two threads get the same."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, ir.Constant(ir.IntType(64), 1), "seq_cst")

    return types.int64(types.int64), build


@njit(inline="always")
def widened(bits: Any) -> Any:
    """The float32 of a bfloat16's bits."""
    return as_float(types.uint32(bits) << _16)


@njit(inline="always")
def narrowed(value: Any) -> Any:
    """The bits of the nearest bfloat16; of two that are as near the even one."""
    bits = as_bits(value)
    return types.uint16((bits + _BELOW_HALF + ((bits >> _16) & _LAST_BIT)) >> _16)


@njit(inline="always")
def ordered(bits: Any) -> Any:
    """An int32 that orders as the floats of those bits do: whole numbers have a largest one without a branch."""
    value = types.int32(bits)
    return types.int32(value ^ ((value >> _SIGN_PLACE) & _ALL_BUT_SIGN))


@njit(inline="always")
def of_ordered(value: Any) -> Any:
    """The float32 that `ordered` was given."""
    return as_float(types.uint32(types.int32(value ^ ((value >> _SIGN_PLACE) & _ALL_BUT_SIGN))))


@njit(inline="always")
def are_finite(least: Any, most: Any) -> Any:
    """Whether none of some floats is infinite or NaN, of the least and the most of what `ordered` gave for them.

    Told by the order of their bits, for the loops compute as if there were no such.
    """
    return most < _INFINITE and least > _MINUS_INFINITE


@njit(inline="always")
def level(place: Any, first: Any, second: Any) -> Any:
    """A uniform uint32 of a place in a stream that two seeds tell from others.

    The rounds are those of Wellons's `triple32` (Hash Prospector, 2018), every bit of whose answer hangs on every bit that
    it is given; the second seed comes in behind the first round: only streams of the same second seed are shifts of each other.
    """
    bits = types.uint32(types.uint32(place) + first)
    bits = types.uint32((bits ^ (bits >> _17)) * _FACTORS[0])
    bits = types.uint32(bits ^ second)
    bits = types.uint32((bits ^ (bits >> _11)) * _FACTORS[1])
    bits = types.uint32((bits ^ (bits >> _15)) * _FACTORS[2])
    return types.uint32(bits ^ (bits >> _14))


@njit(inline="always")
def exponential(value: Any) -> Any:
    """e to the power of a float32 that is not positive, to 3e-7 of itself; below -87 it is that of -87.

    As 2^n * e^r with |r| <= ln(2) / 2, e^r by its series.
    """
    value = value if value > _LOWEST_EXPONENT else _LOWEST_EXPONENT
    n = types.int32(value * _LOG2_E - _HALF)
    whole = types.float32(n)
    rest = (value - whole * _LN2_HIGH) - whole * _LN2_LOW
    found = _EXP[0]
    found = found * rest + _EXP[1]
    found = found * rest + _EXP[2]
    found = found * rest + _EXP[3]
    found = found * rest + _EXP[4]
    found = found * rest + _EXP[5]
    found = found * rest * rest + rest + _ONE
    return found * as_float(types.uint32(n + np.int32(127)) << _23)


@njit(inline="always")
def _seen(row: Any, width: Any, lengths: Any, rows_a_text: Any, window: Any) -> Any:
    """The columns [from, to) that a row of scores sees: the tokens of its text, and of its window if there is one."""
    length = width
    if lengths != 0:
        length = carray(wholes_at(lengths + 8 * (row // rows_a_text)), (1,))[0]
    here = row % width
    if here >= length:
        return 0, 0
    if window == 0:
        return 0, length
    return max(0, here - window + 1), min(length, here + window)


@_row
def _softmax16(
    scores_at: Any, made_at: Any, out_at: Any, spare_at: Any, n: Any, place: Any, first: Any, second: Any, lowest: Any
) -> None:
    scores, out = carray(bits_at(scores_at), (n,)), carray(bits_at(out_at), (n,))
    spare = carray(floats_at(spare_at), (n,))
    least, top = _MOST, _LEAST
    for j in range(n):
        place_in_order = ordered(types.uint32(scores[j]) << _16)
        least, top = min(least, place_in_order), max(top, place_in_order)
    most = of_ordered(top)
    total = _ZERO
    for j in range(n):
        part = exponential(widened(scores[j]) - most)
        spare[j] = part
        total += part
    share = _ONE / total
    if not are_finite(least, top):
        for j in range(n):
            out[j] = _NAN
        if made_at != 0:
            made = carray(bits_at(made_at), (n,))
            for j in range(n):
                made[j] = _NAN
    elif made_at == 0:
        for j in range(n):
            out[j] = narrowed(spare[j] * share)
    else:
        made = carray(bits_at(made_at), (n,))
        for j in range(n):
            weight = narrowed(spare[j] * share)
            keeps = level(place + types.uint32(j), first, second) >= lowest
            made[j] = weight if keeps else types.uint16(weight | _SIGN)
            out[j] = weight if keeps else types.uint16(0)


@_row
def _zero16(at: Any, n: Any) -> None:
    values = carray(bits_at(at), (n,))
    for j in range(n):
        values[j] = types.uint16(0)


@_loop
def softmax16(given: Any) -> None:
    """Softmax of bfloat16 rows, with dropout unless `made` is 0.

    Arguments: 0 next chunk, 1 rows, 2 rows a chunk, 3 width, 4 scores, 5 made: the weights, of which a dropped one has the
    sign bit, 6 out: the weights without those that are dropped, 7 lengths, 8 rows a text, 9 the first row, 10 window, 11
    and 12 seeds, 13 the first place in their stream, 14 the lowest level that is kept.
    """
    a = carray(given, (N_ARGS,))
    n_rows, chunk, width = a[1], a[2], a[3]
    first, second, lowest = types.uint32(a[11]), types.uint32(a[12]), types.uint32(a[14])
    spare = np.empty(width, np.float32)
    at = address_of(given)
    while True:
        begun = next_of(at) * chunk
        if begun >= n_rows:
            break
        for row in range(begun, min(begun + chunk, n_rows)):
            start, stop = _seen(a[9] + row, width, a[7], a[8], a[10])
            n, offset = stop - start, 2 * row * width
            for output in (a[5], a[6]):
                if output != 0 and n < width:
                    _zero16(output + offset, start)
                    _zero16(output + offset + 2 * stop, width - stop)
            if n > 0:
                here = offset + 2 * start
                made = a[5] + here if a[5] != 0 else 0
                place = types.uint32(a[13] + row * width + start)
                _softmax16(a[4] + here, made, a[6] + here, spare.ctypes.data, n, place, first, second, lowest)


@_row
def _gradients16(grads_at: Any, made_at: Any, dropped_at: Any, n: Any) -> None:
    grads, made = carray(bits_at(grads_at), (n,)), carray(bits_at(made_at), (n,))
    dropped = carray(bits_at(dropped_at), (n,))
    total = _ZERO
    for j in range(n):
        bits = made[j]
        total += widened(grads[j]) * (widened(bits) if bits < _SIGN else _ZERO)
    for j in range(n):
        bits = made[j]
        keeps = bits < _SIGN
        above = widened(grads[j]) if keeps else _ZERO
        grads[j] = narrowed(widened(types.uint16(bits & _REST)) * (above - total))
        dropped[j] = bits if keeps else types.uint16(0)


@_loop
def gradients16(given: Any) -> None:
    """The gradients of scores, of the gradients of their dropped weights, in their place; and the dropped weights again.

    Arguments: 0 next chunk, 1 rows, 2 rows a chunk, 3 width, 4 gradients, 5 made, as `softmax16` left it, 6 dropped.
    """
    a = carray(given, (N_ARGS,))
    n_rows, chunk, width = a[1], a[2], a[3]
    at = address_of(given)
    while True:
        begun = next_of(at) * chunk
        if begun >= n_rows:
            break
        for row in range(begun, min(begun + chunk, n_rows)):
            offset = 2 * row * width
            _gradients16(a[4] + offset, a[5] + offset, a[6] + offset, width)


@_row
def _odds32(scores_at: Any, n: Any) -> Any:
    """Leave the exponentials in the scores' place; return their sum."""
    scores, bits = carray(floats_at(scores_at), (n,)), carray(floats_at(scores_at), (n,))
    least, top = _MOST, _LEAST
    for j in range(n):
        place_in_order = ordered(as_bits(bits[j]))
        least, top = min(least, place_in_order), max(top, place_in_order)
    most = of_ordered(top)
    total = _ZERO
    for j in range(n):
        part = exponential(scores[j] - most)
        scores[j] = part
        total += part
    return total if are_finite(least, top) else as_float(_NAN_BITS)


@_row
def _drop32(odds_at: Any, n: Any, share: Any, place: Any, first: Any, second: Any, lowest: Any) -> None:
    odds = carray(floats_at(odds_at), (n,))
    for j in range(n):
        keeps = level(place + types.uint32(j), first, second) >= lowest
        odds[j] = odds[j] * share if keeps else _ZERO


@_row
def _gradients32(
    odds_at: Any, grads_at: Any, n: Any, share: Any, place: Any, first: Any, second: Any, lowest: Any
) -> None:
    odds, grads = carray(floats_at(odds_at), (n,)), carray(floats_at(grads_at), (n,))
    total = _ZERO
    for j in range(n):
        keeps = level(place + types.uint32(j), first, second) >= lowest
        above = grads[j] if keeps else _ZERO
        grads[j] = above
        total += above * odds[j]
    total *= share
    for j in range(n):
        keeps = level(place + types.uint32(j), first, second) >= lowest
        weight = odds[j] * share
        grads[j] = weight * (grads[j] - total)
        odds[j] = weight if keeps else _ZERO


@_row
def _zero32(at: Any, n: Any) -> None:
    values = carray(floats_at(at), (n,))
    for j in range(n):
        values[j] = _ZERO


@_loop
def softmax32(given: Any) -> None:
    """Softmax of float32 rows in their place, with dropout; and if there are gradients, of the dropped weights, the scores'.

    Arguments: 0 next chunk, 1 rows, 2 rows a chunk, 3 width, 4 scores, in whose place the dropped weights are left, 5 the
    gradients of these, in whose place those of the scores are left, or 0; the rest as in `softmax16`.
    """
    a = carray(given, (N_ARGS,))
    n_rows, chunk, width = a[1], a[2], a[3]
    first, second, lowest = types.uint32(a[11]), types.uint32(a[12]), types.uint32(a[14])
    at = address_of(given)
    while True:
        begun = next_of(at) * chunk
        if begun >= n_rows:
            break
        for row in range(begun, min(begun + chunk, n_rows)):
            start, stop = _seen(a[9] + row, width, a[7], a[8], a[10])
            n, offset = stop - start, 4 * row * width
            for output in (a[4], a[5]):
                if output != 0 and n < width:
                    _zero32(output + offset, start)
                    _zero32(output + offset + 4 * stop, width - stop)
            if n > 0:
                here = offset + 4 * start
                place = types.uint32(a[13] + row * width + start)
                share = _ONE / _odds32(a[4] + here, n)
                if a[5] == 0:
                    _drop32(a[4] + here, n, share, place, first, second, lowest)
                else:
                    _gradients32(a[4] + here, a[5] + here, n, share, place, first, second, lowest)


@_row
def _dropout16(
    values_at: Any, out_at: Any, n: Any, scale: Any, place: Any, first: Any, second: Any, lowest: Any
) -> None:
    values, out = carray(bits_at(values_at), (n,)), carray(bits_at(out_at), (n,))
    for j in range(n):
        keeps = level(place + types.uint32(j), first, second) >= lowest
        out[j] = narrowed(widened(values[j]) * scale) if keeps else types.uint16(0)


@_row
def _dropout32(
    values_at: Any, out_at: Any, n: Any, scale: Any, place: Any, first: Any, second: Any, lowest: Any
) -> None:
    values, out = carray(floats_at(values_at), (n,)), carray(floats_at(out_at), (n,))
    for j in range(n):
        keeps = level(place + types.uint32(j), first, second) >= lowest
        out[j] = values[j] * scale if keeps else _ZERO


@_loop
def dropout(given: Any) -> None:
    """Dropout of numbers.

    Arguments: 0 next chunk, 1 numbers, 2 numbers a chunk, 3 bytes of each, 4 values, 5 out, 6 the scale's bits; 11 to 14
    as in `softmax16`.
    """
    a = carray(given, (N_ARGS,))
    n, chunk, size, scale = a[1], a[2], a[3], as_float(types.uint32(a[6]))
    first, second, lowest = types.uint32(a[11]), types.uint32(a[12]), types.uint32(a[14])
    at = address_of(given)
    while True:
        begun = next_of(at) * chunk
        if begun >= n:
            break
        some, offset, place = min(chunk, n - begun), begun * size, types.uint32(a[13] + begun)
        if size == 2:
            _dropout16(a[4] + offset, a[5] + offset, some, scale, place, first, second, lowest)
        else:
            _dropout32(a[4] + offset, a[5] + offset, some, scale, place, first, second, lowest)
