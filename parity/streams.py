"""In which order fastai's LMDataLoader reads joined texts: the fixture that our streams are compared with.

Run it in an environment with fastai 2.8 and without Headrace:

    python parity/streams.py tests/fixtures/parity/streams.json
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import fastai
import torch
from fastai.text.all import LMDataLoader, reverse_text

OUT = Path("tests/fixtures/parity/streams.json")
# (streams, tokens of a sequence): a short last sequence, a whole one, one stream, texts shorter than a sequence
SHAPES = ((4, 7), (3, 10), (1, 16), (8, 5))


def main(out: Path) -> None:
    """Write the fixture."""
    numbers = random.Random(4)
    tokens = iter(range(10_000))
    texts = [[next(tokens) for _ in range(numbers.randint(1, 14))] for _ in range(30)]
    found: dict[str, Any] = {"fastai": fastai.__version__, "texts": texts, "read": []}
    for n_streams, length in SHAPES:
        for is_backward in (False, True):
            steps = read(texts, n_streams, length, is_backward=is_backward)
            shape = {"n_streams": n_streams, "sequence_length": length, "is_backward": is_backward}
            found["read"].append({**shape, "steps": steps})
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, separators=(",", ":")) + "\n", "utf-8")
    print(f"{out}: {len(found['read'])} shapes, fastai {fastai.__version__}")  # noqa: T201


def read(texts: list[list[int]], n_streams: int, length: int, *, is_backward: bool) -> list[Any]:
    """Return inputs and targets of each step, the texts in their own order."""
    tensors = [torch.tensor(text) for text in texts]
    rows = [(reverse_text(text) if is_backward else text,) for text in tensors]
    loader = LMDataLoader(rows, lens=[len(text) for text in texts], bs=n_streams, seq_len=length, shuffle=False)
    return [[inputs.tolist(), targets.tolist()] for inputs, targets in loader]


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
