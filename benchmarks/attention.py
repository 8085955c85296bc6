"""The attention of a layer, forward and back with dropout, as one compiled loop and as torch's operations, in turn.

    python benchmarks/attention.py

Random numbers; lengths as those of reviews cut at 256 and 512 tokens and of comments cut at 128 (log-normal, 32 texts of 12
heads). Each way works on six inputs in turn, so that none finds its numbers in the cache.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch

from headrace import compiled
from headrace.backbones._attention import packed_attention
from headrace.backbones._packed import Packed
from record import append, facts

N_TEXTS, N_HEADS, N_INPUTS, N_ROUNDS = 32, 12, 6, 5
LENGTHS = {"reviews, 256": (5.4, 0.6, 256), "reviews, 512": (5.4, 0.6, 512), "comments, 128": (3.9, 0.8, 128)}


def packed_texts(kind: str) -> Packed:
    """Return a layout of texts as long as those of a kind."""
    mean, spread, most = LENGTHS[kind]
    drawn = np.random.default_rng(0).lognormal(mean, spread, N_TEXTS).astype(int) + 2
    lengths = np.minimum(drawn, most)
    return Packed.of(torch.from_numpy(np.arange(lengths.max()) < lengths[:, None]).long(), even=32)


def one_pass(inputs: list[torch.Tensor], packed: Packed, *, with_loops: bool) -> list[float]:
    """Return seconds ahead and back."""
    query, key, value, above = inputs
    rows = [one.detach().requires_grad_() for one in (query, key, value)]
    scale = query.shape[-1] ** -0.5
    with compiled.learning(with_loops):
        begun = time.perf_counter()
        output = packed_attention(rows[0], rows[1], rows[2], packed, scale=scale, dropout=0.1, window=None)
        between = time.perf_counter()
        output.backward(above)  # type: ignore[no-untyped-call]
        return [between - begun, time.perf_counter() - between]


def measure(kind: str, dtype: torch.dtype, width: int) -> dict[str, Any]:
    """Return median milliseconds ahead and back of both ways, and how often one takes the other's time."""
    packed = packed_texts(kind)
    n_tokens = len(packed.tokens)
    inputs = [
        [torch.randn(1, n_tokens, N_HEADS * width).to(dtype).view(1, n_tokens, N_HEADS, width) for _ in range(4)]
        for _ in range(N_INPUTS)
    ]
    laid = [[*(one.transpose(1, 2) for one in some[:3]), some[3]] for some in inputs]
    taken: dict[bool, list[list[float]]] = {True: [], False: []}
    for number in range(N_ROUNDS + 1):
        for with_loops, times in taken.items():
            passes = [one_pass(some, packed, with_loops=with_loops) for some in laid]
            if number:  # the first round warms up
                times += passes
    loops, torchs = (np.array(taken[way]) * 1e3 for way in (True, False))
    return {
        "texts": kind,
        "tokens": int(packed.lengths.sum()),
        "type": str(dtype).removeprefix("torch."),
        "head_width": width,
        "loop_ms": [round(float(one), 2) for one in np.median(loops, axis=0)],
        "torch_ms": [round(float(one), 2) for one in np.median(torchs, axis=0)],
        "ratio": round(statistics.median((torchs.sum(axis=1) / loops.sum(axis=1)).tolist()), 2),
    }


def main() -> None:
    """Measure all, and add a line."""
    torch.manual_seed(0)
    kinds = [one for one in (torch.bfloat16, torch.float32) if compiled.attends(one, 32)]
    if not kinds:
        raise SystemExit("no compiled attention here: no numba, or torch has no OpenMP")
    found = []
    for kind in LENGTHS:
        for dtype in kinds:
            for width in (32, 64):
                found.append(measure(kind, dtype, width))
                print(found[-1], flush=True)
    append("attention", {"cases": found, "threads": torch.get_num_threads(), **facts()})


if __name__ == "__main__":
    main()
