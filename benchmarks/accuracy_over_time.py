"""Accuracy on IMDb over the seconds of training: one line a tool, from runs on more and more labelled reviews.

    HEADRACE_DATA=DATA python benchmarks/accuracy_over_time.py [--rows 500 1000 2000 5000] [--tools headrace,trainer,tfidf]
    python benchmarks/accuracy_over_time.py --plot docs/accuracy_over_time.svg

Each run is one of `quality.py`: the same rows and hyper-parameters for each tool (256 tokens, head and tail, 2e-4, two
epochs), validation for the epoch or the strength, 5,000 test rows that are scored once. Seconds are those of fitting
without validation; the Trainer's hold its saving, too, and TF-IDF's are for four strengths. A run that is there already is
not made again. Lines go to benchmarks/results/quality.jsonl under the name `over time`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from record import lines

NAME = "over time"
SETTINGS = ("data.max_length=256", "data.truncate=head_tail", "fit.epochs=2", "fit.learning_rate=2e-4")
LABELS = {"headrace": "Headrace", "trainer": "transformers' Trainer", "tfidf": "TF-IDF + logistic regression"}
COLOURS = {"headrace": "#0b7285", "trainer": "#c2410c", "tfidf": "#6b7280"}


def own_lines() -> list[dict[str, Any]]:
    """Return the lines of these runs."""
    return [line for line in lines("quality") if line["name"] == NAME]


def measure(rows: list[int], tools: list[str], seeds: list[int]) -> None:
    """Make the runs that are not there yet, the small ones first, the tools in turn."""
    for n_rows in rows:
        for seed in seeds:
            for tool in tools:
                if any((line["tool"], line["rows"], line["seed"]) == (tool, n_rows, seed) for line in own_lines()):
                    continue
                command = [sys.executable, str(Path(__file__).parent / "quality.py"), "imdb", "--tool", tool]
                command += ["--rows", str(n_rows), "--test-rows", "5000", "--seeds", str(seed), "--name", NAME]
                for setting in SETTINGS:
                    command += ["--set", setting]
                subprocess.run(command, check=True)


def points(found: list[dict[str, Any]]) -> dict[str, list[tuple[float, float, int]]]:
    """Return for each tool the mean (seconds, accuracy) of each number of rows, and that number."""
    runs: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for line in found:
        runs[line["tool"], line["rows"]].append((line["timing"]["fit_s"], line["metrics"]["accuracy"]["value"]))
    by_tool: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
    for (tool, n_rows), values in sorted(runs.items()):
        by_tool[tool].append((*(statistics.mean(column) for column in zip(*values, strict=True)), n_rows))  # type: ignore[arg-type]
    return by_tool


def plot(place: Path) -> None:
    """Draw the lines; seconds on a logarithmic scale."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for tool, found in points(own_lines()).items():
        seconds, accuracies, rows = zip(*found, strict=True)
        axes.plot(seconds, [100 * value for value in accuracies], "o-", color=COLOURS[tool], label=LABELS[tool])
        for x, y, n_rows in zip(seconds, accuracies, rows, strict=True):
            axes.annotate(f"{n_rows:,}", (x, 100 * y), textcoords="offset points", xytext=(0, 6), ha="center", size=7)
    axes.set_xscale("log")
    axes.set(xlabel="seconds of fitting", ylabel="accuracy on 5,000 test reviews, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(place, metadata={"Date": None} if place.suffix == ".svg" else None)


def main() -> None:
    """Measure, or plot what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[500, 1000, 2000, 5000])
    parser.add_argument("--tools", default="headrace,trainer,tfidf")
    parser.add_argument("--seeds", type=int, nargs="+", default=[13])
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw what is there, measure nothing")
    options = parser.parse_args()
    if options.plot is None:
        measure(options.rows, options.tools.split(","), options.seeds)
    else:
        plot(options.plot)


if __name__ == "__main__":
    main()
