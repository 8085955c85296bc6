"""Sizes that the loops and those who call them share: what a tile is, and how much room a thread needs."""

from __future__ import annotations

# A tile has so many rows, and columns of so many registers: 16 sums on the way, and loads for which there is time beside.
TILE_ROWS, TILE_REGISTERS = 8, 2
LANES = 16
TILE_COLUMNS = TILE_REGISTERS * LANES
# Keys whose scores are made together, of all queries: what a query gets of them is added up once.
BLOCK = 64
#: Room begins at a multiple of so many bytes, a line of the cache.
LINE = 64

# A loop is a C function of one address, where its arguments stand as int64 (`_threads.run` puts them there). The last ones
# are its room: the first byte, bytes a thread, and the number of the next thread to take its part.
N_ARGS = 32
ROOM, ROOM_BYTES, NEXT_ROOM = 29, 30, 31


def attention_bytes(longest: int, width: int, size: int) -> int:
    """Return the room that a thread of `attention` needs.

    Args:
        longest: Tokens of the longest text.
        width: Of a head.
        size: Bytes of a number.
    """
    most, filled = _up(longest, TILE_COLUMNS), _up(width, TILE_COLUMNS)
    return 5 * most * filled * size + 4 * most + 8 * TILE_ROWS * most + 4 * TILE_ROWS * filled + LINE


def gradients_bytes(longest: int, width: int, size: int) -> int:
    """Return the room that a thread of `gradients` needs; see `attention_bytes`."""
    most, filled = _up(longest, TILE_COLUMNS), _up(width, TILE_COLUMNS)
    return 10 * most * filled * size + 8 * most + 12 * BLOCK * most + 8 * filled * most + 4 * BLOCK * filled


def _up(n: int, to: int) -> int:
    return (n + to - 1) // to * to
