"""Runs the benchmarks one after the other and prints what each of them says: `python -m benchmarks` or `make bench`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    ("second_run.py", []),
    ("prepare_million.py", []),
    ("resume.py", ["--kills", "20"]),
    ("training.py", ["--summary"]),
)


def main() -> int:
    """Return the number of benchmarks that failed."""
    failed = 0
    for script, arguments in SCRIPTS:
        print(f"== {script} {' '.join(arguments)}", flush=True)
        path = Path(__file__).parent / script
        failed += subprocess.run([sys.executable, str(path), *arguments], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
