"""The next word's cross-entropy without a table of tokens x vocabulary: a few tokens' logits at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Logits in memory at a time: 64 MB of float32 on a CPU, 320 MB where their gradient is taken in 16 bits, because each
# part adds to the gradient of the whole table; 1 GiB elsewhere, where a kernel wants much at once.
_LOGITS_CPU = 1 << 24
_NARROW_LOGITS_CPU = 160_000_000
_LOGITS = 1 << 28
# Logits of a softmax at a time, in 16 bits: what is copied stays in a processor's cache.
_SOFTMAX_LOGITS = 1 << 22


def next_word_loss(hidden: Tensor, table: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy of the tied decoder, a number of float32, and how many words it got right.

    The gradient is computed along with the loss, chunk by chunk, so that each logit is computed once and none is kept:
    4,608 tokens over 60,000 words would be 1.1 GB, several times over. The arithmetic is that of
    `cross_entropy(hidden @ table.T + bias, targets)`; where products are in 16 bits, of logits that are rounded to them.
    A CPU takes the gradient in bfloat16 from odds in 16 bits, too; a loss alone has odds in float32 everywhere.

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
        device = hidden.device.type
        needs = [learns and wanted for wanted in ctx.needs_input_grad[:3]]
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        measure = _narrow if device == "cpu" and dtype == torch.bfloat16 and any(needs) else _wide
        with torch.autocast(device, enabled=False):
            loss, n_correct, ctx.gradients = measure(hidden.to(dtype), table.to(dtype), bias.to(dtype), targets, needs)
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


def _wide(
    hidden: Tensor, table: Tensor, bias: Tensor, targets: Tensor, needs: list[bool]
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """Return the sum of the losses, the number of right words and the gradients of the sum, all by odds in float32."""
    gradients = [
        torch.zeros_like(tensor, dtype=torch.float32) if wanted else None
        for tensor, wanted in zip((hidden, table, bias), needs, strict=True)
    ]
    of_hidden, of_table, of_bias = gradients
    loss, n_correct = _nothing_yet(hidden)
    for part in _parts(len(targets), len(table), _LOGITS_CPU if hidden.device.type == "cpu" else _LOGITS):
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
        if of_hidden is not None:
            of_hidden[part] = odds.to(table.dtype) @ table
        if of_table is not None:
            if hidden.dtype == odds.dtype:
                of_table.addmm_(odds.t(), hidden[part])
            else:
                of_table += odds.t().to(hidden.dtype) @ hidden[part]
        if of_bias is not None:
            of_bias += odds.sum(dim=0)
    return loss, n_correct, gradients


def _narrow(
    hidden: Tensor, table: Tensor, bias: Tensor, targets: Tensor, needs: list[bool]
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    """Return what `_wide` returns, on a CPU and by odds in bfloat16; sums over parts are in float32.

    The bias is one more column of the table, and hidden states have a 1 there: it costs no pass of its own, nor does
    its gradient.
    """
    width = table.shape[1]
    table = torch.cat([table, bias.unsqueeze(1)], dim=1)
    hidden = torch.cat([hidden, hidden.new_ones(len(hidden), 1)], dim=1)
    of_hidden = hidden.new_zeros(len(hidden), width)
    of_table: Tensor | None = None
    loss, n_correct = _nothing_yet(hidden)
    buffer = hidden.new_empty(0)
    n_rows = max(1, _SOFTMAX_LOGITS // len(table))
    for part in _parts(len(targets), len(table), _NARROW_LOGITS_CPU):
        wanted_ids = targets[part].unsqueeze(1)
        if len(buffer) < len(wanted_ids):
            buffer = hidden.new_empty(len(wanted_ids), len(table))
        odds = torch.mm(hidden[part], table.t(), out=buffer[: len(wanted_ids)])
        for rows, wanted in zip(torch.split(odds, n_rows), torch.split(wanted_ids, n_rows), strict=True):
            highest, best = rows.max(dim=1, keepdim=True)
            n_correct += (best == wanted).sum()
            of_target = rows.gather(1, wanted).float()
            rows.copy_(torch.softmax(rows, dim=1))
            # the likeliest word's odds are never 0, as the target's may be in 16 bits
            loss += (highest.float() - of_target - rows.gather(1, best).float().log()).sum()
            rows.scatter_add_(1, wanted, rows.new_full(wanted.shape, -1.0))
        if needs[0]:
            torch.mm(odds, table[:, :width], out=of_hidden[part])
        if needs[1] or needs[2]:
            more = odds.t() @ hidden[part]
            of_table = more.float() if of_table is None else of_table.add_(more)
    if of_table is None:
        of_table = torch.zeros_like(table, dtype=torch.float32)
    found = [of_hidden, of_table[:, :width], of_table[:, width]]
    return loss, n_correct, [gradient if wanted else None for gradient, wanted in zip(found, needs, strict=True)]


def _nothing_yet(hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Return a loss and a count of right words over nothing."""
    return hidden.new_zeros((), dtype=torch.float32), torch.zeros((), dtype=torch.int64, device=hidden.device)


def _parts(n_tokens: int, n_words: int, n_logits: int) -> list[slice]:
    """Return parts of the tokens, as many in each as possible and alike, with so many logits at most."""
    n_parts = max(1, -(-n_tokens // max(1, n_logits // n_words)))
    n_each = -(-n_tokens // n_parts)
    return [slice(start, start + n_each) for start in range(0, n_tokens, n_each)] if n_tokens else []
