"""An Arrow file that is mapped into memory and whose pages can be handed back after use."""

from __future__ import annotations

import mmap
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc


class MappedTable:
    """A table whose values stay on disk.

    Each page that is touched counts as memory of this process until it is released, so a pass over a large file
    would seem to need all of it. (pyarrow's own map has no way to release pages.)

    Args:
        path: An Arrow IPC file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.table: pa.Table = pyarrow.ipc.open_file(pa.BufferReader(pa.py_buffer(self._map))).read_all()

    def release(self) -> None:
        """Hand the touched pages back to the system; the next use reads them again."""
        if hasattr(mmap, "MADV_DONTNEED"):  # Windows has no such call
            self._map.madvise(mmap.MADV_DONTNEED)

    def __reduce__(self) -> tuple[object, ...]:
        return MappedTable, (self.path,)
