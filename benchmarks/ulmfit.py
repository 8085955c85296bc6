"""ULMFiT from its first stage to its last on real texts: what does each stage buy?

    HEADRACE_DATA=DATA python benchmarks/ulmfit.py --out FOLDER [--reviews 16000] [--labelled 5000] [--seeds 13]

1. `wiki`: a language model from scratch on WikiText-2 (or `--pretrained BUNDLE`, such as `wikitext.py --keep` leaves).
2. `reviews`: that model goes on with reviews of IMDb, of the training half and of the unlabelled ones; no test text is read.
3. Classifiers by the recipe `imdb_ulmfit` (gradual unfreezing, a rate for each layer) on the same labelled reviews, whose
   encoders have read different things: `reviews` both, `wiki` Wikipedia alone, `scratch` nothing. A vocabulary goes with
   what was read: that of some thousand reviews, of WikiText-2, and of the labelled reviews. Unfreezing has no sense where
   nothing was learnt before, so `scratch_whole` trains all layers for as many epochs (Adam's rate 2e-3, one cycle).

Each step is a run of `fit` in a folder of its own below FOLDER: the command can be stopped and given again, and goes on;
with other settings it is refused. The best epoch is chosen on validation; the test rows (`--test-rows`, balanced and drawn by content) are scored once. A
line goes to benchmarks/results/ulmfit.jsonl as each step ends.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from quality import data_folder, evidence, imdb
from record import append, facts, without_folders
from wikitext import read_articles, write_texts

REVIEW_STAGES = [
    {"train": "head", "epochs": 1, "learning_rate": 2e-2},
    {"train": "all", "epochs": 1, "learning_rate": 2e-3},
]
SCRATCH = {"name": "awd_lstm", "weights": "none", "drop_mult": 0.5}
WHOLE = [{"train": "all", "epochs": 5, "learning_rate": 2e-3}]


def language_model(options: argparse.Namespace, name: str, recipe: dict[str, Any]) -> Path:
    """Train a language model in FOLDER/name, and return its bundle."""
    from headrace.train.fit import fit

    run = fit({"task": "language_model", "logger": "none", "seed": 13, **recipe}, out=options.out / name)
    report = json.loads((run.folder / "report.json").read_text("utf-8"))
    history = report["data"]["training"]["history"]
    figures = {
        "valid": [record["valid"] for record in history],
        "metrics": report["metrics"],
        "n_valid_tokens": report["n_rows"],
        "timing": report["timing"],
        "splits": report["data"]["splits"],
    }
    told(options, name, {"recipe": recipe, **figures})
    return run.bundle


def overrides_of(options: argparse.Namespace, backbone: dict[str, Any], test: str, seed: int) -> list[str]:
    """Return what a classifier changes in the recipe."""
    found = [
        f"data.train={data_folder() / 'imdb' / 'train.jsonl.gz'}",
        f"data.test={test}",
        f"data.limit={options.labelled}",
        "language_model=null",
        f"backbone={json.dumps(backbone)}",
        "baseline=false",
        "logger=none",
        f"seed={seed}",
    ]
    return [*found, *options.set]


def classifier(options: argparse.Namespace, name: str, overrides: list[str], seed: int) -> None:
    """Train and test a classifier in FOLDER/classifier-name-seed."""
    from headrace.train.fit import fit

    run = fit("imdb_ulmfit", out=options.out / f"classifier-{name}-{seed}", overrides=overrides)
    report = json.loads((run.folder / "report.json").read_text("utf-8"))
    history = report["data"]["training"]["history"]
    told(
        options,
        f"classifier-{name}-{seed}",
        {
            "seed": seed,
            "labelled": options.labelled,
            "valid": [record["valid"] for record in history],
            "metrics": report["metrics"],
            "timing": report["timing"],
            "n_train": report["data"]["splits"]["train"]["rows"],
            "n_test": report["n_rows"],
            **evidence(report),
        },
    )


def told(options: argparse.Namespace, step: str, figures: dict[str, Any]) -> None:
    """Add the step's result line unless it was added before, and print its main figures."""
    was_told = options.out / f"{step}.told"
    if was_told.exists():
        return
    line = without_folders({"step": step, "set": options.set, **figures})
    append("ulmfit", {"benchmark": "ulmfit", **line, **facts()})
    print(step, {name: value["value"] for name, value in figures["metrics"].items()}, figures["timing"], flush=True)
    was_told.touch()


def main() -> None:
    """Take the steps that are not taken yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pretrained", type=Path, help="the bundle of a language model, instead of the first step")
    parser.add_argument("--wiki-epochs", type=int, default=2)
    parser.add_argument("--reviews", type=int, default=16000, help="texts of the second step, validation included")
    parser.add_argument("--labelled", type=int, default=5000, help="labelled reviews, validation included")
    parser.add_argument("--test-rows", type=int, default=5000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[13])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the classifier's recipe")
    options = parser.parse_args()
    folder = data_folder() / "imdb"
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        wiki = options.pretrained or language_model(
            options,
            "wiki",
            {
                "data": {
                    part: str(write_texts(options.out / f"wiki_{part}.jsonl", read_articles(part, None)))
                    for part in ("train", "valid")
                },
                "backbone": {"name": "awd_lstm", "weights": "none", "drop_mult": 0.3},
                "fit": {
                    "epochs": options.wiki_epochs,
                    "batch_size": 64,
                    "learning_rate": 5e-3,
                    "schedule": "one_cycle",
                    "warmup": 0.25,
                },
            },
        )
        reviews = language_model(
            options,
            "reviews",
            {
                "data": {
                    "train": [str(folder / "train.jsonl.gz"), str(folder / "unsup.jsonl.gz")],
                    "valid": "5%",
                    "limit": options.reviews,
                },
                "backbone": {"name": "awd_lstm", "weights": str(wiki), "drop_mult": 0.3},
                "fit": {
                    "batch_size": 64,
                    "weight_decay": 0.1,
                    "schedule": "one_cycle",
                    "warmup": 0.25,
                    "stages": REVIEW_STAGES,
                },
            },
        )
        _, data = imdb(Path(scratch), options.test_rows)
        test = options.out / "test.jsonl"  # beside the runs: one that goes on reads the same file
        test.write_bytes(Path(data["test"]).read_bytes())
        backbones = {
            "reviews": {"name": str(reviews), "drop_mult": 0.5},
            "wiki": {"name": str(wiki), "drop_mult": 0.5},
            "scratch_whole": SCRATCH,
            "scratch": SCRATCH,
        }
        for seed in options.seeds:
            for name, backbone in backbones.items():
                overrides = overrides_of(options, backbone, str(test), seed)
                if name == "scratch_whole":
                    overrides.append(f"fit.stages={json.dumps(WHOLE)}")
                classifier(options, name, overrides, seed)


if __name__ == "__main__":
    main()
