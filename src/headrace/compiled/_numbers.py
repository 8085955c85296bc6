"""Numbers as the loops take them from addresses, and the random levels that say which of them are dropped."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

_LAST_BIT, _11, _14, _15, _16, _17 = (np.uint32(n) for n in (1, 11, 14, 15, 16, 17))
_BELOW_HALF = np.uint32(0x7FFF)
# Of Wellons's `triple32` (Hash Prospector, 2018), every bit of whose answer hangs on every bit that it is given.
LEVEL_FACTORS = 0xED5AD4BB, 0xAC4C1B51, 0x31848BAB
_FACTORS = tuple(np.uint32(factor) for factor in LEVEL_FACTORS)


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


bits_at, whole_bits_at = _address_as(types.uint16), _address_as(types.uint32)
floats_at, wholes_at = _address_as(types.float32), _address_as(types.int64)
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
def level(place: Any, first: Any, second: Any) -> Any:
    """A uniform uint32 of a place in a stream that two seeds tell from others.

    The second seed comes in behind the first round: only streams of the same second seed are shifts of each other.
    """
    bits = types.uint32(types.uint32(place) + first)
    bits = types.uint32((bits ^ (bits >> _17)) * _FACTORS[0])
    bits = types.uint32(bits ^ second)
    bits = types.uint32((bits ^ (bits >> _11)) * _FACTORS[1])
    bits = types.uint32((bits ^ (bits >> _15)) * _FACTORS[2])
    return types.uint32(bits ^ (bits >> _14))
