"""Seconds from the start of the process to the end of the first optimizer step, with and without kept tokens.

    HEADRACE_DATA=DATA python benchmarks/second_run.py [--rows 25000] [--rounds 3]

MiniLM on IMDb reviews (the shipped reviews without $HEADRACE_DATA). Each round empties the cache, starts a fit, stops it
after its first step, and starts another run on the same data. One JSON line goes to benchmarks/results/second_run.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path

from record import append, facts


def settings(rows: int) -> dict:
    folder = os.environ.get("HEADRACE_DATA")
    if folder:
        data = {"train": str(Path(folder) / "imdb" / "train.jsonl.gz"), "limit": rows}
    else:
        data = {"train": str(files("headrace") / "samples/reviews/train.csv"), "text": "review", "label": "sentiment"}
    return {"data": data, "backbone": "minilm", "head": {"pool": "mean"}, "fit": {"batch_size": 32}, "logger": "none"}


def child(recipe: str, out: str) -> None:
    import headrace.train.progress as progress
    from headrace.train.fit import fit

    progress.LINE_EVERY_STEPS, progress.LINE_EVERY_S = 1, 0.0
    fit(json.loads(recipe), out=out, echo=lambda line: print(line, flush=True))


def first_step_s(recipe: dict, out: Path, cache: Path) -> float:
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, __file__, "--child", json.dumps(recipe), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "HEADRACE_CACHE": str(cache)},
    )
    found = float("nan")
    for line in process.stdout:
        if line.startswith("step 1/"):
            found = time.perf_counter() - started
            break
    process.kill()
    process.wait()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=25_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    recipe = settings(arguments.rows)
    first, second = [], []
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as scratch:
            cache = Path(scratch) / "cache"
            first.append(first_step_s(recipe, Path(scratch) / "one", cache))
            second.append(first_step_s({**recipe, "seed": 13}, Path(scratch) / "two", cache))
            print(f"round {number + 1}: first run {first[-1]:.1f} s, second run {second[-1]:.1f} s", flush=True)
    record = {"rows": arguments.rows, "first_s": first, "second_s": second}
    record |= {"median_first_s": statistics.median(first), "median_second_s": statistics.median(second)}
    append("second_run", {**record, **facts()})
    print(f"median: first run {record['median_first_s']:.1f} s, second run {record['median_second_s']:.1f} s")


if __name__ == "__main__":
    main()
