"""From logits to probabilities, and from probabilities to answers with flags."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from headrace import plugins
from headrace.decide.calibration import NONE
from headrace.decide.decision import Decision
from headrace.errors import RecipeError, suggestion

EMPTY = "empty"
UNKNOWN = "unknown"
CUT = "cut"
SURROGATE = "surrogate"
ABSTAIN = "abstain"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Prediction:
    """The answer for one text.

    Attributes:
        scores: Probability of each label, by name.
        label: The label; None in multi-label, and where the classifier is not sure.
        index: Its position in the label set; None like the label.
        labels: The labels of a multi-label text, () for a clean one; always () in single-label.
        indices: Their positions.
        flags: What to know about the text: `empty` (white space alone, in a pair on either side, or nothing
            that the tokenizer keeps), `unknown` (it knows none of it), `cut` (it is longer than `max_length`), `surrogate` (it holds half a character).
        reason: Why there is no answer: `abstain` where the classifier is not sure enough; None with an answer.
        is_multi_label: Whether a text may have none or several labels.
    """

    scores: dict[str, float]
    label: str | None = None
    index: int | None = None
    labels: tuple[str, ...] = ()
    indices: tuple[int, ...] = ()
    flags: tuple[str, ...] = field(default=())
    reason: str | None = None
    is_multi_label: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON shows it: `label` and `index`, or `labels` and `indices`; then `scores` and `flags`.

        Without an answer they are null, and `reason` says why.
        """
        if not self.is_multi_label:
            answer: dict[str, Any] = {"label": self.label, "index": self.index}
        elif self.reason is None:
            answer = {"labels": list(self.labels), "indices": list(self.indices)}
        else:
            answer = {"labels": None, "indices": None}
        if self.reason is not None:
            answer["reason"] = self.reason
        return {**answer, "scores": dict(self.scores), "flags": list(self.flags)}


def probabilities(logits: np.ndarray, task: str, decision: Decision) -> np.ndarray:
    """Return the probability of each label, [texts, labels] float32: the task's own, calibrated where that is kept.

    Args:
        logits: [texts, labels] float32.
        task: The task's name.
        decision: Its calibration is used.
    """
    if decision.calibration.method != NONE:
        return decision.scores(logits)
    scores: np.ndarray = plugins.find("task", task).scores(torch.from_numpy(logits)).numpy()
    return scores


def answers(
    scores: np.ndarray,
    labels: Sequence[str],
    *,
    task: str,
    threshold: float | Mapping[str, float] | None = None,
    flags: Sequence[tuple[str, ...]] | None = None,
    unsure: np.ndarray | None = None,
) -> list[Prediction]:
    """Return the Prediction of each row of scores.

    Args:
        scores: [texts, labels] probabilities.
        labels: The names of the columns.
        task: The task's name.
        threshold: See `thresholds`; None for the task's own rule.
        flags: Of each text.
        unsure: bool [texts]: the texts that get no answer; None for none.

    Raises:
        RecipeError: A threshold is not in [0, 1], names an unknown label, or does not suit the task.
    """
    module = plugins.find("task", task)
    is_multi_label = bool(module.MULTI_LABEL)
    limits = thresholds(threshold, labels, multi_label=is_multi_label)
    names = tuple(labels)
    found = []
    decided = module.decode(scores, threshold=limits) if len(scores) else []
    for position, (row, answer) in enumerate(zip(scores.tolist(), decided, strict=True)):
        by_name = dict(zip(names, row, strict=True))
        marks = flags[position] if flags is not None else ()
        common = Prediction(by_name, flags=marks, is_multi_label=is_multi_label)
        if unsure is not None and unsure[position]:
            found.append(replace(common, reason=ABSTAIN))
        elif is_multi_label:
            found.append(replace(common, labels=tuple(names[index] for index in answer), indices=tuple(answer)))
        else:
            found.append(replace(common, label=names[answer], index=answer))
    return found


def thresholds(
    threshold: float | Mapping[str, float] | None, labels: Sequence[str], *, multi_label: bool
) -> float | np.ndarray | None:
    """Return what a task's `decode` takes: None, one number, or [labels] float64, NaN for a label without one.

    Args:
        threshold: Of multi-label one number for all labels, or numbers by label name (0.5 for those that are left out).
            Of two single labels a number by the name of one of them: from which score on that one is the answer.
        labels: The labels' names.
        multi_label: Whether a text may have any number of labels.

    Raises:
        RecipeError: A threshold is not a number in [0, 1], names an unknown label, or does not suit the task.
    """
    if threshold is None:
        return None
    if not multi_label and len(labels) != 2:
        raise RecipeError(
            f"one of {len(labels)} labels is the answer: a threshold suits two labels, or task: multi_label",
            where="threshold",
            next="leave the threshold out: the label with the highest score is the answer",
        )
    if not isinstance(threshold, Mapping):
        if multi_label:
            return _share(threshold, "threshold")
        raise RecipeError(
            f"a threshold for one of {labels[0]!r} and {labels[1]!r} does not say for which",
            where="threshold",
            next=f"name it, such as {labels[1]}={_share(threshold, 'threshold'):g}",
        )
    unknown = [name for name in threshold if name not in labels]
    if unknown:
        raise RecipeError(
            f"there is no label {unknown[0]!r} to set a threshold for",
            where="threshold",
            next=suggestion(str(unknown[0]), labels),
        )
    if not multi_label:
        if len(threshold) != 1:
            raise RecipeError(
                "a threshold for each of two labels of which one is the answer",
                where="threshold",
                next="give one: it says where the other begins, too",
            )
        ((name, value),) = threshold.items()
        found = np.full(2, np.nan)
        found[labels.index(name)] = _share(value, f"threshold: {name}")
        return found
    return np.array([_share(threshold.get(name, 0.5), f"threshold: {name}") for name in labels])


def read_threshold(words: Sequence[str] | None) -> float | dict[str, float] | None:
    """Return the threshold that a command line's words say: `0.3` for all labels, or `LABEL=0.3` for each of some.

    Raises:
        RecipeError: A word is not of that form, a label stands twice, or one number is among named ones.
    """
    by_name: dict[str, float] = {}
    words = words or ()
    for word in words:
        # a label may hold the sign, too, a number never
        name, separator, number = word.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise RecipeError(
                f"{word!r} is no threshold",
                where="--threshold",
                next="write a number or LABEL=NUMBER, such as spam=0.3",
            ) from None
        if not separator and len(words) == 1:
            return value
        if not separator or name in by_name:
            raise RecipeError(
                f"{name!r} has two thresholds" if separator else f"{word} does not say for which label",
                where="--threshold",
                next="give one number for all labels, or LABEL=NUMBER once for each of some",
            )
        by_name[name] = value
    return by_name or None


def flags_of(
    text: str | tuple[str, str], *, n_kept: int, n_full: int, n_special: int, n_unknown: int
) -> tuple[str, ...]:
    """Return the flags of one text or pair, see `Prediction`.

    Args:
        text: As it was given.
        n_kept: Tokens after the cut, special ones included.
        n_full: Tokens before the cut, special ones included.
        n_special: Special tokens around it.
        n_unknown: Unknown tokens among those that were kept.
    """
    parts = (text,) if isinstance(text, str) else text
    n_own = n_kept - n_special
    found = (
        (EMPTY, n_own <= 0 or any(not part.strip() for part in parts)),
        (UNKNOWN, 0 < n_own <= n_unknown),
        (CUT, n_full > n_kept),
        (SURROGATE, any(_LONE_SURROGATE.search(part) for part in parts)),
    )
    return tuple(name for name, holds in found if holds)


def _share(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0.0 <= float(value) <= 1.0:
        raise RecipeError(f"a threshold of {value!r} is not a number in [0, 1]", where=where, next="try 0.5")
    return float(value)
