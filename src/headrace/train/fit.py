"""`fit` from a recipe to a proved bundle, reading top to bottom as it happens."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from headrace.data.audit import Finding
from headrace.data.balance import class_weights, pos_weight
from headrace.data.read import Columns
from headrace.doctor import Facts, diagnose
from headrace.errors import HeadraceError, Interrupted, RecipeError, TrainingStopped
from headrace.evaluation import Evaluation
from headrace.files import write_json, write_text
from headrace.metrics import METRICS
from headrace.plugins import LANGUAGE_MODEL, kind_of_task
from headrace.recipe import Recipe, load_recipe
from headrace.recipe.schema import RecipeValues, TrainSettings
from headrace.train.given import with_files, with_sources
from headrace.train.places import refuse_misplaced
from headrace.train.prepare import Prepared, prepare
from headrace.train.progress import Echo, duration
from headrace.train.rows import DataPlan, read_rows
from headrace.train.run import RunFolder, default_folder
from headrace.train.signals import Signals
from headrace.train.standing import (
    clear,
    evaluated_so,
    identity,
    marks,
    report_of,
    unchanged_report,
    write_bad_rows,
)
from headrace.train.tokenizers import tokenizer_place

TOLD_EVERY_S = 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Holds recipe.yaml, status.json, report.json, errors.csv, predictions.parquet, bundle/.
        bundle: The classifier's folder.
        evaluation: On the test data if there are any, else on validation.
        findings: What the audit of the data found.
        timing: `fit_s`, `train_texts_per_s`, `peak_memory_bytes` and others.
        was_finished: The run had been finished before this call; nothing was trained.
    """

    folder: Path
    bundle: Path
    evaluation: Evaluation
    findings: tuple[Finding, ...] = field(default=())
    timing: Mapping[str, Any] = field(default_factory=dict)
    was_finished: bool = False


def fit(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    *,
    train: Any = None,
    valid: Any = None,
    test: Any = None,
    out: str | Path | None = None,
    overrides: Iterable[str] = (),
    force: bool = False,
    strict: bool = False,
    echo: Echo | None = None,
) -> Run:
    """Train a classifier (or a language model), evaluate it, and write a bundle that was proved in a fresh process.

    The same call goes on where an earlier one was interrupted, and does nothing when it was finished.

    Args:
        recipe: A file, the name of a shipped recipe, a mapping, or a Recipe.
        train, valid, test: Instead of the recipe's: files, lists of dicts, DataFrames or `datasets.Dataset`, with the
            recipe's columns. What is not given is as the recipe has it.
        out: The run's folder; by default `runs/` and the recipe's name.
        overrides: `fit.epochs=5` and the like.
        force: Start anew in a folder that holds another run; its checkpoints and bundle are removed. A language model
            before the classifier is kept if nothing has changed that it depends on.
        strict: Stop with exit code 1 when the audit finds something.
        echo: Takes each line that a person should see; by default they go to the error stream.

    Raises:
        HeadraceError: What is wrong, where, and what to do next.
    """
    say = echo or say_to_stderr
    resolved = load_recipe(recipe, overrides=overrides)
    folder = RunFolder(Path(out) if out is not None else default_folder(resolved))
    signals = Signals()
    with signals.watched(), folder.lock():
        try:
            with resolved.locating(), signals.heeded():
                if resolved.values.task == LANGUAGE_MODEL:
                    from headrace.train.language.fit import fit_language_model

                    resolved = with_files(resolved, {"train": train, "valid": valid, "test": test})
                    return fit_language_model(resolved, folder, signals, say, force=force, strict=strict)
                resolved = with_sources(
                    resolved,
                    {"train": train, "valid": valid, "test": test},
                    folder.path,
                    data_plan(resolved.values).columns,
                )
                return _fit(resolved, folder, signals, say, force=force, strict=strict)
        except BaseException as error:
            tell_status(folder, error, resolved.values, say)
            raise


def tell_status(folder: RunFolder, error: BaseException, values: RecipeValues, say: Echo) -> None:
    """Write what ended the run, and what the doctor thinks of it; a call refused before it touched the run writes nothing."""
    if folder.status().get("state") not in ("preparing", "training", "evaluating"):
        return
    if isinstance(error, Interrupted | KeyboardInterrupt):
        folder.set_status("interrupted")
    elif isinstance(error, TrainingStopped):
        rate = max(phase.learning_rate for phase in values.fit.phases)
        diagnoses = diagnose(Facts(stopped=error.what, learning_rate=rate))
        for one in diagnoses:
            say(f"doctor: {one.what}")
            say(f"  next: {one.next}")
        folder.set_status("stopped", **error.as_dict(), diagnoses=[one.as_dict() for one in diagnoses])
    elif isinstance(error, HeadraceError):
        folder.set_status("failed", **error.as_dict())
    else:
        folder.set_status("failed", what=repr(error))


def _fit(recipe: Recipe, folder: RunFolder, signals: Signals, say: Echo, *, force: bool, strict: bool) -> Run:
    values = recipe.values
    started = time.perf_counter()
    done = None if force else _finished(recipe, folder)
    if done is not None:
        say(f"already finished: {folder.path} holds this run; nothing was trained")
        stop_at_findings(done.findings, strict=strict)
        return done
    check_settings(values)
    if values.language_model is not None:
        from headrace.train.language.nested import fit_before_classifier
        from headrace.train.rehearse import rehearse

        rows = read_rows(data_plan(values), progress=telling(say))
        stop_at_findings(rows.findings, strict=strict)
        rehearse(values, rows.labels, progress=telling(say))
        values = fit_before_classifier(recipe, folder, signals, say, force=force, strict=strict)

    prepared = prepare(data_plan(values), progress=telling(say))
    say(_counts_line(prepared))
    tell_findings(prepared.findings, say, strict=strict)

    # Lightning and the model are imported only when the data have been found good.
    from headrace.train.checkpoints import best_file
    from headrace.train.finish import finish
    from headrace.train.foretold import foretold
    from headrace.train.language.model import matched_line
    from headrace.train.session import Session

    session = Session(recipe=values, prepared=prepared, folder=folder, signals=signals, say=say)
    own = identity(recipe.values, prepared.fingerprints(), session.initial_sha256)
    known = matched_line(values, session.module.model.backbone)
    if known is not None:
        say(known)
    _ = session.initial_sample  # taken now: afterwards the weights have moved
    if force:
        clear(folder)
    folder.refuse_other(own)
    report, ended = report_of(folder), session.result()
    is_done = report is not None and ended is not None and evaluated_so(values, report)
    if ended is not None and ended.best is not None and not is_done:
        best_file(folder.checkpoints, ended.best)  # without it a finished run stays as it is
    folder.set_identity(own)
    write_text(folder.recipe, recipe.to_yaml())
    write_json(folder.path / "sources.json", marks(recipe.values))
    if report is not None and is_done:
        say(f"already finished: {folder.path} holds this run; nothing was trained")
        return Run(folder.path, folder.bundle, Evaluation.from_dict(report), prepared.findings, report["timing"], True)

    folder.set_status("preparing")
    write_bad_rows(folder, prepared.bad_rows, prepared.n_bad_rows)
    expected = foretold(session)
    session.train()
    folder.set_status("evaluating")
    run = finish(session, recipe=recipe, forecast=expected)
    folder.set_status("finished")
    say(f"finished in {duration(time.perf_counter() - started)}: {folder.path}")
    return run


class FindingsError(HeadraceError):
    """Findings of the audit, under --strict."""

    exit_code = 1


def tell_findings(findings: Iterable[Finding], say: Echo, *, strict: bool) -> None:
    """Say what the audit has found.

    Raises:
        HeadraceError: It is serious, and `strict` holds.
    """
    for finding in findings:
        say(f"{finding.severity}: {finding.what}")
    stop_at_findings(findings, strict=strict)


def stop_at_findings(findings: Iterable[Finding], *, strict: bool) -> None:
    """Stop, with exit code 1, at what the audit has found.

    Raises:
        HeadraceError: It is serious, and `strict` holds.
    """
    serious = [finding for finding in findings if finding.severity != "note"]
    if strict and serious:
        raise FindingsError(
            f"the data have {len(serious)} finding(s), and --strict stops at them",
            where="; ".join(finding.code for finding in serious),
            next="`headrace check` shows them; data.allow accepts a finding by its code",
        )


def _finished(recipe: Recipe, folder: RunFolder) -> Run | None:
    """Return the finished run if nothing of it has changed, without reading data or model again."""
    report = unchanged_report(recipe, folder)
    if report is None or not evaluated_so(recipe.values, report):
        return None
    findings = tuple(map(Finding.of, report["findings"]))
    return Run(folder.path, folder.bundle, Evaluation.from_dict(report), findings, report["timing"], True)


# -- from the recipe to plain values ------------------------------------------------------------------------------


def data_plan(values: RecipeValues) -> DataPlan:
    """Return what `prepare` needs, from a recipe."""
    data = values.data
    columns = Columns(
        text=(data.text,) if isinstance(data.text, str) else tuple(data.text),
        label=(data.label,) if isinstance(data.label, str) else tuple(data.label),
        separator=data.label_separator,
        multi_label=kind_of_task(values.task) == "multi_label",
        labels=tuple(data.labels or ()),
        slices=tuple(data.slices),
    )
    share = data.valid_share
    return DataPlan(
        train=data.train,
        valid=None if share is not None else data.valid,
        test=data.test,
        valid_share=share if share is not None else 0.1,
        columns=columns,
        tokenizer=tokenizer_place(values.backbone.name),
        revision=values.backbone.revision,
        url=data.url,
        sha256=data.sha256,
        max_length=data.max_length,
        truncate=data.truncate,
        limit=data.limit,
        downsample=data.downsample.model_dump() if data.downsample else None,
        on_bad_row=data.on_bad_row,
        encoding=data.encoding,
        allow=tuple(data.allow),
        seed=values.seed,
    )


def refuse_language_model(values: RecipeValues, what: str) -> None:
    """Refuse a recipe without labels where labels are needed.

    Raises:
        RecipeError: Its task is `language_model`.
    """
    if values.task == LANGUAGE_MODEL:
        raise RecipeError(
            f"{what} is for classifiers, and this recipe trains a language model",
            where="task: language_model",
            next="train it with `headrace fit`; its best epoch is picked by fit.monitor",
        )


def check_settings(values: RecipeValues) -> None:
    """Refuse what only training would stumble over, before data are read.

    Raises:
        RecipeError: A figure, a logger or an argument of the Trainer does not exist, or the backbone is no model.
    """
    monitored(values)
    for number, phase in enumerate(values.fit.phases, start=1):
        early_stopping(values, phase, where=f"fit.stages, stage {number}" if values.fit.stages else None)
    refuse_misplaced(values)
    if values.trainer or values.logger not in ("tensorboard", "none"):
        from headrace.train.loggers import check_loggers
        from headrace.train.trainer import check_trainer_arguments

        check_trainer_arguments(values.trainer)
        check_loggers(values.logger)


def monitored(values: RecipeValues) -> tuple[str, bool]:
    """Return the figure that picks the best checkpoint, and whether larger is better."""
    return _metric(values, values.fit.monitor, "fit.monitor")


def _metric(values: RecipeValues, name: str, where: str) -> tuple[str, bool]:
    kind = kind_of_task(values.task)
    if name == "auto":
        name = "roc_auc_macro" if kind == "multi_label" else "accuracy"
    if name == "loss":
        return name, False
    known = METRICS[kind]
    if name not in known:
        raise RecipeError(
            f"{name!r} is not a figure of validation for {values.task}",
            where=where,
            next=f"one of: loss, {', '.join(known)}",
        )
    return name, known[name]


def early_stopping(values: RecipeValues, phase: TrainSettings, *, where: str | None = None) -> tuple[str, bool] | None:
    """Return the figure that a stage's early stopping watches, and whether larger is better; None without it."""
    setting = phase.early_stopping
    if setting is None:
        return None
    return _metric(values, setting.monitor or values.fit.monitor, where or "fit.early_stopping.monitor")


def loss_weights(fit_values: TrainSettings, prepared: Prepared) -> dict[str, Any]:
    """Return the loss's settings; `balanced` weights come from the training rows alone."""
    labels = prepared.labels
    found: dict[str, Any] = {"label_smoothing": fit_values.label_smoothing}
    if fit_values.class_weights == "balanced":
        found["class_weights"] = class_weights(prepared.train.targets, len(labels)).tolist()
    elif fit_values.class_weights is not None:
        found["class_weights"] = weights_by_label(fit_values.class_weights, labels.names, "fit.class_weights")
    if fit_values.pos_weight == "balanced":
        found["pos_weight"] = pos_weight(prepared.train.targets).tolist()
    elif fit_values.pos_weight is not None:
        found["pos_weight"] = weights_by_label(fit_values.pos_weight, labels.names, "fit.pos_weight")
    return found


def weights_by_label(weights: Mapping[str, float], names: tuple[str, ...], where: str) -> list[float]:
    """Return the weight of each label, 1 where none is given.

    Raises:
        RecipeError: There is no such label.
    """
    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise RecipeError(f"there is no label {unknown[0]!r}", where=where, next=f"labels: {', '.join(names)}")
    return [float(weights.get(name, 1.0)) for name in names]


# -- what a person sees -------------------------------------------------------------------------------------------


def say_to_stderr(line: str) -> None:
    """Write a line to the error stream, beside a bar that may be there."""
    tqdm.write(line, file=sys.stderr)


def telling(say: Echo) -> Callable[[str, int, int], None]:
    """Tell long work about every five seconds; a total of 0 is one that nobody knows."""
    last = [time.monotonic()]

    def tell(what: str, done: int, total: int) -> None:
        if time.monotonic() - last[0] >= TOLD_EVERY_S:
            last[0] = time.monotonic()
            say(f"{what}: {done:,} of {total:,}" if total else f"{what}: {done:,}")

    return tell


def _counts_line(prepared: Prepared) -> str:
    parts = ", ".join(f"{len(part):,} {part.name}" for part in prepared.parts)
    lengths = prepared.train.lengths
    full = np.asarray(prepared.train.store.full_lengths)[prepared.train.rows]
    cut = float((full > lengths).mean())
    return f"{parts} rows; {len(prepared.labels)} labels; {lengths.mean():.0f} tokens a text, {cut:.1%} cut"
