"""What every result line says beside its figures: commit, machine, versions, time."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
#: Behind the sign of a setting or in a list, too; not the rest of an address.
_WHOLE_PATH = re.compile(r"(?<![\w/.:])/[^\s,\[\]{}\"'=]+")
PACKAGES = ("torch", "lightning", "transformers", "tokenizers", "scikit-learn", "numpy")


def facts() -> dict[str, Any]:
    """Return commit, machine and versions."""
    commit = _git("describe", "--always", "--abbrev=10")
    # Earlier result lines that wait for their commit change nothing of what is measured.
    if _git("status", "--porcelain", "--untracked-files=no", "--", ":/", f":(exclude,top)benchmarks/{RESULTS.name}"):
        commit += "-dirty"
    return {
        "commit": commit,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def without_folders(figures: Any) -> Any:
    """Return the figures with the last two names in place of each whole path: a line is to name no machine's folders."""
    if isinstance(figures, dict):
        return {name: without_folders(value) for name, value in figures.items()}
    if isinstance(figures, list | tuple):
        return [without_folders(value) for value in figures]
    if isinstance(figures, str):
        return _WHOLE_PATH.sub(lambda found: "/".join(found[0].strip("/").split("/")[-2:]), figures)
    return figures


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    ).stdout.strip()


def append(name: str, record: dict[str, Any]) -> None:
    """Add one JSON line to benchmarks/results/NAME.jsonl."""
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / f"{name}.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def lines(name: str) -> list[dict[str, Any]]:
    """Return the lines of benchmarks/results/NAME.jsonl; none where it is not there."""
    path = RESULTS / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor()
    lines = path.read_text("utf-8", "replace").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    kept = [f for f in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16") if f in flags]
    return f"{model} ({', '.join(kept)})"
