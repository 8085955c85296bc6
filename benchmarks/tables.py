"""Prints the tables of docs/results.md from benchmarks/results/*.jsonl: `python benchmarks/tables.py`."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def lines(name: str) -> list[dict[str, Any]]:
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |")


def header(*cells: str) -> None:
    row(*cells)
    print("|" + "---|" * len(cells))


def interval(metric: dict[str, Any]) -> str:
    return f"{metric['low']:.4f} to {metric['high']:.4f}" if metric.get("low") is not None else "none"


def seconds(value: float) -> str:
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min"


def setting(record: dict[str, Any]) -> str:
    return ", ".join(filter(None, [record["name"], *record["set"]])) or "the recipe"


def quality() -> None:
    groups: dict[tuple, list[dict[str, Any]]] = defaultdict(list)
    for record in lines("quality"):
        groups[record["data"], record["rows"], record["n_test"]].append(record)
    for (data, rows, n_test), found in sorted(groups.items(), key=str):
        print(f"\n### {data}, rows {rows or 'all'}, {n_test} test rows\n")
        figure = "accuracy" if "accuracy" in found[0]["metrics"] and data != "toxic" else "roc_auc_macro"
        header("Tool", "Setting", "Seed", figure, "95 % interval", "Log loss", "Training", "Wall clock", "Commit")
        for record in found:
            metric = record["metrics"][figure]
            loss = record["metrics"]["log_loss"]["value"]
            timing = seconds(record["timing"]["fit_s"])
            cells = (record["tool"], setting(record), record["seed"], f"{metric['value']:.4f}", interval(metric))
            row(*cells, f"{loss:.4f}", timing, seconds(record["wall_s"]), record["commit"])
        summary(found, figure)
        if data == "toxic":
            per_label(found)


def summary(found: list[dict[str, Any]], figure: str) -> None:
    by_tool: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in found:
        by_tool[record["tool"], setting(record)].append(record["metrics"][figure]["value"])
    several = {key: values for key, values in by_tool.items() if len(values) > 1}
    if several:
        print()
        header("Tool", "Setting", "Seeds", f"{figure}, mean ± standard deviation")
        for (tool, name), values in several.items():
            row(tool, name, len(values), f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}")


def per_label(found: list[dict[str, Any]]) -> None:
    print()
    labels = list(found[0]["roc_auc"])
    header("Tool", "Setting", "Seed", *labels)
    for record in found:
        values = [record["roc_auc"][label] for label in labels]
        row(record["tool"], setting(record), record["seed"], *(f"{v['value']:.4f}" for v in values))


def resume() -> None:
    print("\n### resume\n")
    header("Trial", "Kind", "Killed at", "Resumed at", "Lost", "Weights", "Equal", "Commit")
    for record in lines("resume"):
        cells = (record["trial"], record["kind"], record["killed_at"], record["resumed_at"], f"{record['lost_s']} s")
        row(*cells, record["weights"], "yes" if record["equal"] else "NO", record["commit"])


def main() -> None:
    quality()
    resume()
    for name in ("second_run", "prepare_million"):
        print(f"\n### {name}\n")
        for record in lines(name):
            print(json.dumps({k: v for k, v in record.items() if k not in ("versions",)}))


if __name__ == "__main__":
    main()
