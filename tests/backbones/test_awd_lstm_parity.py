"""Ours against fastai 2.8 on the same random weights; `parity/awd_lstm.py` wrote what fastai answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headrace.backbones._awd_layers import LANGUAGE_MODEL
from headrace.backbones._next_word import NextWordModel, load_next_word
from headrace.backbones.awd_lstm import AwdLstm, load
from headrace.data.examples import LabelSet
from headrace.head import HeadSettings, UlmfitHead
from headrace.model import Classifier
from headrace.text.batch import Batch

FIXTURE = Path(__file__).parents[1] / "fixtures" / "parity" / "awd_lstm.npz"
SIZES = {"embedding_size": 8, "hidden_size": 12, "n_layers": 3}
LABELS = LabelSet(("a", "b", "c"))
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def found() -> dict[str, Tensor]:
    with np.load(FIXTURE, allow_pickle=False) as arrays:
        assert str(arrays["fastai"]).startswith("2.8")
        return {name: torch.from_numpy(arrays[name]) for name in arrays if arrays[name].dtype.kind in "fi"}


def part(found: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.partition(":")[2]: tensor for name, tensor in found.items() if name.startswith(f"{prefix}:")}


def words(n: int) -> list[str]:
    return [f"word{number}" for number in range(n)]


@pytest.fixture
def language_model(found: dict[str, Tensor], tmp_path: Path) -> NextWordModel:
    torch.save({"model": part(found, "lm.weights"), "opt": None}, tmp_path / "fwd.pth")
    return load_next_word(weights=str(tmp_path / "fwd.pth"), drop_mult=0.0, **SIZES)


def classifier(found: Mapping[str, Tensor], folder: Path, *, direction: str = "forward") -> Classifier:
    weights = part(found, "classifier.weights")
    encoder = {name.removeprefix("0.module."): t for name, t in weights.items() if name.startswith("0.module.")}
    torch.save(encoder, folder / "encoder.pth")
    backbone = load(weights=str(folder / "encoder.pth"), drop_mult=0.0, direction=direction, **SIZES)
    model = Classifier(backbone, settings=HeadSettings("ulmfit", dropout=0.0), labels=LABELS, multi_label=False)
    assert isinstance(model.head, UlmfitHead)
    model.head.output_dropout.p = 0.0
    model.head.load_state_dict({ours: weights[theirs] for theirs, ours in head_names(weights).items()})
    return model


def head_names(weights: Mapping[str, Tensor]) -> dict[str, str]:
    blocks = {"1.layers.0.0.": "norm.", "1.layers.0.1.": "hidden.", "1.layers.1.0.": "output_norm."}
    blocks["1.layers.1.1."] = "output."
    names = {
        key: ours + key.removeprefix(theirs) for theirs, ours in blocks.items() for key in weights if theirs in key
    }
    assert len(names) == 12
    return names


def batch_of(texts: list[Tensor], *, pad_to: int = 0) -> Batch:
    width = max(pad_to, *(len(text) for text in texts))
    ids, mask = torch.ones(len(texts), width, dtype=torch.int64), torch.zeros(len(texts), width, dtype=torch.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return Batch(ids, mask, None, torch.arange(len(texts)))


def texts_of(found: Mapping[str, Tensor]) -> list[Tensor]:
    return list(torch.split(found["classifier.ids"], found["classifier.lengths"].tolist()))


def test_the_language_model_gives_fastais_logits_and_carries_its_state(
    found: dict[str, Tensor], language_model: NextWordModel
) -> None:
    model = language_model.eval()
    state = model.initial_state(3)
    step_by_step = model.initial_state(3)
    for number in range(3):
        chunk = found["lm.ids"][:, 20 * number : 20 * (number + 1)]
        with torch.no_grad():
            last, step_by_step = model.next_logits(chunk, step_by_step)
            raw, state = model.backbone.read(chunk, state)
        torch.testing.assert_close(raw, found[f"lm.raw.{number}"], **CLOSE)
        logits = raw @ model.backbone.embedding.weight.T + model.bias
        torch.testing.assert_close(logits, found[f"lm.logits.{number}"], **CLOSE)
        torch.testing.assert_close(last, found[f"lm.logits.{number}"][:, -1], **CLOSE)
    for number, (output, cell) in enumerate(state):
        torch.testing.assert_close(output, found[f"lm.state.{number}.output"], **CLOSE)
        torch.testing.assert_close(cell, found[f"lm.state.{number}.cell"], **CLOSE)


def test_a_step_of_the_language_model_has_fastais_loss_penalty_and_gradients(
    found: dict[str, Tensor], language_model: NextWordModel
) -> None:
    model = language_model.train()
    assert asdict(model.backbone.dropouts) == dict.fromkeys(asdict(LANGUAGE_MODEL), 0.0)
    first = model.learn(found["lm.ids"][:, :20], found["lm.ids"][:, 1:21], model.initial_state(3))
    second = model.learn(found["lm.ids"][:, 20:40], found["lm.ids"][:, 21:41], first.state)
    torch.testing.assert_close(second.loss, found["lm.loss"], **CLOSE)
    torch.testing.assert_close(second.penalty, found["lm.penalty"], **CLOSE)
    (second.loss + second.penalty).backward()
    theirs = part(found, "lm.gradients")
    compare_gradients(theirs, model.backbone, prefix="0.", n=13)
    torch.testing.assert_close(model.bias.grad, theirs["1.decoder.bias"], **CLOSE)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_the_classifier_gives_fastais_logits_and_states_at_every_length(
    found: dict[str, Tensor], direction: str, tmp_path: Path
) -> None:
    model = classifier(found, tmp_path, direction=direction).eval()
    expected = found[f"classifier.{direction}"]
    texts = texts_of(found)
    assert [len(text) for text in texts] == [1, 10, 71, 72, 73, 150, 216, 1440, 1441, 1500, 1600]
    assert (expected[1:] - expected[:-1]).abs().max(dim=1).values.min() > 1e-3  # the texts do differ
    with torch.no_grad():
        alone = torch.cat([model(batch_of([text])) for text in texts])
        together = model(batch_of(texts, pad_to=1610))
        hidden = model.hidden(batch_of([texts[5]]))[0]
    torch.testing.assert_close(alone, expected, **CLOSE)
    torch.testing.assert_close(together, expected, **CLOSE)
    theirs = found[f"classifier.{direction}.hidden"]
    torch.testing.assert_close(hidden, theirs if direction == "forward" else theirs.flip(0), **CLOSE)


def test_a_padded_batch_gives_the_logits_of_fastais_padded_batch(found: dict[str, Tensor], tmp_path: Path) -> None:
    model = classifier(found, tmp_path).eval()
    by_length = {len(text): text for text in texts_of(found)}
    batch = batch_of([by_length[length] for length in found["classifier.batch.lengths"].tolist()])
    with torch.no_grad():
        torch.testing.assert_close(model(batch), found["classifier.batch"], **CLOSE)


def test_a_step_of_the_classifier_has_fastais_truncated_gradients(found: dict[str, Tensor], tmp_path: Path) -> None:
    model = classifier(found, tmp_path).train()
    loss = nn.functional.cross_entropy(model(batch_of(list(found["classifier.long"]))), found["classifier.targets"])
    torch.testing.assert_close(loss, found["classifier.loss"], **CLOSE)
    loss.backward()
    theirs = part(found, "classifier.gradients")
    assert isinstance(model.backbone, AwdLstm)
    compare_gradients(theirs, model.backbone, prefix="0.module.", n=13)
    assert model.head is not None
    ours = dict(model.head.named_parameters()) | dict(model.head.named_buffers())
    after = part(found, "classifier.after")
    for their_name, our_name in head_names(part(found, "classifier.weights")).items():
        if their_name in theirs:
            torch.testing.assert_close(ours[our_name].grad, theirs[their_name], **CLOSE)
        elif their_name in after:
            torch.testing.assert_close(ours[our_name], after[their_name], **CLOSE)


def compare_gradients(theirs: Mapping[str, Tensor], backbone: AwdLstm, *, prefix: str, n: int) -> None:
    names = {f"{prefix}encoder.weight": "embedding.weight"}
    for number in range(3):
        names[f"{prefix}rnns.{number}.weight_hh_l0_raw"] = f"layers.{number}.weight_hh"
        for name in ("weight_ih", "bias_ih", "bias_hh"):
            names[f"{prefix}rnns.{number}.module.{name}_l0"] = f"layers.{number}.{name}"
    ours = dict(backbone.named_parameters())
    assert len(names) == len(ours) == n
    for their_name, our_name in names.items():
        assert theirs[their_name].abs().max() > 1e-6
        torch.testing.assert_close(ours[our_name].grad, theirs[their_name], **CLOSE)
