"""The masked-word head of a checkpoint, read through transformers."""

from __future__ import annotations

import copy
from logging import getLogger
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

from headrace.backbones import _config, _weights
from headrace.backbones._masked_word import MaskedWordHead, MaskedWordModel, head_of
from headrace.backbones.transformer import Transformer
from headrace.text.batch import Batch

logger = getLogger(__name__)

# A head is the family's own if its logits are, but for rounding, relative to the largest.
_TOLERANCE = 1e-4
_ACTIVATIONS = ("hidden_act", "activation", "classifier_activation", "hidden_activation")


def of_checkpoint(backbone: Transformer, name: str, revision: str | None) -> MaskedWordHead | None:
    """Return the checkpoint's own head in our form, or None where it has none that gives the same logits."""
    config = backbone.model.config
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        return None
    folder, _ = _weights.fetch(name, revision=revision)
    model_class = _config.model_class(MODEL_FOR_MASKED_LM_MAPPING, type(config))
    loaded = _weights.read_model(model_class, folder, copy.deepcopy(config))
    model = loaded.model.eval()
    inside = f"{model.base_model_prefix}."
    absent = {key for key in loaded.missing | loaded.mismatched if not key.startswith(inside)}
    if absent or model.get_output_embeddings() is None:
        return None
    flags = backbone.training
    backbone.eval()
    found = next((head for head in _candidates(model, backbone) if _agrees(model, backbone, head)), None)
    backbone.train(flags)
    if found is None:
        logger.warning("%s: its own masked-word head has a form that is not known here", name)
    return found


def _candidates(model: Any, backbone: Transformer) -> list[MaskedWordHead]:
    """Return the family's head with each activation that its config names: one of them is the right one."""
    below = {id(module) for module in model.base_model.modules()}
    decoder = model.get_output_embeddings()
    own = [module for module in model.modules() if id(module) not in below and module is not decoder]
    dense = [module for module in own if isinstance(module, nn.Linear)]
    norms = [module for module in own if isinstance(module, nn.LayerNorm)]
    if len(dense) != 1 or len(norms) != 1:
        return []
    names = [getattr(model.config, name, None) for name in _ACTIVATIONS]
    found = []
    for activation in dict.fromkeys([*names, "gelu"]):
        if not isinstance(activation, str) or activation not in ACT2FN:
            continue
        settings = {
            "activation": activation,
            "eps": norms[0].eps,
            "dense_bias": dense[0].bias is not None,
            "norm_bias": norms[0].bias is not None,
        }
        head = head_of(backbone, settings)
        if head.dense.weight.shape != dense[0].weight.shape:
            return []
        head.dense.load_state_dict(dense[0].state_dict())
        head.norm.load_state_dict(norms[0].state_dict())
        if decoder.bias is not None:
            head.bias.data.copy_(decoder.bias.detach())
        found.append(head)
    return found


def _agrees(model: Any, backbone: Transformer, head: MaskedWordHead) -> bool:
    """Return whether a head gives the family's own logits, tried on a few tokens."""
    n_tokens = int(backbone.encoder.get_input_embeddings().num_embeddings)
    ids = (torch.arange(12) * 7919 % max(1, n_tokens - 10) + 10).clamp(max=n_tokens - 1).view(2, 6)
    batch = Batch(ids, torch.ones_like(ids), None, torch.arange(2))
    with torch.no_grad():
        ours = MaskedWordModel(backbone, head)(batch, torch.arange(12))
        theirs = model(input_ids=ids, attention_mask=batch.attention_mask).logits.view(12, -1)
    return bool((ours - theirs).abs().max() <= _TOLERANCE * theirs.abs().max().clamp(min=1.0))
