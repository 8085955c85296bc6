"""Prints the tables of docs/results.md from benchmarks/results/*.jsonl: `python benchmarks/tables.py`.

`python benchmarks/tables.py coverage > docs/coverage.md` writes the page of all regimes that were simulated.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from typing import Any

from record import lines

COVERAGE_PAGE = """# Coverage: every simulated regime

Made by `python benchmarks/tables.py coverage > docs/coverage.md` from `benchmarks/results/coverage.jsonl`; of a regime
that was run several times the newest run counts. How the data sets are drawn is said in `benchmarks/interval_coverage.py`,
`coverage_scores.py` and `coverage_decisions.py`; [results](results.md#intervals-and-tests) sums it up. "Asked" says
whether bounds are asked of the regime (1,000 rows and 100 rows of the rarer kind or more; of a promise always) and
whether they are kept. Methods with "(before)" are those that were given up.
"""
FIGURES = {
    "coverage": ("Intervals that hold the truth", "holds, %", "93 to 97"),
    "false differences": ("Tests that see a difference where there is none", "sees one, %", "3.5 to 6.5"),
    "broken promises": ("Promises of abstention that are broken", "broken, %", "10 at most"),
    "power": ("Differences told on as many rows as were said to be needed", "told, %", "77 to 83"),
}
#: A line's keys that are no settings of its regime.
NO_SETTINGS = "figure of method draws share required within below above none certified answered commit time cpu cores"
SHARES = {"below": "too low, %", "above": "too high, %", "certified": "with a threshold, %", "answered": "answers, %"}


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
        if record.get("search"):  # of validation, and the Trainer's have no such metrics
            continue
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


def coverage() -> None:
    """Print docs/coverage.md: every regime with its newest figures."""
    found = newest(lines("coverage"))
    print(COVERAGE_PAGE)
    header("", "Regimes", "Bounds, %", "Asked", "Kept")
    for figure, (title, _, bounds) in FIGURES.items():
        of_figure = [record for record in found if record["figure"] == figure]
        wanted = [record for record in of_figure if record["required"]]
        row(title, len(of_figure), bounds, len(wanted), sum(record["within"] for record in wanted))
    if missed := [record for record in found if record["required"] and not record["within"]]:
        print("\nAsked and not kept:\n")
        for record in missed:
            setting = ", ".join(f"{key} {value:,}" for key, value in settings(record).items())
            print(
                f"- {record['figure']} of {record['of']} ({record['method']}), {setting}: {percent(record['share'])} %"
            )
    for figure, (title, _, bounds) in FIGURES.items():
        print(f"\n## {title}, in short\n")
        in_short([record for record in found if record["figure"] == figure], bounds)
    for figure, (title, share, _) in FIGURES.items():
        for of in dict.fromkeys(record["of"] for record in found if record["figure"] == figure):
            print(f"\n## {title}: {of}\n")
            regimes([one for one in found if (one["figure"], one["of"]) == (figure, of)], share)


def in_short(found: list[dict[str, Any]], bounds: str) -> None:
    """Print how many regimes of each number and method keep the bounds, and from where to where they lie."""
    header("of", "method", f"asked for, within {bounds}", "lowest to highest", "other regimes")
    for of, method in dict.fromkeys((record["of"], record["method"]) for record in found):
        here = [record for record in found if (record["of"], record["method"]) == (of, method)]
        asked = [record for record in here if record["required"]]
        others = [record["share"] for record in here if not record["required"]]
        kept = f"{sum(record['within'] for record in asked)} of {len(asked)}" if asked else "none"
        row(of, method, kept, span([record["share"] for record in asked]), span(others))


def span(shares: list[float]) -> str:
    known = [share for share in shares if share == share]  # no number is unequal to itself
    if not known:
        return ""
    low, high = percent(min(known)), percent(max(known))
    return low if low == high else f"{low} to {high}"


def newest(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return of each regime the lines of its newest run, in the order of first appearance."""
    by_regime: dict[tuple[object, ...], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        by_regime[(record["of"], *settings(record).items())].append(record)
    latest = {key: max(record["time"] for record in lines_of) for key, lines_of in by_regime.items()}
    return [record for key, lines_of in by_regime.items() for record in lines_of if record["time"] == latest[key]]


def settings(record: dict[str, Any]) -> dict[str, Any]:
    known = {*NO_SETTINGS.split(), "python", "versions"}
    return {key: value for key, value in record.items() if key not in known}


def percent(share: float | None) -> str:
    return "–" if share is None or share != share else f"{100 * share:.1f}"  # no number is unequal to itself


def regimes(found: list[dict[str, Any]], share: str) -> None:
    """Print the table of some regimes that have the same settings."""
    keys = list(dict.fromkeys(key for record in found for key in settings(record)))
    shares = [key for key in SHARES if any(key in record for record in found)]
    with_none = any(record.get("none") for record in found)
    header(
        *keys, "method", share, *(SHARES[key] for key in shares), *(["none"] * with_none), "draws", "asked", "commit"
    )
    for record in sorted(found, key=lambda record: [settings(record).get(key, 0) for key in keys]):
        asked = "" if not record["required"] else "kept" if record["within"] else "**not kept**"
        cells = [f"{settings(record)[key]:,}" if key in settings(record) else "" for key in keys]
        cells += [record["method"], percent(record["share"]), *(percent(record.get(key)) for key in shares)]
        cells += [str(record.get("none", ""))] * with_none
        row(*cells, f"{record['draws']:,}", asked, record["commit"])


def main() -> None:
    if sys.argv[1:] == ["coverage"]:
        coverage()
        return
    quality()
    resume()
    for name in ("second_run", "prepare_million"):
        print(f"\n### {name}\n")
        for record in lines(name):
            print(json.dumps({k: v for k, v in record.items() if k not in ("versions",)}))


if __name__ == "__main__":
    main()
