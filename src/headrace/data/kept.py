"""Keeps what follows from rows that do not change: a division into splits, the findings of an audit.

Each result lies in the cache under a name made of all that it depends on: the rows' content, the settings, and the
code of this package, so that another version never reads what an older one computed.
"""

from __future__ import annotations

import functools
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from logging import getLogger
from pathlib import Path

import numpy as np

from headrace.data.audit import Finding
from headrace.files import atomic_file, sha256_of, write_json

logger = getLogger(__name__)

Arrays = tuple[np.ndarray, ...]


def kept_arrays(cache: Path, kind: str, *depends_on: str, compute: Callable[[], Arrays]) -> Arrays:
    """Return the arrays that were computed before from the same things, else compute and keep them.

    Args:
        cache: The cache folder.
        kind: Folder in the cache, e.g. `splits`.
        *depends_on: All that the result follows from, as text.
        compute: Makes the arrays.

    Raises:
        RunError: The disk is full or the cache cannot be written.
    """
    path = _path(cache, kind, depends_on, "npz")
    try:
        with np.load(path, allow_pickle=False) as found:
            return tuple(found[name] for name in found.files)  # in the order they were written
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        logger.warning("%s is damaged (%s); it is computed anew", path, error)
    arrays = compute()
    content = io.BytesIO()
    np.savez(content, *arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(content.getvalue())
    return arrays


def kept_findings(cache: Path, *depends_on: str, compute: Callable[[], list[Finding]]) -> list[Finding]:
    """Return the findings of the same rows if they were looked for before, else compute and keep them.

    Raises:
        RunError: The disk is full or the cache cannot be written.
    """
    path = _path(cache, "findings", depends_on, "json")
    try:
        return [Finding.of(found) for found in json.loads(path.read_text("utf-8"))]
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError) as error:
        logger.warning("%s is damaged (%s); it is computed anew", path, error)
    findings = compute()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, [asdict(finding) for finding in findings])
    return findings


def _path(cache: Path, kind: str, depends_on: tuple[str, ...], suffix: str) -> Path:
    return Path(cache) / kind / f"{sha256_of(_code(), *depends_on)}.{suffix}"


@functools.cache
def _code() -> str:
    """Return the sha256 of this package's source."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return sha256_of(*(file.read_bytes() for file in files))
