"""A run's folder: one process at a time, a status that tells the truth, and the identity of what is trained in it."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from headrace.errors import RunError
from headrace.files import remove_leftovers, write_json
from headrace.recipe import Recipe

# Under which names services know the run; a call that goes on with the run goes on with these.
LOGGER_IDS = "loggers.json"
# Only the evaluation depends on these: a finished run is evaluated anew with other ones, from the weights that it has.
REEVALUATED_KEYS = {
    ("decide",),
    ("baseline",),
    ("data", "slices"),
}
# These may change between two calls of one run: they do not move a weight.
FREE_KEYS = REEVALUATED_KEYS | {
    ("logger",),
    ("profiler",),
    ("fit", "checkpoint_every_s"),
    ("data", "allow"),
    # The rows of a step are the same for any number of processes; their sums are rounded in another order.
    ("trainer", "devices"),
    ("trainer", "max_steps"),
    ("trainer", "max_time"),
    ("trainer", "enable_progress_bar"),
    ("trainer", "enable_model_summary"),
    ("trainer", "log_every_n_steps"),
    ("trainer", "num_sanity_val_steps"),
}


def part_of(path: tuple[str | int, ...], keys: set[tuple[str, ...]]) -> bool:
    """Return whether a key of the recipe is one of `keys`, or stands in one of them."""
    return any(path[:end] in keys for end in range(1, len(path) + 1))


def default_folder(recipe: Recipe) -> Path:
    """Return `runs/` and the recipe file's name; a recipe that is no file is called by its task."""
    first = recipe.name.split(" (")[0]
    return Path("runs") / (Path(first).stem if first.endswith((".yaml", ".yml")) else recipe.values.task)


class RunFolder:
    """The files of one run.

    Args:
        path: The folder; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.lock_descriptor: int | None = None

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def checkpoints(self) -> Path:
        """Where training goes on from."""
        return self.path / "checkpoints"

    @property
    def bundle(self) -> Path:
        """The finished classifier."""
        return self.path / "bundle"

    def status(self) -> dict[str, Any]:
        """Return the last status, or an empty one."""
        return _read_json(self.path / "status.json")

    def set_status(self, state: str, **values: Any) -> None:
        """Write `status.json`: preparing, training, interrupted, stopped, failed, evaluating or finished."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        kept = {k: v for k, v in self.status().items() if k in ("started", "step", "n_steps", "epoch", "saved_step")}
        kept.setdefault("started", now)
        status = {**kept, "state": state, "updated": now, "pid": os.getpid(), "host": socket.gethostname(), **values}
        write_json(self.path / "status.json", status)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process. The system frees the lock when its processes end, however they end.

        Raises:
            RunError: Another process works in the folder.
        """
        path = self.path / ".lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(path, "a+b")  # noqa: SIM115  (open as long as the lock is held)
        except OSError as error:
            raise RunError(
                f"cannot write into the run's folder: {error.strerror}", where=str(self.path), next="choose --out"
            ) from error
        with file:
            if not _take(file):
                owner = _read_json(path)
                raise RunError(
                    f"another run works in this folder (process {owner.get('pid')} on {owner.get('host')})",
                    where=str(self.path),
                    next="wait for it, or choose another folder with --out",
                )
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
            file.flush()
            self.lock_descriptor = file.fileno()
            remove_leftovers(self.path)
            if self.checkpoints.is_dir():
                remove_leftovers(self.checkpoints)
            yield

    def identity(self) -> dict[str, Any]:
        """Return what the run's weights depend on, as written when it began; empty for a new run."""
        return _read_json(self.path / "run.json")

    def set_identity(self, identity: Mapping[str, Any]) -> None:
        """Write what the run's weights depend on."""
        write_json(self.path / "run.json", identity)

    def refuse_other(self, identity: Mapping[str, Any]) -> None:
        """Go on only if the folder belongs to the same recipe, data and model.

        Raises:
            RunError: It does not; the error shows each difference.
        """
        before = self.identity()
        if not before:
            return
        changed = []
        for key in sorted({*before, *identity}):
            old, new = before.get(key), identity.get(key)
            if old != new:
                changed.append(f"{key}: {_short(old)} -> {_short(new)}")
        if changed:
            listed = "\n    ".join(changed)
            raise RunError(
                f"this folder holds a run of something else; {len(changed)} difference(s):\n    {listed}",
                where=str(self.path),
                next="choose another folder with --out, or start anew here with --force (its checkpoints are removed)",
            )


def _take(file: BinaryIO) -> bool:
    """Lock an open file for this process and those that inherit it, or tell that somebody else holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:28] + "…" + text[-28:]
