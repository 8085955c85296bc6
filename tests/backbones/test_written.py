"""Encoders that are written out have the names, the order and the numbers of transformers' own, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from headrace.backbones import _config, _pretrained, transformer
from headrace.backbones._encoder import Transformer
from headrace.backbones._written import Written
from headrace.backbones._written_heads import head_rate
from headrace.errors import ModelError
from headrace.text.batch import Batch
from tiny_models import make_batch

SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
DISTIL = {"vocab_size": 60, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 40}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": SIZES,
    "roberta": {**SIZES, "type_vocab_size": 1},
    "xlm-roberta": {**SIZES, "hidden_act": "relu"},
    "camembert": SIZES,
    "electra": {**SIZES, "embedding_size": 8},
    "distilbert": DISTIL,
}
POOLED = ("bert", "roberta", "xlm-roberta", "camembert")
LENGTHS = [9, 14, 4, 9, 1]


def config_of(family: str, *, pooler: bool = False, **changes: Any) -> dict[str, Any]:
    made = CONFIG_MAPPING[family](**{**CONFIGS[family], **changes})
    return {"architecture": _config.architecture(made), "pooler": pooler}


def both(family: str, *, pooler: bool = False) -> tuple[Transformer, Transformer]:
    """Return the encoder that is written out, and transformers' own with the same weights."""
    config = config_of(family, pooler=pooler)
    theirs = _pretrained.build(config, pooler=pooler)
    ours = transformer.build(config)
    assert isinstance(ours.model, Written)
    assert not isinstance(theirs.model, Written)
    with torch.no_grad():
        for parameter in theirs.parameters():  # biases and norms, too, say something
            parameter.add_(torch.randn_like(parameter) * 0.1)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def batch_of(family: str, lengths: list[int]) -> Batch:
    batch = make_batch(lengths, pad_id=int(CONFIG_MAPPING[family]().pad_token_id or 0))
    if family not in ("bert", "electra"):
        return batch
    segments = (torch.arange(max(lengths)) > 2).long() * batch.attention_mask
    return Batch(batch.input_ids, batch.attention_mask, segments, batch.rows)


def same(ours: Transformer, theirs: Transformer, compute: Callable[[Transformer], torch.Tensor]) -> None:
    found, expected = compute(ours), compute(theirs)
    assert torch.isfinite(found).all()
    assert float(found.std()) > 1e-3
    assert torch.equal(found, expected), float((found - expected).abs().max())


@pytest.mark.parametrize("family", CONFIGS)
def test_names_order_and_config_are_those_of_transformers(family: str) -> None:
    ours, theirs = both(family)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    shapes = [[(name, p.shape) for name, p in model.named_parameters()] for model in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert ours.config() == theirs.config()
    facts = [(m.family, m.width, m.max_tokens, [(n, len(g)) for n, g in m.groups()]) for m in (ours, theirs)]
    assert facts[0] == facts[1]


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("lengths", [LENGTHS, [7, 7], [12]], ids=str)
def test_hidden_states_are_bit_equal_padded_and_packed(family: str, lengths: list[int]) -> None:
    ours, theirs = (model.eval() for model in both(family))
    batch = batch_of(family, lengths)
    real = batch.attention_mask.bool()

    def scored(model: Transformer, *, first_alone: bool) -> torch.Tensor:
        with model.scoring_on_cpu(first_alone=first_alone):
            assert model.packs
            hidden: torch.Tensor = model(batch)
            return hidden[:, 0] if first_alone else hidden[real]

    with torch.no_grad():
        same(ours, theirs, lambda model: model(batch)[real])
        same(ours, theirs, lambda model: scored(model, first_alone=False))
        same(ours, theirs, lambda model: scored(model, first_alone=True))
        with ours.scoring_on_cpu(first_alone=True), theirs.scoring_on_cpu(first_alone=True):
            # found by trying there, known here
            names = [
                [n for n, m in model.named_modules() if model._narrow and m is model._narrow[0]]
                for model in (ours, theirs)
            ]
    assert names[0] == names[1] != []


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("on_cpu", [False, True], ids=["padded", "packed"])
def test_a_training_step_is_bit_equal_with_its_dropouts(family: str, on_cpu: bool) -> None:
    batch = batch_of(family, LENGTHS)

    def gradients(model: Transformer) -> torch.Tensor:
        model.train()
        if on_cpu:
            model.train_on_cpu()
        assert model.packs is on_cpu
        torch.manual_seed(5)
        (model(batch)[:, 0] ** 2).sum().backward()
        found = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
        assert len(found) == len(list(model.parameters()))
        return torch.cat(found)

    ours, theirs = both(family)
    same(ours, theirs, gradients)
    torch.manual_seed(6)
    assert not torch.equal(ours(batch)[:, 0], ours(batch)[:, 0])  # dropout is on


@pytest.mark.parametrize("family", POOLED)
def test_the_pooler_is_the_familys_own(family: str) -> None:
    ours, theirs = (model.eval() for model in both(family, pooler=True))
    batch = batch_of(family, LENGTHS)

    def pooled(model: Transformer) -> torch.Tensor:
        found = model.pooled(batch, model(batch))
        assert found is not None
        return found

    with torch.no_grad():
        same(ours, theirs, pooled)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_familys_own_head_is_bit_equal_in_answers_and_in_training(family: str) -> None:
    labels = ("a", "b", "c")
    config = config_of(family)
    ours = transformer.build_native(config, labels=labels)
    theirs = transformer.build_native(config, labels=labels, by_transformers=True)
    assert isinstance(ours.encoder, Written)
    assert not isinstance(theirs.encoder, Written)
    # XLM-RoBERTa's head is registered before its encoder: only the set of names is the same
    shapes = [{name: p.shape for name, p in model.named_parameters()} for model in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert ours.config() == theirs.config()
    assert len(ours.head_parameters()) == len(theirs.head_parameters()) > 0
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    ours.load_state_dict(theirs.state_dict())
    batch = batch_of(family, LENGTHS)

    def packed(model: Transformer) -> torch.Tensor:
        with torch.no_grad(), model.scoring_on_cpu(first_alone=True):
            assert model.packs
            return model.logits(batch)

    def gradients(model: Transformer) -> torch.Tensor:
        model.train().train_on_cpu()
        torch.manual_seed(5)
        (model.logits(batch) ** 2).sum().backward()
        return torch.cat([parameter.grad.flatten() for _, parameter in sorted(model.named_parameters())])

    ours.eval()
    theirs.eval()
    same(ours, theirs, lambda model: model.logits(batch).detach())
    same(ours, theirs, packed)
    same(ours, theirs, gradients)


@pytest.mark.parametrize("family", CONFIGS)
def test_layers_can_be_left_out_as_those_of_transformers(family: str) -> None:
    ours, theirs = (model.eval() for model in both(family))
    batch = batch_of(family, LENGTHS)
    real = batch.attention_mask.bool()
    assert ours.split_layers() == theirs.split_layers() == 1

    def from_the_middle(model: Transformer) -> torch.Tensor:
        states, hidden = model.lower_states(batch, [1])
        upper = model.upper(batch, states[1], 1)
        assert torch.equal(upper[real], hidden[real])
        return upper[real].detach()

    same(ours, theirs, from_the_middle)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("bert", {"hidden_act": "gelu_new"}),
        ("bert", {"chunk_size_feed_forward": 1}),
        ("distilbert", {"sinusoidal_pos_embds": True}),
        ("electra", {"embedding_size": 16, "hidden_act": "silu"}),
    ],
    ids=str,
)
def test_a_setting_that_is_not_known_here_goes_through_transformers(family: str, changes: dict[str, Any]) -> None:
    found = transformer.build(config_of(family, **changes))
    assert not isinstance(found.model, Written)
    with torch.no_grad():
        assert found.eval()(batch_of(family, [5])).shape == (1, 5, 16)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("hidden_size", 10**9), ("num_attention_heads", 3), ("vocab_size", -1), ("auto_map", {"AutoModel": "x.Y"})),
        *(("type_vocab_size", "x"), ("hidden_act", ["gelu"]), ("model_type", ["bert"])),
    ],
)
def test_a_config_that_was_changed_is_refused_as_ever(key: str, value: object) -> None:
    config = config_of("bert")
    config["architecture"][key] = value
    with pytest.raises(ModelError):
        transformer.build(config)


def test_a_model_without_a_padding_token_goes_through_transformers() -> None:
    found = transformer.build(config_of("bert", pad_token_id=None))
    assert not isinstance(found.model, Written)


@pytest.mark.parametrize("rate", ["x", 2.0, True, [0.1]])
def test_a_head_with_a_rate_that_makes_no_sense_is_not_written_out(rate: object) -> None:
    assert head_rate({"classifier_dropout": rate, "hidden_dropout_prob": 0.1}) is None
    assert head_rate({"classifier_dropout": None, "hidden_dropout_prob": 0.25}) == 0.25
    assert head_rate({"seq_classif_dropout": rate}) is None
    config = config_of("bert", classifier_dropout=0.5)
    assert isinstance(transformer.build_native(config, labels=("a", "b")).encoder, Written)
    config["architecture"]["classifier_dropout"] = rate
    assert transformer._written_native(config["architecture"], 2) is None


def test_a_new_encoder_has_weights_as_bert_draws_them() -> None:
    torch.manual_seed(1)
    found = transformer.build(config_of("bert", vocab_size=5000)).model
    words = found.get_input_embeddings().weight.detach()
    assert float(words.std()) == pytest.approx(0.02, rel=0.02)
    assert not words[0].any()  # padding
    assert not found.encoder.layer[0].output.dense.bias.any()
