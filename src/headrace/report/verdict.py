"""The verdict: one sentence in plain words, with its interval, against baseline and majority."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.evaluation import Interval
from headrace.metrics import MULTI_LABEL
from headrace.plugins import LANGUAGE_MODEL
from headrace.report.words import (
    count,
    digits_for,
    finite,
    interval,
    is_share,
    larger_is_better,
    listed,
    lower,
    mapping,
    name,
    number,
    percent,
    rows,
    title,
)

_PREFERRED = {
    True: ("roc_auc_macro", "f1_macro", "f1_micro", "accuracy"),
    False: ("accuracy", "f1_macro", "roc_auc", "log_loss"),
}
_PHRASES = {
    "average_precision": "an average precision",
    "average_precision_macro": "a mean average precision over the labels",
    "f1_macro": "a mean F1 over the labels",
    "f1_micro": "an F1 over all labels together",
    "hamming_loss": "a Hamming loss",
    "log_loss": "a log loss",
    "roc_auc": "an ROC AUC",
    "roc_auc_macro": "a mean ROC AUC over the labels",
}
GOOD, MIXED, BAD, UNKNOWN = "good", "mixed", "bad", "unknown"


@dataclass(frozen=True)
class Against:
    """How the model stands to something simpler on the same rows.

    Attributes:
        name: What it is compared with.
        value: Its figure.
        gain: What the model is better by, so that more is good; with the interval of the paired comparison. Without
            one there is no interval.
        outcome: 1 better, -1 worse, 0 cannot be told apart.
    """

    name: str
    value: float | None
    gain: Interval
    outcome: int


def verdict(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a report comes to.

    Args:
        report: The content of a report.json.

    Returns:
        `sentence`: one sentence in plain words. `points`: what else counts, each {"tone", "text"}; the tones are
        `good`, `look` (somebody should look at it) and `plain`. `tone`: `good` if the model is better than majority
        and baseline, `mixed` if it cannot be told apart from one of them, `bad` if it is worse or no better than the
        majority, `unknown` if there is nothing to compare with.
    """
    metric = main_metric(report)
    baseline, majority = against_baseline(report), against_majority(report, metric)
    return {
        "sentence": _sentence(report, metric, [one for one in (baseline, majority) if one is not None]),
        "points": _points(report, metric),
        "tone": _tone(baseline, majority),
    }


def main_metric(report: Mapping[str, Any]) -> str:
    """Return the metric that the verdict speaks of: the baseline's comparison, the one monitored, or the usual."""
    metrics = mapping(report, "metrics")
    if report.get("task") == LANGUAGE_MODEL:
        return "perplexity"
    compared = str(mapping(report, "baseline", "verdict").get("metric"))
    monitored = str(mapping(report, "recipe", "fit").get("monitor"))
    usual = _PREFERRED[report.get("task") == MULTI_LABEL]
    for wanted in (compared, monitored, *usual):
        for known in (wanted, f"{wanted}_macro"):
            if interval(metrics.get(known)).value is not None:
                return known
    return next(iter(metrics), usual[0])


def against_baseline(report: Mapping[str, Any]) -> Against | None:
    """Return how the model stands to the baseline, by the paired comparison of the report."""
    baseline = mapping(report, "baseline")
    compared = mapping(baseline, "verdict")
    a, b = mapping(compared, "a"), mapping(compared, "b")
    difference = interval(compared.get("difference"))
    if not a or not b or difference.value is None:
        return None
    names = name(a.get("name")), name(b.get("name"))
    # The baseline is the side that bears its name; a difference may be told in either direction.
    baseline_is_a = names[0] == name(baseline.get("name")) or "tf-idf" in names[0].lower()
    model, other = (b, a) if baseline_is_a else (a, b)
    won = compared.get("winner")
    outcome = 0 if won not in ("a", "b") else 1 if (won == "b") == baseline_is_a else -1
    metric = str(compared.get("metric"))
    values = finite(model.get("value")), finite(other.get("value"))
    towards_model = values[0] is None or values[1] is None or (values[0] - values[1]) * difference.value >= 0
    gain = difference if towards_model else _turned(difference)
    if not larger_is_better(metric):
        gain = _turned(gain)
    return Against(name(baseline.get("name") or other.get("name")), values[1], gain, outcome)


def against_majority(report: Mapping[str, Any], metric: str) -> Against | None:
    """Return how the model stands to always giving the most frequent answer: by the model's own interval."""
    majority = mapping(report, "baseline", "majority")
    other = interval(mapping(majority, "metrics").get(metric)).value
    own = interval(mapping(report, "metrics").get(metric))
    if other is None or own.value is None:
        return None
    label = majority.get("label")
    who = f"always answering “{name(label)}”" if label else "always giving the most frequent answer"
    sign = 1 if larger_is_better(metric) else -1
    outcome = 0
    if own.low is not None and own.high is not None:
        outcome = sign if own.low > other else -sign if own.high < other else 0
    return Against(who, other, Interval(sign * (own.value - other)), outcome)


def _turned(value: Interval) -> Interval:
    def minus(number: float | None) -> float | None:
        return None if number is None else -number

    return Interval(minus(value.value), minus(value.high), minus(value.low), value.method, value.note)


def _tone(baseline: Against | None, majority: Against | None) -> str:
    if majority is not None and majority.outcome < 1:
        return BAD
    if baseline is None:
        return UNKNOWN if majority is None else MIXED
    return {1: GOOD, 0: MIXED, -1: BAD}[baseline.outcome]


# -- the sentence -----------------------------------------------------------------------------------------------------


def _sentence(report: Mapping[str, Any], metric: str, against: list[Against]) -> str:
    own = interval(mapping(report, "metrics").get(metric))
    n_rows = finite(report.get("n_rows"))
    if own.value is None:
        return f"There is no figure to judge the model by{f' ({own.note})' if own.note else ''}."
    said = f"{_own_words(report, metric, own)}"
    compared = [_against_words(one, metric, n_rows) for one in against]
    return said + (f": {', and '.join(compared)}." if compared else ".")


def _own_words(report: Mapping[str, Any], metric: str, own: Interval) -> str:
    n_rows = finite(report.get("n_rows"))
    split = {"valid": "validation"}.get(str(report.get("split")), name(report.get("split") or "evaluated"))
    digits = digits_for(n_rows)
    if metric == "accuracy":
        shown = percent(own.value)
        span = "" if own.low is None else f" (95\u00a0% interval {number(100 * own.low, 1)} to {percent(own.high)})"
        right = "every label right" if report.get("task") == MULTI_LABEL else "the right answer"
        return f"The model gives {right} for {shown} of the {count(n_rows)} {split} rows{span}"
    span = "" if own.low is None else f" (95\u00a0% interval {number(own.low, digits)} to {number(own.high, digits)})"
    named = _PHRASES.get(metric) or f"in {lower(title(metric))} a value"
    return f"On {count(n_rows)} {split} rows the model reaches {named} of {number(own.value, digits)}{span}"


def _against_words(one: Against, metric: str, n_rows: float | None) -> str:
    if one.gain.low is None:
        figure = percent(one.value) if metric == "accuracy" else number(one.value, digits_for(n_rows))
        unclear = "not clearly better than" if (one.gain.value or 0.0) > 0 else "no better than"
        kind = {1: "better than", 0: unclear, -1: "worse than"}[one.outcome]
        return f"{kind} {one.name} ({figure})"
    size = difference_words(one.gain, metric, n_rows)
    if one.outcome == 0:
        return f"not to be told apart from {one.name} (difference {size.replace(' (', ', ').rstrip(')')})"
    return f"{'better' if one.outcome > 0 else 'worse'} than {one.name} by {size}"


def difference_words(gain: Interval, metric: str, n_rows: float | None) -> str:
    """Return `0.7 points (0.3 to 1.1)`, a point being a hundredth; of a metric that is no share, the plain number."""
    factor, unit = (100.0, " points") if is_share(metric) else (1.0, "")
    digits = (1 if digits_for(n_rows) == 3 else 2) if is_share(metric) else 3
    value, low, high = gain.value, gain.low, gain.high
    if value is None:
        return "by an unknown amount"
    if low is not None and high is not None and high < 0:  # "worse by 0.9": the amount, not the sign
        value, low, high = -value, -high, -low
    span = (
        "" if low is None or high is None else f" ({number(factor * low, digits)} to {number(factor * high, digits)})"
    )
    return f"{number(factor * value, digits)}{unit}{span}"


# -- the points -------------------------------------------------------------------------------------------------------


def _points(report: Mapping[str, Any], metric: str) -> list[dict[str, str]]:
    found = [
        _of_split(report),
        _of_read_texts(report),
        _of_findings(report),
        _of_leaks(report, metric),
        _of_weakest_label(report),
        _of_calibration(report),
        _of_thresholds(report),
        _of_abstention(report),
        _of_slices(report),
    ]
    return [point for point in found if point is not None]


def _point(tone: str, text: str) -> dict[str, str]:
    return {"tone": tone, "text": text}


def _of_split(report: Mapping[str, Any]) -> dict[str, str] | None:
    if report.get("split") != "valid":
        return None
    return _point(
        "look",
        "There were no test rows. The validation rows have also chosen the best epoch, so the figures flatter a little.",
    )


def _of_read_texts(report: Mapping[str, Any]) -> dict[str, str] | None:
    """Say that the language model before the classifier has read the texts that the figures are from."""
    key = f"{report.get('split')}_texts_in_training"
    share = finite(mapping(report, "language_model", "data").get(key))
    if not share:
        return None
    texts = {"valid": "validation"}.get(str(report.get("split")), name(report.get("split")))
    return _point(
        "look",
        f"The language model has read {percent(share)} of the {texts} texts, though no label: on texts that nobody has "
        "seen the figures may be a little lower.",
    )


def _of_findings(report: Mapping[str, Any]) -> dict[str, str] | None:
    serious = [
        one
        for one in (*listed(report.get("diagnoses")), *listed(report.get("findings")))
        if isinstance(one, Mapping) and one.get("severity") in ("error", "warning")
    ]
    if not serious:
        return None
    n = len(serious)
    return _point("look", f"{n} {'thing' if n == 1 else 'things'} to look at in the data and the training; see below.")


def _of_leaks(report: Mapping[str, Any], metric: str) -> dict[str, str] | None:
    leaks = mapping(report, "leaks")
    n = (finite(leaks.get("n_exact")) or 0) + (finite(leaks.get("n_near")) or 0)
    if not n:
        return None
    without = interval(mapping(leaks, "metrics_without").get(metric))
    digits = digits_for(finite(leaks.get("n_rows_without")))
    told = f" Without them: {lower(title(metric))} {_estimate(without, digits)}." if without.value is not None else ""
    return _point(
        "look", f"{rows(n)} evaluated here also {'stands' if n == 1 else 'stand'} in the training data.{told}"
    )


def _of_weakest_label(report: Mapping[str, Any]) -> dict[str, str] | None:
    scored = []
    for label, values in mapping(report, "labels").items():
        found, support = interval(mapping(values).get("f1")), finite(mapping(values).get("support"))
        if found.value is not None and support:
            scored.append((found.value, label, found, support))
    if len(scored) < 3:
        return None
    _, label, found, support = min(scored, key=lambda one: one[0])
    text = f"The weakest label is “{name(label)}”: F1 {_estimate(found, 3)} on {rows(support)} that have it."
    return _point("plain", text)


def _of_calibration(report: Mapping[str, Any]) -> dict[str, str] | None:
    calibration = mapping(report, "decide", "calibration")
    before, after = (interval(mapping(calibration, side).get("ece")) for side in ("before", "after"))
    shown = after if after.value is not None and calibration.get("kept") else before
    if shown.value is None:
        return None
    span = ""
    if shown.low is not None and shown.high is not None:
        span = f" (95\u00a0% interval {number(100 * shown.low, 1)} to {number(100 * shown.high, 1)})"
    was = f"; it was {number(100 * before.value, 1)} before" if shown is after and before.value is not None else ""
    return _point(
        "good" if shown.value < 0.05 else "look",
        f"A score can be read as a probability to within {number(100 * shown.value, 1)} points{span} on average{was}.",
    )


def _of_thresholds(report: Mapping[str, Any]) -> dict[str, str] | None:
    thresholds = mapping(report, "decide", "thresholds")
    before, after = (interval(mapping(thresholds, side).get("f1_macro")) for side in ("before", "after"))
    if before.value is None or after.value is None or not thresholds.get("kept"):
        return None
    text = f"A threshold for each label takes the mean F1 from {_estimate(before, 3)} to {_estimate(after, 3)}."
    return _point("good" if after.value > before.value else "look", text)


def _of_abstention(report: Mapping[str, Any]) -> dict[str, str] | None:
    abstain = mapping(report, "decide", "abstain")
    rate, coverage = finite(abstain.get("error_rate")), interval(abstain.get("coverage"))
    if rate is None:
        return None
    if finite(abstain.get("threshold")) is None or coverage.value is None:
        return _point(
            "look", f"An error rate of {percent(rate, None)} cannot be promised for any share of the answers."
        )
    span = (
        ""
        if coverage.low is None
        else f" (95\u00a0% interval {number(100 * coverage.low, 1)} to {percent(coverage.high)})"
    )
    promise = f"To keep errors at {percent(rate, None)} or less it answers {percent(coverage.value)} of the rows{span}"
    return _point("plain", f"{promise} and leaves the rest as not sure.")


def _of_slices(report: Mapping[str, Any]) -> dict[str, str] | None:
    flagged = [
        one
        for one in listed(report.get("slices"))
        if isinstance(one, Mapping) and one.get("is_flagged") and is_worse(one)
    ]
    if not flagged:
        return None
    first = flagged[0]
    found, overall = interval(first.get("value_of_metric")), finite(first.get("overall"))
    where = f"{name(first.get('column'))} = {name(first.get('value'))}"
    more = f" So do {len(flagged) - 1} more." if len(flagged) > 2 else " So does 1 more." if len(flagged) == 2 else ""
    metric = lower(title(str(first.get("metric"))))
    if report.get("task") == MULTI_LABEL and first.get("metric") == "accuracy":
        metric = "share with every label right"
    return _point(
        "look",
        f"Rows with {where} do worse: {metric} {_estimate(found, 3)} against {number(overall, 3)} overall.{more}",
    )


def is_worse(one: Mapping[str, Any]) -> bool:
    """Return whether a slice lies on the bad side of all rows."""
    found, overall = interval(one.get("value_of_metric")).value, finite(one.get("overall"))
    if found is None or overall is None:
        return False
    return (found < overall) == larger_is_better(str(one.get("metric")))


def _estimate(value: Interval, digits: int) -> str:
    span = "" if value.low is None else f" ({number(value.low, digits)} to {number(value.high, digits)})"
    return f"{number(value.value, digits)}{span}"
