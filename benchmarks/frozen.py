"""Seconds of an optimizer step when lower groups are frozen, with their outputs kept on disk and without.

    HEADRACE_DATA=DATA OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/frozen.py [--rounds 5] [--precision auto]

MiniLM on IMDb reviews (the shipped reviews without $HEADRACE_DATA), 256 tokens, 32 texts a step, pool mean, the layout and
dropouts of a real fit; a step is timed from the request of its batch to the optimizer's update. Each round takes one step
of each kind on the same texts. Ratios are of processor seconds, which other programs on a busy machine disturb little with
one thread; those of the clock are recorded beside them. One JSON line goes to benchmarks/results/frozen.jsonl.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from importlib.resources import files
from pathlib import Path

import torch

from headrace.recipe import load_recipe
from headrace.train.fit import data_plan
from headrace.train.frozen import Computing, Frozen
from headrace.train.prepare import prepare
from headrace.train.session import untrained
from headrace.train.stages import Stage, build_optimizer
from headrace.train.trainer import resolved_precision
from record import append, facts

BATCH_SIZE, MAX_LENGTH = 32, 256
KINDS = ("all", "head", "1 group", "2 groups")


def settings(rows: int, precision: str) -> dict:
    folder = os.environ.get("HEADRACE_DATA")
    if folder:
        data = {"train": str(Path(folder) / "imdb" / "train.jsonl.gz"), "limit": rows, "valid": "5%"}
    else:
        data = {"train": str(files("headrace") / "samples/reviews/train.csv"), "text": "review", "label": "sentiment"}
    stages = [{"train": kind, "epochs": 2} for kind in KINDS[1:]]
    fit = {"batch_size": BATCH_SIZE, "stages": stages, "precision": precision}
    return {"data": {**data, "max_length": MAX_LENGTH}, "backbone": "minilm", "head": {"pool": "mean"}, "fit": fit}


def context(precision: str) -> contextlib.AbstractContextManager:
    return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def one_step(module, optimizer, steps, number: int, precision: str) -> tuple[float, float]:
    started = time.process_time(), time.perf_counter()
    step = steps[0, number]
    optimizer.zero_grad()
    for batch in step.batches:
        with context(precision):
            loss = module.losses(module(batch), batch).sum() / step.n_texts
        loss.backward()
    torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
    optimizer.step()
    return time.process_time() - started[0], time.perf_counter() - started[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    arguments = parser.parse_args()
    precision = resolved_precision(arguments.precision)[0]
    values = load_recipe(settings(arguments.rows, precision)).values
    prepared = prepare(data_plan(values))
    session = untrained(values, prepared)
    module = session.module
    module.model.backbone.train_on_cpu()
    stages = {kind: Stage(train=kind, epochs=2) for kind in KINDS}
    with tempfile.TemporaryDirectory() as scratch:
        frozen = Frozen(
            module.model,
            prepared,
            stages=[stages[kind] for kind in KINDS[1:]],
            precisions=[precision] * 3,
            cache=Path(scratch),
            record=Path(scratch) / "frozen.json",
            say=lambda line: print(line, flush=True),
        )
        how = Computing(torch.device("cpu"), lambda: context(precision), lambda: None)
        begun = time.process_time()
        kept = {}
        for place, kind in enumerate(KINDS[1:]):
            entry = frozen.before(place, how)
            kept[kind] = entry["train"]
            entry["valid"].close()
            if place == 0:
                pass_s = time.process_time() - begun
        measured = measure(module, session, stages, kept, precision, arguments.rounds)
        for rows in kept.values():
            rows.close()
    cpu, wall = ({name: statistics.median(one[i] for one in taken) for name, taken in measured.items()} for i in (0, 1))
    n_texts = len(prepared.train) + len(prepared.valid)
    print(f"the pass that keeps all three: {pass_s / n_texts * BATCH_SIZE:.4f} s for {BATCH_SIZE} texts")
    show(cpu)
    record = {"precision": precision, "threads": torch.get_num_threads(), "batch_size": BATCH_SIZE}
    record |= {"max_length": MAX_LENGTH, "mean_tokens": float(prepared.train.lengths.mean())}
    record |= {"pass_cpu_s": pass_s, "pass_texts": n_texts, "median_cpu_s": cpu, "median_wall_s": wall}
    append("frozen", {**record, "cpu_and_wall_s": measured, **facts()})


def measure(module, session, stages, kept, precision: str, rounds: int) -> dict[str, list[tuple[float, float]]]:
    data = session.data()
    data.packs = module.model.backbone.packs
    found: dict[str, list[tuple[float, float]]] = {}
    for number in range(rounds):
        for kind in KINDS:
            module.enter(stages[kind])
            optimizer = build_optimizer(module.groups(), stages[kind])
            for is_kept in (False, True):
                if is_kept and kind not in kept:
                    continue
                data.kept = {"train": kept[kind].attach} if is_kept else {}
                steps = data.steps()
                n_full = data.steps_per_epoch - 1  # the last step is a short one
                taken = one_step(module, optimizer, steps, number % n_full, precision)
                found.setdefault(f"{kind}, kept" if is_kept else kind, []).append(taken)
    return found


def show(medians: dict[str, float]) -> None:
    whole = medians["all"]
    print(f"{'learns':<18}{'s a step':>10}{'of a full step':>16}{'kept saves':>12}")
    for name, seconds in medians.items():
        kind, _, is_kept = name.partition(", ")
        saved = f"{medians[kind] / seconds:.1f} x" if is_kept else ""
        print(f"{name:<18}{seconds:>10.4f}{'1/' + format(whole / seconds, '.1f'):>16}{saved:>12}")


if __name__ == "__main__":
    main()
