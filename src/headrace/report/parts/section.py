"""What a section of the page is, and how a number with its interval stands in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from headrace.evaluation import Interval
from headrace.report.plots import swatch
from headrace.report.words import digits_for, finite, interval, number, percent


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
        id: Where the table of contents leads; no other section of the page has it.
        title: Its heading.
        content: What the template shows.
        template: The name of its template where it is not the id.
    """

    id: str
    title: str
    content: Mapping[str, Any]
    template: str = ""

    @property
    def file(self) -> str:
        """The file of its template."""
        return f"{self.template or self.id}.html.j2"


@dataclass(frozen=True)
class Shown:
    """A number as the page shows it: with its interval, or with the reason why there is none."""

    value: str
    span: str = ""
    note: str = ""


def shown(value: Any, digits: int = 3) -> Shown:
    """Return a number of the report as texts; takes a mapping with `value`, `low` and `high`, an Interval, or a number."""
    found = value if isinstance(value, Interval) else interval(value)
    if found.value is None:
        return Shown("–", note=found.note or "")
    if found.low is None:
        return Shown(number(found.value, digits), note=found.note or "")
    span = f"{number(found.low, digits)} to {number(found.high, digits)}"
    return Shown(number(found.value, digits), span, found.note or "")


def shown_percent(value: Any) -> Shown:
    """Return a share with its interval as per cent."""
    found = value if isinstance(value, Interval) else interval(value)
    if found.value is None or found.low is None or found.high is None:
        return Shown(percent(found.value), note=found.note or "")
    return Shown(percent(found.value), f"{number(100 * found.low, 1)} to {percent(found.high)}", found.note or "")


def digits_of(report: Mapping[str, Any]) -> int:
    """Return how many decimals the evaluated rows deserve."""
    return digits_for(finite(report.get("n_rows")))


@dataclass(frozen=True)
class Figure:
    """A plot with its heading, its legend and how to read it.

    Attributes:
        legend: (swatch, text) of each series.
    """

    title: str
    plot: Markup
    how: str = ""
    legend: tuple[tuple[Markup, str], ...] = field(default=())


def legend(*names: str, has_marks: bool = False) -> tuple[tuple[Markup, str], ...]:
    """Return the legend of series 1, 2, … by their names."""
    return tuple((swatch(i, has_marks=has_marks), text) for i, text in enumerate(names, start=1))
