"""The LightningModules of language models: the loss of a step, the state of the streams, and validation."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headrace.backbones._base import ParameterGroups
from headrace.backbones._masked_word import MaskedWordModel
from headrace.backbones._next_word import NextWordModel
from headrace.train.language.data import MaskedPass, MaskedStep, SequenceStep
from headrace.train.stages import Stage
from headrace.train.stepped import SteppedModule

State = list[tuple[Tensor, Tensor]]


class Tally(NamedTuple):
    """Sums over predicted tokens.

    Attributes:
        loss: Cross-entropy in nats.
        n_correct: Tokens that were the likeliest.
        n_tokens: All of them.
    """

    loss: float = 0.0
    n_correct: int = 0
    n_tokens: int = 0

    def plus(self, loss: Tensor | float, n_correct: Tensor | int, n_tokens: int) -> Tally:
        """Return the sums with some more tokens."""
        return Tally(self.loss + float(loss), self.n_correct + int(n_correct), self.n_tokens + n_tokens)

    def metrics(self) -> dict[str, float]:
        """Return `loss` (nats a token), `accuracy` and `perplexity`; nothing without tokens."""
        if not self.n_tokens:
            return {}
        loss = self.loss / self.n_tokens
        return {"loss": loss, "accuracy": self.n_correct / self.n_tokens, "perplexity": perplexity(loss)}


def perplexity(loss: float) -> float:
    """Return exp(loss), at most 1e30: a wild start must not end in infinity."""
    return math.exp(min(loss, math.log(1e30)))


class LanguageModelModule(SteppedModule):
    """What both kinds of language models share: metrics of training and of validation.

    Args:
        model: With `groups()` and `backbone`.
        stage: The first stage.
        seed: Decides the dropout of each step together with the step's number.
    """

    unit = "tokens"
    model: Any

    def __init__(self, model: Any, *, stage: Stage, seed: int) -> None:
        super().__init__(stage=stage, seed=seed)
        self.model = model
        self._trained = Tally()
        self._validated = Tally()

    def groups(self) -> ParameterGroups:
        """Return (name, parameters) from bottom to top; the last is the head."""
        found: ParameterGroups = self.model.groups()
        return found

    def epoch_metrics(self) -> dict[str, float]:
        """Return loss, accuracy and perplexity of the epoch's training tokens (dropout on), and forget them."""
        found, self._trained = self._trained.metrics(), Tally()
        return found

    def kept_state(self) -> dict[str, Any]:
        """Return the sums of the epoch."""
        return {"trained": list(self._trained)}

    def put_state(self, state: dict[str, Any], *, rank: int) -> None:
        """Take back the sums of the epoch."""
        loss, n_correct, n_tokens = state["trained"]
        self._trained = Tally(float(loss), int(n_correct), int(n_tokens))

    def on_validation_epoch_start(self) -> None:
        """Begin the sums anew."""
        self._validated = Tally()

    def on_validation_epoch_end(self) -> None:
        """Compute loss, accuracy and perplexity over all tokens at once."""
        if self.trainer.sanity_checking or not self._validated.n_tokens:
            return
        self.valid_metrics = self._validated.metrics()
        for name, value in self.valid_metrics.items():
            self.log(f"valid/{name}", value, logger=self.logs_valid)


class NextWordModule(LanguageModelModule):
    """A next-word model on streams: the hidden state goes from step to step, and begins anew with each epoch."""

    model: NextWordModel

    def __init__(self, model: NextWordModel, *, stage: Stage, seed: int) -> None:
        super().__init__(model, stage=stage, seed=seed)
        self._state: State | None = None
        self._valid_state: State | None = None

    def learn(self, step: SequenceStep) -> Tensor:
        """Compute the gradients of one sequence of each stream; return its mean cross-entropy."""
        found = self.model.learn(step.inputs, step.targets, self._entered(step, self._state))
        self.manual_backward(found.loss + found.penalty)
        self._state = detached(found.state)
        loss: Tensor = found.loss.detach()
        self._trained = self._trained.plus(loss * found.n_tokens, found.n_correct, int(found.n_tokens))
        return loss

    def kept_state(self) -> dict[str, Any]:
        """Return the sums of the epoch, and the hidden state that the next step begins with."""
        state = None if self._state is None else [[part.cpu() for part in layer] for layer in self._state]
        return {**super().kept_state(), "streams": state}

    def put_state(self, state: dict[str, Any], *, rank: int) -> None:
        """Take back the sums and the hidden state."""
        super().put_state(state, rank=rank)
        kept = state["streams"]
        self._state = None if kept is None else [(hidden, cell) for hidden, cell in kept]

    def on_validation_epoch_start(self) -> None:
        """Begin the sums and the hidden state anew; that of training stays where it is."""
        super().on_validation_epoch_start()
        self._valid_state = None

    def validation_step(self, step: SequenceStep, batch_idx: int) -> None:
        """Predict one sequence of each stream."""
        found = self.model.learn(step.inputs, step.targets, self._entered(step, self._valid_state))
        self._valid_state = detached(found.state)
        n_tokens = int(found.n_tokens)
        self._validated = self._validated.plus(found.loss.double() * n_tokens, found.n_correct, n_tokens)

    def _entered(self, step: SequenceStep, state: State | None) -> State:
        """Return the hidden state that a step begins with."""
        if step.step == 0 or state is None:
            found: State = self.model.initial_state(len(step.inputs))
        else:
            found = state
        device = step.inputs.device
        return [(hidden.to(device), cell.to(device)) for hidden, cell in found]


class MaskedWordModule(LanguageModelModule):
    """A masked-word model on texts."""

    model: MaskedWordModel

    def learn(self, step: MaskedStep) -> Tensor:
        """Compute the gradients of all micro-batches of a step; return the mean cross-entropy of its hidden tokens."""
        n_hidden = max(1, sum(len(one.targets) for one in step.passes))
        total = torch.zeros((), device=self.device)
        for one in step.passes:
            found = self.model.learn(one.batch, one.places, one.targets)
            self.manual_backward(found.loss_sum / n_hidden)
            loss = found.loss_sum.detach()
            total += loss
            self._trained = self._trained.plus(loss, found.n_correct, found.n_tokens)
        return total / n_hidden

    def validation_step(self, one: MaskedPass, batch_idx: int) -> None:
        """Guess the hidden tokens of some texts."""
        found = self.model.learn(one.batch, one.places, one.targets)
        self._validated = self._validated.plus(found.loss_sum.double(), found.n_correct, found.n_tokens)


def detached(state: State) -> State:
    """Return a hidden state without its history: gradients end at the sequence's beginning."""
    return [(hidden.detach(), cell.detach()) for hidden, cell in state]
