"""Scores texts in input order, many at a time, and turns scores into answers; no Lightning."""

from headrace.predict.answers import (
    ABSTAIN,
    CUT,
    EMPTY,
    SURROGATE,
    UNKNOWN,
    Prediction,
    answers,
    flags_of,
    probabilities,
    thresholds,
)
from headrace.predict.narrow import Narrowed
from headrace.predict.passes import (
    MAX_TEXTS,
    MAX_TOKENS,
    MAX_TOKENS_CPU,
    POOLS,
    PRECISIONS,
    Compute,
    device_of,
    embed,
    known_precision,
    score,
    token_vectors,
)

__all__ = [
    "ABSTAIN",
    "CUT",
    "EMPTY",
    "MAX_TEXTS",
    "MAX_TOKENS",
    "MAX_TOKENS_CPU",
    "POOLS",
    "PRECISIONS",
    "SURROGATE",
    "UNKNOWN",
    "Compute",
    "Narrowed",
    "Prediction",
    "answers",
    "device_of",
    "embed",
    "flags_of",
    "known_precision",
    "probabilities",
    "score",
    "thresholds",
    "token_vectors",
]
