"""Forecast against fact: time and memory of a short fit on three tasks, each in a process of its own.

    HEADRACE_DATA=DATA OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/forecast.py [imdb toxic mnli] [--rows N]

For each task: a forecast, the fit, and a forecast once more, all on the same processors. `wall` is what a person waits
and what other programs on the machine disturb; `cpu` counts this process's computing alone (with one thread they agree
on a quiet machine). One JSON line a task goes to benchmarks/results/forecast.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import append, facts

# Two to three minutes of training on one slow core.
ROWS = {"imdb": 600, "toxic": 1500, "mnli": 2000}
FILES = {
    "imdb": "imdb/train.jsonl.gz",
    "toxic": "jigsaw_toxic/train_first20k.csv.gz",
    "mnli": "mnli_part/train_part.csv.gz",
}
TIME_GOAL, MEMORY_GOAL = 0.25, 0.30


def overrides(name: str, rows: int) -> list[str]:
    folder = os.environ.get("HEADRACE_DATA")
    if not folder:
        raise SystemExit("set HEADRACE_DATA to the folder of real data")
    train = Path(folder) / FILES[name]
    return [
        f"data.train={train}",
        "data.test=null",
        f"data.limit={rows}",
        "fit.epochs=1",
        "logger=none",
        "baseline=false",
    ]


def forecast(name: str, rows: int) -> dict[str, Any]:
    """Make the forecast; runs in a process of its own."""
    from headrace.recipe import load_recipe
    from headrace.train import forecast as module
    from headrace.train.fit import data_plan
    from headrace.train.prepare import prepare

    values = load_recipe(name, overrides=overrides(name, rows)).values
    prepared = prepare(data_plan(values))
    load, picked = module.workload(values, prepared)
    answer = module.measure(values, prepared, picked)
    found = {clock: module.estimate(load, answer, clock=f"{clock}_s").as_dict() for clock in ("wall", "cpu")}
    probe_s = sum(one.wall_s for one in (*answer.steps, *answer.scored))
    return {**found, "n_probe_steps": len(answer.steps), "probe_s": probe_s, "load_s": answer.load_s}


def fact(name: str, rows: int, out: str) -> dict[str, Any]:
    """Run the fit and count its computing beside its time; runs in a process of its own."""
    import time

    begun = time.perf_counter()  # before the imports: whoever waits for a fit waits for them
    from headrace.train import finish
    from headrace.train.fit import fit
    from headrace.train.memory import peak_resident_bytes
    from headrace.train.resume import Keeper

    counted = {"cpu": 0.0, "mark": 0.0, "evaluate": 0.0}
    start_epoch, count, score = Keeper.on_train_epoch_start, Keeper._count_time, finish.evaluated

    def started(self: Any, *arguments: Any) -> None:
        start_epoch(self, *arguments)
        counted["mark"] = time.process_time()

    def step(self: Any) -> None:
        count(self)
        counted["cpu"] += time.process_time() - counted["mark"]
        counted["mark"] = time.process_time()

    def scored(*arguments: Any) -> Any:
        before = time.process_time()
        found = score(*arguments)
        counted["evaluate"] = time.process_time() - before
        return found

    Keeper.on_train_epoch_start, Keeper._count_time, finish.evaluated = started, step, scored  # type: ignore[method-assign]
    timing = fit(name, out=out, overrides=overrides(name, rows), echo=lambda line: None).timing
    return {
        "wall": {"fit_s": timing["fit_s"], "evaluate_s": timing["evaluate_s"], "wall_s": time.perf_counter() - begun},
        "cpu": {"fit_s": counted["cpu"], "evaluate_s": counted["evaluate"]},
        "peak_memory_bytes": peak_resident_bytes(),
        "n_steps": timing["n_steps"],
    }


def in_process(what: str, name: str, rows: int, scratch: Path) -> dict[str, Any]:
    path = scratch / f"{what}.json"
    command = [sys.executable, __file__, "--child", what, name, str(rows), str(path)]
    subprocess.run(command, check=True)
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    path.unlink()
    return found


def child(what: str, name: str, rows: str, path: str) -> None:
    found = fact(name, int(rows), f"{path}.run") if what == "fact" else forecast(name, int(rows))
    Path(path).write_text(json.dumps(found), "utf-8")


def run(name: str, rows: int) -> bool:
    with tempfile.TemporaryDirectory() as scratch:
        before = in_process("forecast", name, rows, Path(scratch))
        real = in_process("fact", name, rows, Path(scratch))
        after = in_process("forecast", name, rows, Path(scratch))
    errors: dict[str, float] = {}
    for clock in ("wall", "cpu"):
        for what in ("fit_s", "evaluate_s"):
            errors[f"{clock}.{what}"] = before[clock][what] / real[clock][what] - 1
            print(
                f"{name:5} {clock:4} {what:10} forecast {before[clock][what]:8.1f} s (after the fit"
                f" {after[clock][what]:8.1f} s)  fact {real[clock][what]:8.1f} s  {errors[f'{clock}.{what}']:+.1%}"
            )
    whole, real_whole = before["wall"]["wall_s"], real["wall"]["wall_s"]
    errors["wall.wall_s"] = whole / real_whole - 1
    print(f"{name:5} wall in all     forecast {whole:8.1f} s  fact {real_whole:8.1f} s  {errors['wall.wall_s']:+.1%}")
    peak, real_peak = before["wall"]["peak_memory_bytes"], real["peak_memory_bytes"]
    errors["peak_memory_bytes"] = peak / real_peak - 1
    print(f"{name:5} memory forecast {peak / 1e9:.2f} GB  fact {real_peak / 1e9:.2f} GB  {peak / real_peak - 1:+.1%}")
    load = os.getloadavg()[1]
    print(f"{name:5} the probe measured for {before['probe_s']:.1f} s; load average {load:.1f}", flush=True)
    record = {"data": name, "rows": rows, "before": before, "fact": real, "after": after, "errors": errors}
    append("forecast", {**record, "load_average": load, "threads": os.environ.get("OMP_NUM_THREADS"), **facts()})
    return abs(errors["cpu.fit_s"]) <= TIME_GOAL and abs(errors["peak_memory_bytes"]) <= MEMORY_GOAL


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", choices=[[], *ROWS], default=[])
    parser.add_argument("--rows", type=int)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return 0
    good = [run(name, arguments.rows or ROWS[name]) for name in arguments.tasks or ROWS]
    return 0 if all(good) else 1


if __name__ == "__main__":
    raise SystemExit(main())
