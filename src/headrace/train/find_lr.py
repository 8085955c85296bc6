"""The learning-rate range test: rates that grow by a factor a step, the loss they give, a plot and a suggestion."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headrace.errors import RecipeError, TrainingStopped
from headrace.files import write_bytes
from headrace.recipe import Recipe, load_recipe
from headrace.recipe.schema import RecipeValues
from headrace.train.fit import data_plan, refuse_language_model, say_to_stderr, telling
from headrace.train.prepare import prepare
from headrace.train.progress import Echo
from headrace.train.run import RunFolder, default_folder
from headrace.train.session import Session
from headrace.train.signals import Signals
from headrace.train.stages import build_optimizer
from headrace.train.stepped import derived_seed, seed_everything
from headrace.train.trainer import evaluation_device

LOWEST, HIGHEST = 1e-7, 1.0
N_STEPS = 100
SMOOTHING = 0.9
GIVE_UP = 4.0  # times the best loss: beyond it the curve only climbs


def find_lr(
    recipe: Recipe | Mapping[str, Any] | str | Path,
    *,
    out: str | Path | None = None,
    overrides: Iterable[str] = (),
    echo: Echo | None = None,
) -> tuple[float, Path]:
    """Try growing learning rates on the training rows; the model is thrown away.

    Args:
        recipe: As for `fit`.
        out: Folder of the plot `find_lr.png` and `find_lr.csv`; by default as for `fit`.
        overrides: As for `fit`.
        echo: Takes the lines that a person should see.

    Returns:
        The suggested rate, and the path of the plot.

    Raises:
        TrainingStopped: The loss was not finite from the first step.

    Source: Smith 2017 (arXiv 1506.01186), section 3.3. The suggestion is the rate of steepest descent of the smoothed
    loss over the logarithm of the rate.
    """
    resolved = load_recipe(recipe, overrides=overrides)
    with resolved.locating():
        return _find_lr(resolved, out, echo or say_to_stderr)


def _find_lr(resolved: Recipe, out: str | Path | None, say: Echo) -> tuple[float, Path]:
    refuse_language_model(resolved.values, "a search for the learning rate")
    _refuse_untrained(resolved.values)
    folder = RunFolder(Path(out) if out is not None else default_folder(resolved))
    session = Session(
        recipe=resolved.values,
        prepared=prepare(data_plan(resolved.values), progress=telling(say)),
        folder=folder,
        signals=Signals(),
        say=say,
    )
    with session.signals.watched(), folder.lock():
        rates, losses = _sweep(session, say)
    smoothed = smooth(losses)
    rate = steepest(rates, smoothed)
    lines = ["learning_rate,loss,smoothed_loss"]
    lines += [f"{r:.6g},{a:.6g},{b:.6g}" for r, a, b in zip(rates, losses, smoothed, strict=True)]
    write_bytes(folder.path / "find_lr.csv", ("\n".join(lines) + "\n").encode())
    plot = folder.path / "find_lr.png"
    write_bytes(plot, _plot(rates, losses, smoothed, rate))
    return rate, plot


def _refuse_untrained(values: RecipeValues) -> None:
    """Refuse a classifier whose language model has yet to be trained: the rate is that of its encoder."""
    if values.language_model is not None:
        raise RecipeError(
            "the classifier's encoder is that of a language model, which this recipe has yet to train",
            where="language_model",
            next="fit once, then search with `--set language_model=null --set backbone=RUN/language_model/bundle`",
        )


def _sweep(session: Session, say: Echo) -> tuple[list[float], list[float]]:
    if session.is_classical:
        what = f"head: {session.recipe.head.name} is fitted by scikit-learn and has no learning rate"
        raise RecipeError(what, where="head", next="choose head: linear or native for --find-lr")
    device = evaluation_device(session.recipe.trainer)
    module = session.module.to(device)
    module.enter(session.stages[0])
    if len(session.stages) > 1:
        learns = session.stages[0].train
        say(f"stage 1 of {len(session.stages)} is searched, which trains: {learns}; a later one begins where it ends")
    data = session.data()
    data.device = device
    if device.type == "cpu":
        module.model.backbone.train_on_cpu()
        data.packs = module.model.backbone.packs
    plan, part = data.plan, session.prepared.train
    steps = data.steps()
    optimizer = build_optimizer(module.groups(), session.stages[0])
    precision, _ = session.precision(session.phases[0])
    rates: list[float] = []
    losses: list[float] = []
    for number in range(N_STEPS):
        rate = LOWEST * (HIGHEST / LOWEST) ** (number / (N_STEPS - 1))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        step = steps[(number // plan.n_steps, number % plan.n_steps)].to(device)
        seed_everything(derived_seed(session.recipe.seed, "find_lr", number))
        optimizer.zero_grad()
        total = 0.0
        with module.model.backbone.weights_stand():
            for batch in step.batches:
                with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                    losses_of = [module.losses(logits, batch) for logits in module.model.each_logits(batch)]
                    each = torch.stack(losses_of).sum(dim=1) / step.n_texts
                torch.autograd.backward(each.sum())
                total += float(each.detach().mean())
        if not math.isfinite(total) or (losses and total > GIVE_UP * min(losses)):
            break
        optimizer.step()
        rates.append(rate)
        losses.append(total)
        if number % 10 == 9:
            say(f"step {number + 1}/{N_STEPS}  learning rate {rate:.2e}  loss {total:.4f}")
    if len(rates) < 3:
        raise TrainingStopped(
            "the loss left the finite numbers at once", where=f"{len(part):,} training rows", next="look at the data"
        )
    return rates, losses


def smooth(values: list[float]) -> list[float]:
    """Return the bias-corrected exponential moving average."""
    average, found = 0.0, []
    for number, value in enumerate(values, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * value
        found.append(average / (1 - SMOOTHING**number))
    return found


def steepest(rates: list[float], losses: list[float]) -> float:
    """Return the rate at which the loss falls fastest over log(rate), before its minimum."""
    lowest = max(2, int(np.argmin(losses)) + 1)
    slopes = np.gradient(np.asarray(losses[:lowest]), np.log(np.asarray(rates[:lowest])))
    return float(f"{rates[int(np.argmin(slopes))]:.2g}")


def _plot(rates: list[float], losses: list[float], smoothed: list[float], rate: float) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(rates, losses, color="0.75", linewidth=1, label="loss")
    axes.plot(rates, smoothed, color="C0", linewidth=2, label="smoothed")
    axes.axvline(rate, color="C1", linestyle="--", label=f"suggested: {rate:.2g}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.set_ylim(top=max(smoothed[0] * 1.5, max(smoothed[: max(2, len(smoothed) * 3 // 4)])))
    axes.legend(frameon=False)
    content = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(content, format="png")
    return content.getvalue()
