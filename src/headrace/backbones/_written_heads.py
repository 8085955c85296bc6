"""The families' own classification heads over encoders that are written out.

Source: what `AutoModelForSequenceClassification` builds for these families; names, order and arithmetic are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from headrace.backbones._written import Written

#: A family's name for its encoder inside the model with a head.
_PREFIXES = {"bert": "bert", "electra": "electra", "distilbert": "distilbert"}
_ROBERTA = "roberta"


class Answer(NamedTuple):
    """What a model with a head gives: logits, [texts, labels]."""

    logits: Tensor


class WrittenNative(nn.Module):
    """An encoder with its family's own head; it stands in for transformers' model of the same config.

    Args:
        encoder: With its pooler for BERT.
        n_labels: Outputs.
        rate: Of the head's dropout, in [0, 1).
    """

    def __init__(self, encoder: Written, n_labels: int, rate: float) -> None:
        super().__init__()
        self.base_model_prefix = _PREFIXES.get(encoder.config.model_type, _ROBERTA)
        self.add_module(self.base_model_prefix, encoder)
        width = encoder.config.hidden_size
        if self.base_model_prefix == "bert":
            self.dropout = nn.Dropout(rate)
            self.classifier: nn.Module = nn.Linear(width, n_labels)
        elif self.base_model_prefix == "distilbert":
            self.pre_classifier = nn.Linear(width, width)
            self.classifier = nn.Linear(width, n_labels)
            self.dropout = nn.Dropout(rate)
        else:
            self.classifier = _TwoLayers(width, n_labels, rate, is_tanh=self.base_model_prefix == _ROBERTA)
        encoder.draw_weights(float(encoder.architecture["initializer_range"]), of=self)

    @property
    def base_model(self) -> Any:
        """The encoder."""
        return self.get_submodule(self.base_model_prefix)

    @property
    def config(self) -> Any:
        """The encoder's config."""
        return self.base_model.config

    @property
    def architecture(self) -> dict[str, Any]:
        """The encoder's config as JSON."""
        found: dict[str, Any] = self.base_model.architecture
        return found

    def set_attn_implementation(self, name: str) -> None:
        """Exchange the attention; see `Written`."""
        self.base_model.set_attn_implementation(name)

    def forward(self, **inputs: Any) -> Answer:
        """Return the logits; the inputs are those of the encoder."""
        encoder = self.base_model
        hidden: Tensor = encoder(**inputs)[0]
        if self.base_model_prefix == "bert":
            return Answer(self.classifier(self.dropout(encoder.pooler(hidden))))
        if self.base_model_prefix == "distilbert":
            return Answer(self.classifier(self.dropout(functional.relu(self.pre_classifier(hidden[:, 0])))))
        return Answer(self.classifier(hidden))


class _TwoLayers(nn.Module):
    def __init__(self, width: int, n_labels: int, rate: float, *, is_tanh: bool) -> None:
        super().__init__()
        self.activation = functional.tanh if is_tanh else functional.gelu
        self.dense = nn.Linear(width, width)
        self.dropout = nn.Dropout(rate)
        self.out_proj = nn.Linear(width, n_labels)

    def forward(self, hidden: Tensor) -> Tensor:
        first = self.dense(self.dropout(hidden[:, 0]))
        found: Tensor = self.out_proj(self.dropout(self.activation(first)))
        return found


def needs_pooler(family: str) -> bool:
    """Tell whether the family's own head stands on its pooler."""
    return family == "bert"


def head_rate(architecture: Mapping[str, Any]) -> float | None:
    """Return the dropout rate of the family's own head, or None where the config says none that makes sense."""
    name = "seq_classif_dropout" if "seq_classif_dropout" in architecture else "classifier_dropout"
    rate: Any = architecture.get(name)
    if rate is None and name == "classifier_dropout":
        rate = architecture.get("hidden_dropout_prob")
    is_rate = not isinstance(rate, bool) and isinstance(rate, int | float) and 0 <= rate < 1
    return float(rate) if is_rate else None
