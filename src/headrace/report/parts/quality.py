"""How good the answers are: all figures, the confusion matrix, each label, ROC and precision-recall curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.evaluation import metric_notes
from headrace.metrics import MULTI_LABEL
from headrace.report.parts.section import Figure, Section, digits_of, shown
from headrace.report.plots import Axis, Plot, small, strip, strip_axis, strip_scale
from headrace.report.svg import padded
from headrace.report.words import (
    clean,
    count,
    finite,
    interval,
    listed,
    lower,
    mapping,
    name,
    number,
    percent,
    rows,
    title,
)

MAX_MATRIX_LABELS = 20
MAX_CONFUSED_PAIRS = 15
MAX_LABELS = 30
MAX_FOLDED_LABELS = 400
MAX_CURVES = 12
MAX_NOTES = 12
N_SHADES = 10
_CURVES = (("roc", "ROC curve", "roc_auc"), ("pr", "Precision by recall", "average_precision"))
_AXES = {
    "roc": (Axis("share of other rows called wrongly", 0.0, 1.0), Axis("", 0.0, 1.0)),
    "pr": (Axis("recall", 0.0, 1.0), Axis("", 0.0, 1.0)),
}
_HOW = {
    "roc": "Across: the share of rows without the label that get it; up: the share of rows with it that get it. The "
    "nearer to the upper left corner, the better; the dashed line is guessing.",
    "pr": "Across: the share of the label’s rows that are found (recall); up: how many of the finds are right "
    "(precision). The nearer to the upper right corner, the better; the dashed line is guessing.",
}
_LABEL_METRICS = ("precision", "recall", "roc_auc", "average_precision")

Point = tuple[float, float]


def metrics(report: Mapping[str, Any]) -> Section | None:
    """Return all metrics of the model, beside those of baseline and majority where there are any."""
    found = mapping(report, "metrics")
    if not found:
        return None
    baseline, majority = mapping(report, "baseline"), mapping(report, "baseline", "majority")
    others = mapping(baseline, "metrics"), mapping(majority, "metrics")
    digits, task = digits_of(report), str(report.get("task"))
    lines = [
        {
            "title": title(metric, task),
            "own": shown(value, digits),
            "baseline": shown(others[0].get(metric), digits),
            "majority": shown(others[1].get(metric), digits),
        }
        for metric, value in found.items()
    ]
    notes = metric_notes((title(metric, task), interval(value)) for metric, value in found.items())
    notes += [clean(note) for note in listed(report.get("notes"))]
    notes += [f"baseline: {clean(note)}"] if (note := baseline.get("note")) else []
    content = {
        "lines": lines,
        "baseline": name(baseline.get("name") or "baseline") if others[0] else "",
        "majority": "most frequent answer" if others[1] else "",
        "notes": notes[:MAX_NOTES],
        "more_notes": rows(len(notes) - MAX_NOTES, "more note") if len(notes) > MAX_NOTES else "",
        "how": "Under each number stands its 95\u00a0% interval: where it would probably lie on other rows of the same kind.",
    }
    return Section("metrics", "Metrics", content)


# -- confusion --------------------------------------------------------------------------------------------------------


def confusion(report: Mapping[str, Any]) -> Section | None:
    """Return the matrix of up to 20 labels; of more, the pairs that are taken for each other most often."""
    found = mapping(report, "confusion_matrix")
    labels = [name(label) for label in listed(found.get("labels"))]
    counts = [[finite(one) or 0.0 for one in listed(line)] for line in listed(found.get("counts"))]
    if not labels or len(counts) != len(labels) or any(len(line) != len(labels) for line in counts):
        return None
    pairs = _confused(labels, counts)
    if len(labels) > MAX_MATRIX_LABELS:
        return Section("confusion", "Confusions", {"n_labels": len(labels), "pairs": pairs, "matrix": None})
    matrix = []
    for i, line in enumerate(counts):
        total = sum(line)
        cells = [
            {
                "count": count(value),
                "share": percent(value / total, 0) if total else "",
                "shade": min(N_SHADES, round(N_SHADES * value / total)) if total else 0,
                "is_right": i == j,
            }
            for j, value in enumerate(line)
        ]
        matrix.append({"label": labels[i], "cells": cells, "total": count(total)})
    content = {
        "labels": labels,
        "matrix": matrix,
        "is_tight": len(labels) > 6,
        "pairs": pairs[:5] if len(labels) > 3 else [],
        "n_labels": len(labels),
    }
    return Section("confusion", "Confusion matrix", content)


def _confused(labels: Sequence[str], counts: Sequence[Sequence[float]]) -> list[dict[str, str]]:
    wrong = [(value, i, j) for i, line in enumerate(counts) for j, value in enumerate(line) if i != j and value > 0]
    worst = sorted(wrong, key=lambda one: (-one[0], one[1], one[2]))[:MAX_CONFUSED_PAIRS]
    return [
        {
            "true": labels[i],
            "predicted": labels[j],
            "count": count(value),
            "share": percent(value / sum(counts[i])),
        }
        for value, i, j in worst
    ]


# -- each label -------------------------------------------------------------------------------------------------------


def per_label(report: Mapping[str, Any]) -> Section | None:
    """Return a row for each label, with its curves; the weakest first where there are many."""
    labels = {label: mapping(values) for label, values in mapping(report, "labels").items() if mapping(values)}
    if not labels:
        return None
    order = list(labels)
    if len(order) > MAX_LABELS:
        order.sort(key=lambda label: _f1(labels[label]))
    found = [value for label in order for value in _ends(labels[label].get("f1"))]
    low, high = padded(found) if found else (0.0, 1.0)
    scale = strip_scale(max(0.0, low), min(1.0, high))
    overall = interval(mapping(report, "metrics").get("f1_macro")).value
    lines = [_line(label, labels[label], scale, overall) for label in order[:MAX_FOLDED_LABELS]]
    more = len(order) - MAX_FOLDED_LABELS
    content = {
        "lines": lines[:MAX_LABELS],
        "folded": lines[MAX_LABELS:],
        "left_out": rows(more, "more label") if more > 0 else "",
        "axis": strip_axis(scale),
        "mean": number(overall),
        "curves": [] if _is_binary(report) else _curves(report, order),
        "figures": _binary_curves(report, order[-1]) if _is_binary(report) else [],
        "is_multi_label": report.get("task") == MULTI_LABEL,
    }
    return Section("labels", "Labels", content)


def _f1(values: Mapping[str, Any]) -> float:
    found = interval(values.get("f1")).value
    return 2.0 if found is None else found


def _ends(value: Any) -> list[float]:
    found = interval(value)
    return [one for one in (found.value, found.low, found.high) if one is not None]


def _line(label: str, values: Mapping[str, Any], scale: Any, overall: float | None) -> dict[str, Any]:
    f1 = interval(values.get("f1"))
    return {
        "label": name(label),
        "support": count(values.get("support")),
        "predicted": count(values.get("n_predicted")),
        "strip": strip(f1, scale=scale, reference=overall),
        "f1": shown(f1),
        "metrics": [shown(values.get(metric)) for metric in _LABEL_METRICS],
    }


def _curves(report: Mapping[str, Any], order: Sequence[str]) -> list[dict[str, Any]]:
    """Return the ROC curves and the precision-recall curves of up to 12 labels."""
    labels = mapping(report, "labels")
    found = []
    for key, title_, area in _CURVES:
        known = mapping(report, "curves", key)
        drawn = [label for label in order if listed(known.get(label))]
        plots = []
        for label in drawn[:MAX_CURVES]:
            points = [(float(x), float(y)) for x, y in listed(known[label])]
            value = interval(mapping(labels, label).get(area))
            chance = [(0.0, 0.0), (1.0, 1.0)] if key == "roc" else _prevalence(report, label)
            said = f"{title(area)} {number(value.value)}."
            plots.append(
                {
                    "label": name(label),
                    "area": shown(value),
                    "plot": small(f"{title_} of {name(label)}", said, points, chance=chance),
                }
            )
        if plots:
            more = len(drawn) - len(plots)
            found.append(
                {
                    "title": f"{title_}s" if key == "roc" and len(plots) > 1 else title_,
                    "plots": plots,
                    "how": f"{_HOW[key]} The number is the {lower(title(area)) if key == 'pr' else 'area under the curve'}.",
                    "more": rows(more, "more label") if more > 0 else "",
                }
            )
    return found


def _is_binary(report: Mapping[str, Any]) -> bool:
    return report.get("task") != MULTI_LABEL and len(mapping(report, "labels")) == 2


def _binary_curves(report: Mapping[str, Any], label: str) -> list[Figure]:
    """Return both curves of the second label: those of the first are the same answers seen from the other side."""
    found = []
    for key, title_, area in _CURVES:
        points = [(float(x), float(y)) for x, y in listed(mapping(report, "curves", key).get(label))]
        if not points:
            continue
        value = shown(mapping(report, "labels", label).get(area))
        x, y = _AXES[key]
        plot = Plot(f"{title_} of {name(label)}", f"{title(area)} {value.value}.", x, y, height=270)
        plot.line([(0.0, 0.0), (1.0, 1.0)] if key == "roc" else _prevalence(report, label), kind="rule")
        plot.line(points, 1)
        span = f" (95\u00a0% interval {value.span})" if value.span else ""
        found.append(
            Figure(f"{title_}, “{name(label)}”", plot.svg(), f"{_HOW[key]} {title(area)}: {value.value}{span}.")
        )
    return found


def _prevalence(report: Mapping[str, Any], label: str) -> list[Point]:
    support, n_rows = finite(mapping(report, "labels", label).get("support")), finite(report.get("n_rows"))
    share = support / n_rows if support is not None and n_rows else 0.0
    return [(0.0, share), (1.0, share)]
