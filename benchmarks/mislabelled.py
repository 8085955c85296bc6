"""Flips labels of real texts and counts how many of the rows that `check --labels` ranks first are flips.

    HEADRACE_DATA=DATA python benchmarks/mislabelled.py imdb --seeds 1 2 3
    HEADRACE_DATA=DATA python benchmarks/mislabelled.py toxic --seeds 1 2 3
    HEADRACE_DATA=DATA python benchmarks/mislabelled.py imdb --seeds 1 --minilm

A seed draws the rows and the flips: 5,000 of the training reviews (IMDb) or of the first 16,000 comments (toxic), and 5 %
of the rows; of a comment one of its six labels is flipped, each equally likely. The features, C, the folds and the way
to one score a row were chosen on draws of the seeds 100 to 103. Those draws are of the same texts, so some rows stand in
both; the flips are others. One JSON line a run goes to benchmarks/results/mislabelled.jsonl.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from headrace.data.examples import LabelSet
from headrace.mislabelled import mislabelled
from record import append, facts

TOXIC = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
TOXIC_ROWS = 16_000  # the others are the test rows of quality.py
MINILM_TOKENS = 128


def imdb(folder: Path) -> tuple[list[str], np.ndarray, LabelSet]:
    with gzip.open(folder / "imdb" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    targets = np.array([row["label"] == "pos" for row in rows], dtype=np.int64)
    return [row["text"] for row in rows], targets, LabelSet(("neg", "pos"))


def toxic(folder: Path) -> tuple[list[str], np.ndarray, LabelSet]:
    path = folder / "jigsaw_toxic" / "train_first20k.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:TOXIC_ROWS]
    targets = np.array([[int(row[name]) for name in TOXIC] for row in rows])
    return [row["comment_text"] for row in rows], targets, LabelSet(TOXIC)


DATA = {"imdb": imdb, "toxic": toxic}


def flip(targets: np.ndarray, share: float, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the targets with a share of the rows flipped, and which rows these are."""
    noisy = targets.copy()
    rows = draw.choice(len(targets), round(len(targets) * share), replace=False)
    place = rows if targets.ndim == 1 else (rows, draw.integers(0, targets.shape[1], len(rows)))
    noisy[place] = 1 - noisy[place]
    is_flip = np.zeros(len(targets), dtype=bool)
    is_flip[rows] = True
    return noisy, is_flip


def minilm(texts: list[str]) -> np.ndarray:
    """Return the mean token vectors of the packaged MiniLM, first and last tokens of long texts."""
    from headrace.model import HeadSettings, load_classifier, tokenizer_source
    from headrace.predict import embed
    from headrace.text.subwords import Subwords

    subwords = Subwords.load(tokenizer_source("minilm"))
    labels = LabelSet(("a", "b"))  # the head is not used
    model = load_classifier(
        backbone={"name": "minilm"}, head=HeadSettings(pool="mean"), labels=labels, multi_label=False
    )
    encoded = subwords.encode(texts, max_length=MINILM_TOKENS, truncate="head_tail")
    return embed(model, encoded, pad_id=subwords.pad_id, uses_token_types=subwords.uses_token_types, pool="mean")


def one(arguments: argparse.Namespace, data: tuple[list[str], np.ndarray, LabelSet], seed: int) -> dict[str, Any]:
    texts, targets, labels = data
    draw = np.random.default_rng(seed)
    chosen = draw.choice(len(texts), arguments.rows, replace=False)
    noisy, is_flip = flip(targets[chosen], arguments.share, draw)
    rows = [texts[row] for row in chosen]
    extra = minilm(rows) if arguments.minilm else None
    task = "single_label" if targets.ndim == 1 else "multi_label"
    found = mislabelled(rows, noisy, labels, task=task, seed=seed, extra_features=extra)
    n_top = int(is_flip.sum())
    top = found.rows[:n_top]
    right = [
        tuple(labels.names[i] for i in np.flatnonzero(_dense(targets[chosen[row.position]], labels))) for row in top
    ]
    return {
        "data": arguments.data,
        "seed": seed,
        "rows": arguments.rows,
        "n_flipped": n_top,
        "minilm": arguments.minilm,
        "flips_in_top": round(float(np.mean([is_flip[row.position] for row in top])), 4),
        "right_label_suggested": round(
            float(np.mean([s.suggested == r for s, r in zip(top, right, strict=True) if is_flip[s.position]])), 4
        ),
        "n_estimated": found.n_estimated,
        "agreement_share": found.agreement_share,
        "cleanlab": importlib.metadata.version("cleanlab"),
        **facts(),
    }


def _dense(target: np.ndarray, labels: LabelSet) -> np.ndarray:
    return target > 0 if np.ndim(target) else np.arange(len(labels)) == target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=sorted(DATA))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--share", type=float, default=0.05, help="of the rows are flipped")
    parser.add_argument("--minilm", action="store_true", help="add vectors of the packaged MiniLM (minutes)")
    arguments = parser.parse_args()
    folder = os.environ.get("HEADRACE_DATA")
    if not folder:
        raise SystemExit("set HEADRACE_DATA to the folder of real data")
    data = DATA[arguments.data](Path(folder))
    shares = []
    for seed in arguments.seeds:
        record = one(arguments, data, seed)
        append("mislabelled", record)
        shares.append(record["flips_in_top"])
        print(json.dumps(record), flush=True)
    print(
        f"{arguments.data}: flips among the top {arguments.share:.0%}: mean {np.mean(shares):.3f}, least {min(shares)}"
    )


if __name__ == "__main__":
    main()
