"""A decision: all that stands between a model's logits and its answers, as the bundle keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.decide.abstain import confidence_of
from headrace.decide.calibration import NONE, Calibration, finite
from headrace.decide.thresholds import DEFAULT
from headrace.metrics import MULTI_LABEL, decisions

_KEYS = ["abstain", "calibration", "thresholds"]
_ABSTAIN_KEYS = ["below", "confidence", "error_rate"]


@dataclass(frozen=True)
class Decision:
    """From logits to scores, answers, and "not sure".

    Attributes:
        labels: The names of the labels, in the order of the logits.
        calibration: From logits to scores.
        thresholds: Of multi-label: from which score on a label is given, one per label, each in [0, 1]; None for 0.5
            (and for a single label, where the highest score wins).
        abstain_below: A row whose confidence (see `abstain.confidence_of`) is below is "not sure"; None for never.
        error_rate: The share of wrong answers that `abstain_below` keeps; None without it.
        confidence: How sure that is; None without it.

    Raises:
        ValueError: The counts do not fit the labels, or a number is not finite or not in its range.
    """

    labels: tuple[str, ...]
    calibration: Calibration
    thresholds: tuple[float, ...] | None = None
    abstain_below: float | None = None
    error_rate: float | None = None
    confidence: float | None = None

    def __post_init__(self) -> None:
        n_labels = len(self.labels)
        if self.calibration.n_labels not in (None, n_labels):
            raise ValueError(f"the calibration is for {self.calibration.n_labels} labels, there are {n_labels}")
        if self.thresholds is not None:
            if self.task != MULTI_LABEL or len(self.thresholds) != n_labels:
                raise ValueError(f"{len(self.thresholds)} thresholds do not suit {self.task} with {n_labels} labels")
            limits = tuple(_share(value, f"the threshold of {name!r}") for name, value in self._pairs())
            object.__setattr__(self, "thresholds", limits)
        given = (self.abstain_below, self.error_rate, self.confidence)
        if given != (None, None, None):
            names = ("abstain.below", "abstain.error_rate", "abstain.confidence")
            for name, value in zip(names, given, strict=True):
                _share(value, name)

    @classmethod
    def plain(cls, labels: Sequence[str], *, task: str) -> Decision:
        """Return the decision in which nothing is fitted: softmax or sigmoid, 0.5, always an answer."""
        return cls(tuple(labels), Calibration(NONE, task))

    @property
    def task(self) -> str:
        """`single_label` or `multi_label`."""
        return self.calibration.task

    @property
    def threshold(self) -> dict[str, float] | None:
        """The thresholds by label name, as `predict.answers` takes them; None for the task's own rule."""
        return None if self.thresholds is None else dict(self._pairs())

    def limits(self) -> np.ndarray | None:
        """Return the thresholds of multi-label, float64 [labels], 0.5 where none are kept; None for a single label."""
        if self.task != MULTI_LABEL:
            return None
        return np.full(len(self.labels), DEFAULT) if self.thresholds is None else np.array(self.thresholds)

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Return calibrated scores, [rows, labels] float32.

        Raises:
            ValueError: There is not one logit per label.
        """
        if np.ndim(logits) != 2 or np.shape(logits)[1] != len(self.labels):
            raise ValueError(f"logits of shape {np.shape(logits)} do not suit {len(self.labels)} labels")
        return self.calibration.apply(logits)

    def decided(self, scores: np.ndarray) -> np.ndarray:
        """Return the answers, whether sure or not: int64 [rows], or bool [rows, labels] of multi-label."""
        limits = self.limits()
        return decisions(scores, multi_label=limits is not None, threshold=limits)

    def is_unsure(self, scores: np.ndarray) -> np.ndarray:
        """Return bool [rows]: where the answer is "not sure". What it promises holds for its own thresholds alone.

        Args:
            scores: [rows, labels], as `scores` gives them.
        """
        if self.abstain_below is None:
            return np.zeros(len(scores), dtype=bool)
        # not (confidence >= limit), so that a row of NaN is unsure, too
        return np.asarray(~(confidence_of(scores, self.limits()) >= self.abstain_below))

    def as_dict(self) -> dict[str, Any]:
        """Return it as bundle.json keeps it.

        Returns:
            `calibration`: see `Calibration.as_dict`. `thresholds`: number by label name, or None. `abstain`: `below`,
            `error_rate` and `confidence`, or None. `from_dict` gives an equal decision, each number to the bit.
        """
        abstain = None
        if self.abstain_below is not None:
            abstain = {"below": self.abstain_below, "error_rate": self.error_rate, "confidence": self.confidence}
        return {"calibration": self.calibration.as_dict(), "thresholds": self.threshold, "abstain": abstain}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], *, labels: Sequence[str], task: str) -> Decision:
        """Return the decision that `as_dict` made.

        Args:
            value: What `as_dict` gave.
            labels: The bundle's labels.
            task: The bundle's task.

        Raises:
            ValueError: It is not exactly that, or is made for other labels or another task.
        """
        if not isinstance(value, Mapping) or sorted(value) != _KEYS:
            raise ValueError(f"a decision is a mapping of {', '.join(_KEYS)}")
        calibration = Calibration.from_dict(value["calibration"])
        if calibration.task != task:
            raise ValueError(f"the decision is for {calibration.task}, the task is {task}")
        by_name, abstain = value["thresholds"], value["abstain"]
        if by_name is not None and (not isinstance(by_name, Mapping) or set(by_name) != set(labels)):
            raise ValueError("thresholds are not a mapping with one number for each label")
        if abstain is not None and (not isinstance(abstain, Mapping) or sorted(abstain) != _ABSTAIN_KEYS):
            raise ValueError(f"abstain is not a mapping of {', '.join(_ABSTAIN_KEYS)}")
        stop = abstain or dict.fromkeys(_ABSTAIN_KEYS)
        if abstain is not None and None in abstain.values():
            raise ValueError("abstain lacks a number")
        return cls(
            labels=tuple(labels),
            calibration=calibration,
            thresholds=None if by_name is None else tuple(by_name[name] for name in labels),
            abstain_below=stop["below"],
            error_rate=stop["error_rate"],
            confidence=stop["confidence"],
        )

    def _pairs(self) -> list[tuple[str, float]]:
        return list(zip(self.labels, self.thresholds or (), strict=True))


def _share(value: Any, name: str) -> float:
    number = finite(value, name)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{name} is {number!r}, not in [0, 1]")
    return number
