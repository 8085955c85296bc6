"""From the best weights of a language model to its figures, its report and a bundle that was proved in a fresh process."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headrace.bundle import prove_in_fresh_process
from headrace.bundle.about import versions as bundle_versions
from headrace.bundle.language_model import LanguageAbout, LanguageModelBundle
from headrace.data.audit import Finding
from headrace.errors import RunError
from headrace.evaluation import Evaluation, Interval
from headrace.plugins import LANGUAGE_MODEL
from headrace.recipe import Recipe
from headrace.report import REPORT, versions, write_page, write_report
from headrace.train.checkpoints import best_weights
from headrace.train.finish import peak_memory_bytes
from headrace.train.fit import Run
from headrace.train.language.measure import measure
from headrace.train.language.module import perplexity
from headrace.train.language.prepare import LanguageData, Texts, columns_of, max_length_of
from headrace.train.language.training import LanguageTraining
from headrace.train.memory import peak_device_bytes
from headrace.train.progress import duration
from headrace.train.resume import Progress
from headrace.train.trainer import evaluation_device
from headrace.train.training import learning_scales

PROOF_TEXTS = 8


def finish_language_model(training: LanguageTraining, *, recipe: Recipe, findings: tuple[Finding, ...]) -> Run:
    """Measure the best checkpoint, save and prove the bundle, write the report; return the finished run."""
    progress = training.result()
    folder = training.folder
    if progress is None or progress.best is None:
        raise RunError("training left no weights", where=str(folder.path), next="run the same command again")
    model = training.module.model
    model.load_state_dict(best_weights(folder.checkpoints, progress.best))
    model.backbone.end_training()
    started = time.perf_counter()
    evaluation = _evaluated(training, progress)
    timing = _timing(progress, time.perf_counter() - started)
    model.cpu().eval()  # the fresh process of the proof computes on the CPU
    bundle = _save_and_prove(training, recipe, evaluation)
    timing["peak_memory_bytes"] = peak_memory_bytes()
    timing["peak_device_bytes"] = peak_device_bytes()
    data = data_summary(training.prepared)
    data["weights"] = dict(getattr(model.backbone, "source", {}))
    data["training"] = {"history": with_perplexity(progress.history), "best": asdict(progress.best)}
    write_report(
        folder.path,
        evaluation=evaluation,
        timing=timing,
        data=data,
        recipe=recipe.as_dict(),
        versions=versions(),
        name=recipe.name,
        kind=model.kind,
        training_curve=_curve(training, progress),
        findings=[asdict(finding) for finding in findings],
    )
    write_page(folder.path, json.loads((folder.path / REPORT).read_text("utf-8")))
    return Run(folder.path, bundle, evaluation, findings, timing)


def _curve(training: LanguageTraining, progress: Progress) -> dict[str, Any]:
    """Return loss and rates by step, as report.json shows them."""
    begun = zip(progress.begun, training.stages, strict=False)
    return progress.curve.as_dict(
        [(first, dict(learning_scales(training.module, stage))) for (_, first), stage in begun]
    )


def _evaluated(training: LanguageTraining, progress: Progress) -> Evaluation:
    """Return the figures of the test texts if there are any, else those of validation, of the weights that are kept."""
    part = training.prepared.test or training.prepared.valid
    step = progress.best.step if progress.best is not None else -1
    of_best = [record["valid"] for record in progress.history if record["step"] == step and record["valid"]]
    device = evaluation_device(training.recipe.trainer)
    training.module.model.to(device)
    if part.name == "valid" and of_best:
        metrics, n_tokens = dict(of_best[-1]), _n_predicted(training)
    else:
        metrics, n_tokens = measure(training.module.model, training.steps_of(part), device=device)
    shown = {name: Interval(value) for name, value in metrics.items()}
    return Evaluation(LANGUAGE_MODEL, (), n_tokens, part.name, shown, {})


def _n_predicted(training: LanguageTraining) -> int:
    """Return how many tokens a validation predicts."""
    steps = training.steps_of(training.prepared.valid)
    batches: Any = steps.validation()
    return sum(batches[number].targets.numel() for number in range(len(batches)))


def _timing(progress: Progress, evaluate_s: float) -> dict[str, Any]:
    rate = progress.n_texts / progress.fit_s if progress.fit_s else None
    return {
        "fit_s": progress.fit_s,
        "train_tokens_per_s": rate,
        "n_steps": progress.total,
        "n_tokens": progress.n_texts,
        "evaluate_s": evaluate_s,
    }


def _save_and_prove(training: LanguageTraining, recipe: Recipe, evaluation: Evaluation) -> Path:
    prepared, folder = training.prepared, training.folder
    values = training.recipe
    about = LanguageAbout(
        columns=columns_of(values),
        max_length=max_length_of(values),
        truncate=values.data.truncate,
        data={"fingerprints": prepared.fingerprints(), "files": files_of(prepared.train)},
        versions=bundle_versions(),
        metrics={name: found.value for name, found in evaluation.metrics.items()},
    )
    bundle = LanguageModelBundle(
        training.module.model, prepared.tokenizer, about, folder=folder.bundle, recipe=recipe.to_yaml()
    )
    bundle.save(folder.bundle)
    texts = prepared.valid.texts(PROOF_TEXTS)
    started = time.perf_counter()
    prove_in_fresh_process(folder.bundle, texts, bundle.scores(texts))
    training.say(f"the bundle gives bit-equal losses in a fresh process ({duration(time.perf_counter() - started)})")
    return folder.bundle


def data_summary(prepared: LanguageData) -> dict[str, Any]:
    """Return files, splits, words and fingerprints for report.json."""
    return {
        "splits": {
            part.name: {
                "rows": len(part),
                "tokens": part.corpus.n_tokens,
                "mean_tokens": float(part.corpus.lengths.mean()),
                "longest": int(part.corpus.lengths.max()),
                "cut_share": part.corpus.cut_share,
                "unknown_share": part.corpus.unknown_share,
                "files": files_of(part),
            }
            for part in prepared.parts
        },
        "words": prepared.tokenizer.vocabulary_size,
        "test_texts_in_training": prepared.test_share,
        "fingerprints": prepared.fingerprints(),
        "bad_rows": prepared.n_bad_rows,
    }


def files_of(part: Texts) -> list[dict[str, Any]]:
    """Return each file of a split, and how many of its texts stand there."""
    return [{"source": file.source, "rows": len(file)} for file in part.files]


def with_perplexity(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the epochs with the training loss as perplexity beside it."""
    found = []
    for record in history:
        train: Mapping[str, Any] = record.get("train") or {}
        told = {**train, "perplexity": perplexity(float(record["train_loss"]))} if "perplexity" not in train else train
        found.append({**record, "train": dict(told)})
    return found
