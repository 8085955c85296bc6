"""A stage of training: which groups learn, how fast, and on which curve. Rates are arithmetic of the step."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import nn

from headrace.errors import RecipeError

Groups = Sequence[tuple[str, list[nn.Parameter]]]

# fastai's one-cycle: the rate starts at peak/25 and ends at peak/1e5; the momentum falls to 0.85 at the peak.
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1e-5
ONE_CYCLE_MOMENTA = (0.95, 0.85)
# How much smaller the lowest rate of the slanted triangle is than its peak.
SLANTED_RATIO = 32.0


@dataclass(frozen=True)
class Stage:
    """How one stretch of training moves the weights.

    Attributes:
        train: What learns: `all`, `head`, or `n groups`: the head and the top n groups of the backbone. `1 group` is
            what fastai calls `freeze_to(-2)`.
        epochs: Passes over the training rows.
        learning_rate: Peak rate of the top group.
        layer_decay: Factor of the rate for each group further down, in (0, 1].
            Source: Howard & Ruder 2018, section 3.2 (discriminative fine-tuning), where it is 1/2.6.
        warmup: A share of all steps (0.1), a number of steps (500), or "0.33 epochs".
    """

    train: str = "all"
    epochs: int = 3
    learning_rate: float = 2e-5
    layer_decay: float = 1.0
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    schedule: str = "linear"
    warmup: float | int | str = 0.1
    gradient_clip: float | None = 1.0

    @classmethod
    def of(cls, settings: object) -> Stage:
        """Return the stage that settings of these names describe; what they have not is as by default."""
        named = [field.name for field in fields(cls)]
        return cls(**{name: getattr(settings, name) for name in named if hasattr(settings, name)})

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def n_learning(train: str, n_groups: int) -> int:
    """Return how many of a model's groups learn, counted from the top: the head is the first of them.

    Args:
        train: `all`, `head`, or `n groups`.
        n_groups: Of the whole model, the head included.

    Raises:
        RecipeError: The backbone has fewer groups, or the words mean nothing.

    Source: Howard & Ruder 2018, section 3.3 (gradual unfreezing).
    """
    if train == "all":
        return n_groups
    if train == "head":
        return 1
    found = re.fullmatch(r"(\d+) groups?", train)
    if found is None:
        raise RecipeError(f"{train!r} says not what learns", where="train", next="write all, head, or e.g. `2 groups`")
    n_wanted = int(found[1])
    if n_wanted > n_groups - 1:
        raise RecipeError(
            f"a stage trains {n_wanted} groups of the backbone, which has {n_groups - 1}",
            where="fit.stages",
            next=f"write `train: all`, or at most {n_groups - 1} groups",
        )
    return n_wanted + 1


def refuse_stages(phases: Sequence[object], n_groups: int, *, where: str = "fit.stages") -> None:
    """Refuse a stage that trains more groups than a model has.

    Args:
        phases: Settings that `Stage.of` takes.
        n_groups: Of the whole model, the head included.
        where: The stages' place in the recipe.

    Raises:
        RecipeError: One does.
    """
    for number, phase in enumerate(phases, start=1):
        try:
            n_learning(Stage.of(phase).train, n_groups)
        except RecipeError as error:
            raise RecipeError(error.what, where=f"{where}, stage {number}", next=error.next) from error


def freeze(model: nn.Module, groups: Groups, train: str, *, in_eval: bool = True) -> list[str]:
    """Let the groups learn that `train` names, and fix the others; return the names of the fixed ones.

    Args:
        model: In training mode afterwards, but for what is fixed.
        groups: Its (name, parameters), bottom to top; the last is the head.
        train: See `n_learning`.
        in_eval: Whether what is fixed computes as in evaluation, without dropout.
    """
    n_fixed = len(groups) - n_learning(train, len(groups))
    for place, (_, parameters) in enumerate(groups):
        for parameter in parameters:
            parameter.requires_grad_(place >= n_fixed)
    model.train()
    if in_eval and n_fixed:
        for module in model.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
    return [name for name, _ in groups[:n_fixed]]


def warmup_steps(warmup: float | int | str, *, n_steps: int, steps_per_epoch: int) -> int:
    """Return the number of warm-up steps that a setting means, at most `n_steps`."""
    if isinstance(warmup, str):
        epochs = float(warmup.split("epoch")[0])
        return min(n_steps, round(epochs * steps_per_epoch))
    if isinstance(warmup, int) and warmup >= 1:
        return min(n_steps, warmup)
    if warmup > 1:
        return min(n_steps, int(warmup))
    return round(warmup * n_steps)


def rate_factor(schedule: str, step: int, *, n_steps: int, n_warmup: int) -> float:
    """Return the factor of the peak rate at one step (from 0), in [0, 1].

    `linear` and `cosine` climb over the warm-up and fall to 0; `constant` stays at the peak; `one_cycle` climbs and
    falls on half cosines; `slanted_triangular` climbs and falls on straight lines between 1/32 and 1. The first step
    of a warm-up of n has the factor 1/n, so no step is spent at rate 0.

    Source: one-cycle: Smith 2018 (arXiv 1803.09820), with fastai's cosine arms; slanted triangular: Howard & Ruder
    2018, equation 3, where the warm-up (cut_frac) is 0.1 and the ratio 32.
    """
    if schedule == "slanted_triangular":
        cut = max(1, n_warmup)
        share = step / cut if step < cut else 1.0 - (step - cut) / max(1, n_steps - cut)
        return (1.0 + max(0.0, share) * (SLANTED_RATIO - 1.0)) / SLANTED_RATIO
    if schedule == "one_cycle":
        return _one_cycle(step, n_steps, max(1, n_warmup), ONE_CYCLE_START, 1.0, ONE_CYCLE_END)
    if step < n_warmup:
        return (step + 1) / n_warmup
    if schedule == "constant":
        return 1.0
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    progress = min(1.0, progress)
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1.0 - progress


def momentum(schedule: str, step: int, *, n_steps: int, n_warmup: int) -> float | None:
    """Return Adam's first beta at one step, or None where the schedule leaves it alone."""
    if schedule != "one_cycle":
        return None
    high, low = ONE_CYCLE_MOMENTA
    return _one_cycle(step, n_steps, max(1, n_warmup), high, low, high)


def _one_cycle(step: int, n_steps: int, n_warmup: int, start: float, peak: float, end: float) -> float:
    if step < n_warmup:
        return _cosine(start, peak, step / n_warmup)
    return _cosine(peak, end, min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup)))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(groups: Groups, stage: Stage) -> list[dict[str, Any]]:
    """Return the optimizer's groups: each layer group in two, with weight decay and (norms and biases) without.

    Args:
        groups: (name, parameters), bottom to top; the last is the head.
    """
    found: list[dict[str, Any]] = []
    for depth, (name, parameters) in enumerate(reversed(groups)):
        scale = stage.layer_decay**depth
        learning = [p for p in parameters if p.requires_grad]
        # Vectors are norms and biases, which weight decay would only pull away from their job.
        for chosen, decay in (
            ([p for p in learning if p.ndim > 1], stage.weight_decay),
            ([p for p in learning if p.ndim <= 1], 0.0),
        ):
            if chosen:
                rate = stage.learning_rate * scale
                found.append({"params": chosen, "name": name, "scale": scale, "weight_decay": decay, "lr": rate})
    return found


def build_optimizer(groups: Groups, stage: Stage) -> torch.optim.Optimizer:
    """Return AdamW (decoupled decay) or Adam (no decay) over discriminative groups."""
    parameters = parameter_groups(groups, stage)
    # Fused: one pass over weights, gradients and moments, several times as fast as one pass for each operation.
    if stage.optimizer == "adam":
        for group in parameters:
            group["weight_decay"] = 0.0
        return torch.optim.Adam(parameters, lr=stage.learning_rate, fused=True)
    return torch.optim.AdamW(parameters, lr=stage.learning_rate, fused=True)


def set_rates(optimizer: torch.optim.Optimizer, stage: Stage, step: int, *, n_steps: int, n_warmup: int) -> None:
    """Give each group its rate (and one-cycle its momentum) for one step; nothing of it is state."""
    factor = rate_factor(stage.schedule, step, n_steps=n_steps, n_warmup=n_warmup)
    beta = momentum(stage.schedule, step, n_steps=n_steps, n_warmup=n_warmup)
    for group in optimizer.param_groups:
        group["lr"] = stage.learning_rate * group["scale"] * factor
        if beta is not None:
            group["betas"] = (beta, group["betas"][1])
