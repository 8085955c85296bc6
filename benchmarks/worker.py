"""A peer in an environment of its own: a process that works when it is asked and waits while we work."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any


class Worker:
    """A Python script that answers each line of JSON with one line of JSON; what it says first is kept in `versions`.

    Args:
        python: Of the environment.
        script: The script.
        arguments: Of the script.
        threads: For its arithmetic.

    Raises:
        RuntimeError: It ended instead of answering; what it said stands on the error stream.
    """

    def __init__(self, python: str, script: Path, arguments: list[str], *, threads: int) -> None:
        self._script = script
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        command = [python, str(script), *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.versions: dict[str, str] = self._answer()

    def ask(self, request: dict[str, Any]) -> Any:
        """Return the answer to one request."""
        if self._process.stdin is None:
            raise RuntimeError("the worker has no pipes")
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        if error is not None:
            self._process.terminate()
        self._process.wait()

    def _answer(self) -> Any:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise RuntimeError(f"{self._script} ended with code {self._process.wait()}")
        return json.loads(line)
