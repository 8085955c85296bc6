"""The scores of a long file, window by window, kept beside the output until it is whole: a cut prediction goes on."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headrace.errors import RunError
from headrace.files import TEMPORARY_PREFIX, atomic_file, write_error, write_text
from headrace.predict import CUT, EMPTY, SURROGATE, UNKNOWN

_KEY = "key.json"
_FLAGS = (EMPTY, UNKNOWN, CUT, SURROGATE)  # by bit


class KeptScores:
    """Scores and flags of consecutive windows of texts, in a folder of their own.

    What stands in a folder of another key is removed. A window that was cut while it was written is not there.

    Args:
        folder: Made if need be.
        key: What the scores depend on.

    Attributes:
        n_kept: Windows that an earlier call left.

    Raises:
        RunError: The folder cannot be written, or holds something else.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        self.folder = folder
        written = json.dumps(dict(key), indent=2, sort_keys=True)
        if not self._is_of(written):
            write_text(folder / _KEY, written)
        self.n_kept = len(list(folder.glob("*.npz")))

    def read(self, window: int, n_texts: int) -> tuple[np.ndarray, list[tuple[str, ...]]] | None:
        """Return scores, [texts, labels] float32, and the flags of each text; None where they are not kept."""
        try:
            with open(self._path(window), "rb") as file, np.load(file, allow_pickle=False) as kept:
                scores, bits = kept["scores"], kept["flags"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None  # damaged: it is computed anew
        if scores.ndim != 2 or scores.dtype != np.float32 or len(scores) != n_texts or bits.shape != (n_texts,):
            return None
        return scores, [tuple(name for bit, name in enumerate(_FLAGS) if one >> bit & 1) for one in bits.tolist()]

    def write(self, window: int, scores: np.ndarray, flags: Sequence[tuple[str, ...]]) -> None:
        """Keep a window, whole or not at all.

        Raises:
            RunError: The disk is full or the folder cannot be written.
        """
        bits = np.array([sum(1 << _FLAGS.index(name) for name in one) for one in flags], dtype=np.uint8)
        with atomic_file(self._path(window)) as file:
            np.savez(file, scores=scores, flags=bits)

    def remove(self) -> None:
        """Remove the folder with all that is kept.

        Raises:
            RunError: It cannot be removed.
        """
        try:
            shutil.rmtree(self.folder)
        except FileNotFoundError:
            pass  # another call of the same has ended first
        except OSError as error:
            raise write_error(self.folder, error) from error

    def _is_of(self, written: str) -> bool:
        """Return whether the folder is that of this key; one of another key is removed, and so is one half made."""
        if not self.folder.exists():
            return False
        try:
            if (self.folder / _KEY).read_text("utf-8") == written:
                return True
        except FileNotFoundError:
            if any(not path.name.startswith(TEMPORARY_PREFIX) for path in self.folder.iterdir()):
                raise RunError(
                    "the folder in which finished scores are kept holds something else",
                    where=str(self.folder),
                    next="move it away, or choose another name for the output",
                ) from None
        except (OSError, ValueError):
            pass  # damaged: what was kept under it is computed anew
        self.remove()
        return False

    def _path(self, window: int) -> Path:
        return self.folder / f"{window:06}.npz"
