"""Quality on real data: Headrace (also `padded`, without its packed training), transformers' Trainer and TF-IDF on the same rows.

    HEADRACE_DATA=DATA python benchmarks/quality.py imdb --rows 7000 --test-rows 5000 --set data.valid=28.5714% --seeds 13 14
    HEADRACE_DATA=DATA python benchmarks/quality.py imdb --rows 3000 --search --seeds 12 --set fit.learning_rate=2e-4
    python benchmarks/quality.py tickets --search --seeds 12 13 14 --set fit.learning_rate=2e-4
    HEADRACE_DATA=DATA python benchmarks/quality.py toxic --tool headrace --set data.downsample="{rows: no_label, to: labelled}"

Each tool gets the same training, validation and test rows for a seed. The best epoch is chosen on validation; the test
rows are scored once. One JSON line a run goes to benchmarks/results/quality.jsonl when the run ends.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from record import append, facts, without_folders

TOXIC_TEST_ROWS = 4000


def data_folder() -> Path:
    folder = os.environ.get("HEADRACE_DATA")
    if not folder:
        raise SystemExit("set HEADRACE_DATA to the folder of real data")
    return Path(folder)


def imdb(scratch: Path, test_rows: int | None) -> tuple[str, dict[str, Any]]:
    folder = data_folder() / "imdb"
    test = folder / "test.jsonl.gz"
    if test_rows:
        with gzip.open(test, "rt", encoding="utf-8") as file:
            lines = file.readlines()
        # By content and balanced, so that the sample is the same for every seed and tool.
        drawn = sorted(lines, key=lambda line: hashlib.sha256(line.encode()).digest())
        halves = {label: [line for line in drawn if json.loads(line)["label"] == label] for label in ("neg", "pos")}
        test = scratch / "test.jsonl"
        test.write_text("".join(halves["neg"][: test_rows // 2] + halves["pos"][: test_rows // 2]), "utf-8")
    return "imdb", {"train": str(folder / "train.jsonl.gz"), "test": str(test)}


def toxic(scratch: Path, test_rows: int | None) -> tuple[str, dict[str, Any]]:
    with gzip.open(
        data_folder() / "jigsaw_toxic" / "train_first20k.csv.gz", "rt", encoding="utf-8", newline=""
    ) as file:
        header, *rows = list(csv.reader(file))
    parts = {"train": rows[:-TOXIC_TEST_ROWS], "test": rows[-TOXIC_TEST_ROWS:]}
    for name, chosen in parts.items():
        with open(scratch / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *chosen])
    return "toxic", {name: str(scratch / f"{name}.csv") for name in parts}


def mnli(scratch: Path, test_rows: int | None) -> tuple[str, dict[str, Any]]:
    folder = data_folder() / "mnli_part"
    return "mnli", {"train": str(folder / "train_part.csv.gz"), "test": str(folder / "dev_matched.csv.gz")}


def sample(name: str) -> Callable[[Path, int | None], tuple[str, dict[str, Any]]]:
    """Return what names a shipped recipe on its own sample."""
    return lambda scratch, test_rows: (name, {})


DATA = {
    "imdb": imdb,
    "toxic": toxic,
    "mnli": mnli,
    **{name: sample(name) for name in ("demo", "reviews", "pairs", "tickets")},
}


def torch_threads() -> int:
    import torch

    return torch.get_num_threads()


def overrides_of(arguments: argparse.Namespace, data: dict[str, Any], seed: int) -> list[str]:
    found = [f"data.{name}={path or 'null'}" for name, path in data.items()] + [f"seed={seed}"]
    if arguments.rows:
        found.append(f"data.limit={arguments.rows}")
    return [*found, *arguments.set]


def with_headrace(name: str, overrides: list[str], out: Path) -> dict[str, Any]:
    from headrace.train.fit import fit

    run = fit(name, out=out, overrides=overrides)
    report = json.loads((run.folder / "report.json").read_text("utf-8"))
    history = report["data"]["training"]["history"]
    return {
        "metrics": report["metrics"],
        "roc_auc": {label: values["roc_auc"] for label, values in report["labels"].items()},
        "timing": report["timing"],
        "valid": [record["valid"] for record in history],
        "n_train": report["data"]["splits"]["train"]["rows"],
        "n_test": report["n_rows"],
        **evidence(report),
    }


def with_padded(name: str, overrides: list[str], out: Path) -> dict[str, Any]:
    """Headrace without what training on a CPU exchanges: texts padded, float32, torch's own dropout and attention."""
    from unittest import mock

    from headrace.backbones._encoder import Transformer

    with mock.patch.object(Transformer, "train_on_cpu", return_value=None):
        return with_headrace(name, [*overrides, "fit.precision=fp32"], out)


def evidence(report: dict[str, Any]) -> dict[str, Any]:
    """Return what a report says of its decisions, its baseline and its forecast, without what only plots need."""
    left_out = {"reliability", "curve"}

    def plain(found: Any) -> Any:
        if isinstance(found, dict):
            return {name: plain(value) for name, value in found.items() if name not in left_out}
        return found

    return {name: plain(report.get(name)) for name in ("decide", "baseline", "forecast")}


def prepared_rows(name: str, overrides: list[str]) -> tuple[Any, Any]:
    from headrace.recipe import load_recipe
    from headrace.train.fit import data_plan
    from headrace.train.prepare import prepare

    recipe = load_recipe(name, overrides=overrides)
    return recipe.values, prepare(data_plan(recipe.values))


def with_tfidf(name: str, overrides: list[str], out: Path) -> dict[str, Any]:
    """Word 1- and 2-grams, sublinear counts, logistic regression; C chosen on validation."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    from headrace.data.examples import LabelSet
    from headrace.evaluate import evaluate

    values, prepared = prepared_rows(name, overrides)
    started = time.perf_counter()
    texts = {
        part.name: [t if isinstance(t, str) else " [SEP] ".join(t) for t in part.examples.texts()]
        for part in prepared.parts
    }
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, max_features=200_000)
    train = vectors.fit_transform(texts["train"])
    valid, test = vectors.transform(texts["valid"]), vectors.transform(texts["test"])
    best: tuple[float, float, Any] | None = None
    for c in (1.0, 3.0, 10.0, 30.0):
        model = LogisticRegression(C=c, max_iter=1000)
        if values.task == "multi_label":
            model = OneVsRestClassifier(model)
        model.fit(train, prepared.train.targets)
        scores = model.predict_proba(valid)
        figure = _figure(prepared.valid.targets, scores, values.task)
        if best is None or figure > best[0]:
            best = (figure, c, model)
    if best is None:
        raise SystemExit("nothing was fitted")
    scores = best[2].predict_proba(test).astype(np.float32)
    evaluation = evaluate(
        prepared.test.targets, scores, labels=LabelSet(prepared.labels.names), task=values.task, split="test"
    )
    return {
        "metrics": evaluation.as_dict()["metrics"],
        "roc_auc": {label: found["roc_auc"] for label, found in evaluation.as_dict()["labels"].items()},
        "timing": {"fit_s": time.perf_counter() - started},
        "c": best[1],
        "n_train": len(prepared.train),
        "n_test": len(prepared.test),
    }


def _figure(targets: np.ndarray, scores: np.ndarray, task: str) -> float:
    from headrace.evaluate import monitor_value

    found = monitor_value(targets, scores, "roc_auc_macro" if task == "multi_label" else "accuracy", task=task)
    return float("-inf") if found is None else found


def with_trainer(name: str, overrides: list[str], out: Path) -> dict[str, Any]:
    """transformers' Trainer: dynamic padding, the recipe's hyper-parameters, best epoch on validation.

    bf16 where the machine has it. Training batches are grouped by length (its own option), for its default pads
    nearly every batch of reviews to the longest. Rows that are only scored come in order of length, which changes
    no score.
    """
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )
    from transformers.trainer_utils import get_last_checkpoint

    from headrace.backbones.transformer import resolve
    from headrace.evaluate import evaluate, monitor_value

    values, prepared = prepared_rows(name, overrides)
    fit = values.fit
    has_bf16 = torch.cuda.is_available() or "bf16" in facts()["cpu"]
    place = str(resolve(values.backbone.name))
    tokenizer = AutoTokenizer.from_pretrained(place)
    labels = prepared.labels
    model = AutoModelForSequenceClassification.from_pretrained(
        place,
        num_labels=len(labels),
        problem_type="multi_label_classification" if values.task == "multi_label" else "single_label_classification",
    )

    class Rows(torch.utils.data.Dataset):
        def __init__(self, part: Any, *, by_length: bool = False) -> None:
            self.part = part
            self.order = np.argsort(part.lengths, kind="stable") if by_length else np.arange(len(part))

        def __len__(self) -> int:
            return len(self.part)

        def __getitem__(self, place: int) -> dict[str, Any]:
            row = int(self.order[place])
            ids = self.part.ids(row).astype(np.int64).tolist()
            first = self.part.first_length(row)
            types = [0] * first + [1] * (len(ids) - first)
            return {"input_ids": ids, "token_type_ids": types, "labels": self.part.targets[row]}

    def figures(prediction: Any) -> dict[str, float]:
        scores = _scores(prediction.predictions, values.task)
        found = {"log_loss": monitor_value(prediction.label_ids, scores, "log_loss", task=values.task)}
        return {"figure": _figure(prediction.label_ids, scores, values.task), **found}

    arguments = TrainingArguments(
        output_dir=str(out),
        num_train_epochs=fit.epochs,
        per_device_train_batch_size=fit.batch_size,
        per_device_eval_batch_size=32,
        learning_rate=fit.learning_rate,
        weight_decay=fit.weight_decay,
        warmup_steps=float(fit.warmup),
        lr_scheduler_type="linear",
        train_sampling_strategy="group_by_length",
        bf16=has_bf16,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="figure",
        greater_is_better=True,
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        seed=values.seed,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Rows(prepared.train),
        eval_dataset=Rows(prepared.valid, by_length=True),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=figures,
    )
    last = get_last_checkpoint(str(out)) if out.is_dir() else None
    done = trainer.train(resume_from_checkpoint=last)
    model.float()
    trainer.args.bf16 = False
    # grouped by length, predictions would come in an order of the sampler's own
    trainer.args.train_sampling_strategy = "sequential"
    valid = [
        {"figure": entry["eval_figure"], "log_loss": entry["eval_log_loss"]}
        for entry in trainer.state.log_history
        if "eval_figure" in entry
    ]
    found = {
        "valid": valid,
        "precision": "bf16" if has_bf16 else "fp32",
        "timing": _timing(done.metrics["train_runtime"], trainer.state.log_history, last),
        "n_train": len(prepared.train),
    }
    if prepared.test is None:
        return {"metrics": {}, **found}
    tested = Rows(prepared.test, by_length=True)
    output = trainer.predict(tested)
    scores = np.empty_like(output.predictions, dtype=np.float32)
    scores[tested.order] = _scores(output.predictions, values.task)
    evaluation = evaluate(prepared.test.targets, scores, labels=labels, task=values.task, split="test")
    return {
        "metrics": evaluation.as_dict()["metrics"],
        "roc_auc": {label: figures["roc_auc"] for label, figures in evaluation.as_dict()["labels"].items()},
        "n_test": len(prepared.test),
        **found,
    }


def _timing(seconds: float, history: list[dict[str, float]], last: str | None) -> dict[str, Any]:
    """Return the seconds of training without those of validation; of a run that went on they cannot be told apart."""
    if last is not None:
        note = f"validation and saving included; of the last call alone, which went on from {Path(last).name}"
        return {"fit_s": seconds, "note": note}
    valid = sum(entry.get("eval_runtime", 0.0) for entry in history)
    return {"fit_s": seconds - valid, "valid_s": valid, "note": "saving included"}


def _scores(logits: np.ndarray, task: str) -> np.ndarray:
    from scipy.special import expit, softmax

    return (expit(logits) if task == "multi_label" else softmax(logits, axis=1)).astype(np.float32)


TOOLS = {"headrace": with_headrace, "padded": with_padded, "trainer": with_trainer, "tfidf": with_tfidf}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=sorted(DATA))
    parser.add_argument("--tool", choices=sorted(TOOLS), default="headrace")
    parser.add_argument("--rows", type=int, help="rows of train, validation included")
    parser.add_argument("--test-rows", type=int, help="IMDb only: a balanced sample of the test rows")
    parser.add_argument("--seeds", type=int, nargs="+", default=[13])
    parser.add_argument("--search", action="store_true", help="leave the test rows out: to choose hyper-parameters by")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--name", default="", help="what the result line calls this setting")
    parser.add_argument("--out", type=Path, help="where runs are kept; a temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        recipe, data = DATA[arguments.data](Path(scratch), arguments.test_rows)
        if arguments.search:
            data["test"] = None
        for seed in arguments.seeds:
            overrides = overrides_of(arguments, data, seed)
            started, computing = time.perf_counter(), sum(os.times()[:4])
            key = hashlib.sha256(
                json.dumps([arguments.data, arguments.tool, arguments.set, arguments.rows, seed]).encode()
            )
            out = (arguments.out or Path(scratch)) / f"{arguments.data}-{arguments.tool}-{key.hexdigest()[:8]}"
            found = TOOLS[arguments.tool](recipe, overrides, out)
            record = {
                "data": arguments.data,
                "tool": arguments.tool,
                "name": arguments.name,
                "seed": seed,
                "set": without_folders(arguments.set),
                "rows": arguments.rows,
                "search": arguments.search,
                **found,
                "wall_s": round(time.perf_counter() - started, 1),
                "cpu_s": round(sum(os.times()[:4]) - computing, 1),
                "threads": torch_threads(),
                **facts(),
            }
            append("quality", record)
            figures = {name: value["value"] for name, value in found["metrics"].items()}
            figures["valid"] = found.get("valid")
            print(json.dumps({"tool": arguments.tool, "seed": seed, **figures, "wall_s": record["wall_s"]}), flush=True)


if __name__ == "__main__":
    main()
