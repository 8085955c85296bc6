"""Asks every question once and puts the answers in order."""

from __future__ import annotations

from collections.abc import Callable
from logging import getLogger

from headrace.doctor import answers, training
from headrace.doctor.facts import SEVERITIES, Diagnosis, Facts

logger = getLogger(__name__)

#: Each looks at one thing and returns a Diagnosis or None; of equal severity the earlier is said first.
CHECKS: tuple[Callable[[Facts], Diagnosis | None], ...] = (
    training.not_finite,
    training.frozen_head,
    training.loss_never_moved,
    answers.constant_predictions,
    answers.no_better_than_majority,
    training.learning_rate_too_high,
    training.frozen_backbone,
    answers.no_better_than_baseline,
    training.overfitting,
    answers.threshold_at_border,
    training.still_improving,
    answers.validation_too_small,
)


def diagnose(facts: Facts) -> list[Diagnosis]:
    """Return what is wrong with a training, the worst first; an empty list for a healthy one.

    It never raises: figures that make no sense give no diagnosis.
    """
    found = [diagnosis for check in CHECKS if (diagnosis := _asked(check, facts)) is not None]
    return sorted(found, key=lambda diagnosis: SEVERITIES.index(diagnosis.severity))


def _asked(check: Callable[[Facts], Diagnosis | None], facts: Facts) -> Diagnosis | None:
    try:
        return check(facts)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        logger.debug("%s has no answer: %r", check.__name__, error)
        return None  # a run is finished and good without advice; advice must not spoil it
