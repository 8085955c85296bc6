"""Texts a second in training: Headrace beside what people would run instead, in turn on the same texts.

    HEADRACE_DATA=DATA python benchmarks/training.py imdb [--length 256] [--sides headrace,trainer,…] [--rounds 5]

A round is one window of real texts (976, of which 966 are trained on), taken by each side in turn, from the same
pretrained weights, with the same tokens, batch size, rate, clipping and schedule, and with dropout on; the model has the
family's own head, newly drawn, on every side. Each side is a process that works when it is asked and waits meanwhile;
the first window of each is not counted (a quarter of the size). Both clocks run from the first batch to the last updated
weights. The peak of memory is that of the side's process.

    headrace          texts laid end to end, as `fit` trains
    trainer_padded    transformers' Trainer, texts padded to max_length, as people run it
    trainer           the same, padded to the longest of each batch
    trainer_grouped   the same, batches of like length
    lightning         a LightningModule as tutorials write it, padded to the longest
    expert            a loop by hand: batches of like length, no dropout on attention weights, fused AdamW

`--precision bf16` lets every side compute in bf16, `headrace@bf16` one of them; on a processor without bf16 arithmetic
that is refused. After each round the parent multiplies large matrices in bf16: which share of that speed does a side reach
by the products that real tokens need? `--model distilbert` and `--model bert` are random weights of these sizes, over
MiniLM's words. Each round adds a line to benchmarks/results/training.jsonl as it ends; `--summary` prints the median ratios
of all rounds that are there, each with the processor that they were measured on.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from quality import DATA
from record import RESULTS, append, facts
from worker import Worker

SCRIPT = Path(__file__).parent / "training_side.py"
SIDES = ("headrace", "trainer_padded", "trainer", "trainer_grouped", "lightning", "expert")
LENGTHS = {"imdb": 256, "mnli": 128, "toxic": 128}
SIZES = {
    "distilbert": {"model_type": "distilbert", "dim": 768, "hidden_dim": 3072, "n_layers": 6, "n_heads": 12},
    "bert": {
        "model_type": "bert",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
}


def model_of(name: str, folder: Path) -> str:
    """Return what `backbone` is: MiniLM, or a folder with random weights of a size and MiniLM's tokenizer."""
    if name == "minilm":
        return name
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    from headrace.backbones.transformer import resolve

    tokenizer = AutoTokenizer.from_pretrained(str(resolve("minilm")))
    sizes = dict(SIZES[name])
    config = AutoConfig.for_model(sizes.pop("model_type"), vocab_size=len(tokenizer), **sizes)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def windows(rows: list[Any], n: int, size: int, seed: int) -> list[list[Any]]:
    """Return a small window to warm up on, and n of a size; no row stands in two of them."""
    drawn = random.Random(seed).sample(rows, size // 4 + n * size)
    return [drawn[: size // 4]] + [drawn[size // 4 + k * size :][:size] for k in range(n)]


def read_rows(name: str, scratch: Path) -> tuple[str, list[dict[str, Any]]]:
    """Return the shipped recipe's name and its training rows, as its columns name them."""
    base, data = DATA[name](scratch, None)
    path = Path(data["train"])
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
        return base, list(csv.DictReader(file)) if ".csv" in path.suffixes else [json.loads(line) for line in file]


def side_of(name: str, options: argparse.Namespace) -> tuple[str, str]:
    """Return a side's name and precision of `name@precision`."""
    side, _, precision = name.partition("@")
    return side, precision or options.precision


def ceiling(n_threads: int) -> float:
    """Return the operations a second of a product of large matrices in bf16, the best of five."""
    import torch

    torch.set_num_threads(n_threads)
    size, seconds = 4096, []
    a, b = (torch.randn(size, size).bfloat16() for _ in range(2))
    for _ in range(5):
        begun = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - begun)
    return 2 * size**3 / min(seconds)


def measure(options: argparse.Namespace) -> None:
    """Run the rounds, and add a result line after each."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        scratch = Path(name)
        base, rows = read_rows(options.data, scratch)
        places = []
        for number, window in enumerate(windows(rows, options.rounds, options.texts, options.seed)):
            places.append(scratch / f"window{number}.jsonl")
            places[-1].write_text("".join(json.dumps(row) + "\n" for row in window), "utf-8")
        overrides = [
            f"backbone={model_of(options.model, scratch / 'model')}",
            f"data.max_length={options.length}",
            "data.test=null",
            "data.valid=1%",  # none of it is looked at
            "head=native",
            "fit.epochs=1",
            "fit.batch_size=32",
            "fit.learning_rate=1e-4",
            "fit.warmup=0.1",
            "baseline=false",
        ]
        os.environ["HEADRACE_FIRST_WINDOW"] = json.dumps(str(places[0]))
        os.environ["HEADRACE_CACHE"] = str(scratch / "cache")
        workers = {
            side: stack.enter_context(
                Worker(sys.executable, SCRIPT, [*side_of(side, options), base, *overrides], threads=options.threads)
            )
            for side in options.sides
        }
        for number, place in enumerate(places):
            found = {side: worker.ask({"train": str(place)}) for side, worker in workers.items()}
            told = {side: f"{one['texts'] / one['wall_s']:.2f}" for side, one in found.items()}
            print(f"{f'round {number}' if number else 'warm-up'}: texts/s {told}", flush=True)
            if number:
                case = {name: getattr(options, name) for name in ("data", "model", "length", "precision", "threads")}
                best = {"bf16_flops_per_s": ceiling(options.threads)} if "bf16" in facts()["cpu"] else {}
                append("training", {**case, "sides": found, **best, **facts()})


def ratios(lines: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, float]]:
    """Return for each of our sides and each peer the median ratios of its seconds, processor seconds and memory to ours."""
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for own, ours in line["sides"].items():
            for side, one in line["sides"].items():
                if own.startswith("headrace") and not side.startswith("headrace"):
                    for key in ("wall_s", "cpu_s", "peak_bytes"):
                        found[own, side][key].append(one[key] / ours[key])
    return {
        pair: {**{key: statistics.median(values) for key, values in keys.items()}, "rounds": len(keys["wall_s"])}
        for pair, keys in found.items()
    }


def summarize() -> None:
    """Print the median ratios of every case and processor."""
    cases: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for text in (RESULTS / "training.jsonl").read_text("utf-8").splitlines():
        line = json.loads(text)
        key = (
            *(line[name] for name in ("data", "model", "length", "precision", "threads")),
            line["cpu"],
            line["commit"],
        )
        cases[key].append(line)
    for key, lines in cases.items():
        print(" ".join(map(str, key)))
        rates = defaultdict(list)
        for line in lines:
            for side, one in line["sides"].items():
                rates[side].append(one["texts"] / one["wall_s"])
        print("  texts/s: " + ", ".join(f"{side} {statistics.median(values):.2f}" for side, values in rates.items()))
        shares = defaultdict(list)
        for line in lines:
            for side, one in line["sides"].items():
                if "bf16_flops_per_s" in line:
                    shares[side].append(one["flops"] / one["wall_s"] / line["bf16_flops_per_s"])
        if shares:
            told = ", ".join(f"{side} {statistics.median(values):.0%}" for side, values in shares.items())
            print(f"  of the operations that a large product in bf16 has a second: {told}")
        for (own, side), found in sorted(ratios(lines).items()):
            print(
                f"  {side} against {own}: {found['wall_s']:.2f} times as long, {found['cpu_s']:.2f} times the computing, "
                f"{found['peak_bytes']:.2f} times the memory ({found['rounds']:.0f} rounds)"
            )


def main() -> None:
    """Read the arguments, measure or summarize."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", choices=sorted(LENGTHS), default="imdb")
    parser.add_argument("--length", type=int, help="max_length; 256 for imdb, 128 for the others")
    parser.add_argument("--model", choices=("minilm", *SIZES), default="minilm")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--sides", default="headrace,trainer_padded,trainer,expert")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=976, help="of a window; 1 %% are split off")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    if options.summary:
        summarize()
        return
    options.sides = options.sides.split(",")
    sides = [side_of(side, options) for side in options.sides]
    unknown = sorted({side for side, _ in sides} - set(SIDES))
    if unknown:
        parser.error(f"there is no side {unknown[0]!r}: {', '.join(SIDES)}")
    if any(precision == "bf16" for _, precision in sides) and "bf16" not in facts()["cpu"]:
        parser.error("this processor has no bf16 arithmetic")
    options.length = options.length or LENGTHS[options.data]
    measure(options)
    summarize()


if __name__ == "__main__":
    main()
