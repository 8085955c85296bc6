"""From the best weights to the evaluation, the report and a bundle that was proved in a fresh process."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headrace.bundle import prove_in_fresh_process, save_bundle
from headrace.data.labels import label_counts
from headrace.errors import RunError
from headrace.matmul import DEFAULT
from headrace.metrics import decisions
from headrace.recipe import Recipe
from headrace.report import REPORT, error_rows, versions, write_errors, write_page, write_report
from headrace.tables import write_rows
from headrace.train.checkpoints import best_weights
from headrace.train.evidence import Evaluated, evaluated, evidence_of
from headrace.train.fit import Run
from headrace.train.language.nested import BACKWARD_FOLDER, nested_report, tell_read_share
from headrace.train.memory import peak_device_bytes
from headrace.train.progress import duration
from headrace.train.resume import Progress
from headrace.train.sample import Sample
from headrace.train.session import Session
from headrace.train.trainer import evaluation_device

PROOF_TEXTS = 32


def finish(session: Session, *, recipe: Recipe, forecast: Mapping[str, Any]) -> Run:
    """Evaluate the best checkpoint, save and prove the bundle, write the report; return the finished run.

    Args:
        session: Trained.
        recipe: Its recipe.
        forecast: What `foretold` returned before the training.
    """
    progress = session.result()
    if progress is None or progress.best is None:
        raise RunError("training left no weights", where=str(session.folder.path), next="run the same command again")
    model = session.module.model
    model.load_state_dict(best_weights(session.folder.checkpoints, progress.best))
    model.backbone.end_training()
    device = torch.device("cpu") if session.is_classical else evaluation_device(session.recipe.trainer)
    model.to(device).eval()
    timing = timing_of(progress)

    started = time.perf_counter()
    found = evaluated(session)
    model.cpu()  # the fresh process of the proof computes on the CPU
    timing["evaluate_s"] = time.perf_counter() - started
    folder = session.folder.path
    write_predictions(session, found)
    rows = error_rows(
        found.part.examples, found.part.targets, found.scores, labels=session.prepared.labels, threshold=found.limits
    )
    write_errors(folder / "errors.csv", rows)
    _save_and_prove(session, recipe, found)
    before = _told_before(folder)
    timing["peak_memory_bytes"] = max(peak_memory_bytes(), before.get("peak_memory_bytes", 0))
    timing["peak_device_bytes"] = max(peak_device_bytes() or 0, before.get("peak_device_bytes", 0)) or None
    data = data_summary(session)
    data["training"] = {
        "history": progress.history,
        "best": asdict(progress.best),
        "precision": "fp32" if session.is_classical else session.precision(session.phases[-1])[0],
    }
    started = time.perf_counter()
    evidence = evidence_of(session, found, progress=progress, change=session.initial_sample.change(Sample.of(model)))
    timing["evidence_s"] = time.perf_counter() - started
    if recipe.values.language_model is not None:
        evidence["language_model"] = nested_report(folder)
        evidence["language_model_backward"] = nested_report(folder, BACKWARD_FOLDER)
        tell_read_share(recipe.values, found.part, evidence["language_model"], evidence["language_model_backward"])
    actual = {f"actual_{key}": timing[key] for key in ("fit_s", "peak_memory_bytes", "peak_device_bytes")}
    evidence["forecast"] = {**forecast, **actual}
    write_report(
        folder,
        evaluation=found.evaluation,
        timing=timing,
        data=data,
        recipe=recipe.as_dict(),
        versions=versions(),
        name=recipe.name,
        findings=[asdict(finding) for finding in session.prepared.findings],
        **evidence,
    )
    write_page(folder, json.loads((folder / REPORT).read_text("utf-8")))
    return Run(folder, session.folder.bundle, found.evaluation, session.prepared.findings, timing)


def timing_of(progress: Progress) -> dict[str, Any]:
    """Return `fit_s` (optimizer steps, loading included, validation and saving excluded) and the rate."""
    return {
        "fit_s": progress.fit_s,
        "train_texts_per_s": progress.n_texts / progress.fit_s if progress.fit_s else None,
        "n_steps": progress.total,
    }


def write_predictions(session: Session, found: Evaluated) -> None:
    """Write predictions.parquet: row, label, predicted and one score per label, in the split's order."""
    part, scores = found.part, found.scores
    names = session.prepared.labels.names
    multi_label = session.module.kind == "multi_label"
    decided = decisions(scores, multi_label=multi_label, threshold=found.limits)
    kind: type = list if multi_label else str
    columns = {"row": int, "label": kind, "predicted": kind, **{f"score_{name}": float for name in names}}

    def named(value: Any) -> Any:
        return [names[i] for i in np.flatnonzero(value)] if multi_label else names[int(value)]

    def rows() -> Iterator[Sequence[Any]]:
        for start, stop in part.examples.batches():
            numbers = part.examples.column("row", start, stop)
            for place, number in zip(range(start, stop), numbers, strict=True):
                yield (number, named(part.targets[place]), named(decided[place]), *map(float, scores[place]))

    write_rows(session.folder.path / "predictions.parquet", columns, rows())


def _save_and_prove(session: Session, recipe: Recipe, found: Evaluated) -> None:
    prepared, folder = session.prepared, session.folder
    data = session.recipe.data
    bundle = save_bundle(
        folder.bundle,
        classifier=session.module.model,
        subwords=prepared.subwords,
        task=session.recipe.task,
        text={
            "max_length": data.max_length,
            "truncate": data.truncate,
            "is_pair": prepared.train.examples.is_pair,
            "columns": [data.text] if isinstance(data.text, str) else list(data.text),
            "label_columns": [data.label] if isinstance(data.label, str) else list(data.label),
            "separator": data.label_separator,
        },
        threshold=None,
        decision=found.choice.decision.as_dict(),
        recipe_yaml=recipe.to_yaml(),
        data={"fingerprints": prepared.fingerprints()},
        versions=versions(),
        metrics=found.evaluation.as_dict()["metrics"],
    )
    part = prepared.test or prepared.valid
    texts = part.examples.texts(0, min(PROOF_TEXTS, len(part)))
    started = time.perf_counter()
    prove_in_fresh_process(folder.bundle, texts, bundle.scores(texts, route=DEFAULT))
    session.say(f"the bundle gives bit-equal scores in a fresh process ({duration(time.perf_counter() - started)})")


def data_summary(session: Session) -> dict[str, Any]:
    """Return counts, lengths and fingerprints of each split for report.json."""
    prepared = session.prepared
    parts = {}
    for part in prepared.parts:
        full = np.asarray(part.store.full_lengths)[part.rows]
        parts[part.name] = {
            "source": part.examples.source,
            "rows": len(part),
            "labels": label_counts(part.examples, prepared.labels),
            "mean_tokens": float(part.lengths.mean()),
            "cut_share": float((full > part.lengths).mean()),
            "replaced_characters": part.examples.n_replaced,
        }
    return {"splits": parts, "fingerprints": prepared.fingerprints(), "bad_rows": prepared.n_bad_rows}


def _told_before(folder: Path) -> Mapping[str, int]:
    """Return the sizes in the folder's report: of the process that trained, where this one only evaluates anew."""
    try:
        timing = dict(json.loads((folder / REPORT).read_text("utf-8"))["timing"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {key: value for key, value in timing.items() if isinstance(value, int)}


def peak_memory_bytes() -> int:
    """Return the largest resident size of this process and its finished children, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) * unit
