"""Small language models for the tests: sixty short texts, an AWD-LSTM of a few numbers, seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_fits import rows, write_csv

AWD = {"name": "awd_lstm", "weights": "none", "embedding_size": 12, "hidden_size": 16, "n_layers": 2}


def write_texts(path: Path, n: int = 60) -> Path:
    """Write a file with texts and labels; a language model reads the texts alone."""
    return write_csv(path, rows(n))


def language_recipe(train: Path | list[Path], **changes: Any) -> dict[str, Any]:
    """A recipe for a tiny next-word model; keyword `fit__epochs=3` sets fit.epochs."""
    files = [str(path) for path in train] if isinstance(train, list) else str(train)
    values: dict[str, Any] = {
        "task": "language_model",
        "data": {"train": files, "valid": "20%"},
        "backbone": dict(AWD),
        "fit": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-2, "precision": "fp32", "checkpoint_every_s": 1000},
        "language_model": {"sequence_length": 9},
        "logger": "none",
        "trainer": {"accelerator": "cpu"},
    }
    for key, value in changes.items():
        part, _, name = key.partition("__")
        if name:
            values.setdefault(part, {})[name] = value
        else:
            values[part] = value
    if values["backbone"]["name"] != AWD["name"]:
        del values["language_model"]  # a sequence of a stream is nothing to masked words
    return values
