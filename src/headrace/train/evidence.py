"""What a run's report says beyond its metrics: decision, baseline, doctor, slices, leaks, curves, the worst errors."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from logging import getLogger
from typing import Any

import numpy as np

from headrace.baseline import Baseline, baseline_rows, fit_baseline, majority
from headrace.compare import Comparison, compare_scores
from headrace.data.kept import kept_arrays
from headrace.data.near import leaked_rows
from headrace.decide.calibration import NONE
from headrace.decide.choices import Choice, CrossFitted, DecideSettings
from headrace.decide.choose import choose_decision, cross_fitted
from headrace.decide.decision import Decision
from headrace.decide.report import decide_report
from headrace.doctor import Diagnosis, Facts, diagnose
from headrace.evaluate import evaluate
from headrace.evaluation import Evaluation
from headrace.metrics import MULTI_LABEL
from headrace.plugins import is_built_in
from headrace.predict import probabilities, score
from headrace.recipe.schema import RecipeValues
from headrace.slices import Slice, slices, token_columns
from headrace.train.prepare import Part
from headrace.train.ranked import curves_of
from headrace.train.resume import Progress
from headrace.train.session import Session
from headrace.train.summary import summary_of
from headrace.train.training import learning_scales
from headrace.train.worst import worst_errors

logger = getLogger(__name__)

THRESHOLDS_NOTE = (
    "the thresholds were chosen on these same rows, so figures of decided labels (F1, precision, recall) flatter them; "
    "the section on thresholds has them out of fold; data.test gives rows of their own"
)


@dataclass(frozen=True)
class Evaluated:
    """The evaluated split with all that was made of it.

    Attributes:
        part: Test, or validation where there is no test.
        logits: [rows, labels] float32.
        scores: [rows, labels] float32, calibrated where that is kept; of validation each row by what other rows fitted.
        limits: Thresholds of multi-label, float64 [labels]; None for a single label.
        choice: The decision, and how it was chosen on validation.
        held_out: What validation rows get from other validation rows; None where there is a test.
        valid_logits: [rows, labels] of validation.
    """

    part: Part
    logits: np.ndarray
    scores: np.ndarray
    limits: np.ndarray | None
    choice: Choice
    held_out: CrossFitted | None
    valid_logits: np.ndarray
    evaluation: Evaluation


def evaluated(session: Session) -> Evaluated:
    """Score validation and test with the module's weights, choose the decision, and evaluate."""
    prepared, kind = session.prepared, session.module.kind
    part = prepared.test or prepared.valid
    session.say(f"evaluating on {len(part):,} {part.name} rows")
    valid_logits = logits_of(session, prepared.valid)
    choice = choose_decision(
        valid_logits,
        prepared.valid.targets,
        labels=prepared.labels,
        task=kind,
        settings=decide_settings(session.recipe),
        seed=session.recipe.seed,
    )
    held_out = None
    if prepared.test is None:
        logits = valid_logits
        held_out = cross_fitted(logits, part.targets, choice=choice, seed=session.recipe.seed)
        if choice.decision.calibration.method == NONE:  # nothing was fitted: the task's own, as the bundle gives them
            held_out = replace(held_out, scores=probabilities(logits, session.recipe.task, choice.decision))
        scores = held_out.scores
    else:
        logits = logits_of(session, part)
        scores = probabilities(logits, session.recipe.task, choice.decision)
    limits = choice.decision.limits()
    evaluation = evaluate(part.targets, scores, labels=prepared.labels, task=kind, split=part.name, threshold=limits)
    if held_out is not None and choice.thresholds is not None and choice.thresholds.is_kept:
        evaluation = replace(evaluation, notes=(*evaluation.notes, THRESHOLDS_NOTE))
    return Evaluated(part, logits, scores, limits, choice, held_out, valid_logits, evaluation)


def decide_settings(values: RecipeValues) -> DecideSettings:
    """Return what a recipe asks of the decision; of a task of somebody's own the scores stay what that task makes."""
    decide = values.decide
    if not is_built_in("task", values.task):
        return DecideSettings(calibrate="none", threshold="default")
    rule: Any = decide.threshold
    if not isinstance(rule, str):
        rule = rule.model_dump(exclude_none=True)
    wished = decide.abstain
    if wished is None:
        return DecideSettings(calibrate=decide.calibrate, threshold=rule)
    return DecideSettings(
        calibrate=decide.calibrate, threshold=rule, error_rate=wished.error_rate, confidence=wished.confidence
    )


def logits_of(session: Session, part: Part) -> np.ndarray:
    """Return [rows, labels] float32 logits of a split, in its order."""
    last = [time.monotonic()]

    def told(done: int, total: int) -> None:
        if time.monotonic() - last[0] >= 10.0:
            last[0] = time.monotonic()
            session.say(f"scored {done:,} of {total:,} {part.name} rows")

    return score(session.module.model, part, **session.prepared.padding, progress=told)


def evidence_of(
    session: Session, found: Evaluated, *, progress: Progress, change: Mapping[str, float]
) -> dict[str, Any]:
    """Return the keys that a run's report.json has besides its evaluation, each in the form that its maker tells.

    Args:
        session: With the best weights.
        found: What `evaluated` returned.
        progress: How training went.
        change: See `Sample.change`.
    """
    prepared, values = session.prepared, session.recipe
    targets = found.part.targets
    beside = _baseline(session, found) if values.baseline else None
    always = majority(prepared.train.targets, targets, prepared.labels, session.module.kind)
    plain = Decision.plain(prepared.labels.names, task=session.module.kind)
    own = probabilities(found.logits, values.task, plain)
    summary = summary_of(session.data(), task=values.task, epochs=values.fit.epochs, max_length=values.data.max_length)
    return {
        "decide": decide_report(
            found.choice, found.logits, targets, held_out=found.held_out, own=own, seed=values.seed
        ),
        "baseline": None if beside is None else beside.report(always),
        "diagnoses": [one.as_dict() for one in _diagnoses(session, found, progress, beside, always, change)],
        "slices": [one.as_dict() for one in _slices(session, found)],
        "leaks": _leaks(session, found),
        "curves": curves_of(targets, found.scores, prepared.labels.names),
        "training_curve": progress.curve.as_dict(_scales(session, progress)),
        "errors": worst_errors(session, found.part, found.scores, found.limits),
        "check": summary,
    }


# -- the parts -----------------------------------------------------------------------------------------------------


def _scales(session: Session, progress: Progress) -> list[tuple[int, dict[str, float]]]:
    """Return the first step of each stage that was run, and each group's share of the top group's rate in it."""
    begun = zip(progress.begun, session.stages, strict=False)
    return [(first, dict(learning_scales(session.module, stage))) for (_, first), stage in begun]


@dataclass(frozen=True)
class Beside:
    """The baseline on the evaluated split."""

    fitted: Baseline
    evaluation: Evaluation
    verdict: Comparison

    def report(self, always: Mapping[str, Any]) -> dict[str, Any]:
        """Return what report.json holds under `baseline`."""
        return self.fitted.as_dict(self.evaluation, majority=always, verdict=self.verdict.as_dict())


def _baseline(session: Session, found: Evaluated) -> Beside | None:
    prepared, seed, kind = session.prepared, session.recipe.seed, session.module.kind
    train, valid, labels = prepared.train, prepared.valid, prepared.labels
    if len(np.unique(train.targets, axis=0)) < 2:
        logger.info("no baseline: all training rows have the same label")
        return None
    session.say("fitting the baseline: TF-IDF + logistic regression")
    rows = baseline_rows(len(train), n_labels=len(labels), seed=seed)
    texts = train.examples.take(rows).texts()
    fitted = fit_baseline(
        texts, train.targets[rows], valid.examples.texts(), valid.targets, labels, task=kind, seed=seed
    )
    fitted = replace(fitted, n_given=len(train))
    scores = fitted.scores(found.part.examples.texts())
    name = found.part.name
    evaluation = evaluate(found.part.targets, scores, labels=labels, task=kind, split=name)
    verdict = compare_scores(
        found.part.targets,
        scores,
        found.scores,
        labels=labels,
        task=kind,
        names=("TF-IDF", "the language model"),
        threshold_b=found.limits,
        seed=seed,
    )
    session.say(f"against TF-IDF + logistic regression: {verdict.sentence}")
    return Beside(fitted, evaluation, verdict)


def _diagnoses(
    session: Session,
    found: Evaluated,
    progress: Progress,
    beside: Beside | None,
    always: Mapping[str, Any],
    change: Mapping[str, float],
) -> list[Diagnosis]:
    from headrace.train.fit import monitored

    values, kind = session.recipe, session.module.kind
    phases = session.phases[: progress.stage + 1]
    monitor, larger = monitored(values)
    ranked = kind == MULTI_LABEL and "roc_auc_macro" in found.evaluation.metrics  # no label at all has an F1 of 0
    figure_name = "roc_auc_macro" if ranked else "accuracy"
    verdict = None if beside is None else beside.verdict.as_dict()
    if verdict is not None:  # the doctor's first is the run
        verdict["winner"] = {"a": "b", "b": "a"}.get(str(verdict["winner"]))
    valid = session.prepared.valid
    return diagnose(
        Facts(
            task=kind,
            labels=session.prepared.labels.names,
            split=found.part.name,
            targets=found.part.targets,
            scores=found.scores,
            valid_targets=valid.targets,
            valid_scores=probabilities(found.valid_logits, values.task, found.choice.decision),
            thresholds=found.choice.decision.threshold,
            monitor=monitor,
            larger_is_better=larger,
            history=progress.history,
            n_epochs=values.fit.epochs,
            curve=progress.curve.as_dict([]),
            learning_rate=max(phase.learning_rate for phase in phases),
            layer_decay=phases[-1].layer_decay,
            changes=change,
            fixed=_fixed(session, change),
            figure=found.evaluation.metrics[figure_name],
            figure_name=figure_name,
            majority=always["metrics"].get(figure_name),
            verdict=verdict,
        )
    )


def _fixed(session: Session, change: Mapping[str, float]) -> frozenset[str]:
    """Return the groups that were meant to stay: below a classical head, and what no stage lets learn."""
    if session.is_classical:
        return frozenset(name for name in change if name != "head")
    learning = [
        {name for name, scale in learning_scales(session.module, stage).items() if scale > 0}
        for stage in session.stages
    ]
    return frozenset(change) - set().union(*learning)


def _slices(session: Session, found: Evaluated) -> list[Slice]:
    part = found.part
    columns = token_columns(part.lengths, np.asarray(part.store.full_lengths)[part.rows])
    return slices(
        {**columns, **part.examples.slices()},
        part.targets,
        found.scores,
        task=session.module.kind,
        labels=session.prepared.labels,
        threshold=found.limits,
        seed=session.recipe.seed,
    )


def _leaks(session: Session, found: Evaluated) -> dict[str, Any] | None:
    """Return the metrics without the rows whose text training has seen; None without such rows."""
    train, part, labels = session.prepared.train.examples, found.part, session.prepared.labels
    exact, near = kept_arrays(
        session.cache,
        "leaks",
        train.content_key(),
        part.examples.content_key(),
        compute=lambda: leaked_rows(train, part.examples),
    )
    if not len(exact) and not len(near):
        return None
    clean = np.setdiff1d(np.arange(len(part)), np.concatenate([exact, near]))
    leaks: dict[str, Any] = {"n_exact": len(exact), "n_near": len(near), "n_rows_without": len(clean)}
    if not len(clean):
        return {**leaks, "metrics_without": {}}
    without = evaluate(
        part.targets[clean],
        found.scores[clean],
        labels=labels,
        task=session.module.kind,
        split=part.name,
        threshold=found.limits,
    )
    return {**leaks, "metrics_without": without.as_dict()["metrics"]}
