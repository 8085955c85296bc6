"""Where a source of the recipe is: on this machine, on the hub, or in the archive of `data.url`, fetched with a bar."""

from __future__ import annotations

import sys
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from headrace.data.read import HUB_PREFIX, Archived

# What is done, how far, and how much there is: 0 where nobody knows.
Progress = Callable[[str, int, int], None]


@contextmanager
def placed(source: Any, *, url: str | None, sha256: str | None, progress: Progress | None) -> Iterator[Any]:
    """Yield a source of the recipe as `read` takes it: with an address, its paths lead into the archive there.

    Fetching shows a bar in a terminal or a notebook; elsewhere `progress` is told.

    Args:
        source: A path, `hub:` or rows in memory.
        url: The archive's address, or None.
        sha256: Of the archive; without it the archive is fetched and not read: the error tells the hash that was found.
        progress: Told how many bytes are there, and how many there will be.
    """
    if not url or not _is_inside(source):
        yield source
        return
    fetched = _Fetched(url, progress)
    try:
        yield Archived(url, sha256, str(source), fetched)
    finally:
        fetched.close()


def shows_bar() -> bool:
    """Tell whether somebody would see a bar: in a terminal or a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def _is_inside(source: Any) -> bool:
    # An absolute path is no part of an archive: rows that were given in memory beside it, in the run's folder.
    is_path = isinstance(source, str | Path) and not str(source).startswith(HUB_PREFIX)
    return is_path and not Path(source).is_absolute()


class _Fetched:
    """How much of an archive is there; the bar appears with the first piece, so not for one that was fetched before."""

    def __init__(self, url: str, progress: Progress | None) -> None:
        self._what = f"fetching {Path(urllib.parse.urlsplit(url).path).name}"
        self._progress = progress
        self._bar: Any = None

    def __call__(self, done: int, total: int | None) -> None:
        if not shows_bar():
            if self._progress is not None:
                self._progress(f"{self._what}, bytes", done, total or 0)
            return
        if self._bar is None:
            self._bar = tqdm(desc=self._what, total=total, unit="B", unit_scale=True, dynamic_ncols=True)
        self._bar.total = total
        self._bar.update(done - self._bar.n)  # less than before where the server has begun anew
        if done == total:
            self.close()  # unpacking may take as long, and is not in the bar

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
