"""Pieces of an attention in whole registers: products of small tiles, and what stands between two of them.

A compiler that is given plain loops does not find how a matrix product keeps its sums in registers, so these are written
in LLVM's own language, for registers of sixteen 32-bit numbers (AVX-512). Each is an intrinsic of numba, whose arguments
are addresses, strides in bytes, and numbers; the loops of `_attention` call them.

Matrices are made of units of 32 bits: two bfloat16 that lie side by side along the direction that a product sums over
(VDPBF16PS multiplies both and adds both), or one float32.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from headrace.compiled._numbers import LEVEL_FACTORS
from headrace.compiled._sizes import LANES, TILE_COLUMNS, TILE_REGISTERS, TILE_ROWS

# One of the backward pass, which holds two sums of each score.
SHARE_ROWS = 4

_I16, _I32, _I64, _F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
_FLOATS, _WHOLES = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)
_TYPES = {"i": types.int64, "f": types.float32, "u": types.uint32}
Builder = Any
Value = Any


class _Halves(ir.Type):  # type: ignore[misc]
    """Vectors of bfloat16, which llvmlite has no name for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def _to_string(self) -> str:
        return f"<{self.count} x bfloat>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Halves) and other.count == self.count

    def __hash__(self) -> int:
        return hash(("bfloat", self.count))


_PAIRS = _Halves(2 * LANES)


def _intrinsic(arguments: str, build: Callable[[Builder, list[Value]], None]) -> Any:
    """Return a function for numba's loops: of int64 (i), uint32 (u) and float32 (f), and of what it writes to alone."""
    kinds = [_TYPES[letter] for letter in arguments]

    def generate(context: Any, builder: Builder, signature: Any, given: Any) -> Any:
        build(builder, list(given))
        return context.get_dummy_value()

    def found(typing_context: Any, *given: Any) -> Any:
        return types.void(*kinds), generate

    # numba asks how many arguments there are
    names = ("typing_context", *(f"given_{number}" for number in range(len(kinds))))
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    found.__signature__ = inspect.Signature(parameters)
    return intrinsic(found)


def _c64(value: int) -> Value:
    return ir.Constant(_I64, value)


def _splat_float(value: float) -> Value:
    return ir.Constant(_FLOATS, [float(value)] * LANES)


def _splat_whole(value: int) -> Value:
    return ir.Constant(_WHOLES, [value & 0xFFFFFFFF] * LANES)


_LANE_NUMBERS = ir.Constant(_WHOLES, list(range(LANES)))


def _all(b: Builder, value: Value, kind: ir.VectorType) -> Value:
    """Return a register with a number in all lanes."""
    none = ir.Constant(kind, ir.Undefined)
    first = b.insert_element(none, value, ir.Constant(_I32, 0))
    return b.shuffle_vector(first, none, ir.Constant(_WHOLES, [0] * LANES))


def _load(b: Builder, address: Value, kind: ir.Type) -> Value:
    found = b.load(b.inttoptr(address, kind.as_pointer()))
    found.align = 4
    return found


def _store(b: Builder, value: Value, address: Value) -> None:
    b.store(value, b.inttoptr(address, value.type.as_pointer())).align = 4


def _repeat(
    b: Builder, n: Value, carried: list[Value], body: Callable[[Value, list[Value]], list[Value]]
) -> list[Value]:
    """Build a loop of n rounds, one at the least, that carries values from round to round; return the last ones."""
    before, head, behind = b.block, b.append_basic_block("round"), b.append_basic_block("behind")
    b.branch(head)
    b.position_at_end(head)
    number = b.phi(_I64)
    number.add_incoming(_c64(0), before)
    held = [b.phi(value.type) for value in carried]
    for phi, value in zip(held, carried, strict=True):
        phi.add_incoming(value, before)
    found = body(number, held)
    following = b.add(number, _c64(1))
    number.add_incoming(following, b.block)
    for phi, value in zip(held, found, strict=True):
        phi.add_incoming(value, b.block)
    b.cbranch(b.icmp_signed("<", following, n), head, behind)
    b.position_at_end(behind)
    return found


def _called(b: Builder, name: str, kind: ir.Type, *args: Value) -> Value:
    function = b.module.globals.get(name)
    if function is None:
        function = ir.Function(b.module, ir.FunctionType(kind, [value.type for value in args]), name)
    return b.call(function, args)


def _fma(b: Builder, x: Value, y: Value, z: Value) -> Value:
    return _called(b, "llvm.fma.v16f32", _FLOATS, x, y, z)


def _more(b: Builder, x: Value, y: Value) -> Value:
    return b.select(b.fcmp_ordered(">", x, y), x, y)


def _at_least(b: Builder, value: Value, bound: Value) -> Value:
    """Return values that are not below a bound; what is no number stays none."""
    return b.select(b.fcmp_ordered("<", value, bound), bound, value)


def _at_most(b: Builder, value: Value, bound: Value) -> Value:
    return b.select(b.fcmp_ordered(">", value, bound), bound, value)


def _across(b: Builder, value: Value, both: Callable[[Value, Value], Value]) -> Value:
    """Return the first lane's number of what is joined over all lanes."""
    for half in (8, 4, 2, 1):
        turned = [(lane + half) % LANES for lane in range(LANES)]
        value = both(value, b.shuffle_vector(value, value, ir.Constant(_WHOLES, turned)))
    return b.extract_element(value, ir.Constant(_I32, 0))


def _multiplied(b: Builder, two: bool, left: Value, right: Value, total: Value) -> Value:
    """Return the total and the products of units, as registers of 32-bit numbers."""
    if two:
        name = "llvm.x86.avx512bf16.dpbf16ps.512"
        return _called(b, name, _FLOATS, total, b.bitcast(left, _PAIRS), b.bitcast(right, _PAIRS))
    return _fma(b, b.bitcast(left, _FLOATS), b.bitcast(right, _FLOATS), total)


def _narrowed(b: Builder, low: Value, high: Value) -> Value:
    """Return the nearest bfloat16 of two registers, those of `low` first."""
    name = "llvm.x86.avx512bf16.cvtne2ps2bf16.512"
    return _called(b, name, _PAIRS, high, low)


_LOG2_E, _LN2_HIGH, _LN2_LOW = 1.44269504, 0.693359375, -2.12194440e-4
_LOWEST_EXPONENT = -87.0
_SERIES = (1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0)
_LEFT_OUT_IN_16_BITS = 2  # 2e-6 of the number are left, where a bfloat16 is rounded by 4e-3


def _exponential(b: Builder, value: Value, *, two: bool) -> Value:
    """Return e to the power of numbers that are not positive; below -87 it is that of -87.

    As 2^n * e^r with |r| <= ln(2) / 2, e^r by its series; n is added to the exponent's bits.
    """
    value = _at_least(b, value, _splat_float(_LOWEST_EXPONENT))
    whole = _called(b, "llvm.rint.v16f32", _FLOATS, b.fmul(value, _splat_float(_LOG2_E)))
    rest = _fma(b, whole, _splat_float(-_LN2_HIGH), value)
    rest = _fma(b, whole, _splat_float(-_LN2_LOW), rest)
    series = _SERIES[_LEFT_OUT_IN_16_BITS if two else 0 :]
    found = _splat_float(series[0])
    for factor in series[1:]:
        found = _fma(b, found, rest, _splat_float(factor))
    raised = b.shl(b.fptosi(whole, _WHOLES), _splat_whole(23))
    return b.bitcast(b.add(b.bitcast(found, _WHOLES), raised), _FLOATS)


def _level(b: Builder, place: Value, first: Value, second: Value) -> Value:
    """Return the levels of places, as `_numbers.level` does."""

    def folded(bits: Value, by: int) -> Value:
        return b.xor(bits, b.lshr(bits, _splat_whole(by)))

    bits = b.add(place, first)
    bits = b.mul(folded(bits, 17), _splat_whole(LEVEL_FACTORS[0]))
    bits = b.xor(bits, second)
    bits = b.mul(folded(bits, 11), _splat_whole(LEVEL_FACTORS[1]))
    bits = b.mul(folded(bits, 15), _splat_whole(LEVEL_FACTORS[2]))
    return folded(bits, 14)


def _tile(two: bool, begins: str) -> Any:
    """Return the product of TILE_ROWS rows and TILE_COLUMNS columns, float32.

    Arguments: rows of units and their stride; for each unit of a row a row of columns' units, and their stride; units of a
    row; where the sums are left and their rows' stride; a row of numbers that sums begin with (of `begins` "with a row").
    """

    def build(b: Builder, given: list[Value]) -> None:
        rows, rows_apart, columns, columns_apart, n, out, out_apart, begun = given

        def place(r: int, k: int) -> Value:
            return b.add(b.add(out, b.mul(out_apart, _c64(r))), _c64(4 * LANES * k))

        sums = [_splat_float(0.0)] * (TILE_ROWS * TILE_REGISTERS)
        if begins == "with what is there":
            sums = [_load(b, place(r, k), _FLOATS) for r in range(TILE_ROWS) for k in range(TILE_REGISTERS)]
        elif begins == "with a row":
            sums = [_load(b, b.add(begun, _c64(4 * LANES * k)), _FLOATS) for k in range(TILE_REGISTERS)] * TILE_ROWS

        def step(number: Value, sums: list[Value]) -> list[Value]:
            beside = b.add(columns, b.mul(number, columns_apart))
            right = [_load(b, b.add(beside, _c64(4 * LANES * k)), _WHOLES) for k in range(TILE_REGISTERS)]
            found = []
            for r in range(TILE_ROWS):
                unit = b.add(b.add(rows, b.mul(rows_apart, _c64(r))), b.mul(number, _c64(4)))
                left = _all(b, _load(b, unit, _I32), _WHOLES)
                for k in range(TILE_REGISTERS):
                    found.append(_multiplied(b, two, left, right[k], sums[r * TILE_REGISTERS + k]))
            return found

        sums = _repeat(b, n, sums, step)
        for r in range(TILE_ROWS):
            for k in range(TILE_REGISTERS):
                _store(b, sums[r * TILE_REGISTERS + k], place(r, k))

    return _intrinsic("i" * 8, build)


def _odds(two: bool, drops: bool) -> Any:
    """Return e to the power of a row of scores, less the largest, as what is multiplied by the values; 0 where dropped.

    Arguments: the scores, how many times TILE_COLUMNS they are, where the odds are left, the scale, the place of the first
    score in the stream of levels, two seeds, the lowest level that is kept; where the largest scaled score and the sum of
    the odds, before any is dropped, are left: the sum is NaN if a score is not finite.
    """

    def build(b: Builder, given: list[Value]) -> None:
        scores, n, out, scale, place, first, second, lowest, told = given

        def at(number: Value, k: int) -> Value:
            return _load(b, b.add(scores, b.add(b.mul(number, _c64(4 * TILE_COLUMNS)), _c64(4 * LANES * k))), _FLOATS)

        zero = _splat_float(0.0)

        def look(number: Value, held: list[Value]) -> list[Value]:
            values = [at(number, k) for k in range(TILE_REGISTERS)]
            tops = [_more(b, value, top) for value, top in zip(values, held, strict=False)]
            strange = held[-1]
            for value in values:
                strange = _fma(b, value, zero, strange)
            return [*tops, strange]

        lowest_float = _splat_float(-3e38)
        *tops, strange = _repeat(b, n, [*[lowest_float] * TILE_REGISTERS, zero], look)
        top = _across(b, _more(b, *tops), lambda x, y: _more(b, x, y))
        most = b.fmul(top, scale)
        factor, less = _all(b, scale, _FLOATS), _all(b, most, _FLOATS)
        seeds = [_all(b, seed, _WHOLES) for seed in (first, second, lowest)]
        begins = b.add(_all(b, place, _WHOLES), _LANE_NUMBERS)

        def make(number: Value, held: list[Value]) -> list[Value]:
            total, here = held
            odds = []
            for k in range(TILE_REGISTERS):
                # rounded once more than it need be, so that the largest is 0 exactly
                part = _exponential(b, b.fsub(b.fmul(at(number, k), factor), less), two=two)
                total = b.fadd(total, part)
                if drops:
                    level = _level(b, b.add(here, _splat_whole(LANES * k)), seeds[0], seeds[1])
                    part = b.select(b.icmp_unsigned(">=", level, seeds[2]), part, zero)
                odds.append(part)
            _put(b, two, odds, b.add(out, b.mul(number, _c64(TILE_COLUMNS * (2 if two else 4)))))
            return [total, b.add(here, _splat_whole(TILE_COLUMNS))]

        total, _ = _repeat(b, n, [strange, begins], make)
        _store(b, most, told)
        _store(b, _across(b, total, lambda x, y: b.fadd(x, y)), b.add(told, _c64(4)))

    return _intrinsic("iiifuuuui", build)


def _put(b: Builder, two: bool, values: list[Value], address: Value) -> None:
    """Store TILE_COLUMNS numbers in their type."""
    if two:
        _store(b, _narrowed(b, *values), address)
        return
    for k, value in enumerate(values):
        _store(b, value, b.add(address, _c64(4 * LANES * k)))


_EVENLY = ir.Constant(ir.VectorType(_I32, 2 * LANES), [lane // 2 + LANES * (lane % 2) for lane in range(2 * LANES)])


def _shares(two: bool) -> Any:
    """Return what SHARE_ROWS keys have of TILE_COLUMNS queries: weights less those dropped, and gradients of scores.

    With S the scores, L the logarithms of the queries' sums, P = e^(S - L), M 1 where a weight is kept, s the scale of the
    dropout and D the sums of the gradients over a query's weights: P * M, and P * (s * M * (dO V') - D).

    Arguments: rows of keys and of values and their stride; columns of queries and of the output's gradients and their
    stride; units of a row; L and D; the scores' scale, s; the place of the first score in the stream of levels, and of a
    query from the next; two seeds, the lowest level that is kept; the first query's number less the first key's, and how far
    apart they may not be; where the weights are left, the gradients, and the stride of both; where the gradients of two keys
    are left side by side, and their stride.
    """

    def build(b: Builder, given: list[Value]) -> None:
        keys, values, rows_apart, queries, above, columns_apart, n, logs, sums = given[:9]
        scale, more, place, apart, first, second, lowest, gap, window = given[9:18]
        weights_at, grads_at, out_apart, paired_at, paired_apart = given[18:]
        n_sums = SHARE_ROWS * TILE_REGISTERS
        zero = _splat_float(0.0)

        def step(number: Value, held: list[Value]) -> list[Value]:
            found = list(held)
            beside = b.mul(number, columns_apart)
            for which, (rows, columns) in enumerate(((keys, queries), (values, above))):
                right = [
                    _load(b, b.add(b.add(columns, beside), _c64(4 * LANES * k)), _WHOLES) for k in range(TILE_REGISTERS)
                ]
                for r in range(SHARE_ROWS):
                    unit = b.add(b.add(rows, b.mul(rows_apart, _c64(r))), b.mul(number, _c64(4)))
                    left = _all(b, _load(b, unit, _I32), _WHOLES)
                    for k in range(TILE_REGISTERS):
                        index = which * n_sums + r * TILE_REGISTERS + k
                        found[index] = _multiplied(b, two, left, right[k], held[index])
            return found

        found = _repeat(b, n, [zero] * (2 * n_sums), step)
        factor, kept_factor = _all(b, scale, _FLOATS), _all(b, more, _FLOATS)
        seeds = [_all(b, seed, _WHOLES) for seed in (first, second, lowest)]
        far = _all(b, window, _WHOLES)
        logs_of = [_load(b, b.add(logs, _c64(4 * LANES * k)), _FLOATS) for k in range(TILE_REGISTERS)]
        sums_of = [_load(b, b.add(sums, _c64(4 * LANES * k)), _FLOATS) for k in range(TILE_REGISTERS)]
        places = b.add(_all(b, place, _WHOLES), b.mul(_LANE_NUMBERS, _all(b, apart, _WHOLES)))
        a_register = b.mul(_all(b, apart, _WHOLES), _splat_whole(LANES))
        gaps = b.add(_all(b, gap, _WHOLES), _LANE_NUMBERS)
        last: list[Value] = []
        for r in range(SHARE_ROWS):
            weights, grads = [], []
            for k in range(TILE_REGISTERS):
                score, up = (found[which * n_sums + r * TILE_REGISTERS + k] for which in range(2))
                power = _at_most(b, b.fsub(b.fmul(score, factor), logs_of[k]), zero)
                weight = _exponential(b, power, two=two)
                away = b.add(gaps, _splat_whole(LANES * k - r))
                away = _called(b, "llvm.abs.v16i32", _WHOLES, away, ir.Constant(ir.IntType(1), 0))
                weight = b.select(b.icmp_signed("<", away, far), weight, zero)
                here = b.add(places, _splat_whole(r))
                here = b.add(here, a_register) if k else here
                keeps = b.icmp_unsigned(">=", _level(b, here, seeds[0], seeds[1]), seeds[2])
                weights.append(b.select(keeps, weight, zero))
                up = b.select(keeps, b.fmul(up, kept_factor), zero)
                grads.append(b.fmul(weight, b.fsub(up, sums_of[k])))
            down = b.mul(out_apart, _c64(r))
            _put(b, two, weights, b.add(weights_at, down))
            _put(b, two, grads, b.add(grads_at, down))
            if two and r % 2:
                pairs = b.add(paired_at, b.mul(paired_apart, _c64(r // 2)))
                for k in range(TILE_REGISTERS):
                    both = b.bitcast(_narrowed(b, last[k], grads[k]), ir.VectorType(_I16, 2 * LANES))
                    side_by_side = b.shuffle_vector(both, both, _EVENLY)
                    _store(b, side_by_side, b.add(pairs, _c64(4 * LANES * k)))
            last = grads

    return _intrinsic("iiiiiiiii" + "ff" + "uuuuuuu" + "iiiii", build)


def _turned() -> Any:
    """Return what writes a square of sixteen by sixteen units by columns.

    Arguments: its rows and their stride, where its columns are written as rows, and their stride.
    """

    def build(b: Builder, given: list[Value]) -> None:
        rows, apart, out, out_apart = given
        held = [_load(b, b.add(rows, b.mul(apart, _c64(r))), _WHOLES) for r in range(LANES)]
        # Rounds of exchanges: after the one of `half`, rows that are so far apart have changed that bit with the lanes.
        for half in (8, 4, 2, 1):
            low = [lane - half + LANES if lane & half else lane for lane in range(LANES)]
            high = [lane + LANES if lane & half else lane + half for lane in range(LANES)]
            masks = [ir.Constant(_WHOLES, mask) for mask in (low, high)]
            found = list(held)
            for r in range(LANES):
                if not r & half:
                    pair = held[r], held[r + half]
                    found[r], found[r + half] = (b.shuffle_vector(*pair, mask) for mask in masks)
            held = found
        for r in range(LANES):
            _store(b, held[r], b.add(out, b.mul(out_apart, _c64(r))))

    return _intrinsic("iiii", build)


# Of a processor without products of bfloat16 a compiler can make none, and it ends the process that asks it to: there the
# names stand for what is never called.
_TRIPLE, _, _FEATURES = cpu_target.target_context.codegen().magic_tuple()
HAS_16_BITS = "+avx512bf16" in _FEATURES
# An x86 without it would call a function for each number that is multiplied and added.
MULTIPLIES_AND_ADDS = "+fma" in _FEATURES or not _TRIPLE.startswith("x86")
_BOTH = (HAS_16_BITS, False)

tile_from_row16, tile_from_row32 = (_tile(two, "with a row") for two in _BOTH)
tile_anew16, tile_anew32 = (_tile(two, "with nothing") for two in _BOTH)
tile_added16, tile_added32 = (_tile(two, "with what is there") for two in _BOTH)
odds16, odds32 = (_odds(two, drops=False) for two in _BOTH)
odds_dropped16, odds_dropped32 = (_odds(two, drops=True) for two in _BOTH)
shares16, shares32 = (_shares(two) for two in _BOTH)
turned = _turned()
