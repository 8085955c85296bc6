"""How near attributions come to the difference they explain, in how many steps, and what one explanation costs.

    python benchmarks/explanations.py BUNDLE [--texts 50] [--reference 5]
    HEADRACE_DATA=DATA python benchmarks/explanations.py BUNDLE --data imdb --texts 12 --reference 0

Texts of the shipped reviews with a bundle of `headrace demo`; or the test rows of IMDb, of the toxic comments or of MNLI,
drawn by content, with one that learnt on the others. For the first few the attributions are compared with
those of four times as many steps, and the steps with those that a baseline of padding takes. One JSON line goes to
benchmarks/results/explanations.jsonl.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import os
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from headrace.bundle import Bundle
from headrace.explain import Explanation, Integration, explain
from record import append, facts

Text = str | tuple[str, str]


def explained(bundle: Bundle, text: Text, **settings: Any) -> tuple[Explanation, float, float]:
    """Return the explanation with its seconds and its seconds of processor time."""
    length = bundle.about.text.max_length
    started, busy = time.perf_counter(), time.process_time()
    texts: Any = [text]
    found = explain(bundle.classifier, bundle.subwords, texts, max_length=length, integration=Integration(**settings))
    return found[0], time.perf_counter() - started, time.process_time() - busy


def apart(left: Explanation, right: Explanation) -> float:
    """Return the largest difference of two attributions as a share of the largest attribution."""
    one, other = (np.array([piece.attribution for piece in found.pieces]) for found in (left, right))
    return float(np.abs(one - other).max() / np.abs(other).max())


def shipped() -> list[str]:
    with open(str(files("headrace") / "samples/reviews/test.csv"), encoding="utf-8", newline="") as file:
        return [row["review"] for row in csv.DictReader(file)]


def imdb() -> list[str]:
    with gzip.open(Path(os.environ["HEADRACE_DATA"]) / "imdb" / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def toxic() -> list[str]:
    """Return the last 4,000 comments, those with a label first: what a clean one says is of less interest."""
    place = Path(os.environ["HEADRACE_DATA"]) / "jigsaw_toxic" / "train_first20k.csv.gz"
    with gzip.open(place, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[-4000:]
    return [row[1] for row in rows if "1" in row[2:]]


def mnli() -> list[tuple[str, str]]:
    place = Path(os.environ["HEADRACE_DATA"]) / "mnli_part" / "dev_matched.csv.gz"
    with gzip.open(place, "rt", encoding="utf-8", newline="") as file:
        return [(row["premise"], row["hypothesis"]) for row in csv.DictReader(file)]


DATA: dict[str, Callable[[], list[Any]]] = {"shipped reviews": shipped, "imdb": imdb, "toxic": toxic, "mnli": mnli}


def drawn(name: str, n_texts: int) -> list[Text]:
    """Return so many texts, those shipped in their order, others in one that is made of their content."""
    texts = DATA[name]()
    if name != "shipped reviews":
        texts.sort(key=lambda text: hashlib.sha256(repr(text).encode()).digest())
    return texts[:n_texts]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--texts", type=int, default=50)
    parser.add_argument("--reference", type=int, default=5)
    parser.add_argument("--data", choices=sorted(DATA), default="shipped reviews")
    parser.add_argument("--no-record", action="store_true")
    arguments = parser.parse_args()
    bundle = Bundle.load(arguments.bundle)
    texts = drawn(arguments.data, arguments.texts)
    explained(bundle, texts[0], max_steps=16)  # imports
    found = []
    for text in texts:
        found.append(explained(bundle, text))
        one = found[-1][0]
        print(f"{one.n_steps:4d} steps  error {one.error_share:.4f}  difference {one.difference:+.2f}", flush=True)
    steps = [one.n_steps for one, _, _ in found]
    record = {
        "texts": arguments.data,
        "n_texts": len(texts),
        "n_within": sum(one.is_exact for one, _, _ in found),
        "largest_error_share": max(one.error_share for one, _, _ in found),
        "smallest_difference": min(abs(one.difference) for one, _, _ in found),
        "n_steps": {str(n): steps.count(n) for n in sorted(set(steps))},
        "median_pieces": median(len(one.pieces) for one, _, _ in found),
        "median_s": median(seconds for _, seconds, _ in found),
        "median_processor_s": median(busy for _, _, busy in found),
        "largest_processor_s": max(busy for _, _, busy in found),
    }
    finer = [
        apart(one, explained(bundle, text, first_steps=4 * one.n_steps, max_steps=4 * one.n_steps)[0])
        for text, (one, _, _) in zip(texts[: arguments.reference], found, strict=False)
    ]
    bundle.subwords.mask_id = None
    padded = [explained(bundle, text)[0] for text in texts[: arguments.reference]]
    record |= {"apart_from_finer": finer, "n_steps_of_padding": [one.n_steps for one in padded]}
    for name, value in record.items():
        print(f"{name}: {value}")
    if not arguments.no_record:
        append("explanations", {**record, **facts()})


if __name__ == "__main__":
    main()
