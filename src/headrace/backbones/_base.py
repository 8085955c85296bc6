"""What every backbone offers: hidden states, groups of layers from bottom to top, and a config to build it anew."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from headrace.text.batch import Batch

ParameterGroups = list[tuple[str, list[nn.Parameter]]]


class Backbone(nn.Module, ABC):
    """A text encoder. It inherits from `nn.Module` because torch demands it.

    Attributes:
        family: The architecture's name, e.g. `bert`.
        width: Size of a hidden state.
        max_tokens: Longest text in tokens, special ones included, or None where the family has no limit.
        packs: Whether it lays the texts of a batch end to end in training; `train_on_cpu` may switch it on.
        frozen_in_eval: Whether groups that do not learn compute as in evaluation, so that their outputs stay the same.
    """

    family: str
    width: int
    max_tokens: int | None = None
    packs: bool = False
    frozen_in_eval: bool = True

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Return the last hidden states, [texts, tokens, width]; those of padding have no meaning."""

    @abstractmethod
    def groups(self) -> ParameterGroups:
        """Return (name, parameters) from bottom to top; each parameter stands in exactly one group."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return what `build` of the same file needs, as JSON; its `backbone` is that file's name."""

    def train_on_cpu(self) -> None:
        """Make training cheaper on a CPU where the family can; the arithmetic stays that of the model."""

    def end_training(self) -> None:
        """Take back what `train_on_cpu` changed in the computation outside training."""

    def pool_mask(self, batch: Batch) -> Tensor:
        """Return which tokens `mean` and `max` pool over, [texts, tokens]; by default all real ones."""
        return batch.attention_mask

    def last_places(self, batch: Batch) -> Tensor:
        """Return where each text's last token stands in the order of reading, [texts] int64; 0 where it has none."""
        return (batch.attention_mask.sum(dim=1) - 1).clamp(min=0)

    def pooled(self, batch: Batch, hidden: Tensor) -> Tensor | None:
        """Return the output of the family's own pooler, [texts, width], or None where it was not built.

        Args:
            batch: The batch that `hidden` comes from.
            hidden: The last hidden states, [texts, tokens, width].
        """
        return None


class NativeBackbone(Backbone):
    """A backbone that brings its family's own classification head, as transformers defines it."""

    label_names: tuple[str, ...]

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """Return the logits of the family's own head, [texts, labels]."""

    @abstractmethod
    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that `groups` leaves out: those of the family's own head."""
