"""A split as the audit looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from headrace.data.examples import Examples, TextRows
from headrace.data.labels import label_sets
from headrace.data.split import text_keys


@dataclass(frozen=True, eq=False)
class Audited:
    """A split: what messages call it (`training`, `validation` or `test`) and its rows."""

    name: str
    examples: TextRows

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def keys(self) -> np.ndarray:
        """The keys of the folded texts, [rows] uint64."""
        return text_keys(self.examples)

    @cached_property
    def label_sets(self) -> tuple[np.ndarray, list[tuple[str, ...]]]:
        """What `headrace.data.labels.label_sets` gives; without labels each row has the empty set."""
        if not isinstance(self.examples, Examples):
            return np.zeros(len(self), dtype=np.int32), [()]
        return label_sets(self.examples)

    @property
    def is_labelled(self) -> bool:
        """Whether the rows have labels."""
        return isinstance(self.examples, Examples) and self.examples.is_labelled

    def first_rows(self, keys: np.ndarray) -> list[int]:
        """Return the first row of each of these few keys, all of which occur."""
        return [int(np.argmax(self.keys == key)) for key in keys]
