"""The next word's cross-entropy without a table of tokens x vocabulary: a few tokens' logits at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Logits in memory at a time, float32: 64 MB on a CPU; 1 GiB elsewhere, where a kernel wants much at once.
_LOGITS_CPU = 1 << 24
_LOGITS = 1 << 28


def next_word_loss(hidden: Tensor, table: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy of the tied decoder, a number of float32, and how many words it got right.

    The gradient is computed along with the loss, chunk by chunk, so that each logit is computed once and none is kept:
    4,608 tokens over 60,000 words would be 1.1 GB, several times over. The arithmetic is that of
    `cross_entropy(hidden @ table.T + bias, targets)`.

    Args:
        hidden: [tokens, width].
        table: The embeddings, [words, width].
        bias: [words].
        targets: [tokens] int64. None give a loss of 0.
    """
    learns = torch.is_grad_enabled()
    loss, n_correct = _NextWordLoss.apply(hidden, table, bias, targets, learns)  # type: ignore[no-untyped-call]
    return loss, n_correct


class _NextWordLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, table: Tensor, bias: Tensor, targets: Tensor, learns: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and the number of right words; keep the gradients where they will be asked for."""
        needs = [learns and wanted for wanted in ctx.needs_input_grad[:3]]
        gradients = [
            torch.zeros_like(tensor, dtype=torch.float32) if wanted else None
            for tensor, wanted in zip((hidden, table, bias), needs, strict=True)
        ]
        loss = hidden.new_zeros((), dtype=torch.float32)
        n_correct = torch.zeros((), dtype=torch.int64, device=hidden.device)
        limit = _LOGITS_CPU if hidden.device.type == "cpu" else _LOGITS
        n_tokens = max(1, limit // len(table))
        for start in range(0, len(targets), n_tokens):
            part = slice(start, start + n_tokens)
            logits = torch.addmm(bias, hidden[part], table.t()).float()
            highest, best = logits.max(dim=1, keepdim=True)
            wanted_ids = targets[part].unsqueeze(1)
            n_correct += (best == wanted_ids).sum()
            logits -= highest
            of_target = logits.gather(1, wanted_ids)
            odds = logits.exp_()
            total = odds.sum(dim=1, keepdim=True)
            loss += (total.log() - of_target).sum()
            if any(needs):
                # softmax minus one-hot, in the same memory
                odds.div_(total).scatter_add_(1, wanted_ids, torch.full_like(of_target, -1.0))
                _add_gradients(gradients, odds, hidden[part], table, part)
        ctx.gradients = gradients
        ctx.n_targets = max(1, len(targets))
        ctx.type = hidden.dtype
        ctx.mark_non_differentiable(n_correct)
        return loss / ctx.n_targets, n_correct

    @staticmethod
    def backward(ctx: Any, of_loss: Tensor, _of_count: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients that `forward` has kept, scaled."""
        scale = of_loss / ctx.n_targets
        hidden, table, bias = (None if kept is None else kept * scale for kept in ctx.gradients)
        return (None if hidden is None else hidden.to(ctx.type)), table, bias, None, None


def _add_gradients(
    gradients: list[Tensor | None], of_logits: Tensor, hidden: Tensor, table: Tensor, part: slice
) -> None:
    of_hidden, of_table, of_bias = gradients
    if of_hidden is not None:
        of_hidden[part] = of_logits @ table
    if of_table is not None:
        if torch.is_autocast_enabled(of_logits.device.type) or hidden.dtype != of_table.dtype:
            of_table += of_logits.t().to(hidden.dtype) @ hidden
        else:
            of_table.addmm_(of_logits.t(), hidden)
    if of_bias is not None:
        of_bias += of_logits.sum(dim=0)
