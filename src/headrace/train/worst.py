"""The most confident mistakes of a run, and of the first few how much each word moved the answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headrace.data.examples import ROW
from headrace.errors import HeadraceError, Interrupted
from headrace.explain import Explanation, Integration, explain
from headrace.metrics import MULTI_LABEL, decisions
from headrace.report import MAX_TEXT_CHARACTERS, mistake_confidence, mistakes
from headrace.train.prepare import Part
from headrace.train.session import Session

MAX_ERRORS = 20
# Attributions take some 30 passes a text: a few seconds for these, of a small encoder.
MAX_EXPLAINED = 8
# Tokens that the last attempt at a text's attributions may read: 64 points of 512 tokens. A recurrent model's sum may never
# come near; without a bound it took a minute a text.
MAX_TOKENS_OF_ONE = 1 << 15


def worst_errors(session: Session, part: Part, scores: np.ndarray, limits: np.ndarray | None) -> list[dict[str, Any]]:
    """Return the most confident mistakes, the surest first, as report.json has them under `errors`.

    Args:
        session: With the weights that gave the scores.
        part: The evaluated rows.
        scores: [rows, labels] of them.
        limits: Thresholds of multi-label, float64 [labels]; None for a single label.

    Returns:
        Of each `row`, `where`, `text` (and `pair`), `true`, `predicted`, `confidence`. Of the first few `attributions`
        ([text, number] each) for the label `explained`, and as `Explanation` tells them `is_exact` and `error_share`:
        whether they sum to what the words changed. These are None of the others.
    """
    names, kind = session.prepared.labels.names, session.module.kind
    order = mistakes(part.targets, scores, task=kind, threshold=limits, most=MAX_ERRORS)
    if not len(order):
        return []
    confidence = mistake_confidence(part.targets, scores, task=kind, threshold=limits)
    decided = decisions(scores, multi_label=kind == MULTI_LABEL, threshold=limits)
    chosen = part.examples.take(order)
    texts = chosen.texts()
    wrong = [_wrong_label(part.targets[i], scores[i], decided[i], names) for i in order.tolist()]
    lengths = part.lengths_of(order[:MAX_EXPLAINED]).tolist()
    told = _explanations(session, texts[:MAX_EXPLAINED], wrong[:MAX_EXPLAINED], lengths)
    rows = []
    for place, (position, row, text) in enumerate(zip(order.tolist(), chosen.column(ROW), texts, strict=True)):
        first, *second = (text,) if isinstance(text, str) else text
        rows.append(
            {
                "row": row,
                "where": part.examples.where(position),
                "text": first[:MAX_TEXT_CHARACTERS],
                **({"pair": second[0][:MAX_TEXT_CHARACTERS]} if second else {}),
                "true": _named(part.targets[position], names),
                "predicted": _named(decided[position], names),
                "confidence": float(confidence[position]),
                **_explained(told[place] if place < len(told) else None),
            }
        )
    return rows


def _wrong_label(target: np.ndarray, scores: np.ndarray, decided: np.ndarray, names: Sequence[str]) -> str:
    """Return the label of a mistake: the one answered, in multi-label the one that is farthest off."""
    if np.ndim(target) == 0:
        return names[int(decided)]
    apart = np.abs(scores.astype(np.float64) - target)
    return names[int(np.where((target != 0) != decided, apart, -1.0).argmax())]


def _explanations(session: Session, texts: list[Any], wrong: list[str], lengths: list[int]) -> list[Explanation]:
    """Return why each text got its wrong label; none where that cannot be had."""
    data = session.recipe.data
    found: list[Explanation] = []
    told = time.monotonic()
    for text, label, length in zip(texts, wrong, lengths, strict=True):
        try:
            found += explain(
                session.module.model,
                session.prepared.subwords,
                [text],
                max_length=data.max_length,
                truncate=data.truncate,
                target=label,
                integration=_bounded(length),
            )
        except Interrupted:
            raise
        except HeadraceError as error:  # captum is not installed, or the backbone has no table of embeddings
            session.say(f"no attributions in the report: {error.what}")
            return []
        if time.monotonic() - told >= 10.0:
            told = time.monotonic()
            session.say(f"explained {len(found)} of {len(texts)} mistakes for the report")
    return found


def _bounded(n_tokens: int) -> Integration:
    """Return how a text of so many tokens is explained: the usual way, with fewer points where it is long."""
    usual = Integration()
    n_points = max(usual.first_steps, min(usual.max_steps, MAX_TOKENS_OF_ONE // max(1, n_tokens)))
    return replace(usual, max_steps=n_points)


def _explained(found: Explanation | None) -> dict[str, Any]:
    if found is None:
        return dict.fromkeys(("attributions", "explained", "is_exact", "error_share"))
    return {
        "attributions": found.tokens(),
        "explained": found.label,
        "is_exact": found.is_exact,
        "error_share": found.error_share,
    }


def _named(value: np.ndarray, names: Sequence[str]) -> str:
    if np.ndim(value):
        return ", ".join(names[int(i)] for i in np.flatnonzero(value)) or "(no label)"
    return names[int(value)]
