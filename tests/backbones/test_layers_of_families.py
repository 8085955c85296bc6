"""Layer groups are found by structure, in families that nobody listed here."""

from __future__ import annotations

import pytest
from transformers import AlbertConfig, AutoModel, GPT2Config, MPNetConfig, XLNetConfig

from headrace.backbones import transformer
from headrace.backbones._layers import group_parameters
from tiny_models import make_batch

_SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
}
OTHERS = {
    "albert": (AlbertConfig(**_SIZES, embedding_size=16), 1),  # its layers share one set of weights
    "mpnet": (MPNetConfig(**_SIZES), 3),
    "gpt2": (GPT2Config(vocab_size=60, n_embd=32, n_layer=3, n_head=4), 3),
    "xlnet": (XLNetConfig(vocab_size=60, d_model=32, n_layer=3, n_head=4, d_inner=40), 3),
}


@pytest.mark.parametrize("family", OTHERS)
def test_groups_hold_each_parameter_once(family):
    config, n_layers = OTHERS[family]
    model = AutoModel.from_config(config)
    groups = group_parameters(model)
    assert [name for name, _ in groups] == ["embeddings", *(f"layer {i}" for i in range(n_layers))]
    held = [id(parameter) for _, parameters in groups for parameter in parameters]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter in model.parameters()}
    assert all(parameters for _, parameters in groups)
    bottom = {id(parameter) for parameter in groups[0][1]}
    assert id(model.get_input_embeddings().weight) in bottom


@pytest.mark.parametrize("family", ["albert", "mpnet", "gpt2"])
def test_other_encoders_load_build_and_run(family, tmp_path):
    AutoModel.from_config(OTHERS[family][0]).save_pretrained(tmp_path)
    ours = transformer.load(str(tmp_path)).eval()
    again = transformer.build(ours.config()).eval()
    again.load_state_dict(ours.state_dict(), strict=True)
    batch = make_batch([7, 5])
    assert (ours(batch) == again(batch)).all()
    if family == "albert":
        pooled = transformer.load(str(tmp_path), pooler=True).eval()
        reference = AutoModel.from_pretrained(tmp_path).eval()
        expected = reference(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, token_type_ids=batch.token_type_ids
        ).pooler_output
        assert (pooled.pooled(batch, pooled(batch)) - expected).abs().max() < 1e-5
