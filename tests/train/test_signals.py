"""A signal ends a run whoever catches what it raises."""

from __future__ import annotations

import signal

import pytest

from headrace.errors import Interrupted, ModelError, TrainingStopped
from headrace.train.signals import Signals


def test_what_a_signal_raised_and_somebody_swallowed_is_raised_at_the_end() -> None:
    signals = Signals()
    done = []
    with pytest.raises(Interrupted) as caught, signals.watched(), signals.heeded():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Interrupted:
            done.append("swallowed")
        done.append("went on")
    assert caught.value.exit_code == 143
    assert done == ["swallowed", "went on"]


def test_an_error_that_a_signal_became_is_a_signal_again() -> None:
    signals = Signals()
    with pytest.raises(Interrupted) as caught, signals.watched(), signals.heeded():
        try:
            signal.raise_signal(signal.SIGINT)
        except Interrupted as error:
            raise ModelError("the weights cannot be read") from error
    assert caught.value.exit_code == 130
    assert isinstance(caught.value.__cause__, ModelError)


def test_a_training_that_stopped_by_itself_is_told_as_that() -> None:
    signals = Signals()
    with pytest.raises(TrainingStopped), signals.watched(), signals.heeded(), signals.training():
        signal.raise_signal(signal.SIGTERM)
        raise TrainingStopped("the loss is not a finite number")


def test_without_a_signal_nothing_is_changed() -> None:
    signals = Signals()
    with signals.watched(), signals.heeded():
        pass
    with pytest.raises(ModelError), signals.watched(), signals.heeded():
        raise ModelError("it has no pooler")
