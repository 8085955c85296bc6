"""Tiny random models of six families, saved by the tests, and batches built by hand."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PretrainedConfig,
    RobertaConfig,
)

from headrace.text.batch import Batch

_SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
}


def family_configs() -> dict[str, PretrainedConfig]:
    # dropouts stay at the families' defaults: evaluation mode must switch them off
    return {
        "bert": BertConfig(**_SIZES, max_position_embeddings=40),
        "distilbert": DistilBertConfig(
            vocab_size=60, dim=32, n_layers=2, n_heads=4, hidden_dim=40, max_position_embeddings=40
        ),
        "roberta": RobertaConfig(**_SIZES, max_position_embeddings=42, type_vocab_size=1, pad_token_id=1),
        "electra": ElectraConfig(**_SIZES, embedding_size=16, max_position_embeddings=40),
        "deberta-v2": DebertaV2Config(
            **_SIZES,
            max_position_embeddings=40,
            type_vocab_size=0,
            relative_attention=True,
            position_biased_input=False,
            pos_att_type=["p2c", "c2p"],
            # read by getattr alone: a plain list of the config class's fields would lose them
            position_buckets=8,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            conv_kernel_size=3,
            conv_act="gelu",
            conv_groups=1,
            pooler_hidden_size=32,
        ),
        "modernbert": ModernBertConfig(
            **_SIZES,
            max_position_embeddings=64,
            local_attention=6,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            cls_token_id=1,
            sep_token_id=2,
            # the older names, as ModernBERT-base on the hub has them
            global_attn_every_n_layers=2,
            global_rope_theta=5_000.0,
            local_rope_theta=700.0,
        ),
    }


FAMILIES = tuple(family_configs())
CHECKPOINT_LABELS = ("neutral", "positive", "negative")
PAD_IDS = {name: int(config.pad_token_id) for name, config in family_configs().items()}


def make_batch(lengths: list[int], *, pad_id: int = 0, pad_to: int | None = None, seed: int = 0) -> Batch:
    """Return texts of random tokens; text i has the same tokens whatever stands beside it."""
    width = pad_to or max(lengths)
    ids = torch.full((len(lengths), width), pad_id)
    mask = torch.zeros((len(lengths), width), dtype=torch.int64)
    for row, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(1000 * seed + row)
        ids[row, :length] = torch.randint(5, 60, (length,), generator=generator)
        mask[row, :length] = 1
    segments = torch.zeros_like(ids)
    segments[:, 3:] = mask[:, 3:]
    return Batch(ids, mask, segments, torch.arange(len(lengths)))


def save_encoders(root: Path) -> dict[str, Path]:
    """Save random encoders of all families, pooler included where the family has one."""
    torch.manual_seed(0)
    for name, config in family_configs().items():
        model = AutoModel.from_config(config)
        spread(model)
        model.save_pretrained(root / name)
    return {name: root / name for name in FAMILIES}


def save_checkpoints(root: Path) -> dict[str, Path]:
    """Save random fine-tuned classifiers of all families, with three named labels."""
    torch.manual_seed(1)
    for name, config in family_configs().items():
        config.id2label = dict(enumerate(CHECKPOINT_LABELS))
        config.label2id = {label: index for index, label in enumerate(CHECKPOINT_LABELS)}
        model = AutoModelForSequenceClassification.from_config(config)
        spread(model)
        model.save_pretrained(root / name)
    return {name: root / name for name in FAMILIES}


def spread(model: torch.nn.Module) -> None:
    """Draw all weights far enough from zero and from each other for any mistake to show."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
            else:  # norms stay near one
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
