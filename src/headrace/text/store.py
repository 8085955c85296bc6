"""Tokens of a whole data set on disk, computed once and memory-mapped ever after."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from headrace.data.examples import Examples
from headrace.errors import RunError
from headrace.files import atomic_folder, remove_leftovers, sha256_of, write_json
from headrace.text.layout import FlatTokens
from headrace.text.subwords import Encoded
from headrace.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

FORMAT = 1
# A batch of 4,096 texts keeps both cores of a laptop busy and is a few MB of Python strings.
BATCH_TEXTS = 4096
_UINT16_VOCABULARY = 1 << 16
_HEAD = "store.json"
_PER_ROW = {"first_length": "int32", "full_length": "int32", "n_unknown": "int32"}


@dataclass(frozen=True, eq=False)
class TokenStore:
    """The tokens of many rows as flat arrays, memory-mapped from a folder or in memory.

    Attributes:
        flat_ids: [tokens] uint16 or int32, all rows end to end.
        offsets: [rows + 1] int64; row i holds flat_ids[offsets[i] : offsets[i + 1]].
        first_lengths: [rows] int32, tokens of segment 0.
        full_lengths: [rows] int32, tokens before the cut.
        n_unknown: [rows] int32, unknown tokens among those that were kept.
    """

    flat_ids: np.ndarray
    offsets: np.ndarray
    first_lengths: np.ndarray
    full_lengths: np.ndarray
    n_unknown: np.ndarray

    @classmethod
    def of(cls, encoded: Sequence[Encoded]) -> TokenStore:
        """Return a store in memory of a few encoded texts, so that they take the same way as stored ones."""
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(one.ids) for one in encoded], out=offsets[1:])
        ids = np.concatenate([one.ids for one in encoded]) if encoded else np.empty(0, dtype=np.int32)
        return cls(
            flat_ids=ids,
            offsets=offsets,
            first_lengths=np.array([one.first_length for one in encoded], dtype=np.int32),
            full_lengths=np.array([one.n_full for one in encoded], dtype=np.int32),
            n_unknown=np.array([one.n_unknown for one in encoded], dtype=np.int32),
        )

    def __len__(self) -> int:
        return self.n_rows

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """[rows] int32, tokens kept of each row."""
        return np.diff(self.offsets).astype(np.int32)

    @property
    def n_tokens(self) -> int:
        """How many tokens there are in all rows together."""
        return len(self.flat_ids)

    @property
    def n_cut(self) -> int:
        """How many rows lost tokens to the cut."""
        return int(np.count_nonzero(self.full_lengths > self.lengths))

    @property
    def cut_share(self) -> float:
        """The share of rows that lost tokens to the cut, in [0, 1]; 0 without rows."""
        return self.n_cut / self.n_rows if self.n_rows else 0.0

    def ids(self, row: int) -> np.ndarray:
        """Return the tokens of one row, [tokens] uint16 or int32."""
        return self.flat_ids[self.offsets[row] : self.offsets[row + 1]]

    def first_length(self, row: int) -> int:
        """Return how many tokens of one row belong to segment 0."""
        return int(self.first_lengths[row])


def tokenize(
    examples: Examples,
    subwords: Tokenizer,
    *,
    max_length: int,
    truncate: str,
    cache: Path,
    progress: Callable[[int, int], None] | None = None,
) -> TokenStore:
    """Return the tokens of the examples, from the cache if these very tokens were computed before.

    Row i of the store is view row i of the examples. A store that is damaged or half written is computed anew.

    Args:
        examples: Read a batch at a time; memory does not grow with the rows.
        subwords: The tokenizer.
        max_length: Tokens kept of each text or pair, special ones included.
        truncate: `head`, `tail` or `head_tail`.
        cache: The store lies in `cache/tokens/<key>/`.
        progress: Called with the rows that are done and all rows, after each batch; never for a cached store.

    Raises:
        RecipeError: `max_length` leaves no room for text, or there is no such `truncate`.
        RunError: The store cannot be written.
    """
    subwords.encode_flat([], max_length=max_length, truncate=truncate, pair=examples.is_pair)  # faults before any work
    key = store_key(examples, subwords, max_length=max_length, truncate=truncate)
    folder = Path(cache) / "tokens" / key
    kept = open_store(folder)
    if kept is not None and kept.n_rows == len(examples):
        return kept
    remove_leftovers(folder.parent)
    try:
        with atomic_folder(folder) as temporary:
            _write(temporary, examples, subwords, max_length=max_length, truncate=truncate, progress=progress)
    except RunError:
        # Another process may have put the same store there between our look and our rename; its tokens are ours.
        if open_store(folder) is None:
            raise
    written = open_store(folder)
    if written is None:
        raise RunError(
            "the tokens that were just written cannot be read back", where=str(folder), next="remove it and run again"
        )
    return written


def store_key(examples: Examples, subwords: Tokenizer, *, max_length: int, truncate: str) -> str:
    """Return the name of a store: the sha256 of everything that its tokens depend on."""
    return sha256_of(examples.content_key(), subwords.fingerprint, str(max_length), truncate, f"format {FORMAT}")


def open_store(folder: Path) -> TokenStore | None:
    """Return the store in a folder, memory-mapped, or None if it is not there or not whole."""
    try:
        head = json.loads((folder / _HEAD).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in head["files"]}
        if head["format"] != FORMAT or sizes != head["files"]:
            raise ValueError("the sizes of its files are not those that were written")
        return _mapped(folder, head)
    except FileNotFoundError as error:
        if folder.exists():
            logger.warning("the token store %s lacks %s: computed anew", folder, Path(str(error.filename)).name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("the token store %s is damaged (%s): computed anew", folder, error)
    return None


def _mapped(folder: Path, head: dict[str, Any]) -> TokenStore:
    n_rows, n_tokens = int(head["n_rows"]), int(head["n_tokens"])
    ids = _map(folder / "ids.bin", head["dtype"], n_tokens)
    offsets = _map(folder / "offsets.bin", "int64", n_rows + 1)
    per_row = [_map(folder / f"{name}.bin", dtype, n_rows) for name, dtype in _PER_ROW.items()]
    if offsets[0] != 0 or offsets[-1] != n_tokens:
        raise ValueError("its offsets do not fit its tokens")
    return TokenStore(ids, offsets, *per_row)


def _map(path: Path, dtype: str, n: int) -> np.ndarray:
    if path.stat().st_size != n * np.dtype(dtype).itemsize:
        raise ValueError(f"{path.name} does not hold {n} values")
    if n == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype=dtype)
    # A plain view: slicing np.memmap itself costs several times as much, once per text of each batch.
    return np.memmap(path, dtype=dtype, mode="r", shape=(n,)).view(np.ndarray)


def _write(
    folder: Path,
    examples: Examples,
    subwords: Tokenizer,
    *,
    max_length: int,
    truncate: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the arrays a batch at a time, and store.json last."""
    dtype = "uint16" if subwords.vocabulary_size <= _UINT16_VOCABULARY else "int32"
    files = {f"{name}.bin": open(folder / f"{name}.bin", "wb") for name in ("ids", "offsets", *_PER_ROW)}  # noqa: SIM115
    n_tokens = 0
    try:
        files["offsets.bin"].write(np.zeros(1, dtype=np.int64).tobytes())
        for start, stop in examples.batches(BATCH_TEXTS):
            texts = examples.texts(start, stop)
            flat = subwords.encode_flat(texts, max_length=max_length, truncate=truncate, pair=examples.is_pair)
            for name, values in _columns(flat, dtype, n_tokens).items():
                files[name].write(np.ascontiguousarray(values).data)
            n_tokens += len(flat.ids)
            if progress is not None:
                progress(stop, len(examples))
    finally:
        for file in files.values():
            file.close()
    sizes = {name: (folder / name).stat().st_size for name in files}
    head = {"format": FORMAT, "n_rows": len(examples), "n_tokens": n_tokens, "dtype": dtype, "files": sizes}
    write_json(folder / _HEAD, head)


def _columns(flat: FlatTokens, dtype: str, n_tokens: int) -> dict[str, np.ndarray]:
    return {
        "ids.bin": flat.ids.astype(dtype),
        "offsets.bin": flat.offsets[1:] + n_tokens,
        "first_length.bin": flat.first_lengths,
        "full_length.bin": flat.full_lengths,
        "n_unknown.bin": flat.n_unknown,
    }
