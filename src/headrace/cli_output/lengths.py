"""How long the training texts are, as a person reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.text.statistics import Lengths


def histogram_part(lengths: Lengths, *, max_length: int | None, key: str = "data.max_length") -> str:
    """Return a bar for each bin of lengths, and where the recipe's key cuts, if it does."""
    from headrace.text.statistics import bars

    return "training texts by tokens:\n" + "\n".join(bars(lengths.histogram, max_length=max_length, key=key))


def length_advice(lengths: Lengths, *, max_length: int, suggested: int, key: str = "data.max_length") -> str:
    """Return which value of the key would keep nearly all texts whole."""
    advice = f"{key} is {max_length:,}; "
    if suggested == max_length:
        return advice + "no other value is suggested"
    if lengths.p95 > suggested:
        return advice + f"{suggested:,} is the most that the backbone takes"
    return advice + f"{suggested:,} would keep 95 % of the training texts whole"
