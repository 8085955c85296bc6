"""Single rows and groups of rows: slices, leaks, and the most confident errors with what led to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.metrics import MULTI_LABEL
from headrace.report.parts.section import Section, digits_of, shown
from headrace.report.plots import strip, strip_axis, strip_scale
from headrace.report.svg import padded
from headrace.report.verdict import is_worse, main_metric
from headrace.report.words import clean, count, finite, interval, listed, mapping, name, percent, place, rows, title
from headrace.slices import LABEL
from headrace.tables import LIST_SEPARATOR

MAX_SLICES = 30
MAX_ERRORS = 20
MAX_TOKENS = 512
MAX_TEXT_CHARACTERS = 4000
MAX_TOKEN_CHARACTERS = 300
# Strengths by the share of the largest attribution of the text: below the first a token is left plain.
_STRENGTHS = (0.15, 0.35, 0.6, 0.8)
_SERIES = {"": 1, "worse": 2, "better": 3}


def slices(report: Mapping[str, Any]) -> Section | None:
    """Return groups of rows with their figure and interval, the worst first."""
    found = [one for one in listed(report.get("slices")) if isinstance(one, Mapping)]
    if not found:
        return None
    kept = found[:MAX_SLICES]
    metric = str(kept[0].get("metric"))
    overall = finite(kept[0].get("overall"))
    estimates = [interval(one.get("value_of_metric")) for one in kept]
    ends = [end for one in estimates for end in (one.value, one.low, one.high) if end is not None]
    low, high = padded([*ends, *([] if overall is None else [overall])]) if ends else (0.0, 1.0)
    low, high = (max(0.0, low), min(1.0, high)) if high <= 1.2 and low >= -0.2 else (low, high)
    scale = strip_scale(low, high)
    lines = [
        {
            "column": name(one.get("column")),
            "value": name(one.get("value")),
            "rows": count(one.get("n_rows")),
            "shown": shown(value, digits_of(report)),
            "strip": strip(value, scale=scale, reference=overall, series=_SERIES[_flag(one)]),
            "flag": _flag(one),
        }
        for one, value in zip(kept, estimates, strict=True)
    ]
    more = len(found) - len(kept)
    content = {
        "lines": lines,
        "axis": strip_axis(scale),
        "metric": title(metric, str(report.get("task"))),
        "overall": shown(overall, digits_of(report)),
        "is_multi_label": report.get("task") == MULTI_LABEL and any(one.get("column") == LABEL for one in kept),
        "n_flagged": sum(line["flag"] != "" for line in lines),
        "more": rows(more, "more group") if more > 0 else "",
    }
    return Section("slices", "Slices", content)


def _flag(one: Mapping[str, Any]) -> str:
    if not one.get("is_flagged"):
        return ""
    return "worse" if is_worse(one) else "better"


def leaks(report: Mapping[str, Any]) -> Section | None:
    """Return the figures with and without the rows that stand in the training data, too."""
    found = mapping(report, "leaks")
    n_exact, n_near = finite(found.get("n_exact")) or 0, finite(found.get("n_near")) or 0
    if not n_exact and not n_near:
        return None
    digits = digits_of(report)
    without, metrics = mapping(found, "metrics_without"), mapping(report, "metrics")
    task, first = str(report.get("task")), main_metric(report)
    order = sorted((metric for metric in without if metric in metrics), key=lambda metric: metric != first)
    content = {
        "exact": rows(n_exact, "evaluated row"),
        "is_one": n_exact == 1,
        "n_near": count(n_near),
        "n_rows": count(report.get("n_rows")),
        "n_rows_without": count(found.get("n_rows_without")),
        "share": percent((n_exact + n_near) / n) if (n := finite(report.get("n_rows"))) else "",
        "lines": [
            {
                "title": title(metric, task),
                "all": shown(metrics[metric], digits),
                "without": shown(without[metric], digits),
            }
            for metric in order
        ],
    }
    return Section("leaks", "Leaks", content)


# -- errors -----------------------------------------------------------------------------------------------------------


def errors(report: Mapping[str, Any]) -> Section | None:
    """Return the most confident errors, their tokens marked by what they spoke for."""
    separator = LIST_SEPARATOR if report.get("task") == MULTI_LABEL else None
    found = [_error(one, separator) for one in listed(report.get("errors"))[:MAX_ERRORS] if isinstance(one, Mapping)]
    if not found:
        return None
    explained = any(one["tokens"] for one in found)
    return Section(
        "errors",
        "Most confident errors",
        {"errors": found, "is_explained": explained, "is_multi_label": separator is not None},
    )


def _error(one: Mapping[str, Any], separator: str | None) -> dict[str, Any]:
    pair = one.get("pair")
    return {
        "where": place(one["where"]) if one.get("where") else f"row {count(one.get('row'))}",
        "true": _answer(one.get("true"), separator),
        "predicted": _answer(one.get("predicted"), separator),
        "confidence": percent(finite(one.get("confidence"))),
        "text": clean(one.get("text", "")),
        "pair": None if pair is None else clean(pair),
        "tokens": tokens(listed(one.get("attributions"))),
        "explained": name(one["explained"]) if one.get("explained") else "",
        "off_by": percent(finite(one.get("error_share"))) if one.get("is_exact") is False else "",
    }


def _answer(value: Any, separator: str | None) -> str:
    if separator and isinstance(value, str):
        value = [label for label in value.split(separator) if label]
    if isinstance(value, list | tuple):
        return ", ".join(name(label) for label in value) or "no label"
    return name(value) if value not in (None, "") else "no label"


def tokens(attributions: Sequence[Any]) -> list[dict[str, str]]:
    """Return the tokens of a text with the class that colours them, and the space before each.

    Args:
        attributions: [text, number] each, the texts with the space before them, so that joined they give the whole;
            above 0 a token speaks for the answer that was given.

    Returns:
        `space`, `text` and `kind` of each: `` or `for1` … `for4`, `against1` … `against4` by strength.
    """
    pairs = [(one[0], finite(one[1])) for one in attributions if isinstance(one, list | tuple) and len(one) == 2]
    largest = max((abs(value) for _, value in pairs if value is not None), default=0.0)
    found: list[dict[str, str]] = []
    room = MAX_TEXT_CHARACTERS
    for token, value in pairs[:MAX_TOKENS]:
        text = str(token).lstrip()
        space = str(token)[: len(str(token)) - len(text)]
        share = abs(value or 0.0) / largest if largest else 0.0
        strength = sum(share >= least for least in _STRENGTHS)
        kind = f"{'for' if (value or 0) > 0 else 'against'}{strength}" if strength else ""
        found.append(
            {"space": clean(space, 10), "text": clean(text, MAX_TOKEN_CHARACTERS), "kind": kind if text else ""}
        )
        room -= len(found[-1]["text"]) + 1
        if room < 0:
            break
    if len(pairs) > len(found):
        found.append({"space": " ", "text": "…", "kind": ""})
    return found
