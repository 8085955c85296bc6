"""Which tokens a masked-word model has to guess: drawn anew for each row and epoch, by arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headrace.errors import ModelError
from headrace.text.batch import Batch
from headrace.text.subwords import Subwords

# Source: Devlin et al. 2019 (arXiv 1810.04805), section 3.1; drawn anew each epoch: Liu et al. 2019 (1907.11692), 4.1.
MASKED_SHARE = 0.15
REPLACED_BY_MASK = 0.8
REPLACED_BY_ANY = 0.1  # and the remaining tenth stays as it is
_WORD = (1 << 64) - 1
# Beside the streams of `text.plan` (0 to 2): one for training, one for validation, whose masks never change.
_TRAINING, _VALIDATION = 3, 4


@dataclass(frozen=True, eq=False)
class Masks:
    """Draws masks as a pure function of (seed, epoch, row).

    Attributes:
        seed: Of the run.
        mask_id: What stands for a hidden token.
        ordinary: [ids] int64, the tokens that may be hidden, and that another one may be replaced by: no special ones.
        share: Of the ordinary tokens of a text, in (0, 1); at least one of each text that has any.
    """

    seed: int
    mask_id: int
    ordinary: np.ndarray
    share: float = MASKED_SHARE

    @classmethod
    def of(cls, tokenizer: object, *, seed: int) -> Masks:
        """Return the masks of a tokenizer.

        Raises:
            ModelError: It has no token that hides another one.
        """
        if not isinstance(tokenizer, Subwords) or tokenizer.mask_id is None:
            raise ModelError(
                "the tokenizer has no mask token, so the model cannot be asked for hidden words",
                where="backbone",
                next="take an encoder that was trained on masked words (BERT, RoBERTa, ModernBERT …), or awd_lstm",
            )
        special = np.array(sorted(tokenizer.special_ids), dtype=np.int64)
        ordinary = np.setdiff1d(np.arange(tokenizer.vocabulary_size), special)
        return cls(seed=seed, mask_id=tokenizer.mask_id, ordinary=ordinary)

    def of_row(self, ids: np.ndarray, *, row: int, epoch: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the places to guess, [masked] int64, and what the model sees there, [masked] int64.

        Args:
            ids: [tokens], the tokens of one text.
            row: Its number in the data set.
            epoch: None for validation.
        """
        places = np.flatnonzero(np.isin(ids, self.ordinary, kind="table"))
        use, number = (_VALIDATION, 0) if epoch is None else (_TRAINING, epoch)
        key = np.array([self.seed & _WORD, (number | use << 56) & _WORD], dtype=np.uint64)
        # a counter of its own for each row: the stream of one never reaches that of another
        words = np.random.Philox(key=key, counter=[0, row, 0, 0]).random_raw(3 * len(places))
        hidden, kind, other = np.asarray(words, dtype=np.uint64).reshape(3, -1)
        draws = _unit(hidden)
        chosen = draws < self.share
        if len(places):
            chosen[np.argmin(draws)] = True
        kinds = _unit(kind[chosen])
        seen = np.asarray(ids[places[chosen]], dtype=np.int64)
        any_token = self.ordinary[(other[chosen] % np.uint64(len(self.ordinary))).astype(np.int64)]
        seen = np.where(kinds < REPLACED_BY_MASK + REPLACED_BY_ANY, any_token, seen)
        return places[chosen], np.where(kinds < REPLACED_BY_MASK, self.mask_id, seen)

    def of_batch(self, batch: Batch, *, epoch: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what the model sees, the places that it must guess, and the tokens that stood there.

        Args:
            batch: With the rows of its texts.
            epoch: None for validation.

        Returns:
            [texts, tokens] int64; [masked] int64 among the texts x tokens places; [masked] int64.
        """
        ids = batch.input_ids.numpy()
        lengths = batch.attention_mask.numpy().sum(axis=1)
        seen = ids.copy()
        found = []
        for line, row in enumerate(batch.rows.tolist()):
            places, tokens = self.of_row(ids[line, : lengths[line]], row=row, epoch=epoch)
            seen[line, places] = tokens
            found.append(places + line * ids.shape[1])
        places = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
        return seen, places, ids.reshape(-1)[places]


def _unit(words: np.ndarray) -> np.ndarray:
    """Return uniform numbers in [0, 1): the upper 53 bits are a float64."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
