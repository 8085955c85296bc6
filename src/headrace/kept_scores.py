"""The scores of a long file, window by window, kept beside the output until it is whole: a cut prediction goes on."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np

from headrace.files import TEMPORARY_PREFIX, atomic_file
from headrace.predict import CUT, EMPTY, SURROGATE, UNKNOWN

logger = getLogger(__name__)

_FLAGS = (EMPTY, UNKNOWN, CUT, SURROGATE)  # by bit
_KEY_DIGITS = 16
#: A window of any key, or what a write that was killed has left of one: no other file is touched.
_OURS = re.compile(rf"({re.escape(TEMPORARY_PREFIX)}.*)?[0-9a-f]{{{_KEY_DIGITS}}}-\d{{6,}}\.npz")


class KeptScores:
    """Scores and flags of consecutive windows of texts, a file each, in a folder beside the output.

    The names of the files begin with the hash of what the scores depend on. So windows of another key are neither taken
    nor lost, and a window that was cut while it was written is not there.

    Args:
        folder: Made when the first window is written.
        key: What the scores depend on.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        self.folder = folder
        written = json.dumps(dict(key), sort_keys=True)
        self._key = hashlib.sha256(written.encode()).hexdigest()[:_KEY_DIGITS]

    def read(self, window: int, n_texts: int) -> tuple[np.ndarray, list[tuple[str, ...]]] | None:
        """Return scores, [texts, labels] float32, and the flags of each text; None where they are not kept."""
        try:
            with open(self._path(window), "rb") as file, np.load(file, allow_pickle=False) as kept:
                scores, bits = kept["scores"], kept["flags"]
        except FileNotFoundError:
            return None
        # damaged, and computed anew; the last two are what zipfile makes of a bit that fell in its header
        except (
            OSError,
            ValueError,
            KeyError,
            EOFError,
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
        ) as error:
            logger.warning("%s cannot be read and is computed anew: %s", self._path(window), error)
            return None
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

    def _path(self, window: int) -> Path:
        return self.folder / f"{self._key}-{window:06}.npz"


def remove_windows(folder: Path) -> None:
    """Remove all windows of a folder, of any key, and the folder unless somebody else's files stand in it."""
    try:
        for path in folder.iterdir():
            if _OURS.fullmatch(path.name):
                path.unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    except (FileNotFoundError, NotADirectoryError):
        pass  # nothing was kept, or another call of the same has ended first
    except OSError as error:  # the output is whole: what is left over fails nobody
        logger.warning("%s is left over: %s", folder, error)
