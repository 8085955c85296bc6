"""Training tests prove the bundle inside their own process: a fresh one costs seconds, and has tests of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace.train.finish
from headrace.bundle import Bundle


@pytest.fixture(autouse=True, scope="session")
def _prove_here() -> Any:
    def prove(folder: Path, texts: Sequence[Any], expected: np.ndarray) -> None:
        assert Bundle.load(folder).scores(texts).tobytes() == expected.tobytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headrace.train.finish, "prove_in_fresh_process", prove)
        yield
