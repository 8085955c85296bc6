"""Small fits for the tests: forty rows, a tiny random encoder, seconds."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import Interrupted
from headrace.train.fit import fit

WORDS = {
    "good": ["warm", "fine", "lovely", "fun", "great"],
    "bad": ["slow", "bad", "worse", "dull", "poor"],
}


def rows(n: int = 40) -> list[dict[str, str]]:
    """Rows whose label is in their words, of several lengths."""
    found = []
    for i in range(n):
        label = ("good", "bad")[i % 2]
        word = WORDS[label][i // 2 % 5]
        found.append({"text": f"the film number {i} is {word}" + " and long" * (i % 7), "label": label})
    return found


def write_csv(path: Path, content: list[dict[str, str]]) -> Path:
    """Write rows as a CSV file."""
    lines = ["text,label", *(f"{row['text']},{row['label']}" for row in content)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def recipe(train: Path, backbone: Path, **changes: Any) -> dict[str, Any]:
    """A recipe for a tiny fit; keyword `fit__epochs=3` sets fit.epochs."""
    values: dict[str, Any] = {
        "task": "single_label",
        "data": {"train": str(train), "valid": "20%", "max_length": 32},
        "backbone": {"name": str(backbone)},
        "head": {"pool": "mean"},
        "fit": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "precision": "fp32", "checkpoint_every_s": 1000},
        "logger": "none",
        "baseline": False,
        "decide": "none",
    }
    for key, value in changes.items():
        part, _, name = key.partition("__")
        if name:
            values.setdefault(part, {})[name] = value
        else:
            values[part] = value
    return values


def weights(folder: Path) -> str:
    """The hash of a run's final weights."""
    return hashlib.sha256((folder / "bundle" / "model.safetensors").read_bytes()).hexdigest()


def training(folder: Path) -> dict[str, Any]:
    """What training wrote when it ended."""
    found: dict[str, Any] = json.loads((folder / "training.json").read_text("utf-8"))
    return found


def silent(line: str) -> None:
    """An echo that says nothing."""


def interrupt_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """Let a signal be there when the step of this number, counted over all stages, ends."""
    from headrace.train import resume

    kept = resume.Keeper.on_train_batch_end

    def interrupting(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.progress.total + 1 == step:
            self.signals.received = signal.SIGINT
        kept(self, *args, **kwargs)

    patch.setattr(resume.Keeper, "on_train_batch_end", interrupting)


def stop_at(step: int, settings: dict[str, Any], out: Path) -> None:
    """Stop a run by a signal that comes right after a step, as a user's Ctrl-C does."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted, match=f"step {step} ") as caught:
        interrupt_at(step, patch)
        fit(settings, out=out, echo=silent)
    assert caught.value.exit_code == 130
