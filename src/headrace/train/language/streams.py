"""Texts joined in the epoch's order, laid side by side as streams and read a sequence at a time: all of it arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from headrace.errors import DataError
from headrace.text.plan import order
from headrace.train.language.corpus import Corpus


class Joined(NamedTuple):
    """The texts of an epoch end to end."""

    texts: np.ndarray  # [texts] int64, in their order
    ends: np.ndarray  # [texts] int64, the joined position behind each


@dataclass(frozen=True, eq=False)
class Streams:
    """What a next-word model reads: `n_streams` contiguous pieces of the joined texts, side by side.

    A step's targets are its inputs one token on; the last target of a step is the first input of the next one of the
    same stream. Of the joined texts at most `n_streams` tokens at the end are left out of an epoch (another end in
    each), because all streams are equally long.

    Attributes:
        corpus: The texts.
        n_streams: Read side by side; a corpus of few tokens has fewer than are asked for.
        sequence_length: Tokens of a step and stream; the epoch's last step may have fewer.
        seed: Of the order; None keeps that of the corpus (validation).
        is_backward: Each text is read from its last token to its first; the order of the texts is the same.
    """

    corpus: Corpus
    n_streams: int
    sequence_length: int
    seed: int | None = None
    is_backward: bool = False
    _kept: dict[int, Joined] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls, corpus: Corpus, *, n_streams: int, sequence_length: int, seed: int | None = None, is_backward: bool = False
    ) -> Streams:
        """Return the streams of a corpus, so many as asked for unless it has too few tokens to fill them.

        Raises:
            DataError: There are fewer than two tokens: no word has a next one.
        """
        n_pairs = corpus.n_tokens - 1
        if n_pairs < 1:
            raise DataError(
                f"the texts have {corpus.n_tokens} tokens in all, and a next word needs two",
                where="data.train",
                next="give more text",
            )
        # validation may be small: a stream shorter than a sequence would waste its start on an empty hidden state
        fitting = max(1, n_pairs // sequence_length) if seed is None else n_pairs
        return cls(corpus, min(n_streams, fitting), sequence_length, seed, is_backward)

    @property
    def length(self) -> int:
        """Targets of each stream in an epoch."""
        return (self.corpus.n_tokens - 1) // self.n_streams

    @property
    def n_steps(self) -> int:
        """Steps of an epoch, the short last one included."""
        return -(-self.length // self.sequence_length)

    def joined(self, epoch: int) -> Joined:
        """Return the order of the texts in an epoch, and where each ends; one epoch's is kept."""
        kept = self._kept.get(epoch)
        if kept is None:
            n_texts = len(self.corpus)
            texts = np.arange(n_texts) if self.seed is None else order(n_texts, seed=self.seed, epoch=epoch)
            kept = Joined(texts, np.cumsum(self.corpus.lengths[texts], dtype=np.int64))
            self._kept.clear()
            self._kept[epoch] = kept
        return kept

    def step(self, epoch: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the inputs and the targets of a step, [streams, tokens] int64 each.

        Raises:
            IndexError: The epoch has no such step.
        """
        if not 0 <= step < self.n_steps:
            raise IndexError(f"step {step} of an epoch of {self.n_steps} steps")
        begin = step * self.sequence_length
        n_tokens = min(self.sequence_length, self.length - begin)
        first = np.arange(self.n_streams)[:, None] * self.length + begin
        ids = self.tokens(epoch, first + np.arange(n_tokens + 1))
        return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])

    def texts_of(self, epoch: int, step: int) -> np.ndarray:
        """Return the texts of which a step reads tokens, [texts] int64, each once."""
        begin = step * self.sequence_length
        stop = min(begin + self.sequence_length, self.length)
        joined = self.joined(epoch)
        first = np.arange(self.n_streams) * self.length
        ranges = [np.searchsorted(joined.ends, first + place, side="right") for place in (begin, stop - 1)]
        found = [joined.texts[low : high + 1] for low, high in zip(*ranges, strict=True)]
        return np.unique(np.concatenate(found))

    def tokens(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Return the tokens at these positions of an epoch's joined texts, int64 in their form."""
        joined = self.joined(epoch)
        place = np.searchsorted(joined.ends, positions, side="right")
        texts = joined.texts[place]
        lengths = self.corpus.lengths[texts]
        inside = positions - (joined.ends[place] - lengths)
        return self.corpus.take(texts, lengths - 1 - inside if self.is_backward else inside)
