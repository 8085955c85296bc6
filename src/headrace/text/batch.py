"""Which rows make which step, and how a step's rows become tensors. The order of rows is arithmetic, never state."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Texts of one forward pass, padded to the longest of them.

    Attributes:
        input_ids: [texts, tokens] int64, padded at the right with the tokenizer's padding id.
        attention_mask: [texts, tokens] int64; 1 for real tokens.
        token_type_ids: [texts, tokens] int64, or None where the family has no segments.
        rows: [texts] int64, the row of each text in its data set.
        targets: [texts] int64 (single label) or [texts, labels] float32 (multi-label), or None when predicting.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor | None
    rows: Tensor
    targets: Tensor | None = None

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch on another device."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=non_blocking)

        moved = {name: move(getattr(self, name)) for name in self.__dataclass_fields__}
        return replace(self, **moved)  # type: ignore[arg-type]
