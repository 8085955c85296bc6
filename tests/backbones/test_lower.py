"""An encoder run from its middle gives what the whole of it gives: hidden states, gradients, padded and laid end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.bert.modeling_bert import BertEncoder, BertLayer

from headrace.backbones import transformer
from headrace.errors import ModelError
from tiny import tiny_folder
from tiny_models import FAMILIES, PAD_IDS, family_configs, make_batch, spread

PACKED = tuple(family for family in FAMILIES if family != "deberta-v2")
LENGTHS = [9, 30, 12, 12, 29, 5, 1]
N_LAYERS = 4


def backbone(family: str) -> transformer.Transformer:
    config = family_configs()[family]
    setattr(config, "n_layers" if family == "distilbert" else "num_hidden_layers", N_LAYERS)
    if family == "modernbert":
        config.layer_types = ["full_attention", "sliding_attention"] * (N_LAYERS // 2)
    for name in vars(config):
        if "dropout" in name and isinstance(getattr(config, name), float):
            setattr(config, name, 0.0)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModel.from_config(config)
        spread(model)
    model.pooler = None
    return transformer.Transformer(model)


def gradients(model: transformer.Transformer, hidden: torch.Tensor, real: torch.Tensor) -> dict[str, torch.Tensor]:
    weight = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3)) * real.unsqueeze(-1)
    (hidden * weight).sum().backward()  # type: ignore[no-untyped-call]
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("packs", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_upper_layers_give_the_hidden_states_and_gradients_of_the_whole(family: str, packs: bool) -> None:
    if packs and family not in PACKED:
        pytest.skip("its attention cannot be exchanged")
    # in float64, as the gradient of a key is a difference of large terms, which float32 rounds by more than is asked for
    model = backbone(family).double().train()
    if packs:
        model.train_on_cpu()
    assert model.packs == packs
    assert model.split_layers() == N_LAYERS - 1
    batch = make_batch(LENGTHS, pad_id=PAD_IDS[family])
    real = batch.attention_mask.bool()
    depths = range(1, N_LAYERS)
    kept, last = model.eval().lower_states(batch, depths)
    model.train()
    assert sorted(kept) == list(depths)
    groups = model.groups()
    for depth in depths:
        for place, (_, parameters) in enumerate(groups):
            for parameter in parameters:
                parameter.requires_grad_(place > depth)
                parameter.grad = None
        whole = model(batch)
        expected = {name: grad.clone() for name, grad in gradients(model, whole, real).items()}
        assert len(expected) >= 7
        model.zero_grad(set_to_none=True)
        states = kept[depth] * real.unsqueeze(-1)
        found = model.upper(batch, states, depth)
        assert not states.requires_grad
        assert float((found - whole).detach()[real].abs().max()) < 1e-5
        assert float((found - last).detach()[real].abs().max()) < 1e-5
        mine = gradients(model, found, real)
        assert sorted(mine) == sorted(expected)
        for name, grad in mine.items():
            assert float((grad - expected[name]).abs().max()) < 1e-5 * max(1.0, float(expected[name].abs().max())), name


@pytest.mark.parametrize("family", FAMILIES)
def test_what_lies_below_is_not_computed_and_nothing_stays_behind(family: str) -> None:
    model = backbone(family).eval()
    model.split_layers()
    batch = make_batch(LENGTHS, pad_id=PAD_IDS[family])
    kept, whole = model.lower_states(batch, [2])
    names = sorted(model.state_dict())
    with torch.no_grad():
        for _, parameters in model.groups()[:3]:
            for parameter in parameters:
                # relative positions belong to the lowest group, and all layers read them
                if family != "deberta-v2" or (parameter.dim() > 1 and len(parameter) == 60):
                    parameter.fill_(float("nan"))
    real = batch.attention_mask.bool()
    with torch.no_grad():
        found = model.upper(batch, kept[2] * real.unsqueeze(-1), 2)
        assert float((found - whole)[real].abs().max()) < 1e-5
        assert bool(model(batch)[real].isnan().any())
    assert sorted(model.state_dict()) == names
    for module in model.modules():
        assert "forward" not in vars(module)
        assert not module._forward_pre_hooks
        assert not module._forward_hooks


def test_asking_draws_nothing_and_leaves_the_modes_as_they_were(tmp_path: Path) -> None:
    model = transformer.load(str(tiny_folder(tmp_path))).train()
    model.train_on_cpu()
    before = torch.get_rng_state()
    assert model.split_layers() == 1
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in model.modules())


def test_layers_that_share_their_weights_are_not_told_apart() -> None:
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "embedding_size": 8}
    config = AutoConfig.for_model("albert", vocab_size=60, num_hidden_layers=4, **sizes)
    model = transformer.Transformer(AutoModel.from_config(config)).eval()
    batch = make_batch(LENGTHS)
    assert model.split_layers() == 0
    states, last = model.lower_states(batch, [])
    assert states == {}
    assert torch.equal(last, model(batch).detach())
    with pytest.raises(ModelError, match="has no layers to start from"):
        model.upper(batch, last, 1)


class _Skipping(BertEncoder):
    """Layers whose last hidden states hold the first layer's once more: those of a middle layer do not say all."""

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any) -> BaseModelOutput:
        first = hidden_states = self.layer[0](hidden_states, attention_mask)
        for layer in self.layer[1:]:
            hidden_states = layer(hidden_states, attention_mask)
        return BaseModelOutput(last_hidden_state=hidden_states + first)


def test_a_family_whose_upper_part_needs_more_than_the_states_is_found_out() -> None:
    model = backbone("bert")
    model.model.encoder.__class__ = _Skipping
    assert model.split_layers() == 0
    model.model.encoder.__class__ = BertEncoder
    assert model.split_layers() == N_LAYERS - 1


def test_a_family_whose_layers_are_called_otherwise_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone("bert")

    def by_another_name(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> BaseModelOutput:
        for layer in self.layer:
            hidden_states = layer(tokens=hidden_states)
        return BaseModelOutput(last_hidden_state=hidden_states)

    monkeypatch.setattr(BertEncoder, "forward", by_another_name)
    monkeypatch.setattr(BertLayer, "forward", lambda self, tokens: tokens * 2)
    assert model.split_layers() == 0
    assert all("forward" not in vars(module) and not module._forward_pre_hooks for module in model.modules())
