"""Products of matrices on this CPU: which library multiplies float32, and weights that lie as a library wants them.

What is used is found by trying, and only where the arithmetic stays what it is. On some processors (AMD's with AVX-512)
torch's default library takes a path of half the speed that oneDNN has. oneDNN is reached through a setting that allows
bfloat16; on processors with AMX it would then really compute in bfloat16. So the product itself is looked at before the
setting is used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

_log = logging.getLogger(__name__)

DEFAULT, ONEDNN = "default", "onednn"
#: So many times as fast it has to be: less is noise.
MIN_GAIN = 1.15
#: Largest relative error of a product of float32 over 384 terms; bfloat16 has 1e-3.
MAX_ERROR = 1e-5
#: What a product with a laid out weight can end with, by torch's function.
ACTIVATIONS: dict[Callable[[Tensor], Tensor], str] = {functional.gelu: "gelu", functional.relu: "relu"}
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


def lay_out(weight: Tensor) -> Tensor:
    """Return a weight in bfloat16, [outputs, inputs], as oneDNN wants it for its products; for `times_laid_out` alone."""
    found: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
    return found


def times_laid_out(given: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    """Return given @ weight.T + bias, [..., outputs] bfloat16, with a weight that `lay_out` gave.

    Args:
        given: [..., inputs] bfloat16.
        weight: Laid out.
        bias: [outputs] bfloat16, or None.
        activation: One of `ACTIVATIONS`, of what is not rounded yet; or `none`.
    """
    algorithm = "none" if activation == "gelu" else ""
    found: Tensor = torch.ops.mkldnn._linear_pointwise(given, weight, bias, activation, [], algorithm)
    return found


@cache
def lays_out() -> bool:
    """Return whether torch has such products on this machine, and whether they are the usual ones to the bit.

    They are torch.compile's and no promise to others, so they are tried.
    """
    draw = torch.Generator().manual_seed(0)
    weight, given = (torch.randn(*shape, generator=draw).bfloat16() for shape in ((64, 384), (1, 3, 384)))
    bias, added = torch.randn(64, generator=draw).bfloat16(), torch.randn(3, 64, generator=draw).bfloat16()
    try:
        with torch.no_grad():
            both = ProductWith(weight, laid_out=True).added(given[0], added), added.addmm(given[0], weight.t())
            is_near = torch.allclose(*both, rtol=1e-2, atol=1e-2)
            return is_near and torch.equal(
                times_laid_out(given, lay_out(weight), bias), functional.linear(given, weight, bias)
            )
    except (AttributeError, RuntimeError, NotImplementedError) as error:
        _log.debug("weights are not laid out: %s", error)
        return False


@cache
def activates(name: str) -> bool:
    """Return whether such a product can end with an activation here; see `ACTIVATIONS`. It is tried, too."""
    draw = torch.Generator().manual_seed(0)
    weight, given = (torch.randn(*shape, generator=draw).bfloat16() for shape in ((64, 384), (1, 3, 384)))
    kind = next(kind for kind, known in ACTIVATIONS.items() if known == name)
    try:
        with torch.no_grad():
            found = times_laid_out(given, lay_out(weight), None, name)
            return torch.allclose(found, kind(functional.linear(given, weight)), rtol=1e-2, atol=1e-2)
    except (AttributeError, RuntimeError, NotImplementedError) as error:
        _log.debug("no product ends with %s: %s", name, error)
        return False


class ProductWith:
    """Multiplies with one weight again and again, without a gradient: on a CPU in bfloat16 it is laid out for it once.

    Args:
        weight: [outputs, inputs].
        laid_out: Whether to lay it out; by default where that is possible.
    """

    def __init__(self, weight: Tensor, *, laid_out: bool | None = None) -> None:
        if laid_out is None:
            laid_out = weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and lays_out()
        self._laid_out = laid_out
        self._weight = lay_out(weight.contiguous()) if laid_out else weight

    def __call__(self, given: Tensor) -> Tensor:
        """Return given @ weight.T, [rows, outputs]."""
        return times_laid_out(given, self._weight, None) if self._laid_out else given @ self._weight.t()

    def added(self, given: Tensor, added: Tensor) -> Tensor:
        """Return given @ weight.T + added, [rows, outputs]; in 16 bits rounded once."""
        if not self._laid_out:
            return added.addmm(given, self._weight.t())
        found: Tensor = torch.ops.mkldnn._linear_pointwise.binary(given, added, self._weight, None, "add")
        return found


def _product(a: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.linear(a, b)


def _products(a: Tensor, b: Tensor) -> list[Tensor]:
    """Return some rows of each kind of product of a training step: forward, its two gradients, and attention's."""
    forward = _product(a, b)
    heads = a.view(64, 32, -1)
    found = [forward, forward @ b, forward.T @ a, torch.bmm(heads, heads.transpose(1, 2))]
    return [one[:64] for one in found]
