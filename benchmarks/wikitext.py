"""Perplexity on WikiText-2 of an AWD-LSTM from scratch, beside fastai's on the same tokens for the same number of epochs.

    HEADRACE_DATA=DATA python benchmarks/wikitext.py --fastai-python .venv-parity/bin/python
    HEADRACE_DATA=DATA python benchmarks/wikitext.py --fastai-python .venv-parity/bin/python \\
        --embedding 100 --hidden 200 --layers 2 --tokens 300000 --epochs 4 --threads 1        # minutes

Ours is a run of `fit` with a recipe, as anybody would start it; fastai's is `language_model_learner` with `fit_one_cycle`.
The texts are WikiText-2's articles without their empty lines. Both read the ids that our words give (the vocabulary is
that of the training articles, words that stand there three times or more), so a perplexity is one of ULMFiT's tokens, its
marks for capitals among them: compare the two with each other, not with figures for WikiText's own words.

Sizes, streams x tokens, epochs, dropouts, the one-cycle curve of the rate and the validation streams are the same. Two
ways for the rest: `same` gives fastai our Adam (betas, epsilon, decay, momentum's curve) and clipping, `own` leaves it
what it has by default. The validation is judged as streams of the batch's size, all tokens alike; fastai's own mean, which
weighs the short last batch like a whole one, is not used. Headline: the best epoch of each, which is what ours keeps.

Times are seconds of training steps, validation left out, one side after the other: for a ratio see awd_lstm.py. One JSON
line goes to benchmarks/results/wikitext.jsonl.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from record import append, facts
from worker import Worker

WORKER = Path(__file__).parent / "fastai_wikitext.py"
LONG = 100_000_000
# A heading of an article has one sign, those of its sections have several.
TITLE = re.compile(r" = [^=].*[^=] = ")
NOT_SETTINGS = ("fastai_python", "tokens", "valid_tokens", "keep")
WEIGHT_DECAY, WARMUP = 0.01, 0.25


def articles(lines: list[str], n_words: int | None) -> list[str]:
    """Return the articles of a file, their empty lines left out, of the first so many words (None for all)."""
    found: list[list[str]] = []
    n_left = sum(len(line.split()) for line in lines) if n_words is None else n_words
    for line in lines:
        words = line.split()[:n_left]
        if not words:
            continue
        if TITLE.fullmatch(line) or not found:
            found.append([])
        found[-1].append(" ".join(words))
        n_left -= len(words)
    return ["\n".join(article) for article in found]


def read_articles(split: str, n_words: int | None) -> list[str]:
    """Return the articles of `train` or `valid`."""
    path = Path(os.environ["HEADRACE_DATA"]) / "wikitext2" / f"wiki.{split}.tokens.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return articles([line.removesuffix("\n") for line in file], n_words)


def write_texts(path: Path, texts: list[str]) -> Path:
    """Write one JSON line a text."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return path


def recipe(options: argparse.Namespace, train: Path, valid: Path) -> dict[str, Any]:
    """Return the recipe of our run."""
    return {
        "task": "language_model",
        "data": {"train": str(train), "valid": str(valid)},
        "backbone": {
            "name": "awd_lstm",
            "weights": "none",
            "embedding_size": options.embedding,
            "hidden_size": options.hidden,
            "n_layers": options.layers,
        },
        "language_model": {"sequence_length": options.sequence_length, "drop_mult": options.drop_mult},
        "fit": {
            "epochs": options.epochs,
            "batch_size": options.streams,
            "learning_rate": options.rate,
            "optimizer": "adamw",
            "weight_decay": WEIGHT_DECAY,
            "schedule": "one_cycle",
            "warmup": WARMUP,
            "gradient_clip": options.clip,
            "precision": options.precision,
        },
        "logger": "none",
        "trainer": {"accelerator": options.accelerator},
        "seed": options.seed,
    }


def ours(options: argparse.Namespace, train: Path, valid: Path, folder: Path) -> tuple[dict[str, Any], Any]:
    """Return the figures of our run, and its words."""
    from headrace.bundle.language_model import LanguageModelBundle
    from headrace.train.fit import fit

    begun = time.perf_counter(), time.process_time()
    run = fit(recipe(options, train, valid), out=options.keep or folder)
    whole = time.perf_counter() - begun[0], time.process_time() - begun[1]
    report = json.loads((run.folder / "report.json").read_text("utf-8"))
    history = report["data"]["training"]["history"]
    figures = {
        "perplexities": [round(record["valid"]["perplexity"], 3) for record in history],
        "accuracies": [round(record["valid"]["accuracy"], 5) for record in history],
        "kept_perplexity": round(float(run.evaluation.metrics["perplexity"].value or 0.0), 3),
        "n_valid": run.evaluation.n_rows,
        "n_steps": report["timing"]["n_steps"],
        "fit_s": round(report["timing"]["fit_s"], 2),
        # reading, words, validation, bundle and its proof in another process included
        "whole_s": round(whole[0], 2),
        "whole_cpu_s": round(whole[1], 2),
    }
    return figures, LanguageModelBundle.load(run.bundle).tokenizer


def ids_of(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Return the ids of each text, none of them cut."""
    return [encoded.ids.tolist() for encoded in tokenizer.encode(texts, max_length=LONG)]


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fastai-python", required=True, help="the Python of an environment with fastai")
    parser.add_argument("--fastai-settings", nargs="+", choices=("same", "own"), default=["same", "own"])
    parser.add_argument("--tokens", type=int, help="train on the first so many words of WikiText-2; all by default")
    parser.add_argument("--valid-tokens", type=int, help="judge by the first so many; all by default")
    sizes = {"embedding": 400, "hidden": 1152, "layers": 3, "streams": 64, "sequence-length": 72, "epochs": 10}
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--drop-mult", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=5e-3, help="peak of the one-cycle curve")
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of ours; fastai has fp32")
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="leave our run there; by default it is forgotten")
    options = parser.parse_args()
    if not os.environ.get("HEADRACE_DATA"):
        parser.error("HEADRACE_DATA does not name the folder of real data")
    return options


def main() -> int:
    options = parsed()
    torch.set_num_threads(options.threads)
    load_before = round(os.getloadavg()[0], 2)
    settings = {name: value for name, value in vars(options).items() if name not in NOT_SETTINGS}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["HEADRACE_CACHE"] = str(folder / "cache")
        texts = {"train": read_articles("train", options.tokens), "valid": read_articles("valid", options.valid_tokens)}
        files = {split: write_texts(folder / f"{split}.jsonl", found) for split, found in texts.items()}
        own, tokenizer = ours(options, files["train"], files["valid"], folder / "run")
        print(f"ours: {own}", flush=True)
        ids = {split: ids_of(tokenizer, found) for split, found in texts.items()}
        work = {**settings, "weight_decay": WEIGHT_DECAY, "warmup": WARMUP, "n_words": tokenizer.vocabulary_size, **ids}
        given = folder / "work.json"
        given.write_text(json.dumps(work), "utf-8")
        record: dict[str, Any] = {
            "benchmark": "wikitext",
            **settings,
            "wikitext_words": {"train": options.tokens, "valid": options.valid_tokens},  # None for all
            "n_words": tokenizer.vocabulary_size,
            "train_tokens": sum(map(len, ids["train"])),
            "valid_tokens": sum(map(len, ids["valid"])),
            "valid_unknown_share": round(
                sum(id == tokenizer.unk_id for text in ids["valid"] for id in text) / sum(map(len, ids["valid"])), 4
            ),
            "ours": own,
        }
        for name in options.fastai_settings:
            with Worker(options.fastai_python, WORKER, [str(given)], threads=options.threads) as worker:
                record[f"fastai_{name}"] = worker.ask({"settings": name})
                versions = worker.versions
            print(f"fastai, {name} settings: {record[f'fastai_{name}']}", flush=True)
    record |= {**versions, "load_before": load_before, **facts()}
    append("wikitext", record)
    sides = {name: record[name] for name in ("ours", *(f"fastai_{settings}" for settings in options.fastai_settings))}
    for name, figures in sides.items():
        print(f"{name}: perplexity {min(figures['perplexities'])}, training {figures['fit_s']} s")
    is_fair = len({(figures["n_valid"], figures["n_steps"]) for figures in sides.values()}) == 1
    print(f"as many steps and validation tokens on each side: {'yes' if is_fair else 'no'}")
    return 0 if is_fair else 1


if __name__ == "__main__":
    sys.exit(main())
