"""Tiny random encoders with real tokenizers, saved as any pretrained model is: what the tests train and load."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
from transformers.utils import logging as transformers_logging

SENTENCES = [
    "A good film with a warm heart and a fine cast.",
    "The plot is bad, the pace is slow and the end is worse.",
    "I liked the music, but the story made no sense at all.",
    "Never again: two hours of my life that I will not get back!",
    "What a lovely surprise; we laughed, we cried, we stayed to the end.",
    "The refund did not arrive, and nobody answers the phone.",
    "Does the man play a guitar? A man is playing music on the stage.",
    "No one is there.",
]
FAMILIES = ("bert", "distilbert", "roberta", "electra", "deberta-v2", "modernbert")
_BYTE_LEVEL = ("roberta", "modernbert")
_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_SPECIAL_ROBERTA = {
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "mask_token": "<mask>",
}


def tiny_folder(
    parent: Path,
    family: str = "bert",
    *,
    n_labels: int | None = None,
    label_names: tuple[str, ...] | None = None,
    name: str | None = None,
    seed: int = 0,
) -> Path:
    """Save a 2-layer encoder of width 32 with its tokenizer, and return the folder.

    Args:
        parent: Where the folder is made.
        family: transformers' `model_type`.
        n_labels: With it the family's own classification head is saved too, as a fine-tuned checkpoint has it.
        label_names: Their names; by default LABEL_0, LABEL_1 …
        name: Of the folder; by default the family's.
        seed: Of the random weights.
    """
    folder = Path(parent) / (name or family)
    folder.mkdir(parents=True, exist_ok=True)
    n_tokens = _save_tokenizer(folder, family)
    config = AutoConfig.for_model(family, **_sizes(family, n_tokens))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if n_labels is None:
            model = AutoModel.from_config(config)
        else:
            names = label_names or tuple(f"LABEL_{i}" for i in range(n_labels))
            config.id2label = dict(enumerate(names))
            config.label2id = {label: i for i, label in enumerate(names)}
            model = AutoModelForSequenceClassification.from_config(config)
        with torch.no_grad():  # fresh weights have a spread of 0.02: all texts would get nearly the same logits
            for weight in model.parameters():
                if weight.dim() > 1:
                    weight.normal_(std=0.2)
                else:
                    weight.add_(torch.randn_like(weight) * 0.05)
    had_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    if had_bar:
        transformers_logging.enable_progress_bar()
    return folder


def _sizes(family: str, n_tokens: int) -> dict[str, Any]:
    if family == "distilbert":
        return {
            "vocab_size": n_tokens,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 64,
            "max_position_embeddings": 128,
        }
    sizes = {
        "vocab_size": n_tokens,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
    }
    if family == "electra":
        sizes["embedding_size"] = 16
    if family == "deberta-v2":
        more = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16}
        sizes |= more | {"type_vocab_size": 0, "norm_rel_ebd": "layer_norm", "share_att_key": True}
    if family == "roberta":
        sizes |= {"type_vocab_size": 1, "max_position_embeddings": 130, "pad_token_id": 0}
        sizes |= {"bos_token_id": 2, "eos_token_id": 3}
    if family == "modernbert":
        sizes |= {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
        sizes |= {"local_attention": 8, "global_attn_every_n_layers": 2}
    return sizes


def _save_tokenizer(folder: Path, family: str) -> int:
    special = _SPECIAL_ROBERTA if family in _BYTE_LEVEL else _SPECIAL
    tokens = list(special.values())
    if family in _BYTE_LEVEL:
        tokenizer = Tokenizer(_bpe(tokens))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer = Tokenizer(_word_piece(tokens))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(tokens)
    cls, sep = special["cls_token"], special["sep_token"]
    segment = 1 if family in ("bert", "electra") else 0
    middle = f"{sep} {sep}" if family == "roberta" else sep
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {middle} $B:{segment} {sep}:{segment}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (cls, sep)],
    )
    # cuts and pads by itself, as MiniLM's file does: what reads it must clear that
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(
        pad_id=tokenizer.token_to_id(special["pad_token"]), pad_token=special["pad_token"], length=16
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    inputs = ["input_ids", "attention_mask"]
    if family in ("bert", "electra"):
        inputs.insert(1, "token_type_ids")
    settings = {**special, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 128}
    settings["model_input_names"] = inputs
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return tokenizer.get_vocab_size()


# The vocabularies are written down, not trained: the trainers of `tokenizers` break ties differently in each process.
def _word_piece(special: list[str]) -> models.WordPiece:
    words = sorted(set(re.findall(r"\w+", " ".join(SENTENCES).lower())))
    letters = sorted(set("".join(words)) | set("abcdefghijklmnopqrstuvwxyz0123456789"))
    entries = [*special, *letters, *(f"##{letter}" for letter in letters), *"!,.:;?", *words]
    known = {entry: index for index, entry in enumerate(dict.fromkeys(entries))}
    return models.WordPiece(known, unk_token=special[1], max_input_chars_per_word=100)


def _bpe(special: list[str]) -> models.BPE:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = sorted({f"Ġ{word}" for word in re.findall(r"\w+", " ".join(SENTENCES))})
    # each word is put together from its letters, from left to right
    merges = list(dict.fromkeys((word[:end], word[end]) for word in words for end in range(1, len(word))))
    entries = [*special, *alphabet, *(left + right for left, right in merges)]
    return models.BPE({entry: index for index, entry in enumerate(entries)}, merges, unk_token=special[1])
