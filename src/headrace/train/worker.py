"""One process of several: `torchrun -m headrace.train.worker RUN` trains what the run's folder says."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch.distributed

from headrace.errors import HeadraceError
from headrace.files import write_json
from headrace.recipe import load_recipe
from headrace.train.fit import data_plan, say_to_stderr
from headrace.train.language.nested import with_encoder
from headrace.train.prepare import prepare
from headrace.train.run import RunFolder
from headrace.train.session import Session
from headrace.train.signals import Signals


def work(path: Path) -> int:
    """Train as one rank; return the exit code. A HeadraceError is left in the folder for the parent."""
    folder = RunFolder(path)
    rank = int(os.environ.get("RANK", "0"))
    signals = Signals()
    try:
        with signals.watched():
            recipe = load_recipe(folder.recipe)
            values = with_encoder(recipe.values, path)
            prepared = prepare(data_plan(values))
            training = Session(recipe=values, prepared=prepared, folder=folder, signals=signals, say=say_to_stderr)
            training.train_in_this_process()
    except HeadraceError as error:
        write_json(path / "worker_error.json", {**error.as_dict(), "exit_code": error.exit_code})
        say_to_stderr(f"rank {rank}: {error}")
        return error.exit_code
    leave_group()
    return 0


def leave_group() -> None:
    """Leave the group of processes, when all has been said in it.

    Left to the interpreter's end, the group's threads outlive the interpreter: now and then one made the process abort
    when all its work was done. After an error the group is not left: to leave waits for what is under way in it, and
    the others may never answer.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    raise SystemExit(work(Path(sys.argv[1])))
