"""`fit` of a recipe with `task: language_model`: from texts to a proved bundle."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.data.audit import Finding
from headrace.evaluation import Evaluation
from headrace.files import write_json, write_text
from headrace.recipe import Recipe
from headrace.recipe.schema import RecipeValues
from headrace.train.fit import Run, stop_at_findings, tell_findings, telling
from headrace.train.language.findings import language_findings
from headrace.train.language.prepare import LanguageData, prepare_language
from headrace.train.progress import Echo, duration
from headrace.train.run import RunFolder
from headrace.train.signals import Signals
from headrace.train.standing import clear, identity, marks, report_of, unchanged_report, write_bad_rows


def fit_language_model(
    recipe: Recipe,
    folder: RunFolder,
    signals: Signals,
    say: Echo,
    *,
    force: bool = False,
    keeps_same: bool = False,
    strict: bool = False,
) -> Run:
    """Train a language model, measure it, and write a bundle that was proved in a fresh process.

    Args:
        recipe: With `task: language_model`.
        folder: Locked by the caller.
        signals: Watched by the caller.
        say: Takes each line that a person should see.
        force: Start anew in a folder that holds another run.
        keeps_same: With `force`, go on with (or keep) a run that is the very same.
        strict: Stop with exit code 1 when the audit of the texts finds something.

    Raises:
        HeadraceError: What is wrong, where, and what to do next.
    """
    values = recipe.values
    started = time.perf_counter()
    done = None if force and not keeps_same else _finished(recipe, folder)
    if done is not None:
        say(f"already finished: {folder.path} holds this run; nothing was trained")
        stop_at_findings(done.findings, strict=strict)
        return done
    prepared, findings = _looked_over(values, say, strict=strict)

    from headrace.train.language.finish import finish_language_model
    from headrace.train.language.model import weights_lines
    from headrace.train.language.training import LanguageTraining

    training = LanguageTraining(recipe=values, prepared=prepared, folder=folder, signals=signals, say=say)
    own = identity(values, prepared.fingerprints(), training.initial_sha256)
    for line in weights_lines(values, training.module.model):
        say(line)
    if force and not (keeps_same and folder.identity() == own):
        clear(folder)
    folder.refuse_other(own)
    report = report_of(folder)
    folder.set_identity(own)
    write_text(folder.recipe, recipe.to_yaml())
    write_json(folder.path / "sources.json", marks(values))
    if report is not None and training.result() is not None:
        say(f"already finished: {folder.path} holds this run; nothing was trained")
        return _run(folder, report, findings)
    folder.set_status("preparing")
    write_bad_rows(folder, prepared.bad_rows, prepared.n_bad_rows)
    training.train()
    folder.set_status("evaluating")
    run = finish_language_model(training, recipe=recipe, findings=findings)
    folder.set_status("finished")
    say(f"finished in {duration(time.perf_counter() - started)}: {folder.path}")
    return run


def _looked_over(values: RecipeValues, say: Echo, *, strict: bool) -> tuple[LanguageData, tuple[Finding, ...]]:
    """Return the texts and what the audit finds in them, and say what a person should know of both."""
    from headrace.train.language.training import check_language_settings

    check_language_settings(values)
    prepared = prepare_language(values, progress=telling(say))
    for line in counts_lines(prepared):
        say(line)
    findings = language_findings(values, prepared)
    tell_findings(findings, say, strict=strict)
    return prepared, findings


def counts_lines(prepared: LanguageData) -> list[str]:
    """Return what a person should know of the texts: files, splits, words, and whether test texts are among them."""
    files = ", ".join(f"{Path(file.source).name} ({len(file):,} texts)" for file in prepared.train.files)
    splits = ", ".join(f"{len(part):,} {part.name} ({part.corpus.n_tokens:,} tokens)" for part in prepared.parts)
    words, unknown = prepared.tokenizer.vocabulary_size, prepared.valid.corpus.unknown_share
    lines = [
        f"training texts from {files}; no label is read",
        f"{splits}; {words:,} words, {unknown:.2%} of the validation tokens unknown",
    ]
    if prepared.test_share:
        lines.append(f"note: {prepared.test_share:.1%} of the test texts stand among the training texts, too")
    return lines


def _finished(recipe: Recipe, folder: RunFolder) -> Run | None:
    """Return the finished run if nothing of it has changed, without reading data or model again."""
    report = unchanged_report(recipe, folder)
    if report is None:
        return None
    return _run(folder, report, tuple(map(Finding.of, report["findings"])))


def _run(folder: RunFolder, report: Mapping[str, Any], findings: tuple[Finding, ...]) -> Run:
    """Return the run that was finished before."""
    return Run(folder.path, folder.bundle, Evaluation.from_dict(report), findings, report["timing"], True)
