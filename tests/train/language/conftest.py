"""The bundle is proved inside the tests' own process: a fresh one costs seconds, and has a test of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace.train.language.finish
from headrace.bundle import LanguageModelBundle


@pytest.fixture(autouse=True, scope="session")
def _prove_language_models_here() -> Any:
    def prove(folder: Path, texts: Sequence[Any], expected: np.ndarray) -> None:
        assert LanguageModelBundle.load(folder).scores(texts).tobytes() == expected.tobytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headrace.train.language.finish, "prove_in_fresh_process", prove)
        yield
