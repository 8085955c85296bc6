"""Two ways to the same task, in pairs of runs with the same rows and seed: is one better, and by how much?

    HEADRACE_DATA=DATA python benchmarks/paired.py trainer              # 2,000 reviews, five seeds
    HEADRACE_DATA=DATA python benchmarks/paired.py padded               # 5,000 reviews, three seeds
    HEADRACE_DATA=DATA python benchmarks/paired.py search               # rates for what follows, on validation
    HEADRACE_DATA=DATA python benchmarks/paired.py unfreezing_imdb      # and _toxic, _mnli; three seeds; _imdb_whole, one
    HEADRACE_DATA=DATA python benchmarks/paired.py masked_words --encoder BUNDLE
    python benchmarks/paired.py unfreezing_imdb --summary               # what is there already

    trainer       packed training in bf16 against transformers' Trainer in bf16, both with the family's own head
    padded        the same against our own padded path in float32, with torch's dropout
    unfreezing_*  head, then two layers, then all with smaller rates further down, against all at once
    masked_words  an encoder that has guessed masked words in reviews before (a bundle of `task: language_model`), against
                  the one that has not

Each run is one of `quality.py`, whose lines it adds to: the best epoch is chosen on validation, the test rows are scored
once. A run whose line is there is not made again, so the command goes on where it was stopped; each line's commit is told,
for an older run is one of older code. The interval of the mean difference is Student's over the pairs: it tells what the
seed does, and the test rows are the same for all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import lines, without_folders

SCRIPT = Path(__file__).parent / "quality.py"
SHORT = ("data.max_length=256", "data.truncate=head_tail", "fit.epochs=2", "fit.learning_rate=2e-4", "head=native")
#: Of gradual unfreezing, the best of three on validation rows; `search` looks for them.
RATES = {"imdb": "2e-4", "toxic": "2e-4", "mnli": "2e-4"}
#: What the same search had found for plain training, see docs/results.md.
PLAIN = {
    "imdb": ("data.truncate=head_tail", "data.max_length=512", "fit.epochs=2", "fit.learning_rate=2e-4"),
    "toxic": ("fit.epochs=3", "fit.learning_rate=2e-4"),
    "mnli": ("fit.epochs=3", "fit.learning_rate=1e-4"),
}
N_EPOCHS = {"imdb": 2, "toxic": 3, "mnli": 3}
SEARCHED = {
    "imdb": (3000, ("data.valid=33.3333%", "data.truncate=head_tail", "data.max_length=256")),
    "toxic": (6000, ("data.valid=33.3333%",)),
    "mnli": (9000, ("data.valid=33.3333%",)),
}
SEARCH_EPOCHS = {"imdb": 2, "toxic": 2, "mnli": 3}


@dataclass(frozen=True)
class Run:
    """What one run is made with.

    Attributes:
        data: A name of `quality.py`.
        settings: Its `--set`.
        tool: Its `--tool`.
        rows, test_rows: Its `--rows` and `--test-rows`.
        is_search: Whether the test rows are left out.
        encoder: What tells the encoder from others of its name.
    """

    data: str
    settings: tuple[str, ...]
    tool: str = "headrace"
    rows: int | None = None
    test_rows: int | None = None
    is_search: bool = False
    encoder: str = ""

    def line(self, seed: int, found: list[dict[str, Any]]) -> dict[str, Any] | None:
        """Return its line for a seed, the newest, or None."""
        wanted = (self.data, self.tool, self.rows, seed, self.is_search, sorted(without_folders(self.settings)))
        for line in reversed(found):
            is_search = bool(line.get("search"))
            is_tested_so = self.is_search or self.test_rows in (None, line.get("n_test"))
            own = (line["data"], line["tool"], line["rows"], line["seed"], is_search, sorted(line["set"]))
            if own == wanted and is_tested_so and self.encoder in line["name"]:
                return line
        return None

    def make(self, seed: int, name: str) -> None:
        """Run it."""
        name = f"{name} {self.encoder}".strip()
        command = [sys.executable, str(SCRIPT), self.data, "--tool", self.tool, "--seeds", str(seed), "--name", name]
        for option, value in (("--rows", self.rows), ("--test-rows", self.test_rows)):
            command += [option, str(value)] if value is not None else []
        command += ["--search"] if self.is_search else []
        for setting in self.settings:
            command += ["--set", setting]
        subprocess.run(command, check=True)


@dataclass(frozen=True)
class Pair:
    """Two runs that are compared, the one that is tried first."""

    tried: Run
    against: Run
    seeds: tuple[int, ...]
    figure: str = "accuracy"


def gradual(rate: str, epochs: int) -> str:
    """Return gradual unfreezing with a decay of the rate from layer to layer, as many epochs of everything as plain has."""
    stages = [
        {"train": "head", "epochs": 1, "learning_rate": 1e-3},
        {"train": "2 groups", "epochs": 1, "learning_rate": float(rate), "layer_decay": 0.7},
        {"train": "all", "epochs": epochs, "learning_rate": float(rate), "layer_decay": 0.9},
    ]
    return f"fit.stages={json.dumps(stages)}"


def unfrozen(data: str, *, rows: int | None = None, test_rows: int | None = None) -> Run:
    """Return the run with gradual unfreezing that stands beside the plain one."""
    kept = tuple(one for one in PLAIN[data] if one.startswith("data."))
    return Run(data, (*kept, gradual(RATES[data], N_EPOCHS[data])), rows=rows, test_rows=test_rows)


def pairs(encoder: Path) -> dict[str, Pair]:
    """Return all comparisons by name; an encoder is a bundle's folder, which only `masked_words` opens."""
    manifest = encoder / "manifest.json"
    mark = hashlib.sha256(manifest.read_bytes()).hexdigest()[:8] if manifest.is_file() else ""
    three = (13, 14, 15)
    few = Run("imdb", PLAIN["imdb"], rows=5000, test_rows=5000)
    two, five = ({"rows": n, "test_rows": 5000} for n in (2000, 5000))
    return {
        "trainer": Pair(Run("imdb", SHORT, **two), Run("imdb", SHORT, "trainer", **two), (13, 14, 15, 16, 17)),
        "padded": Pair(Run("imdb", SHORT, **five), Run("imdb", SHORT, "padded", **five), three),
        "unfreezing_imdb": Pair(unfrozen("imdb", rows=5000, test_rows=5000), few, three),
        "unfreezing_imdb_whole": Pair(
            Run("imdb", (gradual(RATES["imdb"], N_EPOCHS["imdb"]),)), Run("imdb", ()), three[:1]
        ),
        "unfreezing_toxic": Pair(unfrozen("toxic"), Run("toxic", PLAIN["toxic"]), three, "roc_auc_macro"),
        "unfreezing_mnli": Pair(unfrozen("mnli"), Run("mnli", PLAIN["mnli"]), three),
        "masked_words": Pair(
            Run("imdb", (*PLAIN["imdb"], f"backbone={encoder.resolve()}"), rows=5000, test_rows=5000, encoder=mark),
            few,
            three,
        ),
    }


def compare(name: str, pair: Pair, *, measures: bool) -> None:
    """Make the runs that are missing, seed by seed, and tell the differences."""
    from scipy import stats

    differences = []
    for seed in pair.seeds:
        for run in (pair.tried, pair.against):
            if measures and run.line(seed, lines("quality")) is None:
                run.make(seed, name)
        both = [run.line(seed, lines("quality")) for run in (pair.tried, pair.against)]
        if both[0] is None or both[1] is None:
            print(f"seed {seed}: not measured yet", flush=True)
            continue
        tried, against = (line["metrics"][pair.figure]["value"] for line in both if line is not None)
        differences.append(tried - against)
        commits = " and ".join(dict.fromkeys(line["commit"] for line in both if line is not None))
        told = f"{pair.figure} {tried:.4f} against {against:.4f}: {differences[-1]:+.4f} ({commits})"
        print(f"seed {seed}: {told}", flush=True)
    if len(differences) > 1:
        mean = statistics.mean(differences)
        half = float(stats.t.ppf(0.975, len(differences) - 1)) * statistics.stdev(differences) / len(differences) ** 0.5
        holds = "holds zero" if abs(mean) <= half else "does not hold zero"
        print(f"mean {mean:+.4f}, 95 % interval {mean - half:+.4f} to {mean + half:+.4f}: it {holds}")


def search(*, measures: bool) -> None:
    """Try three rates of gradual unfreezing on the rows on which the recipes' own rates were searched."""
    for data, (rows, settings) in SEARCHED.items():
        for rate in ("1e-4", "2e-4", "4e-4"):
            run = Run(data, (*settings, gradual(rate, SEARCH_EPOCHS[data])), rows=rows, is_search=True)
            if measures and run.line(12, lines("quality")) is None:
                run.make(12, "search of unfreezing")
            line = run.line(12, lines("quality"))
            print(data, rate, "not measured yet" if line is None else line["valid"][-SEARCH_EPOCHS[data] :], flush=True)


def main() -> None:
    """Measure, or tell what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=["search", *pairs(Path())])
    parser.add_argument("--encoder", type=Path, help="the language model's bundle that masked_words tries")
    parser.add_argument("--summary", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if options.name == "masked_words" and not (options.encoder and (options.encoder / "manifest.json").is_file()):
        parser.error("--encoder names the bundle of a language model")
    if options.name == "search":
        search(measures=not options.summary)
    else:
        compare(options.name, pairs(options.encoder or Path())[options.name], measures=not options.summary)


if __name__ == "__main__":
    main()
