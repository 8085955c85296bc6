"""Checkpoint files that are whole or not there: written atomically, read back, and vouched for by a hash beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from lightning.pytorch.plugins import TorchCheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from headrace.errors import RunError
from headrace.files import atomic_file, atomic_path, sha256_of_file, write_json

KEPT_CHECKPOINTS = 2  # the newest, and the one before it in case the disk damages the newest


class _HashingStream:
    """Passes bytes on, hashes them, and remembers the system's error, which torch would hide behind its own."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        """Write all bytes or raise."""
        try:
            self.file.write(content)
        except OSError as error:
            self.error = error
            raise
        self.digest.update(content)
        return memoryview(content).nbytes

    def flush(self) -> None:
        """Flush the file below."""
        self.file.flush()


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its final name and renames it; a sha256 beside it says that it is whole.

    Attributes:
        error: Why the last save failed, or None. It is not raised from the save itself: Lightning saves on the first
            process only, and the others, which wait for it, must hear of it by agreement.
    """

    def __init__(self) -> None:
        super().__init__()
        self.error: RunError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write atomically, read back, and only then write the hash that makes the file count."""
        self.error = None
        try:
            self._save(checkpoint, Path(path))
        except RunError as error:
            self.error = error

    def _save(self, checkpoint: dict[str, Any], path: Path) -> None:
        with atomic_file(path, size_bytes=sum(_storages(checkpoint).values())) as file:
            stream = _HashingStream(file)
            try:
                torch.save(checkpoint, cast(BinaryIO, stream))
            except Exception as error:
                if stream.error is not None:
                    raise stream.error from error
                raise
        written = stream.digest.hexdigest()
        if sha256_of_file(path) != written:
            path.unlink(missing_ok=True)
            raise RunError(
                "the checkpoint that was just written reads back otherwise", where=str(path), next="check that disk"
            )
        write_json(hash_file(path), {"sha256": written, "bytes": path.stat().st_size})

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read tensors and plain values only; nothing in the file is executed."""
        checkpoint: dict[str, Any] = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint and its hash, the hash first: without it the file does not count."""
        hash_file(Path(path)).unlink(missing_ok=True)
        Path(path).unlink(missing_ok=True)


def _storages(value: Any) -> dict[int, int]:
    """Return the bytes of all memory that tensors in nested values lie in, each place once, as torch saves it."""
    if isinstance(value, torch.Tensor):
        return {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()}
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return {place: size for part in parts for place, size in _storages(part).items()}


def checkpoint_file(folder: Path, *, total: int, epoch: int) -> Path:
    """Return the name of the checkpoint after `total` steps, with `epoch` whole epochs behind it.

    The end of an epoch is saved twice when a save in mid-epoch falls on its last step: under names of their own, so
    that the second never lies under the hash of the first.
    """
    return folder / f"step-{total:08d}-{epoch:04d}.ckpt"


def hash_file(path: Path) -> Path:
    """Return where a checkpoint's hash stands."""
    return path.with_suffix(".sha256.json")


def step_of(path: Path) -> int:
    """Return the global step in the name of a checkpoint or of best weights."""
    return int(path.stem.split("-")[1])


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, newest first; one without its hash was never finished and does not count."""
    found = [path for path in folder.glob("step-*.ckpt") if hash_file(path).is_file()]
    return sorted(found, reverse=True)


def newest_checkpoint(folder: Path, *, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Read the newest checkpoint that is whole; tells what is lost when a newer one is damaged.

    Raises:
        RunError: There are checkpoints, and none can be read.
    """
    damaged: list[tuple[Path, str]] = []
    for path in checkpoints_in(folder):
        problem = _damage(path)
        if problem is None:
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            for bad, reason in damaged:
                lost = step_of(bad) - step_of(path)
                say(
                    f"the checkpoint {bad.name} is damaged ({reason}); going on from {path.name}: {lost} steps are lost"
                )
                AtomicCheckpoints().remove_checkpoint(bad)
            return checkpoint
        damaged.append((path, problem))
    if damaged:
        listed = "; ".join(f"{path.name}: {reason}" for path, reason in damaged)
        raise RunError(
            f"no checkpoint of this run can be read ({listed})", where=str(folder), next="start it anew with --force"
        )
    return None


def _damage(path: Path) -> str | None:
    try:
        known = json.loads(hash_file(path).read_text("utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        return f"its hash cannot be read: {error}"
    size = path.stat().st_size
    if size != known.get("bytes"):
        return f"{size:,} bytes instead of {known.get('bytes', 0):,}"
    if sha256_of_file(path) != known.get("sha256"):
        return "its sha256 differs"
    return None


@dataclass
class Best:
    """The best validation so far, and the file of its weights."""

    value: float
    step: int
    epoch: int
    file: str
    sha256: str


def write_best(folder: Path, model: torch.nn.Module, *, value: float, step: int, epoch: int) -> Best:
    """Write the weights as the best of a run, atomically, and return their record.

    Raises:
        RunError: The disk is full or the folder cannot be written.
    """
    path = folder / f"best-{step:08d}.safetensors"
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_path(path, size_bytes=sum(tensor.nbytes for tensor in state.values())) as temporary:
        try:
            save_file(state, str(temporary))
        except SafetensorError as error:
            raise OSError(str(error)) from error
    return Best(value, step, epoch, path.name, sha256_of_file(path))


def best_weights(folder: Path, best: Best) -> dict[str, torch.Tensor]:
    """Read the best weights of a run.

    Raises:
        RunError: The file is missing or damaged.
    """
    return load_file(str(best_file(folder, best)))


def best_file(folder: Path, best: Best) -> Path:
    """Return the file of a run's best weights, which were found to be those that were written.

    Raises:
        RunError: The file is missing or damaged.
    """
    path = folder / best.file
    if not path.is_file() or sha256_of_file(path) != best.sha256:
        raise RunError(
            "the best weights of this run are missing or damaged", where=str(path), next="--force starts anew"
        )
    return path


def clean(folder: Path, best: Best | None) -> None:
    """Remove what no kept checkpoint can need: older checkpoints, and best weights from before the older of them."""
    kept = checkpoints_in(folder)[:KEPT_CHECKPOINTS]
    for path in folder.glob("step-*.ckpt"):
        if path not in kept:
            AtomicCheckpoints().remove_checkpoint(path)
    oldest = step_of(kept[-1]) if kept else 0
    found = sorted(folder.glob("best-*.safetensors"))
    # What was the best when the older checkpoint was saved is the last one up to its step; it is needed to go back.
    before = [path for path in found if step_of(path) <= oldest][-1:]
    for path in found:
        if best is not None and path.name != best.file and path not in before and step_of(path) < oldest:
            path.unlink(missing_ok=True)
