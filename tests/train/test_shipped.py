"""A shipped recipe trains by its name, from whatever folder, in Python as on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

import headrace
from tiny import tiny_folder
from tiny_fits import silent


def test_fit_finds_the_shipped_sample_by_the_recipes_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_folder(tmp_path, "bert", name="backbone")
    small = ["backbone=./backbone", "data.limit=60", "data.max_length=16", "fit.epochs=1", "logger=none"]
    run = headrace.fit("reviews", overrides=small, echo=silent)
    assert run.folder == Path("runs/reviews")
    n_test = len((samples / "reviews" / "test.csv").read_text("utf-8").splitlines()) - 1
    assert run.evaluation.n_rows == n_test
    assert headrace.evaluate(run.bundle, samples / "reviews" / "test.csv").n_rows == n_test
