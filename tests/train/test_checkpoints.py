"""Checkpoint files are whole or not there, also on a full disk and wherever temporary files go (T4-T6)."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from headrace.bundle import Bundle
from headrace.errors import RunError
from headrace.train.checkpoints import AtomicCheckpoints, best_weights, newest_checkpoint, write_best
from tiny_bundle import tiny_bundle
from tiny_fits import silent


def test_when_no_checkpoint_can_be_read_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "step-00000001-0000.ckpt"
    AtomicCheckpoints().save_checkpoint({"a": torch.zeros(3)}, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match="no checkpoint of this run can be read"):
        newest_checkpoint(tmp_path, say=silent)


def test_a_checkpoint_is_never_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    class Payload:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {marker}",)

    path = tmp_path / "step-00000001-0000.ckpt"
    AtomicCheckpoints().save_checkpoint({"a": Payload()}, path)
    with pytest.raises(Exception, match=r"[Ww]eights"):
        newest_checkpoint(tmp_path, say=silent)
    assert not marker.exists()


@pytest.fixture
def other_disk() -> Iterator[Path]:
    """A folder for temporary files, on another file system where there is one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def test_a_save_needs_no_temporary_folder(tmp_path: Path, other_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_disk.chmod(0o500)
    monkeypatch.setenv("TMPDIR", str(other_disk))
    monkeypatch.setattr(tempfile, "tempdir", None)
    checkpoints, model = AtomicCheckpoints(), torch.nn.Linear(2, 2)
    checkpoints.save_checkpoint({"state_dict": model.state_dict()}, tmp_path / "step-00000001-0000.ckpt")
    best = write_best(tmp_path, model, value=0.5, step=1, epoch=0)
    assert checkpoints.error is None
    found = newest_checkpoint(tmp_path, say=silent)
    assert found is not None
    assert torch.equal(found["state_dict"]["weight"], model.weight)
    assert torch.equal(best_weights(tmp_path, best)["weight"], model.weight)
    assert not list(other_disk.iterdir())


FULL = """
import resource, signal, sys
import torch
from pathlib import Path
from headrace.train.checkpoints import AtomicCheckpoints, checkpoints_in, newest_checkpoint, write_best
folder = Path(sys.argv[1])
checkpoints = AtomicCheckpoints()
checkpoints.save_checkpoint({"a": torch.ones(3)}, folder / "step-00000001-0000.ckpt")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
checkpoints.save_checkpoint({"a": torch.ones(1_000_000)}, folder / "step-00000002-0000.ckpt")
print(type(checkpoints.error).__name__, checkpoints.error.what, "|", checkpoints.error.next)
try:
    write_best(folder, torch.nn.Linear(1000, 1000), value=0.0, step=2, epoch=0)
except Exception as error:
    print(type(error).__name__, error.next)
print([path.name for path in checkpoints_in(folder)], newest_checkpoint(folder, say=print)["a"].tolist())
print(sorted(path.name for path in folder.iterdir()))
"""


@pytest.mark.slow
def test_a_disk_that_is_really_full_leaves_the_checkpoint_before_it_and_no_half_file(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second, third, fourth = done.stdout.splitlines()
    said = "RunError cannot write step-00000002-0000.ckpt: File too large | at least 4,000,000 bytes are needed, and "
    assert first.startswith(said)
    assert second.startswith("RunError at least 4,004,000 bytes are needed, and ")
    assert third == "['step-00000001-0000.ckpt'] [1.0, 1.0, 1.0]"
    assert fourth == "['step-00000001-0000.ckpt', 'step-00000001-0000.sha256.json']"


@pytest.mark.parametrize("what", ["checkpoint", "best", "bundle"])
def test_an_error_of_the_disk_says_how_many_bytes_are_needed(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(content: Any, file: Any) -> None:
        raise OSError(28, "No space left on device") if what == "checkpoint" else SafetensorError("No space left")

    model = torch.nn.Linear(100, 10)
    if what == "checkpoint":
        monkeypatch.setattr(torch, "save", full)
        checkpoints = AtomicCheckpoints()
        tied = {"state_dict": model.state_dict(), "again": [model.weight], "n": 3}
        checkpoints.save_checkpoint(tied, tmp_path / "step-00000001-0000.ckpt")
        error = checkpoints.error
        n_bytes = 4 * 1010
    elif what == "best":
        monkeypatch.setattr("headrace.train.checkpoints.save_file", full)
        with pytest.raises(RunError, match="No space left") as caught:
            write_best(tmp_path, model, value=0.5, step=1, epoch=0)
        error, n_bytes = caught.value, 4 * 1010
    else:
        bundle = Bundle.load(tiny_bundle(tmp_path / "made"))
        monkeypatch.setattr("headrace.bundle.weights.save_file", full)
        with pytest.raises(RunError, match="No space left") as caught:
            bundle.save(tmp_path / "bundle")
        error = caught.value
        n_bytes = sum(4 * parameter.numel() for parameter in bundle.classifier.parameters())
    assert error is not None
    assert str(error.next).startswith(f"at least {n_bytes:,} bytes are needed, and ")
    assert not list(tmp_path.glob(".tmp-*"))
