"""Seconds of a training step of the AWD-LSTM, as a language model and as a classifier, beside fastai's.

    HEADRACE_DATA=DATA python benchmarks/awd_lstm.py --fastai-python .venv-parity/bin/python [--rounds 5] [--threads 2]
    HEADRACE_DATA=DATA python benchmarks/awd_lstm.py --profile [--threads 1]

A step is forward, backward, clipping and Adam, all dropouts on, on reviews of IMDb. Weights are random on both sides;
sizes, rates, batches, clipping and Adam's settings are the same. fastai runs in the environment that `make parity` makes,
in its own training loop, as a process that works while we wait and waits while we work: a round is one pass over the
batches, each taken by fastai and then by us. Both clocks run from the moment at which the batch is at hand to the updated
weights. Ratios are medians over the rounds; the first pass of each side is not counted.

    language_model   64 streams x 72 tokens, 400/1152/3, 60,000 words, AR and TAR, drop_mult 1
    even             classifier, 16 texts cut to 288 tokens: nothing is padded on either side
    sorted           classifier, 16 texts of like lengths, as fastai sorts them in windows of 800: whole texts
    random           classifier, 16 texts at random, as we take them by default: whole texts, fastai pads

The classifier has fastai's two-block head (ours: `head: ulmfit`), drop_mult 0.5, every group learning; fastai adds AR and
TAR to a classifier's loss by default, which is off here, because ours has none. bf16 is measured where the processor has
it. `--profile` runs no fastai: it prints where the time of our language-model step goes.

Real texts are read from the folder in $HEADRACE_DATA. One JSON line goes to benchmarks/results/awd_lstm.jsonl.

Targets: a language-model step 2.0 times as fast (hoped: 3.5), a classifier step 1.9 times (hoped: 3).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from awd_lstm_ours import (
    CLASSIFIER_KINDS,
    OurClassifier,
    OurLanguageModel,
    classifier_batches,
    language_batches,
    read_reviews,
    tokens_of,
)
from awd_lstm_profile import profile
from headrace.train.trainer import resolved_precision
from record import append, facts
from worker import Worker

WORKER = Path(__file__).parent / "fastai_awd_lstm.py"
DROP_MULT = {"language_model": 1.0, "classifier": 0.5}
CLIP, RATE = 1.0, 1e-3
TARGETS = {"language_model": 2.0, "even": 1.9}
Seconds = tuple[float, float]


@dataclass
class Side:
    """What one side needed: for each round and batch seconds and processor seconds, and the last loss."""

    rounds: list[list[Seconds]] = field(default_factory=list)
    loss: float = float("nan")

    def of_round(self, number: int, clock: int) -> float:
        """Return the seconds of a whole round by one clock."""
        return sum(times[clock] for times in self.rounds[number])

    def median(self, clock: int) -> float:
        """Return the median over rounds of the seconds of one batch."""
        n_batches = len(self.rounds[0])
        return statistics.median(self.of_round(number, clock) for number in range(len(self.rounds))) / n_batches


def interleaved(
    worker: Worker, ours: dict[str, Any], kinds: list[str], work: dict[str, Any], n_rounds: int
) -> dict[str, dict[str, Side]]:
    """Return for each kind of batch what each side needed."""
    found = {kind: {side: Side() for side in ("fastai", *ours)} for kind in kinds}
    for number in range(-1, n_rounds):
        for kind in kinds:
            n_batches = len(work["batches"][kind])
            # the streams of a language model go on from round to round
            places = [number + 1] if kind == "language_model" else list(range(n_batches))
            for side in found[kind].values():
                side.rounds.append([])
            for place in places:
                for name, side in found[kind].items():
                    asked = {"kind": kind, "number": place}
                    wall, computing, loss = worker.ask(asked) if name == "fastai" else ours[name].take(kind, place)
                    side.rounds[-1].append((wall, computing))
                    side.loss = loss
            told = {name: round(side.of_round(-1, 0), 2) for name, side in found[kind].items()}
            print(f"{kind}, {f'round {number + 1}' if number >= 0 else 'warm-up'}: {told} s", flush=True)
    for sides in found.values():
        for side in sides.values():
            del side.rounds[0]
    return found


def summary(sides: dict[str, Side], n_tokens: float) -> dict[str, Any]:
    """Return the figures of one kind of batch.

    Args:
        sides: By name; `fastai` among them.
        n_tokens: Real tokens of a batch, on average.
    """
    theirs = sides["fastai"]
    record: dict[str, Any] = {"tokens": round(n_tokens)}
    for name, side in sides.items():
        record[f"{name}_s"], record[f"{name}_cpu_s"] = round(side.median(0), 4), round(side.median(1), 4)
        record[f"{name}_tokens_per_s"] = round(n_tokens / side.median(0), 1)
        record[f"{name}_loss"] = round(side.loss, 4)
        if name != "fastai":
            for clock, word in enumerate(("times_as_fast", "times_as_fast_cpu")):
                ratios = [theirs.of_round(n, clock) / side.of_round(n, clock) for n in range(len(side.rounds))]
                record[f"{name}_{word}"] = round(statistics.median(ratios), 3)
                record[f"{name}_{word}_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return record


def prepared(options: argparse.Namespace) -> dict[str, Any]:
    """Return sizes, settings and batches, as plain values."""
    reviews = read_reviews(Path(os.environ["HEADRACE_DATA"]), options.reviews, options.words, options.seed)
    batches: dict[str, Any] = {kind: classifier_batches(reviews, kind, options.batches) for kind in CLASSIFIER_KINDS}
    batches["language_model"] = language_batches(
        reviews, options.rounds + 1, streams=options.streams, tokens=options.tokens
    )
    return {
        "n_words": options.words,
        "sizes": {
            "embedding_size": options.embedding,
            "hidden_size": options.hidden,
            "n_layers": options.layers,
        },
        "drop_mult": DROP_MULT,
        "clip": CLIP,
        "learning_rate": RATE,
        "threads": options.threads,
        "seed": options.seed,
        "batches": batches,
    }


def beside(work: dict[str, Any], options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the figures of each kind of batch, and the versions of the other side."""
    precisions = ["fp32", "bf16"] if resolved_precision("auto", accelerator="cpu")[0] == "bf16" else ["fp32"]
    figures: dict[str, Any] = {}
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "work.json"
        given.write_text(json.dumps(work), "utf-8")
        parts = {"language_model": (["language_model"], OurLanguageModel)}
        parts["classifier"] = (list(CLASSIFIER_KINDS), OurClassifier)
        for part, (kinds, ours) in parts.items():
            if options.only not in (None, part):
                continue
            arguments = [str(given), part]
            with Worker(options.fastai_python, WORKER, arguments, threads=options.threads) as worker:
                versions = worker.versions
                sides = {f"ours_{precision}": ours(work, precision) for precision in precisions}
                found = interleaved(worker, sides, kinds, work, options.rounds)
            figures |= {kind: summary(found[kind], tokens_of(work, kind)) for kind in kinds}
    if "bf16" not in precisions:
        figures["bf16"] = "void: the processor has no bf16 arithmetic"
    return figures, versions


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fastai-python", help="the Python of an environment with fastai")
    parser.add_argument("--profile", action="store_true", help="print where the time of our step goes; no fastai")
    parser.add_argument("--only", choices=("language_model", "classifier"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=3, help="batches of each kind in a round, of the classifier")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--reviews", type=int, default=2000)
    parser.add_argument("--words", type=int, default=60_000)
    for name, size in (("embedding", 400), ("hidden", 1152), ("layers", 3), ("streams", 64), ("tokens", 72)):
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not os.environ.get("HEADRACE_DATA"):
        parser.error("HEADRACE_DATA does not name the folder of real data")
    if not options.profile and not options.fastai_python:
        parser.error("--fastai-python names the Python of an environment with fastai; --profile needs none")
    return options


def main() -> int:
    options = parsed()
    torch.set_num_threads(options.threads)
    load_before = round(os.getloadavg()[0], 2)
    work = prepared(options)
    if options.profile:
        profile(work, resolved_precision("auto", accelerator="cpu")[0], n_steps=options.rounds)
        return 0
    figures, versions = beside(work, options)
    record = {
        "benchmark": "awd_lstm",
        "seed": options.seed,
        "rounds": options.rounds,
        "threads": options.threads,
        "batches": options.batches,
        "sizes": {**work["sizes"], "words": options.words, "streams": options.streams, "tokens": options.tokens},
        **figures,
        **versions,
        "load_before": load_before,
        **facts(),
    }
    append("awd_lstm", record)
    for name, value in record.items():
        print(f"{name}: {value}")
    good = []
    for kind, target in TARGETS.items():
        if kind in figures:
            ratios = [figures[kind].get(f"ours_{precision}_times_as_fast", 0.0) for precision in ("fp32", "bf16")]
            good.append(max(ratios) >= target)
            print(f"{kind}: {max(ratios)} times as fast, at least {target}: {'met' if good[-1] else 'missed'}")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
