"""Dropout that a CPU can afford: masks from a fast counter-free generator instead of one Bernoulli draw an element.

torch draws a dropout mask on the CPU element by element on one core (about 9 ns each); with attention dropout on, its
fused attention falls back to the unfused path besides. Together that is a large part of a BERT's training step. Here
the bits come from NumPy's SFC64 (two bytes an element), seeded from torch's own generator: the same rate, the same
independence, still a pure function of `torch.manual_seed`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

_LEVELS = 1 << 16  # a mask's rate is a multiple of 1/65,536; the scale is that of the rate that is used


def keep_mask(shape: torch.Size, rate: float, dtype: torch.dtype) -> Tensor:
    """Return a fresh dropout mask on the CPU: 0 with probability `rate`, else 1 / (1 - rate).

    Args:
        shape: Of the mask.
        rate: In [0, 1); rounded to a multiple of 1/65,536.
        dtype: Of the mask: float32, bfloat16 or float16.
    """
    n = shape.numel()
    dropped = round(rate * _LEVELS)
    seed = int(torch.randint(1 << 62, ()).item())
    words = np.random.SFC64(seed).random_raw(-(-n // 4))
    kept = words.view(np.int16)[:n] >= np.int16(dropped - _LEVELS // 2)  # levels are uniform in [-32768, 32767]
    scale = torch.tensor(_LEVELS / (_LEVELS - dropped), dtype=dtype)
    if dtype.itemsize != 2:
        return torch.from_numpy(np.multiply(kept, np.float32(scale.item()), dtype=np.float32)).to(dtype).view(shape)
    # Of a 16-bit type the scale's bits are multiplied: torch's own cast from bool takes ten times as long.
    bits = np.multiply(kept, np.int16(scale.view(torch.int16).item()), dtype=np.int16)
    return torch.from_numpy(bits).view(dtype).view(shape)


class DrawnDropout(nn.Dropout):
    """`nn.Dropout` whose masks on the CPU come from `keep_mask`; elsewhere it is `nn.Dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with a share of `p` set to 0 and the rest scaled up; the input itself outside training."""
        if not self.training or self.p == 0.0 or input.device.type != "cpu" or self.p >= 1.0:
            return super().forward(input)
        return input * keep_mask(input.shape, self.p, input.dtype)
