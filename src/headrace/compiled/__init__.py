"""Loops over tensors that are compiled for this processor: what torch does in many passes over memory is done in one.

numba compiles them, some seconds long when they are first wanted, and keeps them on disk. They are for tensors on the CPU
that lie in one piece, of bfloat16 or float32. Where numba is not there, or torch's threads cannot be asked, or the numbers
are not torch's within rounding, `are_there` says no and there are none.
"""

from __future__ import annotations

import importlib
import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from headrace.compiled import _threads

_log = logging.getLogger(__name__)

# Of a matrix so many numbers at a time are one thread's: some microseconds of work, and within its own cache.
_CHUNK = 1 << 13
_TYPES = (torch.bfloat16, torch.float32)
_LOOPS = "headrace.compiled._loops"


class Levels(NamedTuple):
    """A part of a stream of random levels, for a tensor of numbers that are dropped or kept.

    Attributes:
        first, second: The stream's seeds, of 32 bits each.
        start: The place of the tensor's first number, with room behind it for all.
        lowest: The lowest of 2^32 levels whose number is kept.
        scale: Of the numbers that are kept.
    """

    first: int
    second: int
    start: int
    lowest: int
    scale: float


ALL_KEPT = Levels(0, 0, 0, 0, 1.0)


class Seen(NamedTuple):
    """Which scores of a piece of an attention are looked at.

    Attributes:
        lengths: [texts] int64, the tokens of each text of a group; None where all have as many as a row is wide.
        rows_a_text: Rows of scores that a text has, of all heads.
        first_row: Where the piece begins in its group.
        window: A token sees those that are less than so many away; None for all of its text.
    """

    lengths: Tensor | None
    rows_a_text: int
    first_row: int
    window: int | None


def softmax_(scores: Tensor, levels: Levels, seen: Seen, *, made: Tensor | None = None, out: Tensor) -> None:
    """Fill `made` with the softmax of bfloat16 scores, a dropped weight with its sign bit set, and `out` with those kept.

    Args:
        scores: [..., width, width].
        levels: Of the dropout, if there is `made`; the weights are not scaled.
        seen: Which scores; other weights are 0.
        made: Like the scores, or themselves; None without dropout.
        out: Like the scores; without dropout it may be themselves.
    """
    _check(torch.bfloat16, scores, out, *([] if made is None else [made]))
    places = scores.data_ptr(), 0 if made is None else made.data_ptr(), out.data_ptr()
    _run("softmax16", *_rows(scores), *places, *_seen(seen), *_levels(levels))


def gradients_(above: Tensor, made: Tensor, *, dropped: Tensor) -> None:
    """Turn the gradients of dropped weights, bfloat16, into those of the scores; `dropped` gets the dropped weights again.

    Args:
        above: [..., width, width], from the products of the dropped weights; the scores' gradients take their place.
        made: As `softmax_` left it.
        dropped: Like it.
    """
    _check(torch.bfloat16, above, made, dropped)
    _run("gradients16", *_rows(above), above.data_ptr(), made.data_ptr(), dropped.data_ptr())


def softmax_in_place_(scores: Tensor, levels: Levels, seen: Seen, *, above: Tensor | None = None) -> None:
    """Turn float32 scores into their softmax, less what is dropped; and gradients of that into gradients of the scores.

    Args:
        scores: [..., width, width].
        levels: Of the dropout; the weights are not scaled.
        seen: Which scores; other weights are 0.
        above: Like the scores, the gradients of the dropped weights, in whose place the scores' are left.
    """
    _check(torch.float32, scores, *([] if above is None else [above]))
    places = scores.data_ptr(), 0 if above is None else above.data_ptr(), 0
    _run("softmax32", *_rows(scores), *places, *_seen(seen), *_levels(levels))


def dropped(values: Tensor, levels: Levels) -> Tensor:
    """Return values of bfloat16 or float32 less those that are dropped, the others scaled."""
    _check(values.dtype if values.dtype in _TYPES else torch.float32, values)
    out = torch.empty_like(values)
    places = values.data_ptr(), out.data_ptr(), _bits(levels.scale), 0, 0, 0, 0
    _run("dropout", values.numel(), _CHUNK, values.element_size(), *places, *_levels(levels))
    return out


_ALSO_ANSWERS: ContextVar[bool] = ContextVar("also_answers", default=False)
_LEARNS: ContextVar[bool] = ContextVar("learns", default=True)


@contextmanager
def answering() -> Iterator[None]:
    """Inside the block answers are computed by the loops, too, and not what learns alone."""
    token = _ALSO_ANSWERS.set(True)
    try:
        yield
    finally:
        _ALSO_ANSWERS.reset(token)


@contextmanager
def learning(with_loops: bool) -> Iterator[None]:
    """Inside the block what learns is computed by the loops, or by torch's operations."""
    token = _LEARNS.set(with_loops)
    try:
        yield
    finally:
        _LEARNS.reset(token)


def learn(dtype: torch.dtype) -> bool:
    """Return whether what learns in numbers of a type is computed by the loops: where there are any, but for `learning(False)`."""
    return dtype in _TYPES and _LEARNS.get() and are_there()


def answer(dtype: torch.dtype) -> bool:
    """Return whether answers in numbers of a type are computed by the loops: inside `answering`, where there are any."""
    return dtype in _TYPES and _ALSO_ANSWERS.get() and are_there()


@cache
def are_there() -> bool:
    """Return whether there are such loops here; the first time compiles them, or reads them from numba's cache."""
    if _threads.team() is None:
        return False
    try:
        importlib.import_module(_LOOPS)
        is_same = _are_the_same()
    except ModuleNotFoundError as error:
        _log.debug("no compiled loops: %s", error)
        return False
    except Exception as error:  # noqa: BLE001  # a compiler can fail in any way, and nothing hangs on it but time
        _log.warning("computing goes on without compiled loops, a tenth slower: %s: %s", type(error).__name__, error)
        return False
    if not is_same:
        _log.warning("computing goes on without compiled loops, a tenth slower: their numbers are not torch's")
    return is_same


def _are_the_same() -> bool:
    """Try each loop on as many numbers as several threads share, with rows that end and a window."""
    width, window, lengths = 48, 29, torch.tensor([48, 31, 17, 1], device="cpu")
    draw, places = torch.Generator().manual_seed(0), torch.arange(width, device="cpu")
    scores, above = (
        torch.randn(4 * 6, width, width, generator=draw, dtype=torch.float32, device="cpu") for _ in range(2)
    )
    seen = Seen(lengths, 6 * width, 0, window)
    real = (places < lengths[:, None]).repeat_interleave(6, dim=0)
    looks = real[:, :, None] & real[:, None, :] & ((places[:, None] - places).abs() < window)
    weights = torch.softmax(scores.masked_fill(~looks, -1e9), dim=-1) * looks
    gradients = weights * (above - (above * weights).sum(dim=-1, keepdim=True))
    found, back = scores.clone(), above.clone()
    softmax_in_place_(found, ALL_KEPT, seen, above=back)
    pairs = [(found, weights, 1e-6), (back, gradients, 1e-5), (dropped(above, ALL_KEPT), above, 0.0)]
    made, given = scores.to(torch.bfloat16), above.to(torch.bfloat16)
    out, again = torch.empty_like(made), torch.empty_like(made)
    softmax_(made, ALL_KEPT, seen, made=made, out=out)
    back = given.clone()
    gradients_(back, made, dropped=again)
    pairs += [(made, weights, 2e-2), (out, made, 0.0), (again, made, 0.0), (back, gradients, 8e-2)]
    pairs += [(dropped(given, ALL_KEPT), given, 0.0)]
    return all(float((a.float() - b.float()).abs().max()) <= apart for a, b, apart in pairs)


def _check(dtype: torch.dtype, *tensors: Tensor) -> None:
    """What is written through an address must be what it is held for."""
    n = tensors[0].numel()
    for one in tensors:
        if one.dtype != dtype or not one.is_contiguous() or one.device.type != "cpu" or one.numel() != n:
            raise TypeError(
                f"a loop for {dtype} tensors of {n} numbers in one piece got {one.dtype}, {list(one.shape)}"
            )


def _rows(scores: Tensor) -> tuple[int, int, int]:
    width = scores.shape[-1]
    return scores.numel() // width, max(1, _CHUNK // width), width


def _seen(seen: Seen) -> tuple[int, int, int, int]:
    lengths = 0 if seen.lengths is None else seen.lengths.data_ptr()
    return lengths, seen.rows_a_text, seen.first_row, seen.window or 0


def _levels(levels: Levels) -> tuple[int, int, int, int]:
    return levels.first, levels.second, levels.start, levels.lowest


def _bits(value: float) -> int:
    (bits,) = struct.unpack("I", struct.pack("f", value))
    return int(bits)


def _run(name: str, *args: int) -> None:
    _threads.run(_address(name), *args)


@cache
def _address(name: str) -> int:
    found: int = getattr(importlib.import_module(_LOOPS), name).address
    return found
