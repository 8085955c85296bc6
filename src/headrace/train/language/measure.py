"""Loss, accuracy and perplexity of a language model on a split, outside of training."""

from __future__ import annotations

import torch

from headrace.backbones._language import LanguageModel
from headrace.backbones._next_word import NextWordModel
from headrace.train.language.data import Steps
from headrace.train.language.module import State, Tally, detached


def measure(model: LanguageModel, steps: Steps, *, device: torch.device) -> tuple[dict[str, float], int]:
    """Return the metrics of a model over the validation of some steps, and how many tokens it predicted.

    Args:
        model: A `NextWordModel` or a `MaskedWordModel`; in evaluation mode afterwards.
        steps: Their validation is read once, in order.
        device: Where the model is.
    """
    model.eval()
    batches = steps.validation()
    tally = Tally()
    state: State | None = None
    with torch.no_grad():
        for number in range(len(batches)):  # type: ignore[arg-type]  # ours have a length
            batch = batches[number].to(device)
            if isinstance(model, NextWordModel):
                found = model.learn(batch.inputs, batch.targets, state or model.initial_state(len(batch.inputs)))
                state = detached(found.state)
                tally = tally.plus(found.loss.double() * found.n_tokens, found.n_correct, found.n_tokens)
            else:
                guessed = model.learn(batch.batch, batch.places, batch.targets)
                tally = tally.plus(guessed.loss_sum.double(), guessed.n_correct, guessed.n_tokens)
    return tally.metrics(), tally.n_tokens
