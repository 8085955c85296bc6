"""Turns SIGINT and SIGTERM into a stop at the next step boundary while training, and into an exception elsewhere."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from headrace.errors import Interrupted, TrainingStopped


class Signals:
    """Remembers the first signal that asked this process to stop."""

    def __init__(self) -> None:
        self.received = 0
        self.is_training = False

    def _take(self, number: int, frame: FrameType | None) -> None:
        is_second = self.received != 0
        self.received = number
        if not self.is_training or is_second:
            raise self._interrupted()

    def _interrupted(self) -> Interrupted:
        return Interrupted(
            f"interrupted by signal {self.received}",
            next="run the same command again: it goes on where it was",
            exit_code=128 + self.received,
        )

    @contextmanager
    def watched(self) -> Iterator[Signals]:
        """Watch both signals inside the block; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before: dict[int, Any] = {}
        try:
            for watched in (signal.SIGINT, signal.SIGTERM):
                before[watched] = signal.signal(watched, self._take)
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """A signal ends the block even where what it raised was swallowed or became another error on its way up."""
        try:
            yield
        except (Interrupted, TrainingStopped):
            raise
        except Exception as error:
            if self.received:
                raise self._interrupted() from error
            raise
        if self.received:
            raise self._interrupted()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Inside the block a signal waits for the end of the step."""
        self.is_training = True
        try:
            yield
        finally:
            self.is_training = False
