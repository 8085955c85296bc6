"""Loops over tensors that are compiled for this processor: what torch does in many passes over memory is done in one.

numba compiles them, some seconds long when they are first wanted on a machine; their machine code is kept on disk, and loads
in some hundredths of a second without numba. They are for tensors on the CPU, of bfloat16 or float32. Where numba is not
there, or torch's threads cannot be asked, or the numbers are not torch's within rounding, `are_there` says no and there are
none.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from headrace.compiled import _kept, _sizes, _threads

_log = logging.getLogger(__name__)

# Of a matrix so many numbers at a time are one thread's: some microseconds of work, and within its own cache.
_CHUNK = 1 << 13
_TYPES = (torch.bfloat16, torch.float32)
# A window that no text reaches the end of.
_ALL = 1 << 30


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


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts that are laid end to end, and what their attention drops; one is for all layers that drop the same.

    Attributes:
        lengths: [texts] int64, the tokens of each, the longest first.
        levels: Of each text, with room for [heads, tokens, tokens]; () where nothing is dropped.
    """

    lengths: Tensor
    levels: Sequence[Levels] = ()

    @cached_property
    def tables(self) -> _Tables:
        """What the loops are told of them.

        Raises:
            ValueError: There is no text, one has no token, or the levels are not theirs.
        """
        lengths = self.lengths
        _check(torch.int64, torch.Size((len(lengths),)), lengths)
        if not len(lengths) or int(lengths.min()) < 1:
            raise ValueError(f"texts of {lengths.tolist()} tokens are no texts")
        levels = self.levels or [ALL_KEPT] * len(lengths)
        if len(levels) != len(lengths) or len({(one.first, one.lowest, one.scale) for one in levels}) > 1:
            raise ValueError(f"{len(lengths)} texts need as many levels, all of one rate and one first seed")
        ends = torch.cumsum(lengths, dim=0)
        places, seconds = (torch.tensor([one[at] for one in levels], device="cpu") for at in (2, 1))
        return _Tables(ends - lengths, lengths.clone(), places, seconds, int(ends[-1]), int(lengths.max()), levels[0])


class _Tables(NamedTuple):
    """Of texts: first tokens, lengths, places and second seeds of their levels; tokens in all and of the longest; one's levels."""

    starts: Tensor
    lengths: Tensor
    places: Tensor
    seconds: Tensor
    n_tokens: int
    longest: int
    level: Levels


class Attended(NamedTuple):
    """What an attention gave, and what its backward pass needs.

    Attributes:
        output: [tokens, heads, head width].
        logs: [heads, tokens] float32, the logarithms of the sums of the scores' exponentials.
    """

    output: Tensor
    logs: Tensor


def attention(query: Tensor, key: Tensor, value: Tensor, texts: Texts, *, scale: float, window: int | None) -> Attended:
    """Return the attention of each text to itself: softmax, dropout and two products in one loop.

    Args:
        query, key, value: [tokens, heads, head width], of bfloat16 or float32; see `attends`.
        texts: How they are laid; tokens behind the last one's get 0.
        scale: Of the scores.
        window: A token sees those that are less than so many away; None for all of its text.
    """
    rows = _alike(query, key, value)
    output = query.new_empty(query.shape)
    logs = query.new_empty((query.shape[1], query.shape[0]), dtype=torch.float32)
    with _laid(rows, texts, Attended(output, logs), scale, window) as args:
        _run("attention", args[0], *args, room_bytes=_room_bytes(_sizes.attention_bytes, query, texts))
    _clear_behind(texts, output)
    return Attended(output, logs)


def attention_gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    texts: Texts,
    found: Attended,
    above: Tensor,
    *,
    scale: float,
    window: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of queries, keys and values.

    Args:
        query, key, value, texts, scale, window: As `attention` had them.
        found: What it gave.
        above: Gradients of its output.
    """
    rows, above = _alike(query, key, value), above.contiguous()
    _check(query.dtype, query.shape, above)
    gradients = [query.new_empty(query.shape) for _ in range(3)]
    with _laid(rows, texts, found, scale, window) as args:
        places = above.data_ptr(), *(one.data_ptr() for one in gradients)
        _run("gradients", args[0], *args, *places, room_bytes=_room_bytes(_sizes.gradients_bytes, query, texts))
    _clear_behind(texts, *gradients)
    return gradients[0], gradients[1], gradients[2]


def dropped(values: Tensor, levels: Levels) -> Tensor:
    """Return values of bfloat16 or float32 less those that are dropped, the others scaled."""
    _check(values.dtype if values.dtype in _TYPES else torch.float32, values.shape, values)
    out = torch.empty_like(values)
    places = values.data_ptr(), out.data_ptr(), _bits(levels.scale)
    _run("dropout", -(-values.numel() // _CHUNK), values.numel(), _CHUNK, values.element_size(), *places, *levels[:4])
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


def attends(dtype: torch.dtype, head_width: int) -> bool:
    """Return whether there is an attention for numbers of a type and heads so wide; `learn` and `answer` say whether it is used.

    16-bit products need a processor that has them (AVX-512's for bfloat16), and take numbers by twos.
    """
    if dtype == torch.bfloat16 and not _kept.may_have_16_bits():  # nothing is compiled to find that out
        return False
    return are_there() and _has_attention(dtype, head_width)


def _has_attention(dtype: torch.dtype, head_width: int) -> bool:
    if dtype == torch.bfloat16:
        return head_width % 2 == 0 and _kept.loops().has_16_bits
    return dtype == torch.float32 and _kept.loops().multiplies_and_adds


@cache
def are_there() -> bool:
    """Return whether there are such loops here; the first time on a machine compiles them."""
    if _threads.team() is None:
        return False
    try:
        is_same = _are_the_same()
    except ModuleNotFoundError as error:
        _log.debug("no compiled loops: %s", error)
        return False
    except Exception as error:  # noqa: BLE001  # a compiler can fail in any way, and nothing hangs on it but time
        _log.warning("computing goes on without compiled loops, slower: %s: %s", type(error).__name__, error)
        return False
    if not is_same:
        _log.warning("computing goes on without compiled loops, slower: their numbers are not torch's")
    return is_same


def _are_the_same() -> bool:
    """Try each loop: attention on texts of several lengths, with and without a window and a dropout; and numbers enough for threads."""
    lengths, heads, width, scale = torch.tensor([48, 31, 17, 1], device="cpu"), 2, 24, 0.2
    draw = torch.Generator().manual_seed(0)
    shape = int(lengths.sum()), heads, width
    exact = [torch.randn(shape, generator=draw, dtype=torch.float32, device="cpu") for _ in range(4)]
    many = torch.randn(5 * _CHUNK // 2, generator=draw, dtype=torch.float32, device="cpu")
    levels = [Levels(1, 2, 10_000 * number, 1 << 30, 4 / 3) for number in range(len(lengths))]
    pairs: list[tuple[Tensor, Tensor, float]] = []
    for dtype, apart in ((torch.float32, 2e-5), (torch.bfloat16, 8e-2)):
        pairs.append((dropped(many.to(dtype), ALL_KEPT), many.to(dtype).double(), 0.0))
        if not _has_attention(dtype, width):
            continue
        query, key, value, above = (one.to(dtype) for one in exact)
        for window, drops in ((None, True), (29, False)):
            texts = Texts(lengths, levels if drops else ())
            found = attention(query, key, value, texts, scale=scale, window=window)
            back = attention_gradients(query, key, value, texts, found, above, scale=scale, window=window)
            expected = _by_torch([query, key, value, above], texts, scale, window)
            pairs += [(mine, theirs, apart) for mine, theirs in zip((found.output, *back), expected, strict=True)]
    return all(float((a.double() - b).abs().max()) <= apart for a, b, apart in pairs)


def _by_torch(given: list[Tensor], texts: Texts, scale: float, window: int | None) -> list[Tensor]:
    """Return the attention's output and the gradients of queries, keys and values, of these and the output's.

    In float64, which no autocast and no setting of torch's computes in fewer bits.
    """
    found: list[list[Tensor]] = [[], [], [], []]
    by_text = zip(*(torch.split(one.double(), texts.lengths.tolist()) for one in given), strict=True)
    for number, parts in enumerate(by_text):
        query, key, value, up = (one.transpose(0, 1) for one in parts)
        places = torch.arange(query.shape[1], device="cpu")
        far = (places[:, None] - places).abs() >= (window or len(places))
        weights = torch.softmax((query @ key.mT * scale).masked_fill(far, -torch.inf), dim=-1)
        mask = torch.ones(weights.shape, dtype=torch.float32, device="cpu")
        mask = dropped(mask, texts.levels[number]).double() if texts.levels else mask.double()
        grads = mask * (up @ value.mT)
        grads = weights * (grads - (weights * grads).sum(dim=-1, keepdim=True)) * scale
        kept = weights * mask
        for place, one in zip(found, (kept @ value, grads @ key, grads.mT @ query, kept.mT @ up), strict=True):
            place.append(one.transpose(0, 1))
    return [torch.cat(parts) for parts in found]


def _alike(*rows: Tensor) -> list[Tensor]:
    """Return rows of which one loop can read: each token's heads in one piece, and all as far from the next token."""
    _, heads, width = rows[0].shape
    apart = rows[0].stride(0)
    if all(one.stride() == (apart, width, 1) and apart >= heads * width for one in rows):
        return list(rows)
    return [one.contiguous() for one in rows]


@contextmanager
def _laid(
    rows: list[Tensor], texts: Texts, found: Attended, scale: float, window: int | None
) -> Iterator[tuple[int, ...]]:
    """Give the arguments of an attention's loop, whose tables last as long as the block."""
    tokens, heads, width = rows[0].shape
    tables, lengths = texts.tables, texts.lengths
    if not _has_attention(rows[0].dtype, width):
        raise TypeError(f"there is no loop for the attention of {rows[0].dtype} heads {width} wide")
    for one in rows:
        _check(rows[0].dtype, rows[0].shape, one, in_one_piece=False)
    _check(rows[0].dtype, rows[0].shape, found.output)
    _check(torch.float32, torch.Size((heads, tokens)), found.logs)
    if tables.n_tokens > tokens:
        raise ValueError(f"texts of {lengths.tolist()} tokens are no parts of {tokens}")
    first, _, _, lowest, factor = tables.level
    yield (
        *(len(lengths) * heads, heads, tables.starts.data_ptr(), tables.lengths.data_ptr(), tables.places.data_ptr()),
        *(one.data_ptr() for one in rows),
        *(rows[0].stride(0) * rows[0].element_size(), found.output.data_ptr(), found.logs.data_ptr(), tokens, width),
        *(rows[0].element_size(), _bits(scale), _bits(factor), first, tables.seconds.data_ptr(), lowest),
        *(min(window or _ALL, _ALL), tables.longest),
    )


def _clear_behind(texts: Texts, *found: Tensor) -> None:
    """What lies behind the last text is no number yet."""
    for one in found:
        if texts.tables.n_tokens < len(one):
            one[texts.tables.n_tokens :] = 0.0


def _check(dtype: torch.dtype, shape: torch.Size, *tensors: Tensor, in_one_piece: bool = True) -> None:
    """What is written through an address must be what it is held for."""
    for one in tensors:
        fits = one.dtype == dtype and one.shape == shape and one.device.type == "cpu"
        if not fits or (in_one_piece and not one.is_contiguous()):
            raise TypeError(
                f"a loop for {dtype} tensors of {list(shape)} in one piece got {one.dtype}, {list(one.shape)}"
            )


def _bits(value: float) -> int:
    (bits,) = struct.unpack("I", struct.pack("f", value))
    return int(bits)


def _room_bytes(of: Callable[[int, int, int], int], query: Tensor, texts: Texts) -> int:
    return of(texts.tables.longest, query.shape[2], query.element_size())


def _run(name: str, n_pieces: int, *args: int, room_bytes: int = 0) -> None:
    _threads.run(_kept.loops().addresses[name], n_pieces, *args, room_bytes=room_bytes)
