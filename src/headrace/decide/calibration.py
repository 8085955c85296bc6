"""A calibration: from logits to the scores that a bundle shows, plain numbers in JSON and nothing that executes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from headrace.metrics import MULTI_LABEL, SINGLE_LABEL, TASKS

NONE = "none"
TEMPERATURE = "temperature"
PLATT = "platt"
ISOTONIC = "isotonic"
#: Which methods a task has.
METHODS: dict[str, tuple[str, ...]] = {
    SINGLE_LABEL: (NONE, TEMPERATURE),
    MULTI_LABEL: (NONE, PLATT, ISOTONIC),
}
_KEYS: dict[str, tuple[str, ...]] = {
    NONE: (),
    TEMPERATURE: ("temperature",),
    PLATT: ("slopes", "intercepts"),
    ISOTONIC: ("knots",),
}
#: A slope in the space of logits never falls under this, so a calibration keeps the order of each label's scores.
MIN_SLOPE = 0.01
MAX_SLOPE = 100.0
#: Of Platt and isotonic scores, so that none is exactly 0 or 1 in float32: its smallest normal number and 1 - 2^-24.
_LOWEST, _HIGHEST = np.float32(np.finfo(np.float32).tiny), np.float32(1 - 2**-24)


@dataclass(frozen=True)
class Calibration:
    """How logits become scores.

    Attributes:
        method: `none`, `temperature` (single label), `platt` or `isotonic` (multi-label).
        task: `single_label` or `multi_label`: whether a softmax or a sigmoid ends it.
        parameters: Of `temperature`: `temperature`, a number above 0. Of `platt`: `slopes` and `intercepts`, one of each
            per label. Of `isotonic`: `knots`, per label a pair (logits, calibrated logits), both strictly rising.
            Sequences are kept as tuples.

    Raises:
        ValueError: The method is unknown or not the task's, a parameter is missing, unknown, not finite or not in
            its range, or the counts do not fit each other.
    """

    method: str = NONE
    task: str = SINGLE_LABEL
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"there is no task {self.task!r}")
        if self.method not in METHODS[self.task]:
            raise ValueError(f"{self.task} has no calibration {self.method!r}; it has {', '.join(METHODS[self.task])}")
        if not isinstance(self.parameters, Mapping) or sorted(self.parameters) != sorted(_KEYS[self.method]):
            raise ValueError(f"the calibration {self.method!r} takes {list(_KEYS[self.method])}")
        object.__setattr__(self, "parameters", _PARSED[self.method](self.parameters))

    @property
    def n_labels(self) -> int | None:
        """How many labels it is made for; None for any number."""
        per_label = self.parameters.get("slopes", self.parameters.get("knots"))
        return None if per_label is None else len(per_label)

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Return the scores, [rows, labels] float32 in [0, 1]; of a single label each row adds up to 1.

        All is computed in float64 and rounded once. So `none` differs from what torch gives for the same float32 logits by
        torch's own rounding: under 1e-7 for a sigmoid, up to 2.5e-7 for a softmax. A logit of NaN gives NaN.

        Raises:
            ValueError: The logits are not [rows, labels] with as many labels as it was made for.
        """
        logits = np.asarray(logits, dtype=np.float64)
        if logits.ndim != 2 or (self.n_labels is not None and logits.shape[1] != self.n_labels):
            raise ValueError(f"logits of shape {logits.shape} do not suit a calibration of {self.n_labels} labels")
        if self.task == SINGLE_LABEL:
            return softmax(logits / self.parameters.get("temperature", 1.0)).astype(np.float32)
        if self.method == NONE:
            return sigmoid(logits).astype(np.float32)
        if self.method == PLATT:
            moved = logits * np.array(self.parameters["slopes"]) + np.array(self.parameters["intercepts"])
        else:
            columns = [through_knots(logits[:, i], *knots) for i, knots in enumerate(self.parameters["knots"])]
            moved = np.stack(columns, axis=1) if columns else logits
        return np.clip(sigmoid(moved).astype(np.float32), _LOWEST, _HIGHEST)

    def as_dict(self) -> dict[str, Any]:
        """Return `method`, `task` and `parameters` as JSON holds them; `from_dict` gives an equal calibration."""
        return {"method": self.method, "task": self.task, "parameters": _plain(self.parameters)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Calibration:
        """Return the calibration that `as_dict` made.

        Raises:
            ValueError: It is not exactly that: see the class.
        """
        if not isinstance(value, Mapping) or sorted(value) != ["method", "parameters", "task"]:
            raise ValueError("a calibration is a mapping of method, parameters and task")
        if not isinstance(value["method"], str) or not isinstance(value["task"], str):
            raise ValueError("a calibration's method and task are names")
        return cls(value["method"], value["task"], value["parameters"])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities over the last axis, float64; the largest logit is taken off first, so nothing overflows."""
    with np.errstate(invalid="ignore", under="ignore"):
        raised = np.exp(logits - logits.max(axis=-1, keepdims=True, initial=-np.inf))
        return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)), float64, from exp(-|x|) alone, so nothing overflows and small values stay exact."""
    with np.errstate(under="ignore"):
        small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1.0, small) / (1.0 + small))


def logit(scores: np.ndarray | float) -> np.ndarray:
    """Return ln(p / (1 - p)), float64; infinite at 0 and 1."""
    values = np.asarray(scores, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(values) - np.log1p(-values))


def through_knots(values: np.ndarray, xs: tuple[float, ...], ys: tuple[float, ...]) -> np.ndarray:
    """Return the value of the line through the knots, [rows] float64.

    Beyond the first and the last knot it goes on with `MIN_SLOPE`: it rises everywhere, so the order of the scores stays,
    but grows hardly surer than the rows there have shown.
    """
    inside = np.interp(values, xs, ys)
    beyond = np.minimum(values - xs[0], 0.0) + np.maximum(values - xs[-1], 0.0)
    return np.asarray(inside + MIN_SLOPE * beyond)


def _temperature(raw: Mapping[str, Any]) -> dict[str, Any]:
    temperature = finite(raw["temperature"], "temperature")
    if temperature <= 0:
        raise ValueError(f"a temperature of {temperature!r} is not above 0")
    return {"temperature": temperature}


def _platt(raw: Mapping[str, Any]) -> dict[str, Any]:
    slopes, intercepts = _numbers(raw["slopes"], "slopes"), _numbers(raw["intercepts"], "intercepts")
    if len(slopes) != len(intercepts):
        raise ValueError(f"there are {len(slopes)} slopes and {len(intercepts)} intercepts")
    if any(slope <= 0 for slope in slopes):
        raise ValueError(f"a slope of {min(slopes)!r} is not above 0")
    return {"slopes": slopes, "intercepts": intercepts}


def _isotonic(raw: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(raw["knots"], list | tuple):
        raise ValueError("knots are a list")
    return {"knots": tuple(_knots(pair, f"knots of label {i}") for i, pair in enumerate(raw["knots"]))}


def _knots(pair: Any, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise ValueError(f"{name} are not a pair of lists")
    xs, ys = _numbers(pair[0], name), _numbers(pair[1], name)
    if len(xs) != len(ys) or not xs:
        raise ValueError(f"{name} have {len(xs)} logits and {len(ys)} calibrated logits")
    if any(b <= a for values in (xs, ys) for a, b in pairwise(values)):
        raise ValueError(f"{name} do not rise")
    return xs, ys


def finite(value: Any, name: str) -> float:
    """Return a finite number as a float.

    Raises:
        ValueError: It is not one.
    """
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    try:
        number = float(value) if is_number else np.nan
    except OverflowError:  # JSON holds whole numbers of any size
        number = np.inf
    if not np.isfinite(number):
        raise ValueError(f"{name} is {value!r:.60}, not a finite number")
    return number


def _numbers(values: Any, name: str) -> tuple[float, ...]:
    if not isinstance(values, list | tuple | np.ndarray):
        raise ValueError(f"{name} are not a list of numbers")
    return tuple(finite(value, name) for value in values)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


_PARSED: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    NONE: lambda raw: {},
    TEMPERATURE: _temperature,
    PLATT: _platt,
    ISOTONIC: _isotonic,
}
