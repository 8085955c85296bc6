"""report.html: one file that needs nothing else, drawn from the content of report.json alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.evaluation import Interval
from headrace.files import atomic_file
from headrace.plugins import LANGUAGE_MODEL
from headrace.report.parts.data import data
from headrace.report.parts.decisions import abstention, calibration, thresholds
from headrace.report.parts.language_model import backward_language_model, language_model, language_model_head, texts
from headrace.report.parts.look import look
from headrace.report.parts.quality import confusion, metrics, per_label
from headrace.report.parts.rows import errors, leaks, slices
from headrace.report.parts.section import Section, digits_of, shown
from headrace.report.parts.settings import settings
from headrace.report.parts.training import forecast, training
from headrace.report.plots import strip, strip_axis, strip_scale
from headrace.report.svg import Scale, padded
from headrace.report.verdict import against_baseline, against_majority, main_metric, verdict
from headrace.report.words import count, finite, interval, is_share, mapping, name, p_value, sentence, title

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE = "report.html"

#: The sections after the verdict, in the order of the page.
SECTIONS: tuple[Callable[[Mapping[str, Any]], Section | None], ...] = (
    look,
    data,
    language_model,
    backward_language_model,
    training,
    metrics,
    confusion,
    per_label,
    calibration,
    thresholds,
    abstention,
    slices,
    leaks,
    errors,
    forecast,
    settings,
)
#: Those of a language model's own report.
LANGUAGE_MODEL_SECTIONS: tuple[Callable[[Mapping[str, Any]], Section | None], ...] = (look, texts, training, settings)
_AGAINST_BASELINE = {1: "Better than the baseline", 0: "No clear gain over the baseline", -1: "Worse than the baseline"}
_MAJORITY = 6  # its series: grey
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError)


def write_page(folder: str | Path, report: Mapping[str, Any]) -> Path:
    """Write report.html into a folder, whole or not at all, and return its path.

    Args:
        folder: Made if it is not there.
        report: The content of report.json; what it lacks, the page leaves out.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    path = Path(folder) / PAGE
    text = page_of(report)
    with atomic_file(path) as file:
        file.write(text.encode("utf-8"))
    return path


def page_of(report: Mapping[str, Any]) -> str:
    """Return the page as HTML: a pure function of the report, under 2 MB, with no script and no external resource.

    Texts from the report are escaped wherever they stand. A section whose part of the report does not have the form
    that it should have is replaced by a line that says so: a page must not be lost for one figure.

    Args:
        report: The content of report.json; what it lacks, the page leaves out.
    """
    sections, unreadable = [], []
    is_language_model = report.get("task") == LANGUAGE_MODEL
    for build in LANGUAGE_MODEL_SECTIONS if is_language_model else SECTIONS:
        try:
            section = build(report)
        except _MALFORMED as error:
            unreadable.append(f"{build.__name__.replace('_', ' ')} ({type(error).__name__}: {name(error)})")
        else:
            sections += [] if section is None else [section]
    page = _environment().get_template("report.html.j2")
    head = language_model_head(report) if is_language_model else _head(report)
    return page.render(head=head, sections=sections, unreadable=unreadable, foot=_foot(report))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("headrace.report", "templates"),
        autoescape=True,  # jinja2 escapes nothing by itself
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _head(report: Mapping[str, Any]) -> dict[str, Any]:
    found = verdict(report)
    labels = len(mapping(report, "labels"))
    task = str(report.get("task") or "").replace("_", " ")
    facts = [task, f"{count(labels)} labels" if labels else "", _evaluated(report)]
    known = report.get("name") or mapping(report, "check").get("recipe")
    backbone = mapping(report, "recipe", "backbone").get("name")
    return {
        "title": name(known) if known else "Report",
        "facts": [name(fact) for fact in facts if fact] + ([name(backbone)] if backbone else []),
        "sentence": found["sentence"],
        "tone": found["tone"],
        "tone_words": _tone_words(report),
        "points": found["points"],
        "against": _against(report),
    }


def _tone_words(report: Mapping[str, Any]) -> str:
    majority, baseline = against_majority(report, main_metric(report)), against_baseline(report)
    if majority is not None and majority.outcome < 1:
        return "No better than the most frequent answer"
    return "" if baseline is None else _AGAINST_BASELINE[baseline.outcome]


def _evaluated(report: Mapping[str, Any]) -> str:
    n_rows = finite(report.get("n_rows"))
    split = {"valid": "validation"}.get(str(report.get("split")), name(report.get("split") or ""))
    return "" if n_rows is None else f"{count(n_rows)} {split} rows"


def _against(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the model, the baseline and the majority on one scale."""
    metric = main_metric(report)
    baseline = mapping(report, "baseline")
    sides = [
        ("This model", mapping(report, "metrics").get(metric), 1),
        (name(baseline.get("name") or "baseline"), mapping(baseline, "metrics").get(metric), 2),
        ("Most frequent answer", mapping(baseline, "majority", "metrics").get(metric), _MAJORITY),
    ]
    kept = [(who, interval(value), series) for who, value, series in sides if interval(value).value is not None]
    if len(kept) < 2:
        return None
    scale = _common_scale(kept, metric)
    compared, verdict_ = against_baseline(report), mapping(baseline, "verdict")
    digits = digits_of(report)
    return {
        "title": title(metric, str(report.get("task"))),
        "axis": strip_axis(scale),
        "lines": [
            {
                "who": who,
                "shown": shown(value, digits),
                "strip": strip(value, scale=scale, series=series),
            }
            for who, value, series in kept
        ],
        "gain": None if compared is None else shown(compared.gain, digits),
        "test": name(verdict_["test"]) if verdict_.get("test") else "",
        "note": "" if compared is None else sentence(compared.gain.note or ""),
        "p_value": p_value(finite(verdict_.get("p_value"))),
        "needed": "" if verdict_.get("winner") or not verdict_.get("needed_rows") else count(verdict_["needed_rows"]),
        "is_off": any(value.value is not None and not scale.low <= value.value <= scale.high for _, value, _ in kept),
    }


def _common_scale(sides: Sequence[tuple[str, Interval, int]], metric: str) -> Scale:
    """Return a scale on which the intervals of model and baseline are seen; the majority may lie off it, far below."""
    near = [value for _, value, series in sides if series != _MAJORITY] or [value for _, value, _ in sides]
    if len(near) > 1:
        ends = [end for value in near for end in (value.value, value.low, value.high) if end is not None]
        reach = 1.5 * (max(ends) - min(ends))
        far = [value for _, value, series in sides if series == _MAJORITY and value.value is not None]
        ends += [end for value in far for end in (value.value,) if end is not None and end > min(ends) - reach]
    else:
        ends = [end for _, value, _ in sides for end in (value.value, value.low, value.high) if end is not None]
    low, high = padded(ends, 0.12)
    return strip_scale(max(0.0, low), min(1.0, high) if is_share(metric) else high, width=360.0)


def _foot(report: Mapping[str, Any]) -> list[str]:
    versions = mapping(report, "versions")
    version, created, cpu = versions.get("headrace"), report.get("created"), versions.get("cpu")
    shown = (f"headrace {version}" if version else "", str(created or "").replace("T", " "), str(cpu or ""))
    return [name(one) for one in shown if one]
