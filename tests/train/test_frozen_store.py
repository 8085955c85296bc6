"""Kept vectors come back as they were written, into their places; the folder stays within its bound."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from headrace.errors import RunError
from headrace.text.batch import Batch
from headrace.train import frozen_store
from headrace.train.frozen_store import Form, RowWriter, finish_entry, make_room, open_entry, room_bytes

LENGTHS = np.array([3, 1, 4, 2], dtype=np.int32)
WIDTH = 5


def batch_of(rows: list[int]) -> Batch:
    lengths = torch.from_numpy(LENGTHS[rows])
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    return Batch(mask * 7, mask, None, torch.tensor(rows))


def vectors(rows: list[int]) -> torch.Tensor:
    """Row r's token t has the value 10 r + t; padding has one that must not be kept."""
    batch = batch_of(rows)
    places = batch.rows[:, None] * 10 + torch.arange(batch.input_ids.shape[1])
    values = torch.where(batch.attention_mask.bool(), places.float(), torch.nan)
    return values.unsqueeze(-1).expand(-1, -1, WIDTH)


def written(folder: Path, form: Form) -> Path:
    (folder / form.key).mkdir(parents=True)
    writer = RowWriter(folder / form.key / "train.bin", form, LENGTHS)
    for rows in ([2, 0], [3], [1]):  # any order
        found = vectors(rows)
        writer.write(np.array(rows), found if form.depth is not None else found[:, 0])
    writer.close()
    finish_entry(folder / form.key)
    return folder


@pytest.mark.parametrize("is_bf16", [False, True])
def test_token_states_come_back_padded_with_zeros(tmp_path: Path, is_bf16: bool) -> None:
    form = Form("states", 3, WIDTH, is_bf16)
    kept = open_entry(written(tmp_path, form), form, {"train": LENGTHS})
    assert kept is not None
    assert (tmp_path / "states" / "train.bin").stat().st_size == 10 * WIDTH * (2 if is_bf16 else 4) + 4 * len(LENGTHS)
    batch = kept["train"].attach(batch_of([1, 2, 0, 2]))
    assert batch.depth == 3
    assert batch.features is None
    assert batch.states is not None
    assert batch.states.dtype == torch.float32
    assert torch.equal(batch.states, torch.nan_to_num(vectors([1, 2, 0, 2])))
    kept["train"].close()


def test_one_vector_a_text_comes_back(tmp_path: Path) -> None:
    form = Form("features", None, WIDTH)
    kept = open_entry(written(tmp_path, form), form, {"train": LENGTHS})
    assert kept is not None
    batch = kept["train"].attach(batch_of([3, 0, 1]))
    assert batch.states is None
    assert batch.features is not None
    assert torch.equal(batch.features, vectors([3, 0, 1])[:, 0])
    assert torch.equal(batch.to("cpu").features, batch.features)  # type: ignore[arg-type]
    kept["train"].close()


def test_an_entry_that_is_cut_half_written_or_of_other_rows_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    form = Form("states", 1, WIDTH)
    folder = written(tmp_path, form)
    assert open_entry(folder, Form("other", 1, WIDTH), {"train": LENGTHS}) is None
    assert open_entry(folder, form, {"train": LENGTHS + 1}) is None
    assert open_entry(folder, form, {"train": LENGTHS, "valid": LENGTHS}) is None
    file = folder / "states" / "train.bin"
    file.write_bytes(file.read_bytes()[:-4])
    assert open_entry(folder, form, {"train": LENGTHS}) is None
    assert "damaged" in caplog.text
    (folder / "states" / "entry.json").unlink()
    assert open_entry(folder, form, {"train": LENGTHS}) is None


def test_a_file_that_shrinks_while_it_is_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    form = Form("states", 1, WIDTH)
    kept = open_entry(written(tmp_path, form), form, {"train": LENGTHS})
    assert kept is not None
    os.truncate(tmp_path / "states" / "train.bin", 60)
    with pytest.raises(RunError, match="end too early"):
        kept["train"].attach(batch_of([2]))
    kept["train"].close()


@pytest.mark.parametrize("is_checksum", [False, True])
def test_a_bit_that_turned_is_found_and_the_entry_is_made_anew(tmp_path: Path, is_checksum: bool) -> None:
    form = Form("states", 1, WIDTH)
    path = written(tmp_path, form) / "states" / "train.bin"
    content = bytearray(path.read_bytes())
    turned = -4 * len(LENGTHS) + 4 * 2 if is_checksum else int(LENGTHS[:2].sum()) * WIDTH * 4  # of row 2
    content[turned] ^= 1
    path.write_bytes(content)
    kept = open_entry(tmp_path, form, {"train": LENGTHS})
    assert kept is not None
    assert kept["train"].attach(batch_of([0, 1, 3])).states is not None
    with pytest.raises(RunError, match="are not those that were written") as caught:
        kept["train"].attach(batch_of([1, 2]))
    assert caught.value.where == str(path)
    kept["train"].close()
    assert open_entry(tmp_path, form, {"train": LENGTHS}) is None


def entry(folder: Path, name: str, n_bytes: int, age_s: float) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "train.bin").write_bytes(bytes(n_bytes))
    when = 1_700_000_000.0 - age_s
    os.utime(folder / name, (when, when))


def test_what_lay_unused_the_longest_leaves_first_and_only_as_much_as_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_store, "MAX_BYTES", 1000)
    for name, age_s in (("old", 30), ("older", 40), ("young", 10), ("oldest", 50)):
        entry(tmp_path, name, 200, age_s)
    make_room(tmp_path, 200)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "older", "oldest", "young"]
    make_room(tmp_path, 500, spared={"oldest"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["oldest", "young"]


def test_an_entry_that_is_opened_counts_as_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = Form("states", 1, WIDTH)
    written(tmp_path, form)
    os.utime(tmp_path / "states", (0, 0))
    entry(tmp_path, "old", 200, 0.0)
    kept = open_entry(tmp_path, form, {"train": LENGTHS})
    assert kept is not None
    kept["train"].close()
    monkeypatch.setattr(frozen_store, "MAX_BYTES", 400)
    make_room(tmp_path, 100)
    assert [path.name for path in tmp_path.iterdir()] == ["states"]


def test_no_more_is_taken_than_half_of_what_the_disk_could_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry(tmp_path, "one", 200, 0.0)
    usage = type("Usage", (), {"free": 400})
    monkeypatch.setattr(frozen_store.shutil, "disk_usage", lambda path: usage)
    assert room_bytes(tmp_path) == 300
    monkeypatch.setattr(frozen_store, "MAX_BYTES", 250)
    assert room_bytes(tmp_path) == 250
    assert room_bytes(tmp_path / "not" / "there") == 200
