"""Where the time of our language-model step goes: its parts by plain timers, then its operations by torch's profiler."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from awd_lstm_ours import OurLanguageModel
from headrace.backbones._awd_loss import next_word_loss
from headrace.train.stages import set_rates

Seconds = tuple[float, float]


def profile(work: dict[str, Any], precision: str, *, n_steps: int) -> None:
    """Print the parts of a step, medians over some steps, and the operations that take longest.

    Each part is what it would be alone: forward and backward of the LSTM body with any gradient from above, the softmax
    with a hidden state given. `between` is what the whole step has beyond them.
    """
    ours = OurLanguageModel(work, precision)
    ours.take("language_model", 0)
    print(f"{'':<34}{'s':>9}{'cpu s':>9}{'share':>8}   ({torch.get_num_threads()} threads)")
    with ours.context():
        whole = median_of([ours.take("language_model", number)[:2] for number in range(1, n_steps + 1)])
        told("whole step", whole, whole)
        left = whole
        for name, part in parts(ours).items():
            found = median_of([timed(part) for _ in range(n_steps)])
            told(name, found, whole)
            if not name.startswith(" "):
                left = left[0] - found[0], left[1] - found[1]
        told("between", left, whole)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as found:
        ours.take("language_model", 1)
    table = found.key_averages(group_by_input_shape=True).table(sort_by="self_cpu_time_total", row_limit=25)
    print(table)


def told(name: str, found: Seconds, whole: Seconds) -> None:
    """Print one line of the table."""
    print(f"{name:<34}{found[0]:9.3f}{found[1]:9.3f}{found[1] / whole[1]:8.1%}", flush=True)


def median_of(times: list[Seconds]) -> Seconds:
    """Return the medians of seconds and of processor seconds."""
    return statistics.median(wall for wall, _ in times), statistics.median(computing for _, computing in times)


def parts(ours: OurLanguageModel) -> dict[str, Callable[[], object]]:
    """Return what a step consists of, each part by itself; those with a leading space are within another."""
    model = ours.model
    inputs, targets = ours.batches[0]
    table, bias = model.backbone.embedding.weight, model.bias
    n_tokens, width = targets.numel(), table.shape[1]
    states = torch.randn(n_tokens, width, requires_grad=True)
    above = torch.randn(*inputs.shape, width)
    embedded = torch.randn(*inputs.shape, width, requires_grad=True)

    def softmax() -> None:
        loss, _ = next_word_loss(states, table, bias, targets.flatten())
        loss.backward()

    def softmax_forward() -> None:
        with torch.no_grad():
            next_word_loss(states, table, bias, targets.flatten())

    def body(read: Callable[[], tuple[torch.Tensor, Any]]) -> None:
        raw, _ = read()
        dropped = model.output_dropout(raw)
        torch.autograd.backward([dropped, model._penalty(raw.float(), dropped.float())], [above, torch.ones(())])

    def forgetting(part: Callable[[], object]) -> Callable[[], object]:
        """Begin without gradients, as a step does: the first one is taken as it is, others would be added to it."""

        def run() -> None:
            ours.optimizer.zero_grad()
            states.grad = embedded.grad = None
            part()

        return run

    def optimizer() -> None:
        set_rates(ours.optimizer, ours.stage, 10, n_steps=1_000_000, n_warmup=0)
        ours.optimizer.step()

    # clipping and the optimizer come first: the whole step before has left every parameter a gradient
    return {
        "clipping": lambda: torch.nn.utils.clip_grad_norm_(model.parameters(), ours.work["clip"]),
        "Adam": optimizer,
        "softmax and its gradients": forgetting(softmax),
        " of it without gradients": softmax_forward,
        "LSTM body, embeddings included": forgetting(lambda: body(lambda: model.backbone.read(inputs, ours.state))),
        " of it without embeddings": forgetting(lambda: body(lambda: model.backbone._read(embedded, ours.state))),
    }


def timed(part: Callable[[], object]) -> Seconds:
    """Return seconds and processor seconds of a call."""
    begun = time.perf_counter(), time.process_time()
    part()
    return time.perf_counter() - begun[0], time.process_time() - begun[1]
