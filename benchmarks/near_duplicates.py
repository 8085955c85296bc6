"""Compares the search for near duplicates with all pairs of texts, and times the audit of IMDb's 50,000 reviews.

    python benchmarks/near_duplicates.py [--seed 0]

1. 5,000 reviews of IMDb and 200 edits of some of them (letters changed, words replaced, sentences left out, text added;
   weak and strong ones): recall and precision of `near_pairs` against the Jaccard similarity of all 13.5 million pairs,
   computed here from plain sets of five-character runs.
2. The audit (exact and near) of the 25,000 training and 25,000 test reviews: seconds, and the texts that stand in both
   halves.
3. The distinct folded texts of 20,000 toxic comments.

Real texts are read from the folder in $HEADRACE_DATA. One JSON line goes to benchmarks/results/near_duplicates.jsonl.

Targets: recall at least 95 %, precision at least 90 %, the audit in at most 120 s, 123 texts in both halves, 19,993
distinct comments.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from headrace.data.audit import audit
from headrace.data.examples import Examples
from headrace.data.labels import label_set
from headrace.data.near import THRESHOLD, near_pairs
from headrace.data.read import Columns, read
from headrace.data.split import folded, text_keys
from record import append, facts

N_REVIEWS = 5_000
N_EDITS = 200
LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
ADDED = "This review first appeared on my own page. "


def edited(text: str, words: list[str], draw: random.Random) -> str:
    """Return the text with one kind of edit, from hardly visible to strong."""
    strength = draw.uniform(0.005, 0.12)
    kind = draw.choice(("letters", "words", "cut", "added"))
    if kind == "letters":
        letters = list(text)
        for _ in range(max(1, round(strength * len(letters) / 5))):
            letters[draw.randrange(len(letters))] = draw.choice("abcdefghijklmnopqrstuvwxyz")
        return "".join(letters)
    parts = text.split()
    if kind == "words":
        for _ in range(max(1, round(strength * len(parts)))):
            parts[draw.randrange(len(parts))] = draw.choice(words)
        return " ".join(parts)
    if kind == "cut":
        n_cut = max(1, round(2 * strength * len(parts)))
        begin = draw.randrange(max(1, len(parts) - n_cut))
        return " ".join(parts[:begin] + parts[begin + n_cut :])
    return ADDED * draw.randint(1, 4) + text


def all_pairs(texts: list[str]) -> dict[tuple[int, int], float]:
    """Return every pair (i, j), i < j, of different folded texts whose sets have a Jaccard similarity of 0.8 or more."""
    folds = [folded(text) for text in texts]
    columns: dict[str, int] = {}
    sets = [{columns.setdefault(fold[i : i + 5], len(columns)) for i in range(len(fold) - 4)} for fold in folds]
    sizes = np.array([len(one) for one in sets])
    indices = np.concatenate([np.fromiter(one, dtype=np.int64, count=len(one)) for one in sets])
    matrix = csr_matrix((np.ones(len(indices), dtype=np.int32), indices, np.concatenate(([0], np.cumsum(sizes)))))
    turned = matrix.T.tocsr()
    found = {}
    for start in range(0, len(texts), 250):
        shared = (matrix[start : start + 250] @ turned).toarray()
        similarity = shared / (sizes[start : start + 250, None] + sizes[None, :] - shared)
        for i, j in np.argwhere(similarity >= THRESHOLD).tolist():
            if start + i < j and folds[start + i] != folds[j]:
                found[start + i, j] = float(similarity[i, j])
    return found


def search_quality(reviews: list[str], seed: int) -> dict[str, object]:
    draw = random.Random(seed)
    distinct = list({folded(text): text for text in reviews}.values())
    texts = draw.sample(distinct, N_REVIEWS)
    words = " ".join(texts[:200]).split()
    texts += [edited(text, words, draw) for text in draw.sample(texts, N_EDITS)]
    begin = time.perf_counter()
    truth = all_pairs(texts)
    all_pairs_s = time.perf_counter() - begin
    rows = pa.table({"text": pa.array(texts, pa.string()), "row": pa.array(range(2, 2 + len(texts)), pa.int64())})
    begin = time.perf_counter()
    found = near_pairs(Examples(rows, np.arange(len(texts)), "reviews", f"near-{seed}"))
    near_s = time.perf_counter() - begin
    proposed = set(map(tuple, found.rows.tolist()))
    hits = len(proposed & set(truth))
    return {
        "texts": len(texts),
        "true_pairs": len(truth),
        "true_pairs_under_0.85": sum(value < 0.85 for value in truth.values()),
        "planted_pairs_above_threshold": sum(i < N_REVIEWS <= j for i, j in truth),
        "found_pairs": len(proposed),
        "recall": round(hits / len(truth), 4),
        "precision": round(hits / max(len(proposed), 1), 4),
        "near_s": round(near_s, 2),
        "all_pairs_s": round(all_pairs_s, 2),
    }


def audit_of_imdb(folder: Path, cache: Path) -> tuple[dict[str, object], list[str]]:
    columns = Columns(text=("text",), label=("label",))
    train, test = (read(folder / "imdb" / f"{name}.jsonl.gz", columns, cache=cache) for name in ("train", "test"))
    labels = label_set(train)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    findings = audit(train, None, test, labels)
    record: dict[str, object] = {
        "audit_s": round(time.perf_counter() - begin, 2),
        "audit_cpu_s": round(time.process_time() - begin_cpu, 2),
        "audited_texts": len(train) + len(test),
        "shared_texts": len(np.intersect1d(text_keys(train), text_keys(test))),
        "findings": {f"{finding.code} {number}": finding.count for number, finding in enumerate(findings)},
    }
    texts = [text for start, stop in train.batches() for text in train.column("text", start, stop)]
    return record, texts


def distinct_comments(folder: Path, cache: Path) -> tuple[int, int]:
    columns = Columns(text=("comment_text",), label=LABELS)
    comments = read(folder / "jigsaw_toxic" / "train_first20k.csv.gz", columns, cache=cache)
    return len(np.unique(text_keys(comments))), len(comments)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    if not os.environ.get("HEADRACE_DATA"):
        parser.error("HEADRACE_DATA does not name the folder of real data")
    folder = Path(os.environ["HEADRACE_DATA"])
    with tempfile.TemporaryDirectory() as cache:
        imdb, reviews = audit_of_imdb(folder, Path(cache))
        n_distinct, n_comments = distinct_comments(folder, Path(cache))
    quality = search_quality(reviews, seed)
    record = {
        "benchmark": "near_duplicates",
        "seed": seed,
        **quality,
        **imdb,
        "comments": n_comments,
        "distinct_comments": n_distinct,
        "rensa": importlib.metadata.version("rensa"),
        "load_before": round(os.getloadavg()[0], 2),
        **facts(),
    }
    append("near_duplicates", record)
    for name, value in record.items():
        print(f"{name}: {value}")
    good = {
        "recall": float(str(quality["recall"])) >= 0.95,
        "precision": float(str(quality["precision"])) >= 0.9,
        "audit under 120 s": float(str(imdb["audit_s"])) <= 120.0,
        "123 texts in both halves": imdb["shared_texts"] == 123,
        "19,993 distinct comments": n_distinct == 19_993,
    }
    for name, is_met in good.items():
        print(f"{name}: {'met' if is_met else 'missed'}")
    return 0 if all(good.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
