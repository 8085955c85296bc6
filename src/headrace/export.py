"""Writes a bundle as a model folder of transformers, with equal logits and our label names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from headrace.backbones import transformer
from headrace.bundle import Bundle
from headrace.decide.calibration import NONE
from headrace.errors import BundleError
from headrace.files import atomic_folder, write_text
from headrace.head import HeadSettings
from headrace.text.batch import collate
from headrace.text.store import TokenStore

TOLERANCE = 1e-5
_PROBLEM = {False: "single_label_classification", True: "multi_label_classification"}
_NATIVE = HeadSettings(name="native")
_SAMPLE = ("A text.", "Another one, which is a little longer than the first!", "")


@dataclass(frozen=True)
class _Counterpart:
    """How a head of ours becomes a family's own one.

    Attributes:
        needs: The only head that has a counterpart, in the words of a recipe; `{width}` is the encoder's.
        fits: Whether a head, over an encoder of this width, is that one.
        names: Our tensor -> theirs; a name that ends with a dot stands for all tensors below it.
        config: Fields of the family's config that this head needs.
        dropout: The config's field for the dropout before the last layer.
    """

    needs: str
    fits: Callable[[HeadSettings, int], bool]
    names: dict[str, str]
    config: dict[str, Any]
    dropout: str


def _is_pooler(head: HeadSettings, width: int) -> bool:
    return head.pool == "pooler" and head.hidden == 0


def _is_hidden(head: HeadSettings, width: int) -> bool:
    return head.pool == "cls" and head.hidden == width


# BERT: pooler (dense, tanh) - classifier. The pooler belongs to the encoder there as it does here.
_BERT = _Counterpart("{{pool: pooler}}", _is_pooler, {"head.output.": "classifier."}, {}, "classifier_dropout")
# RoBERTa: the encoder has no pooler; the head is dense - tanh - out_proj, which is a pooler and a linear layer.
_ROBERTA = _Counterpart(
    "{{pool: pooler}}",
    _is_pooler,
    {"head.output.": "classifier.out_proj.", "backbone.model.pooler.dense.": "classifier.dense."},
    {},
    "classifier_dropout",
)
# DistilBERT: pre_classifier - ReLU - classifier on the first token.
_DISTILBERT = _Counterpart(
    "{{pool: cls, hidden: {width}}}",
    _is_hidden,
    {"head.hidden.": "pre_classifier.", "head.output.": "classifier."},
    {},
    "seq_classif_dropout",
)
# DeBERTa: dense - activation of the config - classifier on the first token.
_DEBERTA = _Counterpart(
    "{{pool: cls, hidden: {width}}}",
    _is_hidden,
    {"head.hidden.": "pooler.dense.", "head.output.": "classifier."},
    {"pooler_hidden_act": "relu"},
    "cls_dropout",
)
# ELECTRA (dense - GELU) and ModernBERT (dense - GELU - norm) have no counterpart but their own head.
_COUNTERPARTS = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
    "deberta": _DEBERTA,
    "deberta-v2": _DEBERTA,
}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: The model folder.
        largest_difference: Between its logits and the bundle's, on a small sample.
        notes: What the user of the folder should know.
    """

    folder: Path
    largest_difference: float
    notes: tuple[str, ...]


def to_transformers(bundle: Bundle, folder: str | Path) -> Exported:
    """Write a folder that `AutoModelForSequenceClassification` and `pipeline` open, with the bundle's logits.

    Before the folder is put in place it is opened again and its logits are compared with the bundle's.

    Args:
        bundle: With a head that has an exact counterpart in its family; `head: native` always has.
        folder: Replaced if it is there.

    Raises:
        BundleError: The head has no counterpart in transformers, or the logits differ by more than 1e-5.
        RunError: The folder cannot be written.
    """
    folder = Path(folder)
    model = _native_model(bundle)
    model.config.id2label = dict(enumerate(bundle.labels))
    model.config.label2id = {name: index for index, name in enumerate(bundle.labels)}
    model.config.problem_type = _PROBLEM[bundle.classifier.multi_label]
    notes = _notes(bundle)
    with atomic_folder(folder) as temporary:
        with _without_bars():
            model.save_pretrained(str(temporary))
        _tokenizer(bundle).save_pretrained(str(temporary))
        write_text(temporary / "README.md", _readme(bundle, notes))
        difference = _largest_difference(bundle, temporary)
        if not difference <= TOLERANCE:
            raise BundleError(
                f"the exported model's logits differ from the bundle's by {difference:.3g}, more than {TOLERANCE:g}",
                where=str(folder),
                next="nothing was written; please report it with the names of the backbone and the head",
            )
    return Exported(folder, difference, notes)


def _native_model(bundle: Bundle) -> Any:
    """Return transformers' model with its own head that gives the bundle's logits."""
    classifier = bundle.classifier
    backbone = classifier.backbone
    if not isinstance(backbone, transformer.Transformer):
        raise _refusal(f"the backbone {backbone.family!r} is none of transformers", "keep using the bundle")
    if isinstance(backbone, transformer.NativeTransformer) and classifier.settings.name == _NATIVE.name:
        return _copy(backbone, bundle)
    counterpart = _COUNTERPARTS.get(backbone.family)
    head = classifier.settings
    shown = f"{{name: {head.name}, pool: {head.pool}, hidden: {head.hidden}}}"
    if counterpart is None:
        raise _refusal(
            f"the head {shown} has no counterpart in transformers' {backbone.family!r}", "train with `head: native`"
        )
    if not counterpart.fits(head, backbone.width):
        raise _refusal(
            f"the head {shown} has no counterpart in transformers' {backbone.family!r}",
            f"train with `head: native`, or with `head: {counterpart.needs.format(width=backbone.width)}`",
        )
    config = backbone.config()
    dropout = {counterpart.dropout: head.dropout if classifier.head is not None else 0.0}
    config["architecture"] = {**config["architecture"], **counterpart.config, **dropout}
    if "pooler_hidden_act" in counterpart.config:
        config["architecture"]["pooler_hidden_size"] = backbone.width
    native = transformer.build_native(config, labels=bundle.labels, by_transformers=True)
    _fill(native, classifier.state_dict(), {**counterpart.names, "backbone.model.": _encoder_prefix(native)})
    return native.model.eval()


def _copy(backbone: transformer.NativeTransformer, bundle: Bundle) -> Any:
    """Return a copy of a native model, so that the bundle's own keeps its config."""
    native = transformer.build_native(backbone.config(), labels=bundle.labels, by_transformers=True)
    native.model.load_state_dict(backbone.model.state_dict(), strict=True)
    return native.model.eval()


def _encoder_prefix(native: transformer.NativeTransformer) -> str:
    return f"{native.model.base_model_prefix}."


def _fill(native: transformer.NativeTransformer, ours: dict[str, Tensor], names: dict[str, str]) -> None:
    """Load our tensors under their names; the longest beginning that fits decides, and none may be left over."""
    beginnings = sorted(names, key=len, reverse=True)
    renamed = {}
    for name, tensor in ours.items():
        begin = next(begin for begin in beginnings if name.startswith(begin))
        renamed[names[begin] + name.removeprefix(begin)] = tensor
    native.model.load_state_dict(renamed, strict=True)


def _tokenizer(bundle: Bundle) -> PreTrainedTokenizerFast:
    subwords, text = bundle.subwords, bundle.about.text
    layout = subwords.layout(pair=bundle.is_pair)
    special = {
        "pad_token": subwords.pad_id,
        "unk_token": subwords.unk_id,
        "mask_token": subwords.mask_id,
        "cls_token": layout.prefix[0] if layout.prefix else None,
        "sep_token": layout.suffix[-1] if layout.suffix else None,
    }
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    if not _takes_segments(bundle):
        inputs.remove("token_type_ids")
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(subwords.to_json()),
        model_max_length=text.max_length,
        truncation_side="left" if text.truncate == "tail" else "right",
        padding_side="right",
        model_input_names=inputs,
        **{name: subwords.tokens([id])[0] for name, id in special.items() if id is not None},
    )


def _takes_segments(bundle: Bundle) -> bool:
    """Tell whether tokenizer and encoder both know segments; RoBERTa has one only, and would fail on a second."""
    encoder: Any = bundle.classifier.backbone.encoder
    n_segments = getattr(encoder.config, "type_vocab_size", None)
    accepted = "token_type_ids" in inspect.signature(encoder.forward).parameters
    return bundle.subwords.uses_token_types and accepted and (n_segments is None or n_segments > 1)


def _notes(bundle: Bundle) -> tuple[str, ...]:
    text = bundle.about.text
    notes = [f"Pass `truncation=True`: texts are cut to {text.max_length} tokens, as in training."]
    if text.truncate == "head_tail":
        notes.append(
            "The bundle keeps both ends of a long text (head_tail); transformers cannot, it keeps the beginning."
        )
    if bundle.classifier.multi_label:
        notes.append("Each label has a probability of its own: pass `top_k=None` to see all of them.")
        if bundle.threshold not in (None, 0.5):
            notes.append(f"The bundle's threshold is {bundle.threshold}; transformers keeps none.")
    if bundle.decision.calibration.method != NONE:
        notes.append(
            f"The bundle's scores are calibrated ({bundle.decision.calibration.method}); transformers gives them as "
            "they are without it."
        )
    if bundle.decision.abstain_below is not None:
        notes.append('The bundle may answer "not sure"; transformers always answers.')
    return tuple(notes)


def _readme(bundle: Bundle, notes: tuple[str, ...]) -> str:
    text = '{"text": first, "text_pair": second}' if bundle.is_pair else '"a text"'
    lines = [
        "# A text classifier, exported by Headrace",
        "",
        f"Labels: {', '.join(bundle.labels)}.",
        "",
        "```python",
        "from transformers import pipeline",
        "",
        'classify = pipeline("text-classification", "path/of/this/folder")',
        f"classify({text}, truncation=True)",
        "```",
        "",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def _largest_difference(bundle: Bundle, folder: Path) -> float:
    """Open a model folder as its user will, and return the largest difference of logits on a few texts."""
    with _without_bars():
        model = AutoModelForSequenceClassification.from_pretrained(
            str(folder), trust_remote_code=False, use_safetensors=True, local_files_only=True, dtype=torch.float32
        ).eval()
    device = next(bundle.classifier.parameters()).device
    texts: Any = [(text, _SAMPLE[1]) for text in _SAMPLE] if bundle.is_pair else list(_SAMPLE)
    store = TokenStore.of(
        bundle.subwords.encode(texts, max_length=bundle.about.text.max_length, truncate=bundle.about.text.truncate)
    )
    batch = collate(
        store,
        np.arange(len(texts)),
        None,
        pad_id=bundle.subwords.pad_id,
        uses_token_types=_takes_segments(bundle),
    )
    arguments = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if batch.token_type_ids is not None:
        arguments["token_type_ids"] = batch.token_type_ids
    with torch.inference_mode():
        theirs = model(**arguments).logits.float()
        ours = bundle.classifier(batch.to(device)).cpu()
    return float((theirs - ours).abs().max())


def _refusal(what: str, next_step: str) -> BundleError:
    return BundleError(what, where="--to transformers", next=next_step)


@contextmanager
def _without_bars() -> Iterator[None]:
    had_bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if had_bar:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
