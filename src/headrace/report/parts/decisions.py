"""From scores to answers: calibration before and after, a threshold for each label, and when to say "not sure"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.evaluation import Interval
from headrace.metrics import MULTI_LABEL
from headrace.report.parts.section import Figure, Section, digits_of, legend, shown, shown_percent
from headrace.report.parts.training import thinned
from headrace.report.plots import Axis, Plot, strip, strip_axis, strip_scale, swatch
from headrace.report.words import (
    clean,
    count,
    finite,
    interval,
    listed,
    mapping,
    name,
    number,
    percent,
    rows,
    sentence,
    title,
)

MAX_LABELS = 40
_METHODS = {
    "temperature": "one temperature for all scores",
    "platt": "a logistic curve for each label (Platt)",
    "isotonic": "a rising staircase for each label (isotonic)",
}


# -- calibration ------------------------------------------------------------------------------------------------------


def calibration(report: Mapping[str, Any]) -> Section | None:
    """Return reliability diagrams and the calibration's figures before and after."""
    found = mapping(report, "decide", "calibration")
    before, after = mapping(found, "before"), mapping(found, "after")
    if not before:
        return None
    digits = max(4, digits_of(report))
    lines = [
        {"title": title(key), "before": shown(before.get(key), digits), "after": shown(after.get(key), digits)}
        for key in ("ece", "brier", "log_loss")
        if key in before
    ]
    sides = (
        [("Before calibration", before, 2), ("After calibration", after, 1)] if after else [("As scored", before, 1)]
    )
    diagrams = [_reliability(heading, listed(side.get("reliability")), series) for heading, side, series in sides]
    method = str(found.get("method") or "none")
    content = {
        "lines": lines,
        "has_after": bool(after),
        "figures": [figure for figure in diagrams if figure is not None],
        "method": _METHODS.get(method, name(method)) if method != "none" else "",
        "is_kept": bool(found.get("kept")),
        "reason": _why(found),
        "parameters": _parameters(found.get("parameters")),
        "is_held_out": is_held_out(report),
        "alike": "expected labels" if report.get("task") == MULTI_LABEL else "scores",
    }
    return Section("calibration", "Calibration", content)


def _why(found: Mapping[str, Any]) -> str:
    """Return why a choice was kept or not; that it was, or not, is said before."""
    return sentence(str(found.get("reason") or "").removeprefix("not ").removeprefix("kept: "))


def _parameters(value: Any) -> str:
    temperature = finite(mapping(value).get("temperature") if isinstance(value, Mapping) else value)
    return "" if temperature is None else f"temperature {number(temperature, 3)}"


def _reliability(heading: str, bins: Sequence[Any], series: int) -> Figure | None:
    filled = [one for one in bins if isinstance(one, Mapping) and finite(one.get("n"))]
    points, spans = [], []
    for one in filled:
        x, y = finite(one.get("mean_score")), finite(one.get("share"))
        low, high = finite(one.get("share_low")), finite(one.get("share_high"))
        if x is not None and y is not None:
            points.append((x, y))
            spans.append(None if low is None or high is None else (low, high))
    if not points:
        return None
    total = sum(finite(one.get("n")) or 0 for one in filled)
    farthest = max([*(x for x, _ in points), *(y for _, y in points), *(span[1] for span in spans if span is not None)])
    end = 1.0 if farthest > 0.6 else farthest * 1.08  # of rare labels no score comes near 1
    said = "; ".join(f"scores near {number(x, 2)} are right {percent(y, 0)}" for x, y in points)
    plot = Plot(
        heading,
        f"Of {count(total)} scores: {said}.",
        Axis("score", 0.0, end),
        Axis("", 0.0, end, is_share=True),
        height=260,
    )
    plot.line([(0.0, 0.0), (end, end)], kind="rule")
    plot.line(points, series).dots(points, series, spans=spans)
    return Figure(heading, plot.svg())


def is_held_out(report: Mapping[str, Any]) -> bool:
    """Return whether the evaluated rows also fitted calibration and thresholds, each by a fit that left it out."""
    return bool(mapping(report, "decide").get("out_of_fold"))


# -- thresholds -------------------------------------------------------------------------------------------------------


def thresholds(report: Mapping[str, Any]) -> Section | None:
    """Return the threshold of each label, and the F1 with and without them."""
    found = mapping(report, "decide", "thresholds")
    values = {label: finite(value) for label, value in mapping(found, "values").items()}
    if not values:
        return None
    default = finite(found.get("default"))
    scale = strip_scale(0.0, 1.0)
    lines = [
        {
            "label": name(label),
            "value": number(value, 3),
            "strip": strip(Interval(value), scale=scale, reference=default),
        }
        for label, value in list(values.items())[:MAX_LABELS]
    ]
    before, after, gain = (mapping(found, key) for key in ("before", "after", "gain"))
    digits, objective = digits_of(report), clean(found.get("objective_name") or "")
    metrics = [
        {
            "title": objective if key == "objective" and objective else title(key),
            "before": shown(before.get(key), digits),
            "after": shown(after.get(key), digits),
            "gain": shown(gain.get(key), digits) if key in gain else None,
        }
        for key in before
        if key != "objective" or before[key] != before.get("f1_macro")
    ]
    content = {
        "lines": lines,
        "axis": strip_axis(scale),
        "metrics": metrics,
        "has_after": bool(after) and after != before,  # without thresholds of their own the answers are the same
        "is_held_out": is_held_out(report),
        "is_moved": any(value != default for value in values.values()),
        "rule": clean(found.get("rule") or ""),
        "default": number(default, 2),
        "is_kept": bool(found.get("kept")),
        "is_tried": bool(found.get("tried")),
        "refused": _refused(found, digits),
        "reason": _why(found),
        "more": rows(len(values) - MAX_LABELS, "more label") if len(values) > MAX_LABELS else "",
    }
    return Section("thresholds", "Thresholds", content)


def _refused(found: Mapping[str, Any], digits: int) -> str:
    """Return what thresholds that were not kept would have done to the mean F1 of the evaluated rows."""
    value, gain = (interval(mapping(found, key).get("f1_macro")) for key in ("refused", "refused_gain"))
    if value.value is None or gain.value is None:
        return ""
    spans = [
        "" if one.low is None else f" (95\u00a0% interval {number(one.low, digits)} to {number(one.high, digits)})"
        for one in (value, gain)
    ]
    told = f"On the evaluated rows the mean F1 with them would be {number(value.value, digits)}{spans[0]}"
    return f"{told}, a change of {number(gain.value, digits)}{spans[1]}."


# -- abstention -------------------------------------------------------------------------------------------------------


def abstention(report: Mapping[str, Any]) -> Section | None:
    """Return the risk-coverage curve with the chosen point, and what is promised there."""
    found = mapping(report, "decide", "abstain")
    points = [
        (finite(one.get("coverage")), finite(one.get("risk")))
        for one in listed(found.get("curve"))
        if isinstance(one, Mapping)
    ]
    curve = sorted((x, y) for x, y in points if x is not None and y is not None)
    wanted, threshold = finite(found.get("error_rate")), finite(found.get("threshold"))
    if wanted is None and not curve:
        return None
    content = {
        "figure": _risk(curve, wanted, found) if curve else None,
        "wanted": percent(wanted, None),
        "confidence": percent(finite(found.get("confidence")), 0),
        "threshold": None if threshold is None else number(threshold, 3),
        "method": sentence(found.get("method") or ""),
        "reason": sentence(found.get("reason") or "") if threshold is None else "",
        "coverage": shown_percent(found.get("coverage")),
        "error": shown_percent(found.get("error")),
    }
    return Section("abstention", "Abstention", content)


def _risk(curve: list[tuple[float, float]], wanted: float | None, found: Mapping[str, Any]) -> Figure:
    coverage, error = interval(found.get("coverage")), interval(found.get("error"))
    ends = [y for _, y in curve] + [one for one in (wanted, error.high) if one is not None]
    top = max(ends) * 1.12 or 0.01
    said = f"Answering all rows gives errors in {percent(curve[-1][1])}"
    x = Axis("share of the rows that are answered", 0.0, 1.0, is_share=True)
    chosen = coverage.value is not None and error.value is not None and finite(found.get("threshold")) is not None
    if chosen:
        said += f"; the chosen point answers {percent(coverage.value)} with errors in {percent(error.value)}"
    plot = Plot("Errors by share answered", f"{said}.", x, Axis("", 0.0, top, is_share=True))
    if wanted is not None:
        plot.horizontal(wanted, f"{percent(wanted, None)} asked for")
    plot.steps(thinned(curve), 1)
    key = legend("errors among the answers")
    if chosen and coverage.value is not None and error.value is not None:
        span = None if error.low is None or error.high is None else (error.low, error.high)
        plot.dots([(coverage.value, error.value)], 2, spans=[span], big=True)
        key += ((swatch(2, has_line=False, has_marks=True), "the chosen threshold"),)
    how = "To the left only the surest rows are answered. The lower the line, the better the scores know when they are wrong."
    return Figure("Errors by share answered", plot.svg(), how, key)
