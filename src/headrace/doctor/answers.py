"""Diagnoses of what the model answers: always the same, no better than something cheaper, or hard to tell."""

from __future__ import annotations

import math

import numpy as np

from headrace.doctor.facts import Diagnosis, Facts
from headrace.intervals import MIN_ROWS, NORMAL_QUANTILE, wilson
from headrace.metrics import is_correct

#: One answer for so large a share of rows is the same answer, if the truth is not as lopsided.
_ONE_ANSWER = 0.99
_LOPSIDED = 0.05
#: Scores whose standard deviation over rows is below this do not depend on the text.
_SAME_SCORES = 1e-3
#: A threshold this close to 0 or 1 says always or never.
_BORDER = 0.005
#: Half the width of validation's 95 % interval, above which epochs cannot be told apart.
_UNSURE = 0.05
_MAX_SHOWN = 5


def constant_predictions(facts: Facts) -> Diagnosis | None:
    """One answer for nearly all rows, or scores that hardly depend on the text."""
    found = facts.scored()
    if found is None or len(found[0]) < MIN_ROWS:
        return None
    targets, scores = found
    truth_varies = bool((targets != targets[0]).any())
    if truth_varies and float(scores.std(axis=0).max()) < _SAME_SCORES:
        what = f"the scores hardly vary: no label's standard deviation over {len(scores):,} rows reaches {_SAME_SCORES}"
    else:
        same = _one_answer(facts, targets, scores)
        if same is None:
            return None
        what = same
    lower = "" if facts.learning_rate is None else f" --set fit.learning_rate={facts.learning_rate / 5:.1e}"
    weight = "--set fit.pos_weight=balanced" if facts.is_multi_label else "--set fit.class_weights=balanced"
    return Diagnosis(
        "constant_predictions",
        "error",
        f"{what}. The likely cause is a learning rate that destroyed the encoder, or labels far from balance",
        f"try{lower or ' a lower fit.learning_rate'}; if the labels are far from balance, {weight}",
    )


def _one_answer(facts: Facts, targets: np.ndarray, scores: np.ndarray) -> str | None:
    decided = facts.decided(scores)
    if facts.is_multi_label:
        n_said, n_true = int(decided.any(axis=1).sum()), int((targets != 0).any(axis=1).sum())
        if n_said > (1 - _ONE_ANSWER) * len(targets) or n_true - n_said < _LOPSIDED * len(targets):
            return None
        return f"{n_said:,} of {len(targets):,} {facts.split} rows get a label, and {n_true:,} have one"
    answers, truth = (np.bincount(values, minlength=scores.shape[1]) for values in (decided, targets.astype(np.int64)))
    label = int(answers.argmax())
    share, true_share = answers[label] / len(targets), truth[label] / len(targets)
    if share < _ONE_ANSWER or share - true_share < _LOPSIDED:
        return None
    return f"{share:.1%} of {len(targets):,} {facts.split} rows get the label {facts.name(label)}, {true_share:.1%} have it"


def no_better_than_majority(facts: Facts) -> Diagnosis | None:
    """The interval of the headline metric reaches down to what one constant answer gives."""
    if facts.figure is None or facts.figure.value is None or facts.majority is None:
        return None
    low = facts.figure.value if facts.figure.low is None else facts.figure.low
    if low > facts.majority:
        return None
    return Diagnosis(
        "no_better_than_majority",
        "error",
        f"the model is not surely better than one constant answer: {facts.figure_name} {facts.figure} on {facts.split} "
        f"rows, {facts.majority:.4f} for the constant answer. Either it learnt nothing, or there are too few rows to tell",
        "look at the other diagnoses first; then more training rows, and `headrace check` for labels that contradict",
    )


def no_better_than_baseline(facts: Facts) -> Diagnosis | None:
    """The paired comparison does not say that the run beats TF-IDF + logistic regression."""
    verdict = facts.verdict
    if not verdict or "winner" not in verdict or verdict["winner"] == "a":
        return None
    is_worse = verdict["winner"] == "b"
    difference = verdict.get("difference") or {}
    is_small_gain = difference.get("low") is not None and not is_worse
    sentence = str(verdict.get("sentence") or "").strip()
    return Diagnosis(
        "no_better_than_baseline",
        "warning" if is_worse else "note",
        (
            "the baseline of word counts is better than the model"
            if is_worse
            else "no gain over the word counts can be told"
        )
        + (f": {sentence}" if sentence else ""),
        "more epochs or a higher fit.learning_rate if the training loss was still falling, a larger backbone, or the "
        "baseline itself, which costs nothing to run"
        if is_worse
        else "more test rows to tell a small gain, or a larger backbone"
        if is_small_gain
        else "more test rows: so few tell nothing of a gain, be it large or small",
    )


def threshold_at_border(facts: Facts) -> Diagnosis | None:
    """A threshold that says always or never: at 0 or 1, or outside the range of the validation scores."""
    found, labels = facts.scored(of_validation=True), []
    for i, name in enumerate(facts.labels):
        value = (facts.thresholds or {}).get(name)
        if value is None or math.isnan(value):
            continue
        outside = ""
        if found is not None and i < found[1].shape[1]:
            low, high = float(found[1][:, i].min()), float(found[1][:, i].max())
            outside = "above all" if value > high else "below all" if value <= low else ""
        if outside:
            labels.append(f"{name!r} at {value:.3g}, {outside} validation scores ({low:.3g} to {high:.3g})")
        elif not _BORDER < value < 1 - _BORDER:
            labels.append(f"{name!r} at {value:.3g}")
    if not labels:
        return None
    shown = "; ".join(labels[:_MAX_SHOWN]) + (
        f" and {len(labels) - _MAX_SHOWN} more" if len(labels) > _MAX_SHOWN else ""
    )
    return Diagnosis(
        "threshold_at_border",
        "warning",
        f"thresholds that say always or never: {shown}. The likely cause is too few validation rows with the label",
        "--set decide.threshold=default for 0.5 throughout, or a larger data.valid",
    )


def validation_too_small(facts: Facts) -> Diagnosis | None:
    """The best epoch was picked by figures that few rows leave unsure."""
    found = facts.scored(of_validation=True)
    if found is None:
        return None
    targets, scores = found
    n_rows = len(targets)
    n_right = int(is_correct(targets, facts.decided(scores)).sum())
    low, high = wilson(n_right, n_rows) or (0.0, 1.0)
    few = []
    if facts.is_multi_label:
        support = (targets != 0).sum(axis=0)
        few = [i for i, n in enumerate(np.minimum(support, n_rows - support).tolist()) if n < MIN_ROWS]
    if (high - low) / 2 <= _UNSURE and 2 * len(few) <= scores.shape[1]:
        return None
    share = n_right / n_rows
    # half of the interval is about 1.96 standard errors; a share near 0 or 1 is taken as 0.1 from it
    needed = math.ceil(max(0.09, share * (1 - share)) * (2 * NORMAL_QUANTILE / _UNSURE) ** 2 / 100) * 100
    why = f"validation has {n_rows:,} rows: its accuracy is known to {(high - low) / 2:.1%} either way"
    if few:
        why += f", and {len(few)} of {scores.shape[1]} labels have fewer than {MIN_ROWS} rows in it"
    return Diagnosis(
        "validation_too_small",
        "note",
        f"{why}. So the best epoch, calibration and thresholds are partly chosen by chance",
        f"a larger share, such as --set data.valid=25%, or a file of some {needed:,} rows or more in data.valid",
    )
