"""Before and after on the evaluated split: the part of report.json that is called `decide`."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.decide.abstain import confidence_of, coverage_and_error, risk_coverage, shown
from headrace.decide.calibration import NONE
from headrace.decide.choices import DEFAULT_RULE, Choice, CrossFitted
from headrace.decide.decision import Decision
from headrace.decide.reliability import compared
from headrace.decide.thresholds import COST, DEFAULT, Rule
from headrace.evaluate import Interval, bootstrapped
from headrace.evaluate.few import mean_note
from headrace.intervals import MIN_ROWS, counts_of, f1_influence, resampled_rows
from headrace.metrics import LabelCounts, is_correct, mean_of_defined, number

_NAMES = ("f1_macro", "f1_micro", "objective")


def decide_report(
    choice: Choice,
    logits: np.ndarray,
    targets: np.ndarray,
    *,
    held_out: CrossFitted | None = None,
    own: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return what report.json holds under `decide`.

    Args:
        choice: What `choose_decision` returned.
        logits: [rows, labels] of the evaluated split.
        targets: Of the evaluated split, int64 [rows] or 0/1 [rows, labels].
        held_out: Of `cross_fitted`, if the evaluated split is validation itself; None for other rows.
        own: [rows, labels] of the evaluated split, the scores before any decision, if they are no softmax or sigmoid.
        resamples: Of the bootstrap that the figures of thresholds get.
        seed: Of the resamples.

    Returns:
        `out_of_fold`: whether validation itself was evaluated, each row with what other rows fitted.
        `n_rows`, `n_fitted`: validation rows, and those of them that fitted.
        `calibration`: `method` (the one that was tried), `kept`, `reason`, `parameters` (of the one in use), `before` and
            `after` (None if not kept), each `ece`, `brier`, `log_loss` (`Interval.as_dict`) and `reliability` (see
            `reliability.reliability`).
        `thresholds`: None for a single label; else `rule`, `kept`, `reason`, `default` 0.5, `values` (in use, by label),
            `tried` (by label, or None), `before` (the model's own scores at 0.5: without any decision), `calibrated`
            (calibrated scores at 0.5: what `kept` was judged against), `after` (calibrated scores at `values`; None if
            neither a calibration nor thresholds are kept), each `f1_macro`, `f1_micro` and `objective` (of the rule, larger
            is better; `objective_name` says which); `gain`, after less before on the same resamples: it may be below 0,
            since a calibration alone can move answers across 0.5; `refused` and `refused_gain`, the same of thresholds that
            were tried and not kept (None for others, and where validation itself was evaluated, which chose them).
        `abstain`: None if it was not asked for; else `error_rate`, `confidence`, `threshold` (None if none could be
            certified: `reason` says why), `method`, `n_rows`, `n_answered` and `n_wrong` of the certifying rows; of the
            evaluated split `coverage`, `error` (None without a threshold) and `curve`, from few rows answered to all, of
            `threshold`, `coverage`, `risk`.
    """
    decision = choice.decision
    plain = Decision.plain(decision.labels, task=decision.task).scores(logits) if own is None else own
    scores = plain if decision.calibration.method == NONE else decision.scores(logits)
    if held_out is not None:
        scores = held_out.scores
    limits = held_out.thresholds if held_out is not None and held_out.thresholds is not None else decision.limits()
    found = {
        "out_of_fold": held_out is not None,
        "n_rows": choice.n_rows,
        "n_fitted": choice.n_fitted,
        "calibration": {
            "method": choice.calibration.method,
            "kept": choice.calibration.is_kept,
            "reason": choice.calibration.reason,
            "parameters": decision.calibration.as_dict()["parameters"],
            "before": compared(targets, plain),
            "after": compared(targets, scores) if choice.calibration.is_kept else None,
        },
        "thresholds": None,
        "abstain": _abstain(choice, targets, scores, limits),
    }
    if choice.thresholds is not None and limits is not None:
        asked = choice.settings.threshold
        rule = Rule.of("f1" if asked == DEFAULT_RULE else asked, decision.labels)
        decided = [scores >= DEFAULT, plain >= DEFAULT, scores >= limits]
        note = _mean_note(decision.labels, targets != 0, decided)
        measured = _measured(targets != 0, decided, rule=rule, of_means=note, resamples=resamples, seed=seed)
        part = _thresholds(choice, measured) | {"objective_name": rule.objective_name}
        part |= {"refused": None, "refused_gain": None}
        if choice.thresholds.tried and not choice.thresholds.is_kept and held_out is None:
            decided = [plain >= DEFAULT, scores >= np.array(choice.thresholds.tried)]
            note = _mean_note(decision.labels, targets != 0, decided)
            _, refused, gain = _measured(
                targets != 0, decided, rule=rule, of_means=note, resamples=resamples, seed=seed
            )
            part |= {"refused": refused, "refused_gain": gain}
        found["thresholds"] = part
    return found


def _thresholds(choice: Choice, measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the part `thresholds`; `measured` are calibrated, before, after and gain."""
    made = choice.thresholds
    names = choice.decision.labels
    if made is None:
        return {}
    is_changed = made.is_kept or choice.calibration.is_kept
    return {
        "rule": made.rule,
        "kept": made.is_kept,
        "reason": made.reason,
        "default": DEFAULT,
        "values": choice.decision.threshold or dict.fromkeys(names, DEFAULT),
        "tried": dict(zip(names, made.tried, strict=True)) if made.tried else None,
        "before": measured[1],
        "calibrated": measured[0],
        "after": measured[2] if is_changed else None,
        "gain": measured[3] if is_changed else None,
    }


def _abstain(
    choice: Choice, targets: np.ndarray, scores: np.ndarray, limits: np.ndarray | None
) -> dict[str, Any] | None:
    certificate, settings = choice.certificate, choice.settings
    if certificate is None or settings.error_rate is None:
        return None
    confidence = confidence_of(scores, limits)
    decided = scores.argmax(axis=1) if limits is None else scores >= limits
    is_wrong = ~is_correct(targets, decided)
    coverage, error = None, None
    if certificate.threshold is not None:
        coverage, error = (one.as_dict() for one in coverage_and_error(confidence, is_wrong, certificate.threshold))
    return {
        **shown(certificate, error_rate=settings.error_rate, certainty=settings.confidence),
        "coverage": coverage,
        "error": error,
        "curve": risk_coverage(confidence, is_wrong),
    }


def _mean_note(names: tuple[str, ...], has_label: np.ndarray, decided: list[np.ndarray]) -> tuple[str | None, bool]:
    """Return what to know of a mean over the labels, and whether it gets an interval: as among the metrics."""
    support = has_label.sum(axis=0)
    judged = np.flatnonzero(support + sum(said.sum(axis=0) for said in decided))
    return mean_note([names[i] for i in judged], support[judged], "with the label")


def _measured(
    has_label: np.ndarray,
    decided: list[np.ndarray],
    *,
    rule: Rule,
    of_means: tuple[str | None, bool],
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Return `_NAMES` of each way to decide, and of the last way less the one before, with intervals."""
    n_rows = len(has_label)
    if n_rows == 0:
        nothing = Interval(None, note="there are no rows").as_dict()
        return [dict.fromkeys(_NAMES, nothing) for _ in range(len(decided) + 1)]
    values = [_values(LabelCounts.of(has_label, said, has_label.shape[1]), rule, n_rows) for said in decided]
    drawn: list[list[np.ndarray]] = [[] for _ in decided]
    for some in resampled_rows(n_rows, resamples=resamples, seed=seed) if n_rows >= MIN_ROWS else ():
        counts = counts_of(some)
        support = counts.T @ has_label.astype(counts.dtype)
        for said, found in zip(decided, drawn, strict=True):
            hits = counts.T @ (has_label & said).astype(counts.dtype)
            kinds = LabelCounts(hits, counts.T @ said.astype(counts.dtype), support)
            found.append(_values(kinds, rule, n_rows))
    spread = [np.concatenate(found, axis=1) if found else np.empty((len(_NAMES), 0)) for found in drawn]
    moved: list[list[np.ndarray] | None] = [_influences(has_label, said, rule) for said in decided]
    values.append(values[-1] - values[-2])
    spread.append(spread[-1] - spread[-2])
    moved.append(None)  # of a difference the percentiles as they are
    # costs are a mean over rows, which all count
    of = {"f1_macro": of_means, "objective": (None, True) if rule.kind == COST else of_means}
    return [
        {
            name: _interval(
                number(value[i]), ways[i], n_rows, of.get(name, (None, True)), None if rows is None else rows[i]
            ).as_dict()
            for i, name in enumerate(_NAMES)
        }
        for value, ways, rows in zip(values, spread, moved, strict=True)
    ]


def _influences(has_label: np.ndarray, said: np.ndarray, rule: Rule) -> list[np.ndarray]:
    """Return of each of `_NAMES` how the rows move it, float64 [rows]; zeros, of most objectives, correct no skew."""
    macro = mean_of_defined(f1_influence(has_label, said))
    pooled = f1_influence(has_label.reshape(-1, 1), said.reshape(-1, 1)).reshape(has_label.shape)
    return [macro, pooled.sum(axis=1), macro if rule.is_f1 else np.zeros(len(has_label))]


def _values(counts: LabelCounts, rule: Rule, n_rows: int) -> np.ndarray:
    """Return `_NAMES`, float64 [names, ...]."""
    return np.stack([mean_of_defined(counts.f1()), counts.f1_micro(), rule.objective(counts, n_rows)])


def _interval(
    value: float | None, drawn: np.ndarray, n_rows: int, known: tuple[str | None, bool], influence: np.ndarray | None
) -> Interval:
    """Return an estimate with its interval; `known` is a note, and whether there is enough for an interval."""
    if value is None:
        return Interval(None, note="no label has or was given a row")
    note, has_enough = known
    if n_rows >= MIN_ROWS and not has_enough:
        return Interval(value, note=note)
    return bootstrapped(value, drawn, n_rows, influence=influence, note=note)
