"""Small plots as inline SVG that take their colours from the page, so that they follow its theme.

A plot is 320 units wide: on a phone and in a column of a desktop page its letters then have about their natural size.
Colour is never alone: series differ in dashes and in the form of their marks, too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from headrace.evaluation import Interval
from headrace.report.svg import Scale, element, path, short, ticks
from headrace.report.words import MINUS

WIDTH = 320
N_SERIES = 6
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 40
# A character of 12 units is about 6.7 wide in the usual system fonts.
_CHARACTER = 6.7

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """One direction of a plot.

    Attributes:
        label: What it shows, with the unit.
        low, high: The range.
        whole: Ticks at whole numbers alone.
        is_share: Tell ticks as per cent.
        most: Ticks at most.
    """

    label: str
    low: float
    high: float
    whole: bool = False
    is_share: bool = False
    most: int = 6

    def ticks(self) -> list[tuple[float, str]]:
        """Return the ticks' values and texts."""
        values = ticks(self.low, self.high, self.most, whole=self.whole)
        return list(zip(values, tick_texts(values, is_share=self.is_share), strict=True))


def tick_texts(values: Sequence[float], *, is_share: bool = False) -> list[str]:
    """Return ticks as short texts, all with the same number of decimals: 0.90, 25 %, 10k, 2e−5."""
    shown = [100 * value for value in values] if is_share else list(values)
    largest = max((abs(value) for value in shown), default=0.0)
    step = min((b - a for a, b in itertools.pairwise(shown) if b > a), default=largest or 1.0)
    if 0 < largest < 1e-3:
        return [("0" if value == 0 else f"{value:.0e}".replace("e-0", "e-")).replace("-", MINUS) for value in shown]
    if largest >= 10_000 and all(value % 100 == 0 for value in shown):
        return [f"{value / 1000:g}k".replace("-", MINUS) if value else "0" for value in shown]
    digits = max(0, min(6, -math.floor(math.log10(step) + 1e-9)))
    if digits and any(abs(value * 10**digits - round(value * 10**digits)) > 1e-6 for value in shown):
        digits += 1
    return [f"{value:,.{digits}f}".replace("-", MINUS) + (" %" if is_share else "") for value in shown]


@dataclass
class Plot:
    """Axes with a frame of ticks, and what is drawn on them in the order of the calls.

    Args:
        title: What the plot shows, for those who do not see it.
        description: What is to be seen in it, in words.
        x, y: The axes.
        height: In units; the width is 320.
    """

    title: str
    description: str
    x: Axis
    y: Axis
    height: int = 220
    left: int = _LEFT
    _drawn: list[Markup] = field(default_factory=list)

    @property
    def across(self) -> Scale:
        """From values of x to places."""
        return Scale(self.x.low, self.x.high, self.left, WIDTH - _RIGHT)

    @property
    def up(self) -> Scale:
        """From values of y to places."""
        return Scale(self.y.low, self.y.high, self.height - _BOTTOM, _TOP)

    def line(self, points: Sequence[Point], series: int = 1, *, kind: str = "line", steps: bool = False) -> Plot:
        """Draw a line through points; `kind` is `line`, `faint` (raw values behind a mean) or `rule` (dashed)."""
        if points:
            places = [(self.across.at(x), self.up.at(y)) for x, y in points]
            self._drawn.append(element("path", d=path(places, steps=steps), class_=f"{kind} s{series}"))
        return self

    def steps(self, points: Sequence[Point], series: int = 1, *, kind: str = "line") -> Plot:
        """Draw a line that stays level until the next point."""
        return self.line(points, series, kind=kind, steps=True)

    def area(self, points: Sequence[Point], series: int = 1, *, base: float = 0.0) -> Plot:
        """Shade between a line and a level."""
        if points:
            places = [(self.across.at(x), self.up.at(y)) for x, y in points]
            foot = self.up.at(base)
            outline = path([(places[0][0], foot), *places, (places[-1][0], foot)]) + "Z"
            self._drawn.append(element("path", d=outline, class_=f"area s{series}"))
        return self

    def dots(
        self, points: Sequence[Point], series: int = 1, *, spans: Sequence[Point | None] = (), big: bool = False
    ) -> Plot:
        """Draw a mark at each point, and from `spans` the interval (low, high) of its y as a bar."""
        for (x, _), span in zip(points, spans, strict=False):
            if span is not None:
                at = short(self.across.at(x))
                d = f"M{at} {short(self.up.at(span[0]))}V{short(self.up.at(span[1]))}"
                self._drawn.append(element("path", d=d, class_=f"span s{series}"))
        for x, y in points:
            self._drawn.append(mark(self.across.at(x), self.up.at(y), series, big=big))
        return self

    def bars(self, edges: Sequence[float], heights: Sequence[float], series: int = 1) -> Plot:
        """Draw a histogram: `edges` has one number more than `heights`."""
        foot = self.up.at(self.y.low)
        for low, high, value in zip(edges, edges[1:], heights, strict=False):
            left, right, top = self.across.at(low), self.across.at(high), self.up.at(value)
            if value > 0 and right > left:
                gap = 0.5 if right - left > 3 else 0.0
                box = {"x": left + gap, "y": min(top, foot - 0.7), "width": right - left - 2 * gap}
                self._drawn.append(
                    element("rect", **box, height=max(0.7, foot - top), class_=f"bar s{series}")  # a few stay visible
                )
        return self

    def vertical(self, x: float, text: str) -> Plot:
        """Draw a dashed line at a value of x, with a short text at its top."""
        at = self.across.at(x)
        self._drawn.append(element("path", d=f"M{short(at)} {_TOP}V{short(self.up.start)}", class_="rule"))
        is_right = at > WIDTH - _RIGHT - len(text) * _CHARACTER - 6
        place = at - 5 if is_right else at + 5
        anchor = "end" if is_right else "start"
        self._drawn.append(element("text", text, x=place, y=_TOP + 9, text_anchor=anchor, class_="note"))
        return self

    def horizontal(self, y: float, text: str = "") -> Plot:
        """Draw a dashed line at a value of y, with a short text above its left end."""
        at = self.up.at(y)
        self._drawn.append(element("path", d=f"M{self.left} {short(at)}H{WIDTH - _RIGHT}", class_="rule"))
        if text:
            above = at - 5 if at > _TOP + 14 else at + 13
            self._drawn.append(element("text", text, x=self.left + 4, y=above, class_="note"))
        return self

    def svg(self) -> Markup:
        """Return the image."""
        return element(
            "svg",
            element("title", self.title),
            element("desc", self.description),
            *self._frame(),
            *self._drawn,
            role="img",
            viewBox=f"0 0 {WIDTH} {self.height}",
            class_="plot",
        )

    def _frame(self) -> list[Markup]:
        bottom, right = self.up.start, WIDTH - _RIGHT
        drawn = []
        for value, text in self.y.ticks():
            at = self.up.at(value)
            drawn.append(element("path", d=f"M{self.left} {short(at)}H{right}", class_="grid"))
            drawn.append(element("text", text, x=self.left - 6, y=at + 4, text_anchor="end"))
        for value, text in self._fitting(self.x.ticks()):
            at = self.across.at(value)
            drawn.append(element("path", d=f"M{short(at)} {short(bottom)}v4", class_="tick"))
            half = len(text) * _CHARACTER / 2
            place = min(at, WIDTH - 1 - half)  # the last one may not run out of the image
            drawn.append(element("text", text, x=place, y=bottom + 16, text_anchor="middle"))
        drawn.append(element("path", d=f"M{self.left} {short(bottom)}H{right}", class_="axis"))
        middle = (self.left + right) / 2
        drawn.append(element("text", self.x.label, x=middle, y=self.height - 6, text_anchor="middle", class_="label"))
        return drawn

    def _fitting(self, found: list[tuple[float, str]]) -> list[tuple[float, str]]:
        """Leave out every other tick until their texts stand apart."""
        while len(found) > 2:
            places = [self.across.at(value) for value, _ in found]
            widest = max(len(text) for _, text in found) * _CHARACTER + 8
            if min(b - a for a, b in itertools.pairwise(places)) >= widest:
                break
            found = found[::2]
        return found


def mark(x: float, y: float, series: int = 1, *, big: bool = False) -> Markup:
    """Return the mark of a series: circle, square, diamond, triangle."""
    r = 5.0 if big else 3.4
    kind = f"dot s{series}"
    if series == 2:
        return element("rect", x=x - r, y=y - r, width=2 * r, height=2 * r, class_=kind)
    forms: dict[int, Callable[[], str]] = {
        3: lambda: f"M{short(x)} {short(y - r - 1)}l{r + 1} {r + 1}l-{r + 1} {r + 1}l-{r + 1} -{r + 1}Z",
        4: lambda: f"M{short(x)} {short(y - r - 1)}l{r + 1} {2 * r}h-{2 * r + 2}Z",
    }
    if series in forms:
        return element("path", d=forms[series](), class_=kind)
    return element("circle", cx=x, cy=y, r=r, class_=kind)


def swatch(series: int, *, has_line: bool = True, has_marks: bool = False) -> Markup:
    """Return the small sample of a series for a legend."""
    inside = [element("path", d="M1 7H27", class_=f"line s{series}")] if has_line else []
    if has_marks:
        inside.append(mark(14, 7, series, big=not has_line))
    return _decoration(inside, 28, 14, "swatch")


def strip_scale(low: float, high: float, *, width: float = 180.0) -> Scale:
    """Return the scale of a column of strips that are so many units wide."""
    return Scale(low, high, 6.0, width - 6.0)


def strip(found: Interval, *, scale: Scale, reference: float | None = None, series: int = 1) -> Markup:
    """Return one row of a dot plot: a mark with its interval, for a table's cell that stands beside the numbers.

    Args:
        found: Without a value the row is empty but for the reference. A value off the scale is an arrow at the border.
        scale: The range of the column, see `strip_scale`.
        reference: A value that a thin dashed line marks.
        series: Gives colour and mark.
    """
    drawn = [element("path", d=f"M{short(scale.start)} 11H{short(scale.end)}", class_="grid")]
    if reference is not None and scale.low <= reference <= scale.high:
        drawn.append(element("path", d=f"M{short(scale.at(reference))} 0V22", class_="rule"))
    value = found.value
    if value is not None and not scale.low <= value <= scale.high:
        tip, way = (scale.start - 5, 9) if value < scale.low else (scale.end + 5, -9)
        drawn.append(element("path", d=f"M{short(tip)} 11l{way} -5v10Z", class_=f"dot s{series}"))
    elif value is not None:
        if found.low is not None and found.high is not None:
            d = f"M{short(scale.at(found.low))} 11H{short(scale.at(found.high))}"
            drawn.append(element("path", d=d, class_=f"span s{series}"))
        drawn.append(mark(scale.at(value), 11, series, big=True))
    return _decoration(drawn, scale.end + 6, 22, "strip")


def _decoration(drawn: Sequence[Markup], width: float, height: float, kind: str) -> Markup:
    """Return an image whose content stands beside it as text, so that it is not read aloud."""
    box = f"0 0 {short(width)} {short(height)}"
    return element("svg", *drawn, viewBox=box, class_=kind, aria_hidden="true", focusable="false")


def strip_axis(scale: Scale, *, is_share: bool = False) -> Markup:
    """Return the ticks of a column of strips, for the table's header."""
    values = ticks(scale.low, scale.high, 4 if scale.end < 250 else 6)
    drawn = []
    for value, text in zip(values, tick_texts(values, is_share=is_share), strict=True):
        half = len(text) * _CHARACTER / 2
        at = scale.at(value)
        place = min(max(at, half), scale.end + 6 - half)
        drawn.append(element("path", d=f"M{short(at)} 16v5", class_="tick"))
        drawn.append(element("text", text, x=place, y=11, text_anchor="middle"))
    return _decoration(drawn, scale.end + 6, 22, "strip")


def share_bar(share: float, series: int = 1) -> Markup:
    """Return a bar of a table's cell, full at 1."""
    width = 120 * min(max(share, 0.0), 1.0)
    drawn = [element("rect", x=0, y=4, width=120, height=8, class_="track")]
    if width > 0:
        drawn.append(element("rect", x=0, y=4, width=max(width, 1.0), height=8, class_=f"bar s{series}"))
    return _decoration(drawn, 120, 16, "sharebar")


def small(title: str, description: str, points: Sequence[Point], *, chance: Sequence[Point]) -> Markup:
    """Return a square plot of a curve in the unit square, with a dashed line for what chance gives."""
    scale, up = Scale(0.0, 1.0, 26.0, 154.0), Scale(0.0, 1.0, 132.0, 6.0)
    drawn = [element("title", title), element("desc", description)]
    for value, text in ((0.0, "0"), (0.5, ".5"), (1.0, "1")):
        drawn.append(element("path", d=f"M26 {short(up.at(value))}H154", class_="grid"))
        drawn.append(element("text", text, x=21, y=up.at(value) + 3.5, text_anchor="end"))
        drawn.append(element("text", text, x=scale.at(value), y=148, text_anchor="middle"))
    drawn.append(element("path", d=path([(scale.at(x), up.at(y)) for x, y in chance]), class_="rule"))
    drawn.append(element("path", d=path([(scale.at(x), up.at(y)) for x, y in points]), class_="line s1"))
    return element("svg", *drawn, role="img", viewBox="0 0 160 152", class_="plot small")
