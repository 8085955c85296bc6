"""A tiny random classifier in a bundle, and small data files to go with it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headrace.bundle import Bundle, TextSettings, save_bundle
from headrace.data.examples import LabelSet
from headrace.model import HeadSettings, load_classifier
from headrace.text.subwords import Subwords
from tiny import tiny_folder

GOOD = "A good film with a warm heart and a fine cast, number {}."
BAD = "The plot is bad, the pace is slow and the end is worse, number {}."


def tiny_bundle(
    folder: Path,
    *,
    task: str = "single_label",
    labels: Sequence[str] = ("bad", "good"),
    text: dict[str, Any] | None = None,
) -> Path:
    """Save a bundle of a random 2-layer BERT and return its folder."""
    backbone = tiny_folder(folder, "bert", name="backbone")
    classifier = load_classifier(
        backbone={"name": str(backbone)},
        head=HeadSettings(pool="pooler"),
        labels=LabelSet(tuple(labels)),
        multi_label=task == "multi_label",
    )
    settings = {"max_length": 24, "columns": ("text",), "label_columns": ("label",), **(text or {})}
    recipe = f"task: {task}\ndata:\n  text: text\n  label: label\n"
    save_bundle(
        folder / "bundle",
        classifier=classifier,
        subwords=Subwords.load(backbone),
        task=task,
        text=TextSettings(**settings),
        recipe_yaml=recipe,
    )
    return Bundle.load(folder / "bundle").folder or folder


def rows(n: int) -> list[dict[str, str]]:
    """Return labelled texts, good and bad in turn."""
    return [
        {"text": (GOOD if number % 2 else BAD).format(number), "label": "good" if number % 2 else "bad"}
        for number in range(n)
    ]


def csv_file(path: Path, n: int) -> Path:
    """Write labelled texts as CSV."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows(n))
    return path
