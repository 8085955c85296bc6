"""fastai's weight files: which are taken, what becomes of their words, and what each refusal says."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from headrace.backbones._awd_weights import match_words
from headrace.backbones._next_word import load_next_word
from headrace.backbones.awd_lstm import load
from headrace.errors import ModelError

THEIRS = ["xxunk", "xxpad", "xxbos", "the", "film", "old"]
SIZES: dict[str, Any] = {"embedding_size": 4, "hidden_size": 5, "n_layers": 2}


def published(n_words: int = len(THEIRS), *, seed: int = 0) -> dict[str, Tensor]:
    """Return random tensors under the names of fastai's language model."""
    draw = torch.Generator().manual_seed(seed)
    table = torch.randn(n_words, 4, generator=draw)
    found = {"0.encoder.weight": table, "0.encoder_dp.emb.weight": table.clone()}
    for number, (below, above) in enumerate([(4, 5), (5, 4)]):
        found[f"0.rnns.{number}.weight_hh_l0_raw"] = torch.randn(4 * above, above, generator=draw)
        found[f"0.rnns.{number}.module.weight_ih_l0"] = torch.randn(4 * above, below, generator=draw)
        found[f"0.rnns.{number}.module.bias_ih_l0"] = torch.randn(4 * above, generator=draw)
        found[f"0.rnns.{number}.module.bias_hh_l0"] = torch.randn(4 * above, generator=draw)
    return {**found, "1.decoder.weight": table.clone(), "1.decoder.bias": torch.randn(n_words, generator=draw)}


def folder_of(folder: Path, state: Any, *, words: list[str] | None = None) -> Path:
    torch.save(state, folder / "lstm_fwd.pth")
    (folder / "itos.json").write_text(json.dumps(THEIRS if words is None else words), encoding="utf-8")
    return folder


def old_names() -> dict[str, Tensor]:
    """Return the names of an early fastai 2: the recurrent weights twice, the second time after dropout."""
    state = published()
    return state | {f"0.rnns.{n}.module.weight_hh_l0": 0 * state[f"0.rnns.{n}.weight_hh_l0_raw"] for n in (0, 1)}


def encoder_alone() -> dict[str, Tensor]:
    return {name.removeprefix("0."): tensor for name, tensor in published().items() if name.startswith("0.")}


@pytest.mark.parametrize(
    "state",
    [published, lambda: {"model": published()}, lambda: {"model": published(), "opt": {}}, old_names, encoder_alone],
    ids=["bare", "model", "model and opt", "old names", "encoder alone"],
)
def test_each_form_of_fastais_files_gives_the_same_encoder(state: Callable[[], Any], tmp_path: Path) -> None:
    ours = load(weights=str(folder_of(tmp_path, state())), words=THEIRS, **SIZES).state_dict()
    expected = published()
    assert torch.equal(ours["embedding.weight"], expected["0.encoder.weight"])
    for number in (0, 1):
        assert torch.equal(ours[f"layers.{number}.weight_hh"], expected[f"0.rnns.{number}.weight_hh_l0_raw"])
        for name in ("weight_ih", "bias_ih", "bias_hh"):
            assert torch.equal(ours[f"layers.{number}.{name}"], expected[f"0.rnns.{number}.module.{name}_l0"])


def test_words_are_matched_one_by_one_and_a_new_one_gets_the_mean(tmp_path: Path) -> None:
    words = ["film", "xxunk", "popcorn", "the"]
    model = load_next_word(weights=str(folder_of(tmp_path, published())), words=words, **SIZES)
    table, bias = published()["0.encoder.weight"], published()["1.decoder.bias"]
    expected = torch.stack([table[4], table[0], table.mean(dim=0), table[3]])
    torch.testing.assert_close(model.backbone.embedding.weight.detach(), expected)
    torch.testing.assert_close(model.bias.detach(), torch.stack([bias[4], bias[0], bias.mean(), bias[3]]))
    assert model.backbone.source == {"weights": "lstm_fwd.pth", "n_words": 6, "n_matched": 3}


def test_of_a_word_that_stands_twice_the_last_row_counts() -> None:
    rows = torch.arange(3.0)
    assert match_words(rows, theirs=["xxfake", "a", "xxfake"], ours=["xxfake", "b"]).tolist() == [2.0, 1.0]


def test_without_words_of_ours_the_weights_keep_their_own(tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "lstm_fwd.pth")
    model = load(weights=str(tmp_path / "lstm_fwd.pth"), **SIZES)
    assert model.n_words == 6
    assert model.source == {"weights": "lstm_fwd.pth", "n_words": 6}


def refusal(weights: Path | str, **settings: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load(weights=str(weights), **{"words": THEIRS, **SIZES, **settings})
    assert caught.value.where
    assert caught.value.next
    return caught.value


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    state: dict[str, Any] = {**published(), **{name.replace("__", "."): tensor for name, tensor in changes.items()}}
    return {name: tensor for name, tensor in state.items() if tensor is not None}


@pytest.mark.parametrize(
    ("state", "what"),
    [
        (changed(**{"0__rnns__1__module__bias_hh_l0": None}), "they lack rnns.1.module.bias_hh_l0"),
        (changed(**{"0__rnns__0__extra": torch.zeros(1)}), "they hold the unknown rnns.0.extra"),
        (changed(**{"0__encoder__weight": None}), "they lack encoder.weight"),
        (changed(**{"0__rnns__0__module__bias_ih_l0": torch.zeros(3)}), "has the shape [3], not [20]"),
        (changed(**{"1__decoder__bias": torch.zeros(5)}), "1.decoder.bias has the shape [5], not [6]"),
        (changed(**{"0__rnns__0__module__bias_ih_l0": torch.full((20,), torch.nan)}), "holds NaN"),
        (changed(**{"1__decoder__weight": torch.zeros(6, 4)}), "is not tied to their embeddings"),
        ({"weight": torch.zeros(2)}, "they lack encoder.weight and hold the unknown weight"),
        ({}, "they lack encoder.weight"),
        ([torch.zeros(1)], "something else than named tensors"),
        ({"model": {"0.encoder.weight": "text"}}, "something else than named tensors"),
    ],
)
def test_weights_that_are_not_an_awd_lstms_are_refused(state: Any, what: str, tmp_path: Path) -> None:
    assert what in refusal(folder_of(tmp_path, state)).what


@pytest.mark.parametrize(
    ("sizes", "what", "next_step"),
    [
        ({"hidden_size": 1152}, "the weights have hidden_size 5 and not 1152", "backbone: {hidden_size: 5}"),
        (
            {"embedding_size": 400, "n_layers": 3},
            "the weights have embedding_size 4 and not 400, n_layers 2 and not 3",
            "backbone: {embedding_size: 4, n_layers: 2}",
        ),
    ],
)
def test_other_sizes_are_refused_with_the_right_ones(
    sizes: dict[str, int], what: str, next_step: str, tmp_path: Path
) -> None:
    error = refusal(folder_of(tmp_path, published()), **sizes)
    assert error.what == what
    assert error.next == next_step


def test_a_vocabulary_of_another_length_is_refused(tmp_path: Path) -> None:
    error = refusal(folder_of(tmp_path, published(), words=THEIRS[:5]))
    assert error.what == "the vocabulary has 5 words and the weights have 6"


def test_a_missing_file_a_wrong_ending_and_a_folder_of_several_say_so(tmp_path: Path) -> None:
    assert "the weights 'fwd.pth' is not there" in refusal(tmp_path / "fwd.pth").what
    (tmp_path / "model.bin").write_bytes(b"")
    assert "is no .pth file" in refusal(tmp_path / "model.bin").what
    assert "there are none" in refusal(tmp_path).what
    folder_of(tmp_path, published())
    assert "the vocabulary 'no.txt' is not there" in refusal(tmp_path, vocabulary=str(tmp_path / "no.txt")).what
    (tmp_path / "words.txt").write_text("a\n", encoding="utf-8")
    error = refusal(tmp_path)
    assert "there are 2 files that could be it (itos.json, words.txt)" in error.what
    assert error.next == "name the file: backbone: {vocabulary: …}"
    load(weights=str(tmp_path), vocabulary=str(tmp_path / "itos.json"), words=THEIRS, **SIZES)
    torch.save(published(), tmp_path / "other.pth")
    assert "there are 2 files" in refusal(tmp_path).what


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_of_a_hostile_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (pickle.dumps(_Hostile()), b"", b"PK\x03\x04 cut", pickle.dumps({"model": _Hostile()})):
        (tmp_path / "bad.pth").write_bytes(content)
        assert "cannot be read as tensors alone" in refusal(tmp_path / "bad.pth").what
    torch.save({"model": _Hostile()}, tmp_path / "bad.pth")
    assert "cannot be read as tensors alone" in refusal(tmp_path / "bad.pth").what
    assert not (tmp_path / "executed").exists()


def test_a_language_model_needs_the_decoders_bias(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, encoder_alone())
    with pytest.raises(ModelError, match="are an encoder alone"):
        load_next_word(weights=str(folder), words=THEIRS, **SIZES)
