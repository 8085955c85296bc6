"""A run's folder belongs to one process at a time; what a killed one left there goes at the next start (T4, T12)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.errors import RunError
from headrace.train.run import RunFolder

HOLD = """
import sys, time
from pathlib import Path
from headrace.train.run import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_in_the_same_folder_fails_fast_and_a_dead_ones_lock_is_free(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    owner = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(RunError) as caught, folder.lock():
            pass
        assert f"another run works in this folder (process {owner.pid} on " in caught.value.what
        assert caught.value.next == "wait for it, or choose another folder with --out"
    finally:
        owner.kill()
        owner.wait()
    with folder.lock():
        assert json.loads((folder.path / ".lock").read_text())["pid"] == os.getpid()


def test_a_lock_file_that_was_left_empty_hinders_nobody(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    with RunFolder(tmp_path).lock():
        pass


def test_what_a_killed_process_left_goes_at_the_next_start_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.checkpoints.mkdir(parents=True)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = [place / f".tmp-{dead.pid}-0a1b2c3d-step-00000005-0000.ckpt" for place in (folder.path, folder.checkpoints)]
    living = folder.checkpoints / f".tmp-{os.getpid()}-0a1b2c3d-step-00000006-0000.ckpt"
    for path in (*left, living):
        path.write_bytes(b"half")
    with folder.lock():
        assert [path.exists() for path in (*left, living)] == [False, False, True]
