"""Vector images as text: elements with everything escaped, scales, and ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Value = str | float | int | None


def element(tag: str, *children: Markup | str, **attributes: Value) -> Markup:
    """Return one element; texts among its children and all attributes are escaped.

    Args:
        tag: The element's name.
        *children: Elements, or texts.
        **attributes: Underscores stand for hyphens (`class_` for `class`); None leaves the attribute out.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_coordinate(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = Markup("").join(children)
    # Names of elements and attributes are ours alone; all else was escaped.
    return Markup(f"<{tag}{shown}>{inner}</{tag}>") if inner else Markup(f"<{tag}{shown}/>")


def _coordinate(value: Value) -> str:
    return short(value) if isinstance(value, float) else str(value)


def short(value: float) -> str:
    """Return a coordinate with at most one decimal: a tenth of a unit is below what a screen shows."""
    shown = f"{value:.1f}"
    return "0" if shown == "-0.0" else shown.removesuffix(".0")


def path(points: Sequence[tuple[float, float]], *, steps: bool = False) -> str:
    """Return a path's `d` through points; with `steps` level until the next point, as a staircase."""
    parts: list[str] = []
    for x, y in points:
        if parts and steps:
            parts.append(f"H{short(x)}V{short(y)}")
        else:
            parts.append(f"{'L' if parts else 'M'}{short(x)} {short(y)}")
    return "".join(parts)


@dataclass(frozen=True)
class Scale:
    """Takes values in [low, high] to places in [start, end]; values outside stay at the border."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the place of a value."""
        if self.high <= self.low:
            return (self.start + self.end) / 2
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def ticks(low: float, high: float, most: int = 5, *, whole: bool = False) -> list[float]:
    """Return round numbers (1, 2 or 5 times a power of ten apart) inside [low, high], at most `most` of them.

    Args:
        low, high: The range; equal ones give that number alone.
        most: At least 2.
        whole: Whole numbers only, for epochs and counts.
    """
    if not high > low:
        return [low]
    power = math.floor(math.log10((high - low) / most))
    for exponent in range(power, power + 3):
        for factor in (1, 2, 5):
            step = factor * 10.0**exponent
            if whole and step < 1:
                continue
            first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
            if last - first + 1 <= most:
                return [round(i * step, 12) for i in range(first, last + 1)] or [low]
    return [low, high]


def padded(values: Sequence[float], share: float = 0.06) -> tuple[float, float]:
    """Return a range around values with some room at both ends; of equal values, a little above and below."""
    low, high = min(values), max(values)
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room
