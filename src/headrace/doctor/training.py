"""Diagnoses of how the training went: losses, epochs, weights that did not move."""

from __future__ import annotations

import math

import numpy as np

from headrace.doctor.facts import HEAD, Diagnosis, Facts, numbers, rate

#: A loss that changes by less than this share between the first and the last tenth of the steps did not move.
_SAME_LOSS = 0.03
#: Below, there is nothing left to learn from the training rows.
_NO_LOSS = 0.01
#: A rise of the training loss between tenths of the steps: in nats, and as a share of its first tenth.
_RISE_NATS, _RISE_SHARE = 0.05, 0.1
#: The validation loss grows by this factor over its least before overfitting is said: by 17 % it grew in a third epoch
#: on 270 reviews, and by 6 % in a second on 4,500, without harm to the accuracy that could be told from chance.
_OVERFIT_RISE = 1.3
#: So much better is the monitored figure on training than on validation rows.
_OVERFIT_GAP = 0.15
#: The least gain of the last epoch that makes more epochs worth while; and not less than a standard error.
_GAIN = 0.003
#: Weights that move relatively less than rounding did not move.
_NO_CHANGE = 1e-7


def not_finite(facts: Facts) -> Diagnosis | None:
    """NaN or infinity in a loss, a gradient, a figure of validation or a score."""
    found = []
    if facts.stopped and ("finite" in facts.stopped or "nan" in facts.stopped.lower()):
        found.append(facts.stopped.splitlines()[0])
    for name, values in (("training loss", facts.curve.get("loss", ())), ("gradient", facts.curve.get("norm", ()))):
        bad = _not_finite(values)
        if bad:
            found.append(f"the {name} at {bad} points of its curve")
    for name in ("train_loss", "valid"):
        of_epochs = [record.get(name) for record in facts.history]
        losses = [value.get("loss") for value in of_epochs if isinstance(value, dict)] if name == "valid" else of_epochs
        bad = _not_finite(losses)
        if bad:
            found.append(f"the {'validation' if name == 'valid' else 'training'} loss of {bad} epochs")
    for name, scores in ((facts.split, facts.scores), ("validation", facts.valid_scores)):
        bad_rows = 0 if scores is None else int((~np.isfinite(np.asarray(scores, dtype=np.float64))).any(axis=-1).sum())
        if bad_rows:
            found.append(f"the scores of {bad_rows:,} {name} rows")
    if not found:
        return None
    return Diagnosis(
        "not_finite",
        "error",
        f"not a finite number: {'; '.join(found)}. The likely cause is a learning rate that is too high, or half precision",
        _lower(facts, "and if it comes back --set fit.precision=fp32"),
    )


def _not_finite(values: object) -> int:
    found = [value for value in values if isinstance(value, float)] if isinstance(values, list | tuple) else []
    return sum(not math.isfinite(value) for value in found)


def loss_never_moved(facts: Facts) -> Diagnosis | None:
    """The training loss ends where it began."""
    losses = _finite(facts.losses())
    if len(losses) < 2:
        return None
    first, last = _ends(losses)
    if first < _NO_LOSS or abs(first - last) >= _SAME_LOSS * first:
        return None
    advice = "check that the labels belong to the texts"
    if facts.learning_rate is not None:
        higher, lower = rate(facts.learning_rate * 5), rate(facts.learning_rate / 5)
        advice = (
            f"--set fit.learning_rate={higher} (or {lower}, if `headrace fit --find-lr` shows a loss that climbs), "
            "and " + advice
        )
    return Diagnosis(
        "loss_never_moved",
        "error",
        f"the training loss never moved: {first:.4f} at the start, {last:.4f} at the end. The likely cause is a learning "
        "rate far too low or far too high, or labels that have nothing to do with the texts",
        advice,
    )


def learning_rate_too_high(facts: Facts) -> Diagnosis | None:
    """The training loss rises again, or above where it began."""
    losses = _finite(facts.losses())
    if len(losses) < 2:
        return None
    split = np.array_split(losses, min(10, len(losses)))
    parts = np.array([part.mean() for part in split])
    # small batches differ by chance: a rise counts beyond three standard errors of the two means
    errors = np.array([part.std(ddof=1) ** 2 / len(part) if len(part) > 1 else 0.0 for part in split])
    chance = 3 * np.sqrt(errors[:, None] + errors[None, :])
    least, last, highest = float(parts.min()), float(parts[-1]), float(parts.max())
    rise = max(_RISE_NATS, _RISE_SHARE * float(parts[0]))
    ends_high = last > least + rise + chance[int(parts.argmin()), -1]
    jumped = highest > parts[0] + 2 * rise + chance[int(parts.argmax()), 0]
    if not (ends_high or jumped):
        return None
    seen = (
        f"fell to {least:.4f} and ended at {last:.4f}"
        if ends_high
        else f"began at {parts[0]:.4f}, rose to {highest:.4f}"
    )
    return Diagnosis(
        "learning_rate_too_high",
        "warning",
        f"the training loss {seen}. The likely cause is a learning rate that is too high",
        _lower(facts, "or a longer warm-up: --set fit.warmup=0.2"),
    )


def overfitting(facts: Facts) -> Diagnosis | None:
    """Training rows are known much better than validation rows, and further epochs made validation worse."""
    valid_loss, figure = facts.of_epochs("valid", "loss"), _signed(facts, "valid")
    if len(figure) == 0 or np.isnan(figure).all():
        return None
    best, n_epochs = int(np.nanargmax(figure)), len(figure)
    gap = float(_signed(facts, "train")[best] - figure[best])
    least, last = float(np.nanmin(valid_loss, initial=math.inf)), float(valid_loss[-1])
    rises = best < n_epochs - 1 and math.isfinite(least) and last > least * _OVERFIT_RISE
    if not rises and not (gap > _OVERFIT_GAP and facts.monitor != "loss"):
        return None
    said = [f"epoch {best + 1} of {n_epochs} was the best"]
    if rises:
        said.append(f"the validation loss rose from {least:.4f} to {last:.4f}")
    if math.isfinite(gap) and gap > 0:
        said.append(f"{facts.monitor} was better by {gap:.3f} on training than on validation rows")
    fewer = f"--set fit.epochs={best + 1}" if best < n_epochs - 1 else "--set fit.early_stopping=1"
    return Diagnosis(
        "overfitting",
        "warning",
        f"the model learns its training rows by heart: {', '.join(said)}",
        f"{fewer}, --set head.dropout=0.3, or more training rows; the weights of the best epoch are those in the bundle",
    )


def still_improving(facts: Facts) -> Diagnosis | None:
    """The last planned epoch was the best, by more than chance."""
    figure, loss = _signed(facts, "valid"), facts.of_epochs("valid", "loss")
    n_done = len(figure)
    if n_done < 2 or np.isnan(figure).any() or (facts.n_epochs or n_done) > n_done:
        return None
    gain = float(figure[-1] - figure[:-1].max())
    value, scored = float(abs(figure[-1])), facts.scored(of_validation=True)
    # the standard error of a share of rows; other figures in [0, 1] are not surer
    chance = math.sqrt(value * (1 - value) / len(scored[0])) if scored and value <= 1 else 0.0
    if gain <= max(_GAIN, chance) or not loss[-1] < loss[-2]:
        return None
    return Diagnosis(
        "still_improving",
        "note",
        f"the last epoch was the best: {facts.monitor} gained {gain:.4f} in it. More epochs are likely to give more",
        f"--set fit.epochs={n_done + max(1, n_done // 2)}",
    )


def frozen_head(facts: Facts) -> Diagnosis | None:
    """The head's weights are as they were drawn."""
    if HEAD in facts.fixed or HEAD not in _unmoved(facts):
        return None
    return Diagnosis(
        "frozen_head",
        "error",
        "the weights of the head did not change, so its answers are those of random weights. The likely cause is a "
        "learning rate of 0 for it, or code that turned its gradient off",
        f"check fit.learning_rate ({_told(facts.learning_rate)}); with a module of your own, leave requires_grad on and "
        "give the head's parameters to the optimizer",
    )


def frozen_backbone(facts: Facts) -> Diagnosis | None:
    """Weights of the backbone are as they were, though they were meant to learn."""
    still = [name for name in _unmoved(facts) if name != HEAD and name not in facts.fixed]
    if not still:
        return None
    all_of_it = len(still) == sum(name != HEAD for name in facts.changes)
    shown = ", ".join(still[:5]) + (f" and {len(still) - 5} more" if len(still) > 5 else "")
    part = "the backbone" if all_of_it else f"{len(still)} groups of the backbone"
    return Diagnosis(
        "frozen_backbone",
        "warning",
        f"the weights of {part} did not change ({shown}), though they were meant to learn. The likely cause is a learning "
        f"rate that layer_decay ({_told(facts.layer_decay)}) takes to nothing, or code that turned the gradient off",
        "--set fit.layer_decay=0.9; with a module of your own, leave requires_grad on",
    )


def _unmoved(facts: Facts) -> list[str]:
    return [name for name, change in facts.changes.items() if abs(change) < _NO_CHANGE]


def _signed(facts: Facts, split: str) -> np.ndarray:
    """Return the monitored figure of each epoch, larger being better."""
    return facts.of_epochs(split, facts.monitor) * (1 if facts.larger_is_better else -1)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.asarray(values[np.isfinite(values)])


def _ends(values: np.ndarray) -> tuple[float, float]:
    n = max(1, len(values) // 10)
    return float(values[:n].mean()), float(values[-n:].mean())


def _lower(facts: Facts, otherwise: str) -> str:
    found = numbers([facts.learning_rate])[0]
    lower = f"--set fit.learning_rate={rate(found / 3)}" if found > 0 else "lower fit.learning_rate to a third"
    return f"{lower}, {otherwise}"


def _told(value: float | None) -> str:
    return "not known" if value is None else f"{value:g}"
