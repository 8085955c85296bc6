"""Chooses a decision on validation: what is fitted is kept only where it helps on rows that did not fit it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from headrace.data.examples import LabelSet
from headrace.decide.abstain import Certificate, certify, confidence_of, fewest_rows
from headrace.decide.calibration import ISOTONIC, NONE, PLATT, TEMPERATURE, Calibration
from headrace.decide.choices import (
    AUTO,
    DEFAULT_RULE,
    CalibrationChoice,
    Choice,
    CrossFitted,
    DecideSettings,
    ThresholdChoice,
)
from headrace.decide.decision import Decision
from headrace.decide.fitting import ISOTONIC_MIN_KIND, ISOTONIC_MIN_ROWS, MIN_KIND, fit_calibration
from headrace.decide.folds import N_FOLDS, parts, stratified_folds
from headrace.decide.thresholds import (
    DEFAULT,
    PRECISION,
    Gain,
    Rule,
    fit_thresholds,
    out_of_fold_thresholds,
    precise_thresholds,
    thresholds_gain,
)
from headrace.errors import DataError
from headrace.metrics import MULTI_LABEL, SINGLE_LABEL, is_correct, one_column_per_label, row_losses

__all__ = [
    "CalibrationChoice",
    "Choice",
    "CrossFitted",
    "DecideSettings",
    "ThresholdChoice",
    "choose_decision",
    "cross_fitted",
    "cross_fitted_scores",
]

#: Fewer validation rows fit nothing.
MIN_ROWS_TO_FIT = 50
#: Repeats of the cross-validation: 5, or 2 from so many rows x labels, where folds differ little.
N_REPEATS, N_REPEATS_LARGE, LARGE_CELLS = 5, 2, 100_000
#: The share of validation that picks the candidates of abstention, where nothing fitted can change an answer or the
#: order of confidences; and where it can: then this part fits everything, and the rest alone certifies.
SCOUT_SHARE, FIT_SHARE = 0.2, 0.5


def choose_decision(
    logits: np.ndarray,
    targets: np.ndarray,
    *,
    labels: LabelSet,
    task: str,
    settings: DecideSettings | None = None,
    seed: int = 0,
) -> Choice:
    """Return the decision for a model, chosen on rows that it was not trained on (validation).

    A calibration is kept only if the log loss falls by more than its standard error in repeated stratified 5-fold
    cross-validation, paired by row; thresholds only if their rule's objective rises by more than its own. Under
    `MIN_ROWS_TO_FIT` rows, or without two labels of 5 rows, nothing is fitted.

    If abstention is wished, its guarantee (see `abstain.certify`) must not rest on rows that fitted what it certifies. With
    two exclusive labels a temperature changes neither an answer nor the order of confidences: all rows fit it, a random
    fifth picks the candidates, and the others certify. Otherwise a random half fits calibration and thresholds and picks
    the candidates, and the other half alone certifies. If nothing can be certified, all rows fit.
    The guarantee takes the weights as given: where the same rows also picked the checkpoint, it is as good as that pick.

    Args:
        logits: [rows, labels] of validation.
        targets: int64 [rows], or 0/1 [rows, labels].
        labels: The names of the columns.
        task: `single_label` or `multi_label`.
        settings: What to choose; all by itself, without abstention, if it is left out.
        seed: Of folds and splits.

    Raises:
        RecipeError: The settings do not suit the task.
        DataError: The shapes do not fit, or a logit is not finite.
    """
    settings = settings or DecideSettings()
    settings.suited(task, labels.names)
    logits, targets = _checked(logits, targets, n_labels=len(labels), task=task)
    fitting = _Fitting(logits, targets, labels, task, settings, seed)
    everything = np.ones(len(logits), dtype=bool)
    if settings.error_rate is None:
        return fitting.choice(everything)
    keeps_order = _keeps_order(task, len(labels), settings)
    share = SCOUT_SHARE if keeps_order else FIT_SHARE
    # not stratified: the certifying rows must be a plain random sample for their errors to be binomial
    scout = np.zeros(len(logits), dtype=bool)
    scout[np.random.default_rng(seed).permutation(len(logits))[: math.ceil(share * len(logits))]] = True
    if int((~scout).sum()) < fewest_rows(settings.error_rate, 1 - settings.confidence):
        keeps_order = True  # nothing can be certified, whoever fits
    choice = fitting.choice(everything if keeps_order else scout)
    scores = choice.decision.scores(logits)
    confidence = confidence_of(scores, choice.decision.limits())
    is_wrong = ~is_correct(targets, choice.decision.decided(scores))
    certificate = certify(
        confidence, is_wrong, scout=scout, error_rate=settings.error_rate, certainty=settings.confidence
    )
    if certificate.threshold is None and choice.n_fitted < len(logits):
        choice = fitting.choice(everything)
    return _certified(choice, certificate)


def cross_fitted(logits: np.ndarray, targets: np.ndarray, *, choice: Choice, seed: int = 0) -> CrossFitted:
    """Return honest scores and thresholds of the validation rows themselves, for when they are evaluated, too.

    Each fifth of the rows gets what the chosen methods make of the other four. Without anything fitted it is
    the plain decision's scores.

    Args:
        logits: [rows, labels] of validation, as `choose_decision` had them.
        targets: Of validation.
        choice: What `choose_decision` returned.
        seed: Of the folds.
    """
    decision = choice.decision
    scores = cross_fitted_scores(logits, targets, method=decision.calibration.method, seed=seed)
    if decision.thresholds is None or choice.thresholds is None:
        return CrossFitted(scores, None)
    if _follows_model(choice.thresholds):
        at_half = cross_fitted_scores(logits, targets, method=decision.calibration.method, seed=seed, at=0.0)
        return CrossFitted(scores, at_half.astype(np.float64))
    rule = Rule.of(choice.settings.threshold, decision.labels)
    return CrossFitted(scores, out_of_fold_thresholds(scores, targets, rule=rule, seed=seed))


def cross_fitted_scores(
    logits: np.ndarray, targets: np.ndarray, *, method: str, seed: int = 0, at: float | None = None
) -> np.ndarray:
    """Return scores of which each was calibrated by the rows of other folds alone, [rows, labels] float32.

    Args:
        logits: [rows, labels].
        targets: int64 [rows], or 0/1 [rows, labels].
        method: One of `calibration.METHODS` of the task.
        seed: Of the folds.
        at: Score this logit instead of the rows' own, with each row's calibration.
    """
    scored = logits if at is None else np.full_like(logits, at)
    task = MULTI_LABEL if targets.ndim == 2 else SINGLE_LABEL
    scores = Calibration(NONE, task).apply(scored)
    if method == NONE:
        return scores
    folds = stratified_folds(targets, logits.shape[1], n_folds=N_FOLDS, seed=seed)
    for rows, held_out in parts(folds):
        scores[held_out] = fit_calibration(method, logits[rows], targets[rows]).apply(scored[held_out])
    return scores


def _certified(choice: Choice, certificate: Certificate) -> Choice:
    decision = choice.decision
    if certificate.threshold is not None:
        decision = replace(
            decision,
            abstain_below=certificate.threshold,
            error_rate=choice.settings.error_rate,
            confidence=choice.settings.confidence,
        )
    return replace(choice, decision=decision, certificate=certificate)


def _keeps_order(task: str, n_labels: int, settings: DecideSettings) -> bool:
    """Tell whether nothing that may be fitted can change an answer, or the order of the rows by confidence."""
    if task == MULTI_LABEL:
        return settings.calibrate == NONE and settings.threshold == DEFAULT_RULE
    return settings.calibrate == NONE or n_labels <= 2


def _checked(logits: np.ndarray, targets: np.ndarray, *, n_labels: int, task: str) -> tuple[np.ndarray, np.ndarray]:
    logits, targets = np.asarray(logits), np.asarray(targets)
    expected = (len(targets), n_labels)
    if logits.shape != expected or targets.shape != (expected if task == MULTI_LABEL else expected[:1]):
        raise DataError(
            f"targets of shape {targets.shape} and logits of shape {logits.shape} are not those of {task} "
            f"with {n_labels} labels",
            where="targets, logits",
            next="give one row of logits per row of targets, one column per label",
        )
    if not np.isfinite(logits).all():
        row = int((~np.isfinite(logits)).any(axis=1).argmax())
        raise DataError(
            f"the logits of validation row {row} are {logits[row].tolist()}",
            where=f"logits:{row}",
            next="NaN comes from a training that went wrong: see its loss",
        )
    return logits, targets


@dataclass(frozen=True)
class _Fitting:
    """All that a choice is made from."""

    logits: np.ndarray
    targets: np.ndarray
    labels: LabelSet
    task: str
    settings: DecideSettings
    seed: int

    def choice(self, chosen: np.ndarray) -> Choice:
        """Choose calibration and thresholds on the rows of a bool mask, without abstention."""
        logits, targets = self.logits[chosen], self.targets[chosen]
        cells = logits.size
        n_repeats = N_REPEATS if cells < LARGE_CELLS else N_REPEATS_LARGE
        seeds = [self.seed + repeat for repeat in range(n_repeats)]
        calibration, found, repeats = _calibration(logits, targets, task=self.task, settings=self.settings, seeds=seeds)
        thresholds = None
        if self.task == MULTI_LABEL:
            before = Calibration(NONE, self.task).apply(logits) >= DEFAULT
            thresholds = _thresholds(repeats, before, targets, labels=self.labels, settings=self.settings, seeds=seeds)
        kept = thresholds.tried if thresholds is not None and thresholds.is_kept else None
        if kept is None and calibration.is_kept and _follows_model(thresholds):
            kept = tuple(found.apply(np.zeros((1, len(self.labels))))[0].tolist())
        decision = Decision(self.labels.names, found, thresholds=kept)
        return Choice(decision, calibration, thresholds, None, self.settings, len(self.logits), len(logits))


def _calibration(
    logits: np.ndarray, targets: np.ndarray, *, task: str, settings: DecideSettings, seeds: Sequence[int]
) -> tuple[CalibrationChoice, Calibration, list[np.ndarray]]:
    """Return the choice, the calibration in use, and its out-of-fold scores of each repeat."""
    plain = Calibration(NONE, task)
    without = plain.apply(logits)
    methods, why_none = _methods(targets, logits.shape[1], settings)
    if not methods:
        return CalibrationChoice(NONE, False, why_none), plain, [without] * len(seeds)
    held_out = {
        method: [cross_fitted_scores(logits, targets, method=method, seed=seed) for seed in seeds] for method in methods
    }
    before = row_losses(targets, without)
    losses = {
        method: np.mean([row_losses(targets, scores) for scores in repeats], axis=0)
        for method, repeats in held_out.items()
    }
    gains = {method: _gain(before - after) for method, after in losses.items()}
    best = methods[0]
    if len(methods) > 1 and _gain(losses[best] - losses[methods[1]]).is_kept:
        best = methods[1]  # isotonic has many more parameters: it must be better by more than chance
    gain = gains[best]
    verdict = (
        f"the log loss of a row {'falls' if gain.mean > 0 else 'does not fall'} out of fold: by {gain.mean:.5f}, "
        f"standard error {gain.error:.5f}, {len(seeds)} x {N_FOLDS}-fold cross-validation on {len(logits):,} rows"
    )
    if not gain.is_kept:
        return CalibrationChoice(best, False, f"not kept: {verdict}", gains), plain, [without] * len(seeds)
    return (
        CalibrationChoice(best, True, f"kept: {verdict}", gains),
        fit_calibration(best, logits, targets),
        held_out[best],
    )


def _gain(differences: np.ndarray) -> Gain:
    return Gain(float(differences.mean()), float(differences.std(ddof=1) / math.sqrt(len(differences))))


def _methods(targets: np.ndarray, n_labels: int, settings: DecideSettings) -> tuple[tuple[str, ...], str]:
    """Return the calibrations to try, the simplest first, or none and why."""
    if settings.calibrate == NONE:
        return (), "not asked for"
    if why_none := _too_few(targets, n_labels):
        return (), why_none
    if settings.calibrate != AUTO:
        return (settings.calibrate,), ""
    if targets.ndim == 1:
        return (TEMPERATURE,), ""
    rarer = _rarer_kind(targets, n_labels)
    has_enough = len(targets) * (N_FOLDS - 1) // N_FOLDS >= ISOTONIC_MIN_ROWS and bool(
        (rarer >= ISOTONIC_MIN_KIND).any()
    )
    return ((PLATT, ISOTONIC) if has_enough else (PLATT,)), ""


def _rarer_kind(targets: np.ndarray, n_labels: int) -> np.ndarray:
    support = one_column_per_label(targets, n_labels).sum(axis=0)
    return np.asarray(np.minimum(support, len(targets) - support))


def _too_few(targets: np.ndarray, n_labels: int) -> str:
    """Return why nothing can be fitted on these rows, or an empty string."""
    if len(targets) < MIN_ROWS_TO_FIT:
        return f"{len(targets)} rows are too few to fit anything: {MIN_ROWS_TO_FIT} are needed"
    if (_rarer_kind(targets, n_labels) < MIN_KIND).all():
        return f"no label has {MIN_KIND} rows with it and {MIN_KIND} without it"
    return ""


def _follows_model(thresholds: ThresholdChoice | None) -> bool:
    """Return whether calibrated scores are cut where the model's own score is 0.5, so that they change no answer."""
    return thresholds is not None and not thresholds.is_kept and thresholds.rule != DEFAULT_RULE


def _thresholds(
    repeats: list[np.ndarray],
    before: np.ndarray,
    targets: np.ndarray,
    *,
    labels: LabelSet,
    settings: DecideSettings,
    seeds: Sequence[int],
) -> ThresholdChoice:
    """Choose thresholds on out-of-fold scores of several repeats; they must beat the model's own scores at 0.5."""
    if settings.threshold == DEFAULT_RULE:
        return ThresholdChoice(DEFAULT_RULE, False, "not asked for")
    rule = Rule.of(settings.threshold, labels.names)
    if why_none := _too_few(targets, len(labels)):
        return ThresholdChoice(rule.name, False, why_none)
    pairs = [
        (scores, out_of_fold_thresholds(scores, targets, rule=rule, seed=seed))
        for scores, seed in zip(repeats, seeds, strict=True)
    ]
    gain = thresholds_gain(pairs, before, targets, rule=rule, seed=seeds[0])
    tried = tuple(fit_thresholds(repeats[0], targets, rule=rule, seed=seeds[0]).tolist())
    reason = (
        f"{'kept' if gain.is_kept else 'not kept'}: {rule.objective_name} over 0.5 on the model's own scores changes out of fold by "
        f"{gain.mean:+.4f}, standard error {gain.error:.4f}, {len(seeds)} x {N_FOLDS}-fold cross-validation"
    )
    if rule.kind == PRECISION:
        own = precise_thresholds(repeats[0].astype(np.float64), targets != 0, rule.precision)
        short = [name for name, value in zip(labels.names, own, strict=True) if value is None]
        if short:
            reason += f"; too few rows show that precision for {', '.join(map(repr, short))}"
    return ThresholdChoice(rule.name, gain.is_kept, reason, tried, gain)
