"""Compares ULMFiT's words with fastai's on reviews of IMDb: agreement, and time beside it.

    python benchmarks/words.py --fastai-python .venv-parity/bin/python [--reviews 2000] [--rounds 7] [--seed 0]

fastai runs in the environment that `make parity` makes, as a process of its own that works while we wait and waits while
we work: a round of its own, a round of ours, in turn. Each round makes a new tokenizer and passes over the reviews twice:
once with nothing remembered, once with what it remembers. Ours is timed from texts to ids, fastai from texts to tokens.

Agreement is the share of fastai's tokens that stand in the longest common blocks of its list and ours, text by text
(difflib's matching blocks); each stretch that differs is listed with its count.

Real texts are read from the folder in $HEADRACE_DATA. One JSON line goes to benchmarks/results/words.jsonl.

Targets: agreement of at least 99.9 %, and at least 4 times as fast (hoped: 10) with nothing remembered.
"""

from __future__ import annotations

import argparse
import difflib
import gzip
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from headrace.text.vocabulary import Vocabulary
from headrace.text.words import Words, split_words
from record import append, facts

WORKER = Path(__file__).parent / "fastai_words.py"
LONG = 1_000_000
Times = list[tuple[float, float]]


def reviews(folder: Path, n: int, seed: int) -> list[str]:
    """Return n reviews of the training half, drawn at random."""
    with gzip.open(folder / "imdb" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [str(json.loads(line)["text"]) for line in file]
    return random.Random(seed).sample(texts, n)


def our_round(texts: list[str], vocabulary: Vocabulary) -> Times:
    """Return seconds and processor seconds of a first and of a second pass."""
    words = Words(vocabulary)
    times = []
    for _ in ("new", "again"):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        words.encode_flat(texts, max_length=LONG, truncate="head")
        times.append((time.perf_counter() - begin, time.process_time() - begin_cpu))
    return times


def beside(
    texts: list[str], python: str, n_rounds: int
) -> tuple[list[Times], list[Times], list[list[str]], dict[str, str]]:
    """Return the times of our rounds and of fastai's, fastai's tokens, and its versions."""
    vocabulary = Vocabulary.of(texts)
    ours: list[Times] = []
    theirs: list[Times] = []
    with tempfile.TemporaryDirectory() as folder:
        given, answered = Path(folder) / "texts.json", Path(folder) / "tokens.json"
        given.write_text(json.dumps(texts), "utf-8")
        command = [python, str(WORKER), str(given), str(answered)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
            if worker.stdin is None or worker.stdout is None:
                raise RuntimeError("the worker has no pipes")
            versions = json.loads(worker.stdout.readline())
            for number in range(n_rounds):
                worker.stdin.write("round\n")
                worker.stdin.flush()
                theirs.append(json.loads(worker.stdout.readline()))
                ours.append(our_round(texts, vocabulary))
                print(f"round {number + 1}: fastai {theirs[-1]}, ours {ours[-1]}", flush=True)
            worker.stdin.close()
            worker.wait()
        return ours, theirs, json.loads(answered.read_text("utf-8")), versions


def agreement(texts: list[str], theirs: list[list[str]]) -> tuple[int, int, Counter[str]]:
    """Return how many of fastai's tokens agree, how many there are, and what differs, counted."""
    n_same = n_all = 0
    differences: Counter[str] = Counter()
    for text, expected in zip(texts, theirs, strict=True):
        found = split_words(text)
        n_all += len(expected)
        if found == expected:
            n_same += len(expected)
            continue
        matcher = difflib.SequenceMatcher(None, expected, found, autojunk=False)
        n_same += sum(block.size for block in matcher.get_matching_blocks())
        for kind, i, j, k, m in matcher.get_opcodes():
            if kind != "equal":
                differences[f"{' '.join(expected[i:j])!r} / {' '.join(found[k:m])!r}"] += 1
    return n_same, n_all, differences


def ratio(theirs: list[Times], ours: list[Times], which: int, clock: int) -> float:
    """Return the median over rounds of fastai's time divided by ours."""
    return round(statistics.median(a[which][clock] / b[which][clock] for a, b in zip(theirs, ours, strict=True)), 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fastai-python", required=True, help="the Python of an environment with fastai")
    parser.add_argument("--reviews", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not os.environ.get("HEADRACE_DATA"):
        parser.error("HEADRACE_DATA does not name the folder of real data")
    texts = reviews(Path(os.environ["HEADRACE_DATA"]), options.reviews, options.seed)
    load_before = round(os.getloadavg()[0], 2)
    ours, theirs, tokens, versions = beside(texts, options.fastai_python, options.rounds)
    n_same, n_all, differences = agreement(texts, tokens)
    record = {
        "benchmark": "words",
        "seed": options.seed,
        "reviews": len(texts),
        "rounds": options.rounds,
        "tokens": n_all,
        "agreement": n_same / n_all,
        "differences": dict(differences.most_common(20)),
        "times_as_fast": ratio(theirs, ours, 0, 0),
        "times_as_fast_cpu": ratio(theirs, ours, 0, 1),
        "times_as_fast_remembering": ratio(theirs, ours, 1, 0),
        "times_as_fast_remembering_cpu": ratio(theirs, ours, 1, 1),
        "ours_s": round(statistics.median(times[0][0] for times in ours), 3),
        "fastai_s": round(statistics.median(times[0][0] for times in theirs), 3),
        "ours_tokens_per_cpu_s": round(n_all / statistics.median(times[0][1] for times in ours)),
        **versions,
        "load_before": load_before,
        **facts(),
    }
    append("words", record)
    for name, value in record.items():
        print(f"{name}: {value}")
    good = {
        "agreement of at least 99.9 %": n_same / n_all >= 0.999,
        "at least 4 times as fast": float(str(record["times_as_fast"])) >= 4.0,
    }
    for name, is_met in good.items():
        print(f"{name}: {'met' if is_met else 'missed'}")
    return 0 if all(good.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
