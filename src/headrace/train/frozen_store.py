"""Vectors of a data set's rows on disk, in a folder that is bounded: the entries that lay unused the longest leave first."""

from __future__ import annotations

import json
import logging
import os
import shutil
import zlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headrace.errors import RunError
from headrace.files import TEMPORARY_PREFIX, existing_parent, write_json
from headrace.text.batch import Batch

logger = logging.getLogger(__name__)

FORMAT = 2
# All entries together: MiniLM's token states of IMDb's 25,000 reviews at 256 tokens are 25,000 x 203 x 384 x 4 = 7.8e9.
MAX_BYTES = 8 << 30
_HEAD = "entry.json"
#: CRC-32 of a text's vectors; a bit that turned on the disk would teach wrongly, and nobody would see it.
_CHECKSUM = np.dtype("<u4")


@dataclass(frozen=True)
class Form:
    """What is kept of each text.

    Attributes:
        key: The entry's name: a hash of everything that its content depends on.
        depth: How many layers lie below the token states that are kept; None for one vector a text, which the head gets.
        width: Size of a vector.
        is_bf16: Whether a number takes two bytes instead of four.
    """

    key: str
    depth: int | None
    width: int
    is_bf16: bool = False

    @property
    def vector_bytes(self) -> int:
        """Size of a vector on disk."""
        return self.width * self.dtype.itemsize

    @property
    def dtype(self) -> np.dtype[Any]:
        """How a number lies on disk; NumPy has no bfloat16, so that its bits are told as integers."""
        return np.dtype(np.int16 if self.is_bf16 else np.float32)

    def n_vectors(self, lengths: np.ndarray) -> np.ndarray:
        """Return [rows] int64, how many vectors texts with so many tokens have."""
        return np.ones(len(lengths), dtype=np.int64) if self.depth is None else lengths.astype(np.int64)

    def n_bytes(self, lengths: np.ndarray) -> int:
        """Return what texts with so many tokens take on disk: their vectors, then a checksum of each text."""
        return int(self.n_vectors(lengths).sum()) * self.vector_bytes + len(lengths) * _CHECKSUM.itemsize


class KeptRows:
    """The kept vectors of one split, read a batch at a time.

    Plain reads, not a memory map: what a map has touched counts as this process's memory, up to the whole file.

    Args:
        path: The file.
        form: What lies in it.
        lengths: [rows] tokens of each row of the split.
    """

    def __init__(self, path: Path, form: Form, lengths: np.ndarray) -> None:
        self.path, self.form = path, form
        self.n_vectors = form.n_vectors(lengths)
        self.starts = np.concatenate([[0], np.cumsum(self.n_vectors)])
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115  (open as long as its rows are read)
        self._checksums = np.empty(len(lengths), dtype=_CHECKSUM)
        self._fill(self._checksums.data.cast("B"), int(self.starts[-1]) * form.vector_bytes)

    def attach(self, batch: Batch) -> Batch:
        """Return the batch with the vectors of its rows: `features`, or `states` and their depth.

        Raises:
            RunError: The file was changed since it was written.
        """
        rows = batch.rows.tolist()
        if self.form.depth is None:
            found = np.empty((len(rows), 1, self.form.width), dtype=self.form.dtype)
        else:
            found = np.zeros((*batch.input_ids.shape, self.form.width), dtype=self.form.dtype)
        for place, row in enumerate(rows):
            self._read(row, found[place, : self.n_vectors[row]])
        vectors = torch.from_numpy(found)
        if self.form.is_bf16:
            vectors = vectors.view(torch.bfloat16).float()
        if self.form.depth is None:
            return replace(batch, features=vectors[:, 0])
        return replace(batch, states=vectors, depth=self.form.depth)

    def _read(self, row: int, target: np.ndarray) -> None:
        content = target.reshape(-1).data.cast("B")
        self._fill(content, int(self.starts[row]) * self.form.vector_bytes)
        if zlib.crc32(content) != self._checksums[row]:
            raise self._damaged("are not those that were written")

    def _fill(self, left: memoryview, start: int) -> None:
        self._file.seek(start)
        while len(left):
            n = self._file.readinto(left)
            if not n:
                raise self._damaged("end too early")
            left = left[n:]

    def _damaged(self, how: str) -> RunError:
        """Return the error; without its head the entry is no longer one, so that a next run makes it anew."""
        (self.path.parent / _HEAD).unlink(missing_ok=True)
        return RunError(
            f"the kept outputs of frozen layers {how}",
            where=str(self.path),
            next="run the same command again: they are computed anew",
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class RowWriter:
    """Writes the vectors of a split's rows in any order; memory does not grow with them.

    Args:
        path: The file; it must not be there.
        form: What lies in it.
        lengths: [rows] tokens of each row of the split.
    """

    def __init__(self, path: Path, form: Form, lengths: np.ndarray) -> None:
        self.form = form
        self.n_vectors = form.n_vectors(lengths)
        self.starts = np.concatenate([[0], np.cumsum(self.n_vectors)])
        self._checksums = np.zeros(len(lengths), dtype=_CHECKSUM)
        self._file = open(path, "xb")  # noqa: SIM115  (closed by `close`)
        self._file.truncate(form.n_bytes(lengths))

    def write(self, rows: np.ndarray, vectors: Tensor) -> None:
        """Write the vectors of some rows: [rows, tokens, width] padded at the right, or [rows, width] for one each."""
        vectors = vectors.detach().to("cpu", torch.bfloat16 if self.form.is_bf16 else torch.float32).contiguous()
        values = (vectors.view(torch.int16) if self.form.is_bf16 else vectors).numpy()
        for row, value in zip(rows.tolist(), values.reshape(len(rows), -1, self.form.width), strict=True):
            self._file.seek(int(self.starts[row]) * self.form.vector_bytes)
            content = value[: self.n_vectors[row]].reshape(-1).data.cast("B")
            self._file.write(content)
            self._checksums[row] = zlib.crc32(content)

    def close(self) -> None:
        """Write the checksums, and close the file."""
        with self._file:
            self._file.seek(int(self.starts[-1]) * self.form.vector_bytes)
            self._file.write(self._checksums.tobytes())


def finish_entry(folder: Path) -> None:
    """Say that all files of an entry are written."""
    sizes = {path.name: path.stat().st_size for path in sorted(folder.glob("*.bin"))}
    write_json(folder / _HEAD, {"format": FORMAT, "files": sizes})


def open_entry(folder: Path, form: Form, lengths: Mapping[str, np.ndarray]) -> dict[str, KeptRows] | None:
    """Return the kept rows by split, or None where the entry is not there or not whole; it counts as used just now.

    Args:
        folder: Holds all entries.
        form: Which of them.
        lengths: By split's name, [rows] tokens of each row.
    """
    entry = folder / form.key
    expected = {f"{name}.bin": form.n_bytes(of_split) for name, of_split in lengths.items()}
    try:
        head = json.loads((entry / _HEAD).read_text("utf-8"))
        sizes = {name: (entry / name).stat().st_size for name in expected}
        if head != {"format": FORMAT, "files": expected} or sizes != expected:
            raise ValueError("the sizes of its files are not those that were written")
        os.utime(entry)
        return {name: KeptRows(entry / f"{name}.bin", form, of_split) for name, of_split in lengths.items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("the kept outputs in %s are damaged (%s): computed anew", entry, error)
        return None


def room_bytes(folder: Path) -> int:
    """Return what all entries together may take: `MAX_BYTES`, and no more than half of what the disk could give."""
    free = shutil.disk_usage(existing_parent(folder / _HEAD)).free
    return min(MAX_BYTES, (free + sum(_sizes(folder).values())) // 2)


def make_room(folder: Path, n_bytes: int, *, spared: Collection[str] = ()) -> None:
    """Remove the entries that lay unused the longest until so many bytes more fit; entries that are spared stay."""
    sizes, limit = _sizes(folder), room_bytes(folder)
    for entry in sorted(sizes, key=_last_used):
        if sum(sizes.values()) + n_bytes <= limit:
            return
        if entry.name not in spared:
            with suppress(OSError):  # another run reads it, where a system forbids that
                shutil.rmtree(entry)
                del sizes[entry]
                logger.info("removed the kept outputs %s to make room", entry.name)


def _last_used(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:  # another process removed it
        return 0.0


def _sizes(folder: Path) -> dict[Path, int]:
    found = {}
    for entry in folder.glob("*"):
        if entry.is_dir() and not entry.name.startswith(TEMPORARY_PREFIX):
            with suppress(FileNotFoundError):
                found[entry] = sum(file.stat().st_size for file in entry.iterdir())
    return found
