"""The whole attention of packed texts in one loop, forward and back: of a text's scores some rows are there at a time.

A job is one head of one text, of which a thread takes the next when it is through with one. The job first lays out its
queries, keys and values as the tiles of `_vectors` need them; then it goes through the scores, some rows of them at a
time. The backward pass makes the scores again (Dao et al. 2022, arXiv 2205.14135, section 3.1 and appendix B), from the
other side: rows are keys, so that what belongs to a query stands in a lane.

Rows of a text are filled up with zeros to whole tiles, 8 rows and 32 columns, and so are heads.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import carray, types

from headrace.compiled._language import exact_row, loop, row
from headrace.compiled._numbers import (
    address_of,
    as_float,
    bits_at,
    floats_at,
    narrowed,
    next_of,
    whole_bits_at,
    wholes_at,
    widened,
)
from headrace.compiled._sizes import BLOCK, LINE, N_ARGS, NEXT_ROOM, ROOM, ROOM_BYTES, TILE_COLUMNS, TILE_ROWS
from headrace.compiled._vectors import (
    SHARE_ROWS,
    odds16,
    odds32,
    odds_dropped16,
    odds_dropped32,
    shares16,
    shares32,
    tile_added16,
    tile_added32,
    tile_anew16,
    tile_anew32,
    tile_from_row16,
    tile_from_row32,
    turned,
)

_FAR, _ENDED = np.float32(-1e30), np.float32(1e30)
_ZERO = np.float32(0.0)
_16 = np.uint32(16)


@row
def _copy(rows: Any, apart: Any, n_units: Any, n: Any, out: Any, n_filled_units: Any, n_filled: Any) -> None:
    """Put rows of units behind each other, each filled up with zeros, and rows of zeros behind them."""
    for r in range(n):
        given = carray(floats_at(rows + r * apart), (n_units,))
        found = carray(floats_at(out + 4 * r * n_filled_units), (n_filled_units,))
        for u in range(n_units):
            found[u] = given[u]
        for u in range(n_units, n_filled_units):
            found[u] = _ZERO
    n_empty = (n_filled - n) * n_filled_units
    empty = carray(floats_at(out + 4 * n * n_filled_units), (n_empty,))
    for u in range(n_empty):
        empty[u] = _ZERO


@row
def _pair(rows: Any, out: Any, width: Any, n: Any) -> None:
    """Put the bfloat16 of each two rows side by side."""
    for r in range(n // 2):
        upper, lower = (
            carray(bits_at(rows + 4 * r * width), (width,)),
            carray(bits_at(rows + 4 * r * width + 2 * width), (width,)),
        )
        found = carray(whole_bits_at(out + 4 * r * width), (width,))
        for c in range(width):
            found[c] = types.uint32(upper[c]) | (types.uint32(lower[c]) << _16)


@exact_row
def _turn(rows: Any, out: Any, n_rows: Any, n_columns: Any) -> None:
    """Put columns of units as rows; both numbers are multiples of sixteen."""
    for r in range(0, n_rows, 16):
        for c in range(0, n_columns, 16):
            turned(rows + 4 * (r * n_columns + c), 4 * n_columns, out + 4 * (c * n_rows + r), 4 * n_rows)


@row
def _fill(at: Any, value: Any, n: Any) -> None:
    values = carray(floats_at(at), (n,))
    for j in range(n):
        values[j] = value


@row
def _write16(found: Any, out: Any, share: Any, n: Any) -> None:
    values, written = carray(floats_at(found), (n,)), carray(bits_at(out), (n,))
    for j in range(n):
        written[j] = narrowed(values[j] * share)


@row
def _write32(found: Any, out: Any, share: Any, n: Any) -> None:
    values, written = carray(floats_at(found), (n,)), carray(floats_at(out), (n,))
    for j in range(n):
        written[j] = values[j] * share


@row
def _sum16(left: Any, right: Any, n: Any) -> Any:
    one, other = carray(bits_at(left), (n,)), carray(bits_at(right), (n,))
    total = _ZERO
    for j in range(n):
        total += widened(one[j]) * widened(other[j])
    return total


@row
def _sum32(left: Any, right: Any, n: Any) -> Any:
    one, other = carray(floats_at(left), (n,)), carray(floats_at(right), (n,))
    total = _ZERO
    for j in range(n):
        total += one[j] * other[j]
    return total


@exact_row
def _write(two: Any, found: Any, out: Any, share: Any, n: Any) -> None:
    if two:
        _write16(found, out, share, n)
    else:
        _write32(found, out, share, n)


@exact_row
def _product(
    two: Any, rows: Any, rows_apart: Any, columns: Any, columns_apart: Any, n: Any, out: Any, out_apart: Any
) -> None:
    """Put the product of TILE_ROWS rows and TILE_COLUMNS columns."""
    if two:
        tile_anew16(rows, rows_apart, columns, columns_apart, n, out, out_apart, 0)
    else:
        tile_anew32(rows, rows_apart, columns, columns_apart, n, out, out_apart, 0)


@exact_row
def _up(n: Any, to: Any) -> Any:
    return (n + to - 1) // to * to


@loop
def attention(given: Any) -> None:
    """The attention of texts to themselves.

    Arguments: 0 next job, 1 jobs, 2 heads, 3 the texts' first tokens, 4 their lengths, 5 the first places of their levels, 6
    queries, 7 keys, 8 values, 9 bytes from token to token of these, 10 out, in one piece, 11 where the logarithms of the
    sums are left, [heads, tokens], 12 tokens, 13 head width, 14 bytes of a number, 15 scale, 16 scale of the dropout, 17 the
    first seed, 18 the texts' second ones, 19 the lowest level that is kept, 20 how far apart tokens may not be, 21 length of
    the longest text.
    """
    a = carray(given, (N_ARGS,))
    n_jobs, n_heads, own_width, size = a[1], a[2], a[13], a[14]
    two, width = size == 2, _up(own_width, TILE_COLUMNS)
    units, own_units, a_unit = width * size // 4, own_width * size // 4, 4 // size
    scale, more = as_float(types.uint32(a[15])), as_float(types.uint32(a[16]))
    first, lowest = types.uint32(a[17]), types.uint32(a[19])
    window, most = a[20], _up(a[21], TILE_COLUMNS)
    at = address_of(given)
    queries = a[ROOM] + a[ROOM_BYTES] * next_of(at + 8 * NEXT_ROOM)
    rows, columns = queries + 4 * units * most, queries + 8 * units * most
    values, beside = queries + 12 * units * most, queries + 16 * units * most
    ended = queries + 20 * units * most
    scores = ended + 4 * most
    odds = scores + 4 * TILE_ROWS * most
    mixed = odds + 4 * TILE_ROWS * most
    told_at = mixed + 4 * TILE_ROWS * width
    told = carray(floats_at(told_at), (2,))
    if told_at + LINE - queries > a[ROOM_BYTES]:
        return
    while True:
        job = next_of(at)
        if job >= n_jobs:
            break
        text, head = job // n_heads, job % n_heads
        start = carray(wholes_at(a[3] + 8 * text), (1,))[0]
        length = carray(wholes_at(a[4] + 8 * text), (1,))[0]
        place = carray(wholes_at(a[5] + 8 * text), (1,))[0] + head * length * length
        second = types.uint32(carray(wholes_at(a[18] + 8 * text), (1,))[0])
        wide = _up(length, TILE_COLUMNS)
        here = start * a[9] + head * own_width * size
        _copy(a[6] + here, a[9], own_units, length, queries, units, wide)
        _copy(a[7] + here, a[9], own_units, length, rows, units, wide)
        _turn(rows, columns, wide, units)
        _copy(a[8] + here, a[9], own_units, length, values, units, wide)
        if two:
            _pair(values, beside, width, wide)
        _fill(ended, _ZERO, length)
        _fill(ended + 4 * length, _FAR, wide - length)
        by_unit = beside if two else values
        logs = carray(floats_at(a[11] + 4 * (head * a[12] + start)), (length,))
        for i in range(0, length, TILE_ROWS):
            n_rows = min(TILE_ROWS, length - i)
            low, high = 0, wide
            if window < length:
                low = max(0, i - window + 1) // TILE_COLUMNS * TILE_COLUMNS
                high = min(wide, _up(i + n_rows - 1 + window, TILE_COLUMNS))
            across = high - low
            for j in range(low, high, TILE_COLUMNS):
                query, column, score = queries + 4 * units * i, columns + 4 * j, scores + 4 * (j - low)
                if two:
                    tile_from_row16(query, 4 * units, column, 4 * wide, units, score, 4 * across, ended + 4 * j)
                else:
                    tile_from_row32(query, 4 * units, column, 4 * wide, units, score, 4 * across, ended + 4 * j)
            for r in range(n_rows):
                score, odd = scores + 4 * r * across, odds + size * r * across
                if window < length:
                    near = max(low, i + r - window + 1)
                    _fill(score, _FAR, near - low)
                    beyond = min(high, i + r + window)
                    _fill(score + 4 * (beyond - low), _FAR, high - beyond)
                number = types.uint32(place + (i + r) * length + low)
                n = across // TILE_COLUMNS
                if two and lowest > 0:
                    odds_dropped16(score, n, odd, scale, number, first, second, lowest, told_at)
                elif two:
                    odds16(score, n, odd, scale, number, first, second, lowest, told_at)
                elif lowest > 0:
                    odds_dropped32(score, n, odd, scale, number, first, second, lowest, told_at)
                else:
                    odds32(score, n, odd, scale, number, first, second, lowest, told_at)
                logs[i + r] = told[0] + np.float32(math.log(told[1]))
                shares_at = told_at + 8 + 4 * r
                carray(floats_at(shares_at), (1,))[0] = more / told[1]
            for c in range(0, width, TILE_COLUMNS):
                column = by_unit + 4 * (low // a_unit * width + c)
                _product(two, odds, size * across, column, 4 * width, across // a_unit, mixed + 4 * c, 4 * width)
            for r in range(n_rows):
                share = carray(floats_at(told_at + 8 + 4 * r), (1,))[0]
                out = a[10] + ((start + i + r) * n_heads + head) * own_width * size
                _write(two, mixed + 4 * r * width, out, share, own_width)


@loop
def gradients(given: Any) -> None:
    """The gradients of queries, keys and values.

    Arguments: as those of `attention`, but 22 the output's gradients, in one piece as the output, and 23 to 25 where the
    gradients of queries, keys and values are left, each in one piece.
    """
    a = carray(given, (N_ARGS,))
    n_jobs, n_heads, own_width, size = a[1], a[2], a[13], a[14]
    two, width = size == 2, _up(own_width, TILE_COLUMNS)
    units, own_units, a_unit = width * size // 4, own_width * size // 4, 4 // size
    scale, more = as_float(types.uint32(a[15])), as_float(types.uint32(a[16]))
    first, lowest = types.uint32(a[17]), types.uint32(a[19])
    window, most = min(a[20], 1 << 30), _up(a[21], TILE_COLUMNS)
    each = 4 * units * most
    at = address_of(given)
    queries = a[ROOM] + a[ROOM_BYTES] * next_of(at + 8 * NEXT_ROOM)
    keys, values, above = queries + each, queries + 2 * each, queries + 3 * each
    query_columns, above_columns = queries + 4 * each, queries + 5 * each
    query_pairs, above_pairs, key_pairs, key_columns = (
        queries + 6 * each,
        queries + 7 * each,
        queries + 8 * each,
        queries + 9 * each,
    )
    logs = queries + 10 * each
    sums = logs + 4 * most
    weights = sums + 4 * most
    grads = weights + 4 * BLOCK * most
    paired = grads + 4 * BLOCK * most
    added = paired + 4 * BLOCK * most
    back = added + 4 * width * most
    mixed = back + 4 * width * most
    if mixed + 4 * BLOCK * width - queries > a[ROOM_BYTES]:
        return
    while True:
        job = next_of(at)
        if job >= n_jobs:
            break
        text, head = job // n_heads, job % n_heads
        start = carray(wholes_at(a[3] + 8 * text), (1,))[0]
        length = carray(wholes_at(a[4] + 8 * text), (1,))[0]
        place = carray(wholes_at(a[5] + 8 * text), (1,))[0] + head * length * length
        second = types.uint32(carray(wholes_at(a[18] + 8 * text), (1,))[0])
        wide, filled = _up(length, TILE_COLUMNS), _up(length, TILE_ROWS)
        here, whole = start * a[9] + head * own_width * size, n_heads * own_width * size
        there = start * whole + head * own_width * size
        _copy(a[6] + here, a[9], own_units, length, queries, units, wide)
        _copy(a[7] + here, a[9], own_units, length, keys, units, wide)
        _copy(a[8] + here, a[9], own_units, length, values, units, wide)
        _copy(a[22] + there, whole, own_units, length, above, units, wide)
        _turn(queries, query_columns, wide, units)
        _turn(above, above_columns, wide, units)
        of_queries, of_above, of_keys = queries, above, keys
        if two:
            _pair(queries, query_pairs, width, wide)
            _pair(above, above_pairs, width, wide)
            _pair(keys, key_pairs, width, wide)
            of_queries, of_above, of_keys = query_pairs, above_pairs, key_pairs
        across = wide // a_unit  # units of a row that is as long as the text
        _turn(of_keys, key_columns, across, width)
        sums_of = carray(floats_at(sums), (wide,))
        for i in range(length):
            if two:
                sums_of[i] = _sum16(a[22] + there + i * whole, a[10] + there + i * whole, own_width)
            else:
                sums_of[i] = _sum32(a[22] + there + i * whole, a[10] + there + i * whole, own_width)
        for i in range(length, wide):
            sums_of[i] = _ZERO
        _copy(a[11] + 4 * (head * a[12] + start), 4, 1, length, logs, 1, length)
        _fill(logs + 4 * length, _ENDED, wide - length)
        _fill(added, _ZERO, width * wide)
        for j in range(0, filled, BLOCK):
            n_keys = min(BLOCK, filled - j)
            low, high = 0, wide
            if window < length:
                low = max(0, j - window + 1) // TILE_COLUMNS * TILE_COLUMNS
                high = min(wide, _up(j + n_keys - 1 + window, TILE_COLUMNS))
            seen = (high - low) // a_unit
            apart = size * (high - low)
            for r in range(0, n_keys, SHARE_ROWS):
                row_at = 4 * units * (j + r)
                for i in range(low, high, TILE_COLUMNS):
                    number = types.uint32(place + i * length + j + r)
                    gap = types.uint32(i - j - r)
                    column = 4 * i
                    weight, grad = weights + r * apart + size * (i - low), grads + r * apart + size * (i - low)
                    pair = paired + r // 2 * 4 * (high - low) + 4 * (i - low)
                    inputs = keys + row_at, values + row_at, 4 * units, query_columns + column, above_columns + column
                    numbers = 4 * wide, units, logs + column, sums + column, scale, more, number, types.uint32(length)
                    limits = first, second, lowest, gap, types.uint32(window)
                    outputs = weight, grad, apart, pair, 4 * (high - low)
                    if two:
                        shares16(*inputs, *numbers, *limits, *outputs)
                    else:
                        shares32(*inputs, *numbers, *limits, *outputs)
            for r in range(0, n_keys, TILE_ROWS):
                n_rows = min(TILE_ROWS, length - j - r)
                for which in range(2):
                    left = (weights if which == 0 else grads) + r * apart
                    right = (of_above if which == 0 else of_queries) + 4 * (low // a_unit) * width
                    for c in range(0, width, TILE_COLUMNS):
                        _product(two, left, apart, right + 4 * c, 4 * width, seen, mixed + 4 * c, 4 * width)
                    out = a[25] if which == 0 else a[24]
                    share = more if which == 0 else scale
                    for k in range(n_rows):
                        found = out + there + (j + r + k) * whole
                        _write(two, mixed + 4 * k * width, found, share, own_width)
            column_at = key_columns + 4 * (j // a_unit)
            right = paired if two else grads
            for c in range(0, width, TILE_ROWS):
                left = column_at + 4 * c * across
                for i in range(low, high, TILE_COLUMNS):
                    total = added + 4 * (c * wide + i)
                    pair = right + 4 * (i - low)
                    if two:
                        tile_added16(left, 4 * across, pair, 4 * (high - low), n_keys // 2, total, 4 * wide, 0)
                    else:
                        tile_added32(left, 4 * across, pair, 4 * (high - low), n_keys, total, 4 * wide, 0)
        _turn(added, back, width, wide)
        for i in range(length):
            _write(two, back + 4 * i * width, a[23] + there + i * whole, scale, own_width)
