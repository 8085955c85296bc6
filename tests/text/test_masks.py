"""Dynamic masks: 15 %, of them 80/10/10, never a special token, a pure function of (seed, epoch, row)."""

from __future__ import annotations

import numpy as np
import torch

from headrace.text.batch import Batch
from headrace.text.masks import Masks

ORDINARY = np.arange(5, 1000)
MASK = 4


def masks(seed: int = 13) -> Masks:
    return Masks(seed=seed, mask_id=MASK, ordinary=ORDINARY)


def text(row: int, n: int = 200) -> np.ndarray:
    return np.concatenate([[2], np.random.default_rng(row).integers(5, 1000, n), [3]])


def test_the_shares_are_those_of_bert() -> None:
    n_tokens, kinds = 0, []
    for row in range(400):
        ids = text(row)
        places, seen = masks().of_row(ids, row=row, epoch=0)
        n_tokens += len(ids) - 2
        kinds += np.select([seen == MASK, seen != ids[places]], ["mask", "other"], "same").tolist()
    counts = {kind: kinds.count(kind) / len(kinds) for kind in ("mask", "other", "same")}
    # 12,000 masks of 80,000 tokens: three standard deviations are 0.4 and 1.1 points
    assert abs(len(kinds) / n_tokens - 0.15) < 0.005
    assert abs(counts["mask"] - 0.8) < 0.015
    assert abs(counts["other"] - 0.1) < 0.012
    assert abs(counts["same"] - 0.1) < 0.012


def test_special_tokens_are_neither_hidden_nor_put_in() -> None:
    for row in range(50):
        ids = text(row, n=30)
        places, seen = masks().of_row(ids, row=row, epoch=0)
        assert 0 not in places
        assert len(ids) - 1 not in places
        assert set(seen.tolist()) - {MASK} <= set(ORDINARY.tolist())


def test_a_short_text_has_one_place_to_guess_and_one_of_special_tokens_none() -> None:
    for row in range(20):
        assert len(masks().of_row(np.array([2, 7, 3]), row=row, epoch=0)[0]) == 1
    assert len(masks().of_row(np.array([2, 3]), row=0, epoch=0)[0]) == 0


def test_masks_are_arithmetic_of_seed_epoch_and_row() -> None:
    ids = text(1)

    def drawn(seed: int = 13, row: int = 1, epoch: int | None = 0) -> list[int]:
        return list(masks(seed).of_row(ids, row=row, epoch=epoch)[0].tolist())

    assert drawn() == drawn()
    others = [drawn(seed=14), drawn(row=2), drawn(epoch=1), drawn(epoch=None)]
    assert all(other != drawn() for other in others)
    assert drawn(epoch=None) == drawn(epoch=None)


def test_a_text_is_masked_alike_whatever_stands_beside_it() -> None:
    def batch(rows: list[int]) -> Batch:
        texts = [text(row, n=20 + row) for row in rows]
        width = max(map(len, texts))
        ids = torch.zeros((len(rows), width), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for line, one in enumerate(texts):
            ids[line, : len(one)] = torch.from_numpy(one)
            mask[line, : len(one)] = 1
        return Batch(ids, mask, None, torch.tensor(rows))

    alone, _, _ = masks().of_batch(batch([3]), epoch=2)
    together = batch([9, 3])
    seen, places, stood = masks().of_batch(together, epoch=2)
    assert np.array_equal(seen[1, : alone.shape[1]], alone[0])
    assert np.array_equal(stood, together.input_ids.numpy().reshape(-1)[places])
    changed = np.flatnonzero(seen.reshape(-1) != together.input_ids.numpy().reshape(-1))
    assert set(changed) <= set(places)
    assert (together.attention_mask.numpy().reshape(-1)[places] == 1).all()
