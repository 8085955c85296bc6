"""Training curves: loss by step, the metrics of each epoch, the learning rate of each group; forecast and fact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.report.parts.section import Figure, Section, digits_of, legend
from headrace.report.plots import Axis, Plot
from headrace.report.svg import padded
from headrace.report.verdict import main_metric
from headrace.report.words import (
    count,
    duration,
    finite,
    listed,
    mapping,
    name,
    number,
    percent,
    rate,
    sentence,
    size,
    title,
)

MAX_POINTS = 400
MAX_GROUPS = 6
# The mean over a thirtieth of the steps shows the course, and still the bend after the warm-up.
_SMOOTHED_PARTS = 30

Point = tuple[float, float]


def training(report: Mapping[str, Any]) -> Section | None:
    """Return loss, metrics and learning rates; None if the report has none of them."""
    history = [one for one in listed(mapping(report, "data", "training").get("history")) if isinstance(one, Mapping)]
    curve = mapping(report, "training_curve")
    figures = [_loss(curve, history), _metric(report, history), _rates(curve, history)]
    kept = [figure for figure in figures if figure is not None]
    if not kept and not history:
        return None
    precision = name(mapping(report, "data", "training").get("precision") or "fp32")
    content = {
        "figures": kept,
        "epochs": _epochs(report, history),
        "facts": _facts(report),
        "precision": "" if precision == "fp32" else precision,
    }
    return Section("training", "Training", content)


def _facts(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    timing = mapping(report, "timing")
    found = [
        ("Optimizer steps", count(timing.get("n_steps")), timing.get("n_steps")),
        ("Training took", duration(finite(timing.get("fit_s"))), timing.get("fit_s")),
        ("Texts a second", number(finite(timing.get("train_texts_per_s")), 1), timing.get("train_texts_per_s")),
        ("Tokens a second", count(timing.get("train_tokens_per_s")), timing.get("train_tokens_per_s")),
        ("Largest memory", size(finite(timing.get("peak_memory_bytes"))), timing.get("peak_memory_bytes")),
        ("On the accelerator", size(finite(timing.get("peak_device_bytes"))), timing.get("peak_device_bytes")),
    ]
    return [(label, text) for label, text, value in found if finite(value) is not None]


def _pairs(xs: Any, ys: Any) -> list[Point]:
    both = ((finite(x), finite(y)) for x, y in zip(listed(xs), listed(ys), strict=False))
    return [(x, y) for x, y in both if x is not None and y is not None]


# -- loss -------------------------------------------------------------------------------------------------------------


def _loss(curve: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> Figure | None:
    points = _pairs(curve.get("steps"), curve.get("loss"))
    marks = _marks(history, "valid", "loss") or _marks(history, "valid", "log_loss")
    if not points:
        points = [(step, loss) for step, loss in _marks(history, "", "train_loss")]
    if not points:
        return None
    values = [y for _, y in points] + [y for _, y in marks]
    low, high = padded(values)
    last = max(x for x, _ in points + marks)
    first = min(x for x, _ in points)
    mean = smoothed(points)
    said = f"The training loss goes from {number(mean[0][1])} to {number(mean[-1][1])} over {count(last)} steps"
    said += f"; that of validation ends at {number(marks[-1][1])}." if marks else "."
    x = Axis("step", min(first, last - 1), last, whole=True)
    plot = Plot("Loss by step", said, x, Axis("loss", max(0.0, low) if min(values) >= 0 else low, high))
    if len(points) > _SMOOTHED_PARTS:
        plot.line(thinned(points), 1, kind="faint").line(thinned(mean), 1)
    else:
        plot.line(points, 1).dots(points, 1)
    plot.line(marks, 2).dots(marks, 2)
    how = "The pale line is the loss as it came, the strong one its running mean."
    if marks:
        how += " Training that still falls while validation rises means that it learns rows by heart."
    names = ("training", "validation") if marks else ("training",)
    return Figure("Loss", plot.svg(), how, legend(*names))


def _marks(history: Sequence[Mapping[str, Any]], split: str, metric: str) -> list[Point]:
    found = []
    for record in history:
        step = finite(record.get("step"))
        value = finite((mapping(record, split) if split else record).get(metric))
        if step is not None and value is not None:
            found.append((step, value))
    return found


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Return the running mean over a window of a thirtieth of the points, centred, shorter at both ends."""
    half = max(1, len(points) // (2 * _SMOOTHED_PARTS))
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    found = []
    for place, (x, _) in enumerate(points):
        first, last = max(0, place - half), min(len(points), place + half + 1)
        found.append((x, (sums[last] - sums[first]) / (last - first)))
    return found


def thinned(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """Return at most `most` points, evenly chosen, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


# -- metric by epoch --------------------------------------------------------------------------------------------------


def _metric(report: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> Figure | None:
    metric = _watched(report, history)
    series = []
    for split in ("train", "valid"):
        both = ((finite(record.get("epoch")), finite(mapping(record, split).get(metric))) for record in history)
        series.append([(x, y) for x, y in both if x is not None and y is not None])
    if not any(series):
        return None
    brief = title(metric).split(",")[0]
    values = [y for points in series for _, y in points]
    epochs = [x for points in series for x, _ in points]
    low, high = padded(values, 0.12)
    pad = 0.25 if min(epochs) < max(epochs) else 0.5
    x = Axis("epoch", min(epochs) - pad, max(epochs) + pad, whole=True)
    described = "; ".join(
        f"{who} {', '.join(number(y) for _, y in points)}"
        for who, points in zip(("training", "validation"), series, strict=True)
        if points
    )
    plot = Plot(f"{brief} by epoch", f"{described}.", x, Axis("", low, min(high, 1.0) if max(values) <= 1 else high))
    for place, points in enumerate(series, start=1):
        plot.line(points, place).dots(points, place)
    best = _best_epoch(report, history)
    how = "Validation decides which epoch is kept"
    if best is not None:
        plot.vertical(best, "kept")
        how += f": here epoch {count(best)}"
    gap = "A wide gap between the two is learning by heart."
    names = [who for who, points in zip(("training", "validation"), series, strict=True) if points]
    shown = legend("training", "validation", has_marks=True)
    return Figure(
        f"{brief} by epoch",
        plot.svg(),
        f"{how}. {gap}" if len(names) == 2 else f"{how}.",
        tuple(one for one in shown if one[1] in names),
    )


def _best_epoch(report: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the epoch whose weights were kept: the one that ends at the step of the best."""
    step = finite(mapping(report, "data", "training", "best").get("step"))
    found = [
        finite(record.get("epoch")) for record in history if step is not None and finite(record.get("step")) == step
    ]
    return found[0] if found else None


def _watched(report: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    """Return the metric that validation was judged by, as the history calls it."""
    known = {key for record in history for key in mapping(record, "valid")}
    main = main_metric(report)
    wanted = (mapping(report, "recipe", "fit").get("monitor"), main, main.removesuffix("_macro"))
    return next((str(one) for one in wanted if one in known), next(iter(sorted(known)), main))


# -- learning rate ----------------------------------------------------------------------------------------------------


def _rates(curve: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> Figure | None:
    groups = {str(group): _pairs(curve.get("steps"), rates) for group, rates in mapping(curve, "rates").items()} or {
        "learning rate": _marks(history, "", "learning_rate")
    }
    merged = _merged({group: points for group, points in groups.items() if points})
    if not merged:
        return None
    chosen = thinned_groups(merged)
    points = [point for _, found in chosen for point in found]
    last, top = max(x for x, _ in points), max(y for _, y in points)
    first = min(x for x, _ in points)
    described = "; ".join(f"{group}: at most {rate(max(y for _, y in found))}" for group, found in chosen)
    x = Axis("step", min(first, last - 1), last, whole=True)
    plot = Plot("Learning rate by step", f"{described}.", x, Axis("", 0.0, top * 1.05 or 1.0, most=5), left=46)
    for place, (_, found) in enumerate(chosen, start=1):
        plot.line(thinned(found), place)
        if len(found) == 1:
            plot.dots(found, place)
    how = f"How far a step moves the weights; at most {rate(top)}."
    if len(merged) > 1:
        how += " Groups nearer to the words move less, so that they keep what they know."
    if len(chosen) < len(merged):
        how += f" Shown are {len(chosen)} of {len(merged)} rates."
    return Figure("Learning rate", plot.svg(), how, legend(*(group for group, _ in chosen)))


def _merged(groups: Mapping[str, list[Point]]) -> list[tuple[str, list[Point]]]:
    """Return each distinct curve once, under the names of the first and the last group that have it, the top first."""
    by_curve: dict[tuple[Point, ...], list[str]] = {}
    for group, points in groups.items():
        by_curve.setdefault(tuple(points), []).append(name(group))
    found = []
    for curve, names in by_curve.items():
        label = "all groups" if len(by_curve) == 1 and len(names) > 1 else names[0]
        if len(by_curve) > 1 and len(names) > 1:
            label = f"{names[0]} to {names[-1]}"
        found.append((label, list(curve)))
    return sorted(found, key=lambda one: -max(y for _, y in one[1]))


def thinned_groups(groups: list[tuple[str, list[Point]]]) -> list[tuple[str, list[Point]]]:
    """Return at most six curves, evenly chosen, the first and the last among them."""
    if len(groups) <= MAX_GROUPS:
        return groups
    return [groups[round(i * (len(groups) - 1) / (MAX_GROUPS - 1))] for i in range(MAX_GROUPS)]


# -- tables -----------------------------------------------------------------------------------------------------------


def _epochs(report: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    metric, digits = _watched(report, history), digits_of(report)
    best = _best_epoch(report, history)
    return [
        {
            "epoch": count(record.get("epoch")),
            "loss": number(finite(record.get("train_loss"))),
            "train": number(finite(mapping(record, "train").get(metric)), digits),
            "valid": number(finite(mapping(record, "valid").get(metric)), digits),
            "metric": title(metric),
            "time": duration(finite(record.get("seconds"))),
            "is_kept": "kept" if best is not None and finite(record.get("epoch")) == best else "",
        }
        for record in history[:100]
    ]


_FORESEEN = (
    ("Training time", "fit_s", duration),
    ("Largest memory", "peak_memory_bytes", size),
    ("Largest memory on the accelerator", "peak_device_bytes", size),
)


def forecast(report: Mapping[str, Any]) -> Section | None:
    """Return what was foretold before training, or why nothing was, beside what it took."""
    found = mapping(report, "forecast")
    lines = []
    for label, key, words in _FORESEEN:
        foretold, actual = finite(found.get(key)), finite(found.get(f"actual_{key}"))
        if foretold is not None or actual is not None:
            off = percent((foretold - actual) / actual, 0) if foretold is not None and actual else "–"
            sign = "+" if foretold is not None and actual and foretold > actual else ""
            lines.append({"label": label, "forecast": words(foretold), "fact": words(actual), "off": f"{sign}{off}"})
    content = {
        "lines": lines,
        "reason": sentence(found.get("reason") or ""),
        "note": sentence(found.get("note") or ""),
    }
    return Section("forecast", "Forecast and fact", content) if lines else None
