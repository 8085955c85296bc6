"""The proof that a bundle stands on its own: a fresh process must give the same scores, to the bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import headrace
from headrace.bundle.bundle import Bundle
from headrace.bundle.language_model import LanguageModelBundle, is_language_model
from headrace.errors import BundleError, HeadraceError
from headrace.matmul import DEFAULT

_PROOF_TIMEOUT_S = 600


def prove_in_fresh_process(
    folder: str | Path, texts: Sequence[str] | Sequence[tuple[str, str]], expected_scores: np.ndarray
) -> None:
    """Load a bundle in a new process, without the network, and demand bit-equal scores.

    Args:
        folder: The bundle.
        texts: A sample.
        expected_scores: What `scores` of the same classifier (or language model: losses, [texts]) gave for it on the CPU
            with the default `route`, [texts, labels] float32.

    Raises:
        BundleError: The bundle cannot be loaded there, or its scores differ; says by how much.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-proof-") as scratch:
        order = {
            "folder": str(Path(folder).absolute()),
            "texts": list(texts),
            "threads": torch.get_num_threads(),
            "matmul": torch.get_float32_matmul_precision(),
        }
        # as ASCII, so that a lone surrogate passes
        Path(scratch, "order.json").write_text(json.dumps(order), encoding="ascii")
        returned, stderr = _run(scratch)
        answer = Path(scratch, "scores.npy")
        found = np.load(answer, allow_pickle=False) if returned == 0 and answer.exists() else None
    if found is None:
        reason = (stderr.strip().splitlines() or [f"exit code {returned}"])[-1]
        raise BundleError(
            f"the bundle cannot be used in a fresh process: {reason}",
            where=str(folder),
            next="run `headrace predict` on it to see the whole error",
        )
    expected = np.asarray(expected_scores, dtype=np.float32)
    if found.shape != expected.shape:
        raise _unproved(folder, f"{list(found.shape)} scores instead of {list(expected.shape)}")
    if found.tobytes() != expected.tobytes():
        raise _unproved(folder, f"scores that differ by up to {np.abs(found - expected).max():.3g}")


def _run(scratch: str) -> tuple[int, str]:
    """Run `answer_proof` in a process of its own; return its exit code and what it wrote to standard error."""
    root = str(Path(headrace.__file__).parent.parent)
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            # -P: nothing of the current folder is imported
            [
                sys.executable,
                "-P",
                "-c",
                "import sys, headrace.bundle.proof as p; p.answer_proof(sys.argv[1])",
                scratch,
            ],
            env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROOF_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1, f"no answer within {_PROOF_TIMEOUT_S} s"
    return done.returncode, done.stderr


def answer_proof(scratch: str) -> None:
    """Score the sample that `prove_in_fresh_process` left in a folder; runs in the fresh process."""
    order = json.loads(Path(scratch, "order.json").read_text(encoding="ascii"))
    torch.set_num_threads(int(order["threads"]))
    torch.set_float32_matmul_precision(order["matmul"])
    try:
        folder = order["folder"]
        texts = [tuple(text) if isinstance(text, list) else text for text in order["texts"]]
        if is_language_model(folder):
            scores = LanguageModelBundle.load(folder).scores(texts)
        else:
            scores = Bundle.load(folder).scores(texts, route=DEFAULT)
        np.save(Path(scratch, "scores.npy"), scores, allow_pickle=False)
    except HeadraceError as error:
        raise SystemExit(error.what) from error


def _unproved(folder: str | Path, how: str) -> BundleError:
    return BundleError(
        f"the bundle gives {how} in a fresh process",
        where=str(folder),
        next="do not use it; run the same command again, and report it if it stays so",
    )
