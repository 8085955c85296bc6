"""What a linear model cannot see in two bags of words: how much of each text of a pair stands in the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.baseline.terms import words

_STEPS = 10
#: Columns: the share of the second text's words that stand in the first, 0 to 10 tenths, and the other way round.
N_COLUMNS = 2 * (_STEPS + 1)


def overlaps(pairs: Sequence[tuple[str, str]]) -> Any:
    """Return a scipy CSR matrix, float32 [pairs, 22]: of each row two are 1, the rounded tenths of shared words.

    Tenths rather than a number, so that the linear model may bend: few and all shared words can both be telling.
    """
    from scipy.sparse import csr_matrix

    places = np.empty((len(pairs), 2), dtype=np.int32)
    for row, (first, second) in enumerate(pairs):
        one, other = set(words(first)), set(words(second))
        n_shared = len(one & other)
        places[row] = round(_STEPS * n_shared / max(1, len(other))), round(_STEPS * n_shared / max(1, len(one)))
    places[:, 1] += _STEPS + 1
    ends = np.arange(0, places.size + 1, 2)
    return csr_matrix((np.ones(places.size, dtype=np.float32), places.ravel(), ends), shape=(len(pairs), N_COLUMNS))
