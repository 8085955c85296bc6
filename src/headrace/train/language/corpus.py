"""The texts of several token stores as one: nothing is copied, an index tells where each text lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from headrace.text.store import TokenStore


@dataclass(frozen=True, eq=False)
class Corpus:
    """Chosen texts of some token stores.

    Attributes:
        stores: Memory-mapped tokens, a store for each file.
        store_of: [texts] int64, the store of each text.
        rows: [texts] int64, its row there.
    """

    stores: tuple[TokenStore, ...]
    store_of: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, stores: Sequence[TokenStore], rows: Sequence[np.ndarray]) -> Corpus:
        """Return the texts of these rows of each store, in their order.

        Args:
            stores: One for each file.
            rows: [texts] int64 of each store.
        """
        store_of = np.repeat(np.arange(len(rows)), [len(chosen) for chosen in rows])
        joined = np.concatenate([np.asarray(chosen, dtype=np.int64) for chosen in rows])
        return cls(tuple(stores), store_of, joined)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def starts(self) -> np.ndarray:
        """[texts] int64, where each text begins among its store's tokens."""
        return self._of_stores([store.offsets[:-1] for store in self.stores]).astype(np.int64)

    @cached_property
    def lengths(self) -> np.ndarray:
        """[texts] int32, tokens kept of each text."""
        return self._of_stores([store.lengths for store in self.stores]).astype(np.int32)

    @cached_property
    def full_lengths(self) -> np.ndarray:
        """[texts] int32, tokens of each text before the cut."""
        return self._of_stores([store.full_lengths for store in self.stores]).astype(np.int32)

    @cached_property
    def n_unknown(self) -> int:
        """Unknown tokens of all texts."""
        return int(self._of_stores([store.n_unknown for store in self.stores]).sum(dtype=np.int64))

    @property
    def n_tokens(self) -> int:
        """Tokens of all texts."""
        return int(self.lengths.sum(dtype=np.int64))

    @property
    def unknown_share(self) -> float:
        """The share of unknown tokens, in [0, 1]; 0 without tokens."""
        return self.n_unknown / self.n_tokens if self.n_tokens else 0.0

    @property
    def cut_share(self) -> float:
        """The share of texts that lost tokens to the cut, in [0, 1]; 0 without texts."""
        return float((self.full_lengths > self.lengths).mean()) if len(self) else 0.0

    def ids(self, row: int) -> np.ndarray:
        """Return the tokens of one text, [tokens] uint16 or int32."""
        return self.stores[int(self.store_of[row])].ids(int(self.rows[row]))

    def first_length(self, row: int) -> int:
        """Return how many tokens of one text belong to segment 0."""
        return self.stores[int(self.store_of[row])].first_length(int(self.rows[row]))

    def lengths_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the tokens of these texts, [rows] int32."""
        return np.asarray(self.lengths[rows])

    def take(self, texts: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Return single tokens, int64 in the form of the arguments.

        Args:
            texts: The text of each wanted token.
            places: Its place in that text, from 0.
        """
        found = np.empty(texts.shape, dtype=np.int64)
        positions = self.starts[texts] + places
        stores = self.store_of[texts]
        for number, store in enumerate(self.stores):
            mine = stores == number
            if mine.any():
                found[mine] = store.flat_ids[positions[mine]]
        return found

    def _of_stores(self, columns: Sequence[np.ndarray]) -> np.ndarray:
        """Return a value for each text from a column of each store."""
        found = np.zeros(len(self), dtype=np.int64)
        for number, column in enumerate(columns):
            mine = self.store_of == number
            found[mine] = np.asarray(column)[self.rows[mine]]
        return found
