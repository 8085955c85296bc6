"""Which library multiplies float32 matrices on this CPU: found by trying, and only where the arithmetic stays float32.

On some processors (AMD's with AVX-512) torch's default library takes a path of half the speed that oneDNN has. oneDNN is
reached through a setting that allows bfloat16; on processors with AMX it would then really compute in bfloat16. So the
product itself is looked at before the setting is used.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

DEFAULT, ONEDNN = "default", "onednn"
#: So many times as fast it has to be: less is noise.
MIN_GAIN = 1.15
#: Largest relative error of a product of float32 over 384 terms; bfloat16 has 1e-3.
MAX_ERROR = 1e-5
_SHAPE = (512, 384, 1536)
_N_TRIES = 5


@cache
def fastest_route() -> str:
    """Return `onednn` where it is faster and as exact on this machine, else `default`; takes some hundredths of a second."""
    rows, inner, columns = _SHAPE
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(*shape, generator=draw) for shape in ((rows, inner), (columns, inner)))
    with routed(ONEDNN):
        found = _products(a, b)
    exact = _products(a.double(), b.double())
    if any(float((x - y).abs().max() / y.abs().max()) > MAX_ERROR for x, y in zip(found, exact, strict=True)):
        return DEFAULT
    seconds = {DEFAULT: float("inf"), ONEDNN: float("inf")}
    for _ in range(_N_TRIES):
        for route in seconds:
            with routed(route):
                begun = time.perf_counter()
                _product(a, b)
                seconds[route] = min(seconds[route], time.perf_counter() - begun)
    return ONEDNN if seconds[DEFAULT] > MIN_GAIN * seconds[ONEDNN] else DEFAULT


@contextmanager
def routed(route: str) -> Iterator[None]:
    """Inside the block float32 matrices are multiplied by that library."""
    settings = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # torch gives it no type
    before = settings.fp32_precision
    if route == ONEDNN:
        settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


def _product(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.linear(a, b)


def _products(a: Tensor, b: Tensor) -> list[Tensor]:
    """Return some rows of each kind of product of a training step: forward, its two gradients, and attention's."""
    forward = _product(a, b)
    heads = a.view(64, 32, -1)
    found = [forward, forward @ b, forward.T @ a, torch.bmm(heads, heads.transpose(1, 2))]
    return [one[:64] for one in found]
