"""Masked-word models of six families: their own head's logits, logits at masked places alone, a config that rebuilds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM

from headrace.backbones import _masked_word
from headrace.backbones._masked_word import MaskedWordModel
from headrace.errors import ModelError
from headrace.train.language.model import new_head_line
from tiny_models import FAMILIES, family_configs, make_batch, spread


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random masked-word models of all families."""
    root = tmp_path_factory.mktemp("masked")
    torch.manual_seed(0)
    for name, config in family_configs().items():
        model = AutoModelForMaskedLM.from_config(config)
        spread(model)
        model.save_pretrained(root / name)
    return {name: root / name for name in FAMILIES}


PLACES = torch.tensor([1, 3, 12, 13, 20])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoints_own_head_gives_transformers_logits(family: str, checkpoints: dict[str, Path]) -> None:
    model = _masked_word.load(str(checkpoints[family])).eval()
    theirs = AutoModelForMaskedLM.from_pretrained(checkpoints[family]).eval()
    batch = make_batch([9, 5, 7])
    segments = {"token_type_ids": batch.token_type_ids} if model.backbone._takes_segments else {}
    with torch.no_grad():
        expected = theirs(batch.input_ids, attention_mask=batch.attention_mask, **segments).logits
        found = model(batch, PLACES)
    assert found.shape == (5, 60)
    torch.testing.assert_close(found, expected.reshape(-1, 60)[PLACES], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_parameter_stands_in_one_group_and_the_embedding_below_the_head(
    family: str, checkpoints: dict[str, Path]
) -> None:
    model = _masked_word.load(str(checkpoints[family]))
    groups = model.groups()
    listed = [id(parameter) for _, parameters in groups for parameter in parameters]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(parameter) for parameter in model.parameters()}
    assert [groups[0][0], groups[-1][0]] == ["embeddings", "head"]
    assert id(model.embedding) in {id(parameter) for parameter in groups[0][1]}


@pytest.mark.parametrize("family", FAMILIES)
def test_its_config_builds_it_anew(family: str, checkpoints: dict[str, Path]) -> None:
    model = _masked_word.load(str(checkpoints[family])).eval()
    again = _masked_word.build(model.config()).eval()
    again.load_state_dict(model.state_dict())
    batch = make_batch([9, 5, 7])
    with torch.no_grad():
        assert torch.equal(again(batch, PLACES), model(batch, PLACES))


def test_an_encoder_without_a_head_gets_a_new_one_and_says_so(tmp_path: Path, checkpoints: dict[str, Path]) -> None:
    AutoModelForMaskedLM.from_pretrained(checkpoints["bert"]).base_model.save_pretrained(tmp_path)
    model = _masked_word.load(str(tmp_path))
    assert model.has_new_head
    assert new_head_line(model) is not None
    assert new_head_line(_masked_word.load(str(checkpoints["bert"]))) is None
    assert not model.head.bias.any()
    theirs = AutoModelForMaskedLM.from_pretrained(checkpoints["bert"])
    assert torch.equal(model.embedding, theirs.get_input_embeddings().weight)


def test_loss_and_hits_are_those_of_the_whole_logits(checkpoints: dict[str, Path]) -> None:
    model = _masked_word.load(str(checkpoints["bert"])).eval()
    batch = make_batch([9, 5, 7])
    targets = torch.tensor([7, 8, 9, 10, 11])
    found = model.learn(batch, PLACES, targets)
    logits = model(batch, PLACES)
    expected = -logits.log_softmax(-1)[torch.arange(5), targets].sum()
    torch.testing.assert_close(found.loss_sum, expected)
    assert int(found.n_correct) == int((logits.argmax(-1) == targets).sum())
    assert found.n_tokens == 5


def test_packed_training_computes_what_padded_evaluation_does(checkpoints: dict[str, Path]) -> None:
    model = _masked_word.load(str(checkpoints["bert"]), dropout=0.0)
    batch = make_batch([9, 5, 7])
    with torch.no_grad():
        padded = model.eval()(batch, PLACES)
        model.backbone.train_on_cpu()
        assert model.backbone.packs
        packed = model.train()(batch, PLACES)
    torch.testing.assert_close(packed, padded, atol=1e-4, rtol=1e-4)


def test_the_gradient_reaches_embedding_encoder_and_head(checkpoints: dict[str, Path]) -> None:
    model = _masked_word.load(str(checkpoints["roberta"]), weights="none")
    model.learn(make_batch([9, 5, 7], pad_id=1), PLACES, torch.tensor([7, 8, 9, 10, 11])).loss_sum.backward()
    for name, parameters in model.groups():
        assert any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in parameters), name


def test_a_changed_config_is_refused(checkpoints: dict[str, Path]) -> None:
    config = _masked_word.load(str(checkpoints["bert"])).config()
    with pytest.raises(ModelError, match="head's config is damaged"):
        _masked_word.build({**config, "head": {"activation": "no such"}})


def test_the_kind_is_told() -> None:
    assert MaskedWordModel.kind == "masked_word"
