"""Texts a second in prediction, and the time of a single text: Headrace beside transformers' pipeline.

    HEADRACE_DATA=DATA python benchmarks/predicting.py imdb|toxic [--rounds 5] [--texts 512] [--bundle BUNDLE]

A MiniLM with the family's own head, fine-tuned for a minute on the shipped reviews (or `--bundle`, whose head the export
must know), predicts real texts; the pipeline reads what `export --to transformers` writes of it. A round is one pass
over the same texts by each side in turn, and then single texts of theirs, one after the other:

    headrace       `Bundle.predict` on all texts, fp32
    headrace_bf16  the same with `precision="bf16"`, where the processor has it
    pipeline_32    `pipeline("text-classification", batch_size=32)`, fp32
    pipeline_1     the same, one text at a time

Then ten texts of a file are answered from a cold start, each time in a fresh process: `headrace predict`, and a script
of the pipeline's that reads the same file and writes one.

Reviews are cut at 512 tokens, comments at 128, on all sides alike, and freed pages are kept for all (as `headrace
predict` does). It also tells on how many texts the labels agree, the largest difference of a score, and on how many of
`--agree` further texts bf16 gives fp32's label. One line goes to benchmarks/results/predicting.jsonl.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from record import append, facts

LENGTHS = {"imdb": 512, "toxic": 128}
COLUMNS = {"imdb": "text", "toxic": "comment_text"}
N_SINGLE = 40
N_COLD = 10

# What somebody writes who wants ten answers of a file.
PIPELINE = """
import csv, sys
from transformers import pipeline
folder, given, made, length, column = sys.argv[1:]
with open(given, encoding="utf-8", newline="") as file:
    texts = [row[column] for row in csv.DictReader(file)]
found = pipeline("text-classification", model=folder, device="cpu")(texts, truncation=True, max_length=int(length))
with open(made, "w", encoding="utf-8", newline="") as file:
    csv.writer(file).writerows([one["label"], one["score"]] for one in found)
"""


def small_bundle(folder: Path, length: int) -> Path:
    """Fine-tune MiniLM on the shipped reviews, for a label to agree on."""
    from headrace.train.fit import fit

    overrides = ["head=native", f"data.max_length={length}", "fit.epochs=2", "decide=none", "baseline=false"]
    return fit("reviews", out=folder, overrides=overrides, echo=lambda line: None).bundle


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call and its result."""
    begun = time.perf_counter()
    found = function()
    return time.perf_counter() - begun, found


def cold(scratch: Path, bundle: Any, texts: list[str], length: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds from a cold start to ten answers in a file, by side."""
    given = scratch / "ten.csv"
    column = bundle.about.text.columns[0]
    with open(given, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[column], *([text] for text in texts)])
    ours = [
        sys.executable,
        "-m",
        "headrace",
        "predict",
        str(bundle.folder),
        str(given),
        "-o",
        str(scratch / "ours.csv"),
    ]
    arguments = [str(scratch / "exported"), str(given), str(scratch / "theirs.csv"), str(length), column]
    commands = {"headrace": ours, "pipeline": [sys.executable, "-c", PIPELINE, *arguments]}
    found: dict[str, list[float]] = {side: [] for side in commands}
    for _ in range(rounds):
        for side, command in commands.items():
            found[side].append(
                timed(lambda command=command: subprocess.run(command, check=True, capture_output=True))[0]
            )
    return found


def main() -> None:
    """Measure and add a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=sorted(LENGTHS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--agree", type=int, default=4000, help="texts on which bf16 and fp32 are compared")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--seed", type=int, default=13)
    options = parser.parse_args()

    import torch
    from transformers import pipeline

    from headrace.bundle import Bundle
    from headrace.export import to_transformers
    from headrace.pages import keep_pages
    from training import read_rows

    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        os.environ.setdefault("HEADRACE_CACHE", str(scratch / "cache"))
        length = LENGTHS[options.data]
        rows = read_rows(options.data, scratch)[1]
        texts = [row[COLUMNS[options.data]] for row in random.Random(options.seed).sample(rows, options.texts)]
        bundle = Bundle.load(options.bundle or small_bundle(scratch / "run", length))
        to_transformers(bundle, scratch / "exported")
        pipe = pipeline("text-classification", model=str(scratch / "exported"), device="cpu")
        how = {"truncation": True, "max_length": length, "top_k": None}
        keep_pages()
        has_bf16 = "bf16" in facts()["cpu"]
        sides: dict[str, Callable[[list[str]], Any]] = {
            "headrace": lambda given: bundle.predict(given),
            **({"headrace_bf16": lambda given: bundle.predict(given, precision="bf16")} if has_bf16 else {}),
            "pipeline_32": lambda given: pipe(given, batch_size=32, **how),
            "pipeline_1": lambda given: pipe(given, **how),
        }
        rates: dict[str, list[float]] = {side: [] for side in sides}
        singles: dict[str, list[float]] = {side: [] for side in sides if side != "pipeline_32"}
        for predict in sides.values():  # warm
            predict(texts[:32])
        for number in range(options.rounds):
            for side, predict in sides.items():
                seconds, found = timed(lambda predict=predict: predict(texts))
                rates[side].append(len(texts) / seconds)
                if side == "headrace":
                    ours = found
                elif side == "pipeline_32":
                    theirs = found
            for text in texts[number * N_SINGLE :][:N_SINGLE]:
                for side, kept in singles.items():
                    kept.append(timed(lambda side=side, text=text: sides[side]([text]))[0])
            print({side: round(values[-1], 2) for side, values in rates.items()}, flush=True)
        scores = [{one["label"]: one["score"] for one in row} for row in theirs]
        apart = max(abs(p.scores[label] - row[label]) for p, row in zip(ours, scores, strict=True) for label in row)
        agree = float(np.mean([p.label == max(row, key=row.get) for p, row in zip(ours, scores, strict=True)]))
        others = [row[COLUMNS[options.data]] for row in rows[: options.agree if has_bf16 else 0]]
        plain, rounded = (bundle.predict(others, precision=precision) for precision in ("fp32", "bf16"))
        same = [a.label == b.label for a, b in zip(plain, rounded, strict=True)]
        starts = cold(scratch, bundle, texts[:N_COLD], length, options.rounds)
        record = {
            "data": options.data,
            "length": length,
            "texts": len(texts),
            "threads": torch.get_num_threads(),
            "texts_per_s": rates,
            "times_as_fast": {
                ours: {
                    side: statistics.median(a / b for a, b in zip(rates[ours], values, strict=True))
                    for side, values in rates.items()
                    if not side.startswith("headrace")
                }
                for ours in rates
                if ours.startswith("headrace")
            },
            "single_p50_ms": {side: 1000 * statistics.median(values) for side, values in singles.items()},
            "cold_s": starts,
            "same_labels": agree,
            "largest_difference": apart,
            "bf16_texts": len(same),
            "bf16_same_labels": float(np.mean(same)) if same else None,
        }
        append("predicting", {**record, **facts()})
        print(
            {
                name: record[name]
                for name in (
                    *("times_as_fast", "single_p50_ms", "cold_s", "same_labels", "largest_difference"),
                    *("bf16_texts", "bf16_same_labels"),
                )
            }
        )


if __name__ == "__main__":
    main()
