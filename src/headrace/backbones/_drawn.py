"""Dropout that a CPU can afford: masks from a fast generator instead of one Bernoulli draw an element.

torch draws a dropout mask on the CPU element by element on one core (about 9 ns each); with attention dropout on, its
fused attention falls back to the unfused path besides. Together that is a large part of a BERT's training step. Here
the bits come from many congruential generators side by side (two bytes an element), which torch's vectorised arithmetic
moves on together on all cores. Each mask is still a pure function of `torch.manual_seed`. One of 16-bit values is kept
for the backward pass; one of float32 values is drawn again, which costs less than to keep it. Where there are compiled
loops (`headrace.compiled`) a level is computed of its place and the seeds inside the loop that needs it, forward and back.

Source: Knuth's linear congruential generator modulo 2^64 (The Art of Computer Programming, volume 2, 3.3.4, table 1,
line 26). Of such a generator the high bits are good; they are folded onto the low ones. Each half of a generator's 64 bits
is joined by "or, but not both" with the half that follows it, and behind the last stands one generator more: of
independent halves the answers are independent, too.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from headrace import compiled

_LEVELS = 1 << 16  # a mask's rate is a multiple of 1/65,536; the scale is that of the rate that is used
# Generators side by side: a piece of attention takes 2^20 levels, four of each.
_N_LANES = 1 << 18
_FACTOR, _ADDED = 6364136223846793005, 1442695040888963407


class Draws:
    """A stream of dropout masks of one rate, seeded by two draws of torch's generator.

    Args:
        rate: Share of the elements that are dropped, in [0, 1); rounded to a multiple of 1/65,536.
        seed: Of the stream; by default it is drawn.

    Attributes:
        scale: What the kept elements are multiplied by, 1 / (1 - rate).
    """

    def __init__(self, rate: float, seed: tuple[int, int] | None = None) -> None:
        self._rate = rate
        if seed is None:
            first, second = torch.randint(-(1 << 62), 1 << 62, (2,)).tolist()
            seed = 2 * first + 1, second
        self._seed = seed
        dropped = round(rate * _LEVELS)
        self.scale = _LEVELS / (_LEVELS - dropped)
        self._lowest = dropped - _LEVELS // 2  # levels are uniform in [-32768, 32767]
        self._state = torch.empty(0, dtype=torch.int64)
        self._place = self._n_streams = 0

    def again(self) -> Draws:
        """Return the stream from its beginning: asked for the same shapes in the same order it gives the same masks."""
        return Draws(self._rate, self._seed)

    def kept(self, shape: torch.Size) -> Tensor:
        """Return the next mask, int16 of that shape: 1 where an element is kept, else 0."""
        return self._levels(shape).ge_(self._lowest)

    def dropped(self, shape: torch.Size) -> Tensor:
        """Return the next mask the other way round, int16 of that shape: 1 where an element is dropped, else 0."""
        return self._levels(shape).lt_(self._lowest)

    def mask(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Return the next mask as factors of a type: 0, or the scale."""
        kept = self.kept(shape)
        if dtype.itemsize != 2:
            return kept.to(dtype).mul_(self.scale)
        # the bits times 0 or 1: a 16-bit float would go through float32
        return kept.mul_(int(torch.tensor(self.scale, dtype=dtype).view(torch.int16))).view(dtype)

    def levels(self, shape: torch.Size) -> compiled.Levels:
        """Return where the compiled loops find the next mask in a stream of their own; it is not the one of `kept`."""
        n = shape.numel()
        if self._place + n > 1 << 32:  # a stream of theirs has no more places
            self._n_streams, self._place = self._n_streams + 1, 0
        first, second = ((word ^ (word >> 32)) & 0xFFFFFFFF for word in self._seed)
        found = compiled.Levels(
            first, second ^ self._n_streams, self._place, (self._lowest + _LEVELS // 2) << 16, self.scale
        )
        self._place += n
        return found

    def _levels(self, shape: torch.Size) -> Tensor:
        """Return uniform whole numbers in [-32768, 32767], int16 of that shape."""
        n = shape.numel()
        n_each = -(-n // 4)
        if n_each <= _N_LANES:
            return self._next(n_each).view(torch.int16)[:n].view(shape)
        parts = [self._next(min(_N_LANES, n_each - start)) for start in range(0, n_each, _N_LANES)]
        return torch.cat(parts).view(torch.int16)[:n].view(shape)

    def _next(self, n: int) -> Tensor:
        """Move the first n generators on, and one more; return 64 bits for each of the n, as two int32."""
        n_before = len(self._state)
        if n >= n_before:
            factor, added = self._seed
            begun = (_table()[n_before : n + 1] * factor).add_(added)
            # two streams are then no multiples of each other; a shift alone would copy the sign
            begun.bitwise_xor_(torch.bitwise_right_shift(begun, 32).bitwise_and_(0xFFFFFFFF))
            self._state = torch.cat([self._state, begun]) if n_before else begun
        halves = self._state[: n + 1].mul_(_FACTOR).add_(_ADDED).view(torch.int32)
        return torch.bitwise_xor(halves[: 2 * n], halves[1 : 2 * n + 1])


@cache
def _table() -> Tensor:
    """Return where the generators stand before they are seeded: numbers without a pattern, the same on any machine."""
    return torch.from_numpy(np.random.SFC64(0).random_raw(_N_LANES + 1).view(np.int64))


def keep_mask(shape: torch.Size, rate: float, dtype: torch.dtype) -> Tensor:
    """Return a fresh dropout mask on the CPU: 0 with probability `rate`, else 1 / (1 - rate).

    Args:
        shape: Of the mask.
        rate: In [0, 1); rounded to a multiple of 1/65,536.
        dtype: Of the mask: float32, bfloat16 or float16.
    """
    return Draws(rate).mask(shape, dtype)


class DrawnDropout(nn.Dropout):
    """`nn.Dropout` whose masks on the CPU come from `Draws`; elsewhere it is `nn.Dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with a share of `p` set to 0 and the rest scaled up; the input itself outside training."""
        if not self.training or self.p == 0.0 or input.device.type != "cpu" or self.p >= 1.0:
            return super().forward(input)
        return drawn_dropout(input, self.p)


def drawn_dropout(values: Tensor, rate: float) -> Tensor:
    """Return the values with a share of `rate`, in [0, 1), set to 0 and the rest scaled up by 1 / (1 - rate)."""
    dropped: Tensor = _Dropped.apply(values, Draws(rate))  # type: ignore[no-untyped-call]
    return dropped


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor, draws: Draws) -> Tensor:
        context.loops = compiled.learn(values.dtype)
        context.draws = draws.again()  # without the state of what was drawn
        if context.loops:
            return compiled.dropped(values.contiguous(), draws.levels(values.shape))
        mask = draws.mask(values.shape, values.dtype)
        context.save_for_backward(*([mask] if values.dtype.itemsize == 2 else []))
        return values * mask

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (above,), saved = gradients, context.saved_tensors
        draws = context.draws.again()
        if context.loops:
            return compiled.dropped(above.contiguous(), draws.levels(above.shape)), None
        (mask,) = saved or (draws.mask(above.shape, above.dtype),)
        return above * mask, None
