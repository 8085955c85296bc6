"""The data: rows by split and label, lengths and the cut, labels that stand together, a shown batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from headrace.metrics import MULTI_LABEL
from headrace.report.parts.section import Figure, Section
from headrace.report.plots import Axis, Plot, share_bar
from headrace.report.words import clean, count, finite, listed, mapping, name, number, percent, place, rows

MAX_LABELS = 30
MAX_TOGETHER = 20
MAX_SHOWN_TEXTS = 4
N_SHADES = 10
_SPLITS = {"train": "Training", "valid": "Validation", "test": "Test"}


def data(report: Mapping[str, Any]) -> Section | None:
    """Return what the report knows of the data; None if it names no split."""
    splits = _splits(report)
    if not splits:
        return None
    content = {
        "splits": [_summary(split) for split in splits],
        "labels": _labels(report, splits),
        "lengths": _lengths(report, splits),
        "together": _together(report),
        "batch": _batch(report),
        "is_multi_label": report.get("task") == MULTI_LABEL,
    }
    return Section("data", "Data", content)


def _splits(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the splits as mappings with `name`, `n_rows`, `labels`, `lengths`: from the check, else from the run."""
    checked = [dict(one) for one in listed(mapping(report, "check").get("splits")) if isinstance(one, Mapping)]
    if checked:
        return checked
    found = []
    for split, values in mapping(report, "data", "splits").items():
        known = mapping(values)
        lengths = {"mean": known.get("mean_tokens"), "cut_share": known.get("cut_share")}
        found.append({"name": split, "n_rows": known.get("rows"), "labels": known.get("labels"), "lengths": lengths})
    return found


def _split_name(split: Mapping[str, Any]) -> str:
    return _SPLITS.get(str(split.get("name")), name(split.get("name")))


def _summary(split: Mapping[str, Any]) -> dict[str, str]:
    lengths = mapping(split, "lengths")
    return {
        "name": _split_name(split),
        "rows": count(split.get("n_rows")),
        "mean": number(finite(lengths.get("mean")), 0),
        "median": count(lengths.get("median")),
        "p95": count(lengths.get("p95")),
        "longest": count(lengths.get("longest")),
        "cut": percent(finite(lengths.get("cut_share"))),
        "lost": percent(finite(lengths.get("tokens_cut_share"))),
        "unknown": percent(finite(lengths.get("unknown_share")), 2),
    }


# -- labels -----------------------------------------------------------------------------------------------------------


def _labels(report: Mapping[str, Any], splits: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return rows of each label by split; of many labels the most and the least frequent."""
    first = mapping(splits[0], "labels")
    if not first:
        return None
    order = list(first)
    chosen, left_out = order, ""
    if len(order) > MAX_LABELS:
        ranked = sorted(order, key=lambda label: -(finite(first[label]) or 0))
        chosen = [*ranked[: MAX_LABELS // 2], *ranked[-MAX_LABELS // 2 :]]
        between = [finite(first[label]) or 0 for label in ranked[MAX_LABELS // 2 : -MAX_LABELS // 2]]
        left_out = f"{rows(len(between), 'label')} of {count(min(between))} to {count(max(between))} rows between them"
    totals = [finite(split.get("n_rows")) or 0 for split in splits]
    largest = max((finite(value) or 0) / totals[0] for value in first.values()) if totals[0] else 0.0
    lines = [_label_line(label, splits, totals, largest) for label in chosen]
    without = [split.get("n_without_label") for split in splits]
    if report.get("task") == MULTI_LABEL and any(finite(one) for one in without):
        cells = [_cell(one, total) for one, total in zip(without, totals, strict=True)]
        lines.append({"label": "no label", "is_none": True, "cells": cells, "bar": ""})
    return {"splits": [_split_name(split) for split in splits], "lines": lines, "left_out": left_out}


def _label_line(
    label: str, splits: Sequence[Mapping[str, Any]], totals: Sequence[float], largest: float
) -> dict[str, Any]:
    counts = [mapping(split, "labels").get(label) for split in splits]
    share = (finite(counts[0]) or 0) / totals[0] if totals[0] else 0.0
    return {
        "label": name(label),
        "is_none": False,
        "bar": share_bar(share / largest if largest else 0.0),
        "cells": [_cell(value, total) for value, total in zip(counts, totals, strict=True)],
    }


def _cell(value: Any, total: float) -> dict[str, str]:
    found = finite(value)
    share = percent(found / total, 1) if found is not None and total else ""
    return {"count": count(value), "share": share}


def _together(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how often labels stand together: of the rows with the line's label, the share that has the column's."""
    found = mapping(report, "check", "co_occurrence")
    names = [name(label) for label in listed(found.get("labels"))]
    square = [[finite(one) or 0.0 for one in listed(line)] for line in listed(found.get("counts"))]
    if len(names) < 2 or len(square) != len(names) or any(len(line) != len(names) for line in square):
        return None
    chosen = sorted(sorted(range(len(names)), key=lambda i: -square[i][i])[:MAX_TOGETHER])
    labels, counts = [names[i] for i in chosen], [[square[i][j] for j in chosen] for i in chosen]
    matrix = []
    for i, line in enumerate(counts):
        own = line[i]
        cells = [
            {
                "count": count(value),
                "share": percent(value / own, 0) if own else "",
                "shade": min(N_SHADES, round(N_SHADES * value / own)) if own and i != j else 0,
                "is_own": i == j,
            }
            for j, value in enumerate(line)
        ]
        matrix.append({"label": labels[i], "cells": cells})
    more = len(names) - len(labels)
    return {
        "labels": labels,
        "matrix": matrix,
        "is_tight": len(labels) > 6,
        "more": rows(more, "rarer label") if more else "",
    }


# -- lengths ----------------------------------------------------------------------------------------------------------


def _lengths(report: Mapping[str, Any], splits: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Return the histogram of the training texts' lengths, with the cut marked."""
    lengths = mapping(splits[0], "lengths")
    edges, counts, longest = histogram(mapping(lengths, "histogram"))
    if not counts:
        return None
    top = max(counts) * 1.08
    said = f"Half of the texts have at most {count(lengths.get('median'))} tokens, 95 in 100 at most {count(lengths.get('p95'))}."
    x, y = Axis("tokens of a text", edges[0], edges[-1], most=5), Axis("", 0, top, most=5)
    plot = Plot("Lengths of the training texts", said, x, y, height=210).bars(edges, counts)
    cut = _cut(report)
    if cut is not None and cut < edges[-1]:
        plot.vertical(cut, f"cut at {count(cut)}")
    how = [_cut_words(cut, lengths)]
    if longest > edges[-1]:
        how.append(f"The last bar holds all longer texts, up to {count(lengths.get('longest') or longest)} tokens.")
    suggested = finite(mapping(report, "check").get("suggested_max_length"))
    p95 = finite(lengths.get("p95"))
    if suggested is not None and suggested != cut and (p95 is None or p95 <= suggested):
        how.append(f"With max_length: {suggested:.0f} about 95 texts in 100 stay whole.")
    padding = mapping(report, "check", "padding")
    padded, trained = finite(padding.get("to_longest")), finite(padding.get("in_micro_batches"))
    if padded is not None and trained is not None:
        how.append(
            f"Padded to the longest text of each step, {percent(padded)} would be padding; in micro-batches of like length "
            f"it is {percent(trained)}, and none where the encoder lays texts end to end."
        )
    return Figure("Lengths of the training texts", plot.svg(), " ".join(one for one in how if one))


def _cut(report: Mapping[str, Any]) -> float | None:
    checked = finite(mapping(report, "check").get("max_length"))
    return finite(mapping(report, "recipe", "data").get("max_length")) if checked is None else checked


def _cut_words(cut: float | None, lengths: Mapping[str, Any]) -> str:
    share, lost = finite(lengths.get("cut_share")), finite(lengths.get("tokens_cut_share"))
    if cut is None or share is None:
        return "How many texts are how long."
    drops = "" if lost is None else f" and drops {percent(lost)} of all tokens"
    return f"How many texts are how long, before the cut at {count(cut)} tokens. It shortens {percent(share)} of them{drops}."


def histogram(value: Mapping[str, Any]) -> tuple[list[float], list[float], float]:
    """Return edges, counts, and where the last bin ends.

    A last bin that is wider than the others holds all that is longer: it is drawn as wide as they are.
    """
    edges = [finite(one) or 0.0 for one in listed(value.get("edges"))]
    counts = [finite(one) or 0.0 for one in listed(value.get("counts"))]
    if len(edges) != len(counts) + 1 or not any(counts):
        return [], [], 0.0
    longest, width = edges[-1], edges[1] - edges[0]
    return [*edges[:-1], min(longest, edges[-2] + width)], counts, longest


# -- a batch ----------------------------------------------------------------------------------------------------------


def _batch(report: Mapping[str, Any]) -> dict[str, Any] | None:
    batch = mapping(report, "check", "batch")
    texts = [
        {
            "where": place(one.get("where")),
            "labels": ", ".join(name(label) for label in listed(one.get("labels"))) or "no label",
            "n_tokens": count(one.get("n_tokens")),
            "tokens": _tokens(one),
        }
        for one in listed(batch.get("texts"))[:MAX_SHOWN_TEXTS]
        if isinstance(one, Mapping)
    ]
    if not texts:
        return None
    return {
        "n_texts": count(batch.get("n_texts")),
        "width": count(batch.get("width")),
        "padding": percent(finite(batch.get("padding_share"))),
        "texts": texts,
    }


def _tokens(text: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the tokens of a shown text, special ones marked, and what is left out between them."""
    first, last = listed(text.get("tokens")), listed(text.get("last_tokens"))
    if not first:
        return [{"text": clean(text.get("text", "")), "is_special": False}]
    left_out = finite(text.get("n_left_out")) or 0
    between = [{"text": f"… {rows(left_out, 'token')} …", "is_special": True}] if left_out else []
    found = [*map(_token, first), *between, *map(_token, last)]
    for before, after in pairwise(found):
        if before["is_special"]:
            after["text"] = after["text"].lstrip()  # the frame around a special token is space enough
    return found


def _token(token: Any) -> dict[str, Any]:
    return {"text": clean(mapping(token).get("text", ""), 200), "is_special": bool(mapping(token).get("is_special"))}
