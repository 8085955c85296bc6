"""A finding about the data, and the words in which findings are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from headrace.data.examples import TextRows

MAX_SHOWN_ROWS = 10
MAX_SHOWN_LABELS = 5
EQUAL, NEAR = "=", "~"  # between the places of two texts


@dataclass(frozen=True)
class Finding:
    """Something about the data that its owner should know.

    Attributes:
        severity: `error` where the figures would be untrue or a label cannot be learnt, `warning` where quality may
            suffer, `note` for what is good to know.
        code: A word for machines that stays the same between versions.
        what: One plain sentence with the numbers.
        count: Rows concerned, or labels.
        where: `file:row` of the first few rows; of texts that are equal or nearly so both, `test.csv:66 = train.csv:301`
            and `test.csv:66 ~ train.csv:301`; or names.
        next: What to do about it.
    """

    severity: Literal["error", "warning", "note"]
    code: str
    what: str
    count: int
    where: tuple[str, ...]
    next: str

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Finding:
        """Return the finding that was written as JSON.

        Raises:
            TypeError: A field is missing, or there are others.
            KeyError: The same.
        """
        return cls(**{**kept, "where": tuple(kept["where"])})


def shown_rows(examples: TextRows, positions: Sequence[int] | np.ndarray) -> tuple[str, ...]:
    """Return `file:row` of the first ten of these rows."""
    return tuple(examples.where(int(position)) for position in positions[:MAX_SHOWN_ROWS])


def shown_pairs(
    examples: TextRows,
    rows: Sequence[int] | np.ndarray,
    others: TextRows,
    partners: Sequence[int] | np.ndarray,
    mark: str,
) -> tuple[str, ...]:
    """Return `file:row = file:row` of the first ten of these rows and their partners.

    Args:
        examples: Rows.
        rows: Their positions.
        others: Where the partners stand.
        partners: The position of each row's partner; at least the first ten.
        mark: What stands between the two, `=` or `~`.
    """
    ends = list(zip(rows[:MAX_SHOWN_ROWS], partners[:MAX_SHOWN_ROWS], strict=True))
    return tuple(f"{examples.where(int(row))} {mark} {others.where(int(partner))}" for row, partner in ends)


def rows_in_words(n: int) -> str:
    """Return `1 row`, `2 rows` and so on."""
    return "1 row" if n == 1 else f"{n:,} rows"


def have(n: int) -> str:
    """Return `has` for one and `have` for more."""
    return "has" if n == 1 else "have"


def labels_have(n: int) -> str:
    """Return `1 label has`, `2 labels have` and so on."""
    return "1 label has" if n == 1 else f"{n:,} labels have"


def listed(shown: Sequence[str]) -> str:
    """Return the first five, and how many more there are."""
    words = ", ".join(shown[:MAX_SHOWN_LABELS])
    return words if len(shown) <= MAX_SHOWN_LABELS else f"{words} and {len(shown) - MAX_SHOWN_LABELS:,} more"
