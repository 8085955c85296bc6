"""What every backbone offers: hidden states, groups of layers from bottom to top, and a config to build it anew."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from headrace.errors import ModelError
from headrace.text.batch import Batch

ParameterGroups = list[tuple[str, list[nn.Parameter]]]


class Backbone(nn.Module, ABC):
    """A text encoder. It inherits from `nn.Module` because torch demands it.

    Attributes:
        family: The architecture's name, e.g. `bert`.
        width: Size of a hidden state.
        max_tokens: Longest text in tokens, special ones included, or None where the family has no limit.
        packs: Whether it lays the texts of a batch end to end; `train_on_cpu` may switch it on.
        first_alone: Whether of the last hidden states only each text's first one is asked for in training; whoever asks
            sets it before `train_on_cpu`.
        frozen_in_eval: Whether groups that do not learn compute as in evaluation, so that their outputs stay the same.
    """

    family: str
    width: int
    max_tokens: int | None = None
    packs: bool = False
    first_alone: bool = False
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

    def weights_stand(self) -> AbstractContextManager[None]:
        """Inside the block, between two steps of an optimizer, no weight is changed: what is made of one serves again."""
        return nullcontext()

    @contextmanager
    def scoring_on_cpu(self, *, first_alone: bool) -> Iterator[None]:
        """Inside the block evaluation on a CPU is cheaper where the family can; the arithmetic stays that of the model.

        Args:
            first_alone: Whether of the last hidden states only each text's first one is asked for.
        """
        yield

    def split_layers(self) -> int:
        """Return how many layers, from the lowest up, `upper` can leave out; 0 where it cannot start midway."""
        return 0

    def lower_states(self, batch: Batch, depths: Sequence[int]) -> tuple[dict[int, Tensor], Tensor]:
        """Return hidden states on their way up, computed once and without gradients; dropout is the caller's matter.

        Args:
            batch: The texts.
            depths: How many layers lie below the states that are wanted, from 1 to `split_layers()`, asked before.

        Returns:
            By depth [texts, tokens, width], and the last hidden states of the same shape; those of padding have no
            meaning.

        Raises:
            ModelError: Depths are wanted, and the backbone has none.
        """
        if depths:
            raise ModelError(f"{self.family!r} has no layers to start from")
        with torch.no_grad():
            return {}, self(batch)

    def upper(self, batch: Batch, states: Tensor, depth: int) -> Tensor:
        """Return the last hidden states, [texts, tokens, width], computed from those below layer `depth` upwards.

        Args:
            batch: The texts.
            states: [texts, tokens, width], as `lower_states` gave them for this depth; those of padding are finite.
            depth: How many layers are left out, from 1 to `split_layers()`, asked before.

        Raises:
            ModelError: The backbone cannot start midway.
        """
        raise ModelError(f"{self.family!r} has no layers to start from")

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
