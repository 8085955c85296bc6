"""What a fit will cost before it is run: its seconds and its memory, from a probe of a few seconds on this machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headrace.errors import HeadraceError, Interrupted, ModelError
from headrace.recipe.schema import RecipeValues
from headrace.train.memory import peak_resident_bytes
from headrace.train.prepare import Prepared
from headrace.train.probe import Answer, Measured, Order, ask, packed
from headrace.train.session import untrained
from headrace.train.stages import n_learning
from headrace.train.trainer import n_devices, resolved_precision
from headrace.train.workload import N_REQUIRED, Picked, Workload, memory_weight, work, workload

BUDGET_S = 10.0
#: Largest share of a training that its probe may be, by tokens.
MAX_SHARE = 0.5
#: The same for a forecast at the start of a fit itself, where it is waited for each time.
FIT_SHARE = 0.02
#: What the start of the probe's process costs, in tokens that a small encoder trains on meanwhile.
START_TOKENS = 5_000
#: Freed pieces of many sizes leave gaps: the peak of a training lies by so much above that of its first steps.
#: Seen with MiniLM in bf16: 1.25 after 17 steps of IMDb, 1.18 after 43 of toxic comments and after 57 of MNLI, 1.4 after
#: 282 of IMDb.
FRAGMENTATION = 1.3
#: Passes of a training text that the attributions of the errors in the report cost: of each of `worst.MAX_EXPLAINED` 16 to
#: 112.
PASSES_OF_ERRORS = 8 * 40
#: What a step, a pass, a token and a pair of tokens cost in tokens, of a small encoder on a CPU. It steadies a model of
#: two or three noisy measurements; against many of them it counts for nothing.
USUAL_TOKENS = (50.0, 150.0, 1.0, 1 / 400)
PRIOR_WEIGHT = 0.3
#: With so many steps after the largest ones, these do not count for the time.
MIN_WARM_STEPS = 2
_TRAINER_ARGUMENTS = ("accelerator", "devices", "strategy", "deterministic", "benchmark", "detect_anomaly")
_FILE_LOGGERS = ("tensorboard", "csv")


@dataclass(frozen=True)
class Forecast:
    """What a fit is expected to cost on this machine as it is loaded now.

    Attributes:
        fit_s: Seconds of all optimizer steps, loading included, validation and saving excluded: the report's
            `timing.fit_s`. All epochs count; early stopping may end sooner.
        evaluate_s: Seconds of scoring the validation rows and, with a test, the test rows, once training is over: most
            of the report's `timing.evaluate_s`.
        wall_s: Seconds from the start of the command to the proved bundle, with the data prepared: start, steps,
            validations, checkpoints, evaluation and the bundle's proof.
        peak_memory_bytes: Largest resident size of the process: the report's `timing.peak_memory_bytes`.
        peak_device_bytes: Largest reserved memory of the accelerator; None on a CPU.
        n_steps: Optimizer steps; 0 for a classical head.
        probe_s: Seconds that the forecast took.
        reason: Why there are no figures (they are None then); None where there are.
        note: What the figures leave out, if anything.
    """

    fit_s: float | None
    evaluate_s: float | None
    wall_s: float | None
    peak_memory_bytes: int | None
    peak_device_bytes: int | None
    n_steps: int
    probe_s: float
    reason: str | None = None
    note: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON shows them."""
        return asdict(self)


def memory_words(found: Mapping[str, Any]) -> str:
    """Return the memory that a forecast tells (as `Forecast.as_dict` gives it), and that of the accelerator if any."""
    told, device = f"{found['peak_memory_bytes'] / 1e9:.1f} GB of memory", found["peak_device_bytes"]
    return told if device is None else f"{told}, {device / 1e9:.1f} GB on the accelerator"


def forecast(
    values: RecipeValues,
    prepared: Prepared,
    *,
    budget_s: float = BUDGET_S,
    max_share: float = MAX_SHARE,
    packs: bool | None = None,
) -> Forecast:
    """Forecast time and memory of a fit; nothing of a run is touched, nor this process's random state.

    A fresh process loads the model and takes a few real steps of the plan; a cost model carries them over to all steps.

    Args:
        values: The recipe.
        prepared: Its data.
        budget_s: Seconds of measurement after the model is loaded, > 0. A few steps are taken whatever they cost.
        max_share: A training of which the probe would be a larger share, by tokens, is not worth one; `inf` always is.
        packs: Whether training lays texts end to end; None asks the model.

    Returns:
        The figures, or the reason why there are none, such as a model that cannot be loaded.

    Raises:
        RecipeError: What `fit` would refuse, too, such as texts longer than the backbone takes.
    """
    started = time.perf_counter()
    try:
        load, picked = workload(values, prepared, packs=packs)
    except ModelError as error:  # the model cannot be had: the rest of what is told of the data stands
        return _without(0, error.what, started)
    if n_devices(values.trainer) > 1:
        return _without(load.n_steps, "a run in several processes is not forecast", started)
    n_tokens = max(START_TOKENS, picked.n_tokens)
    if n_tokens > max_share * load.n_tokens:
        reason = (
            f"the training is short ({load.n_tokens:,} tokens in {load.n_steps:,} steps): a forecast would not pay off"
        )
        return _without(load.n_steps, reason, started)
    try:
        answer = measure(values, prepared, picked, budget_s=budget_s)
    except Interrupted:
        raise
    except HeadraceError as error:
        return _without(load.n_steps, error.what, started)
    except OSError as error:
        return _without(load.n_steps, f"the probe's files cannot be written: {error.strerror}", started)
    return replace(estimate(load, answer), probe_s=time.perf_counter() - started)


def _without(n_steps: int, reason: str, started: float) -> Forecast:
    return Forecast(None, None, None, None, None, n_steps, time.perf_counter() - started, reason)


# -- the cost model ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CostModel:
    """Seconds as a sum over what is computed, each part at least 0.

    Attributes:
        step_s: Of a step: optimizer, gradient norm.
        pass_s: Of a pass: gradients of the word embeddings, calls.
        token_s: Of a padded token: the linear layers.
        pair_s: Of a pair of tokens of one text: attention.
    """

    step_s: float
    pass_s: float
    token_s: float
    pair_s: float

    @classmethod
    def fitted(cls, done: Sequence[np.ndarray], seconds: Sequence[float]) -> CostModel:
        """Return the model of least squared relative errors, no part negative, and of those one near the usual shares.

        Args:
            done: Of each measurement [4], see `work`.
            seconds: Of each measurement, > 0.

        Source: Lawson & Hanson 1974, Solving Least Squares Problems, chapter 23 (NNLS).
        """
        from scipy.optimize import nnls

        usual = np.array(USUAL_TOKENS)
        shares = np.asarray(done, dtype=np.float64).reshape(-1, 4) * usual / np.asarray(seconds)[:, None]
        whole = shares.sum(axis=1)
        token_s = whole.sum() / (whole**2).sum()  # the least squares of the usual shares alone
        weight = PRIOR_WEIGHT / max(1, len(shares)) ** 2
        rows = np.concatenate([shares * token_s, weight * np.eye(4)])
        found, _ = nnls(rows, np.concatenate([np.ones(len(shares)), np.full(4, weight)]))
        return cls(*(found * usual * token_s).tolist())

    def seconds(self, done: np.ndarray) -> float:
        """Return the seconds of some work, see `work`."""
        return float(np.dot((self.step_s, self.pass_s, self.token_s, self.pair_s), done))


def _model(measured: Sequence[Measured], clock: str, *, is_step: bool, packed: bool = False) -> CostModel:
    n_steps = None if is_step else 0
    done = [work([one.passes], n_steps=n_steps, packed=packed) for one in measured]
    return CostModel.fitted(done, [max(1e-9, getattr(one, clock)) for one in measured])


# -- from a probe to the figures -----------------------------------------------------------------------------------


def measure(values: RecipeValues, prepared: Prepared, picked: Picked, *, budget_s: float = BUDGET_S) -> Answer:
    """Let a fresh process measure what was picked.

    Raises:
        RunError: It ended without an answer.
    """
    part = prepared.train
    is_classical = not picked.steps
    evaluated = part if is_classical else prepared.test or prepared.valid
    trained_rows, steps = _renumbered([group for step in picked.steps for group in step])
    scored_rows, groups = _renumbered(picked.groups)
    names = [values.logger] if isinstance(values.logger, str) else values.logger
    accelerator = str(values.trainer.get("accelerator", "auto"))
    order = Order(
        module=_module_arguments(values, prepared),
        trainer={name: values.trainer[name] for name in _TRAINER_ARGUMENTS if name in values.trainer},
        precision=resolved_precision(values.fit.precision, accelerator=accelerator)[0],
        loggers=[name for name in names if name in _FILE_LOGGERS],
        padding=prepared.padding,
        steps=[[steps.pop(0) for _ in step] for step in picked.steps],
        groups=groups,
        budget_s=budget_s,
        threads=torch.get_num_threads(),
        matmul=torch.get_float32_matmul_precision(),
    )
    with tempfile.TemporaryDirectory(prefix="headrace-probe-") as scratch:
        return ask(
            order, trained=packed(part, trained_rows), scored=packed(evaluated, scored_rows), scratch=Path(scratch)
        )


def estimate(load: Workload, answer: Answer, *, clock: str = "wall_s") -> Forecast:
    """Carry a probe's figures over to the whole fit.

    Args:
        load: What the fit computes.
        answer: What the probe measured.
        clock: `wall_s`, or `cpu_s` for the seconds of computing, which other programs disturb less.
    """
    scoring = _model(answer.scored, clock, is_step=False)
    validating = _model(answer.valid, clock, is_step=False)
    training = scoring if load.is_classical else _model(_warm(answer.steps), clock, is_step=True, packed=answer.packs)
    fit_s = training.seconds(load.packed if answer.packs else load.trained)
    fit_s *= learning_share(load.learning, answer.n_groups)
    evaluate_s = scoring.seconds(load.evaluated)
    n_saves = 0.0 if load.is_classical else load.n_epochs + fit_s / load.checkpoint_every_s
    # The proof of the bundle is one more start, and the errors that are explained take many passes each.
    explained_s = 0.0 if load.is_classical else PASSES_OF_ERRORS * fit_s / max(1, load.n_trained_rows * load.n_epochs)
    wall_s = 2 * answer.load_s + fit_s + validating.seconds(load.valid) + n_saves * answer.checkpoint_s
    wall_s += evaluate_s + explained_s
    note = "the solver of the head comes on top of its features" if load.is_classical else None
    return Forecast(
        fit_s=fit_s,
        evaluate_s=evaluate_s,
        wall_s=wall_s,
        peak_memory_bytes=_peak_bytes(load, answer),
        peak_device_bytes=answer.device_bytes,
        n_steps=load.n_steps,
        probe_s=0.0,
        note=note,
    )


def _warm(steps: Sequence[Measured]) -> Sequence[Measured]:
    """Return the steps without those that made the process grow, if enough are left: new memory takes time of its own."""
    small, grown, later = steps[:1], steps[1:N_REQUIRED], steps[N_REQUIRED:]
    return [*small, *later] if len(later) >= MIN_WARM_STEPS else [*small, *grown, *later]


def _peak_bytes(load: Workload, answer: Answer) -> int:
    peak = answer.peak_bytes
    if load.is_classical:
        # float32 features, and float64 twice: scikit-learn's copy and the scaled one
        peak += load.n_trained_rows * answer.width * (4 + 8 + 8)
    else:
        peak = max(peak, _grown(load, answer))
    return max(int(peak * FRAGMENTATION) + load.data_bytes, peak_resident_bytes())


def _grown(load: Workload, answer: Answer) -> int:
    """Return the peak with the costliest pass; where there was no time for it, on the line through two smaller ones."""
    small, half, *_ = answer.steps
    if any(load.costliest in one.passes for one in answer.steps):
        return answer.peak_bytes
    passes = (small.passes[0], half.passes[0], load.costliest)
    weights = [memory_weight(one, packed=answer.packs) for one in passes]
    slope = (half.peak_bytes - small.peak_bytes) / max(1.0, weights[1] - weights[0])
    return int(half.peak_bytes + max(0.0, slope) * (weights[2] - weights[1]))


def _renumbered(groups: Sequence[np.ndarray]) -> tuple[np.ndarray, list[list[int]]]:
    """Return all rows of some groups, each once, and the groups as positions among them."""
    rows = np.unique(np.concatenate(groups)) if groups else np.empty(0, dtype=np.int64)
    return rows, [np.searchsorted(rows, group).tolist() for group in groups]


def _module_arguments(values: RecipeValues, prepared: Prepared) -> dict[str, Any]:
    """Return what the run's module is made of; all of it learns, and what a stage fixes is reckoned afterwards."""
    found = untrained(values, prepared).module_arguments
    return {**found, "stage": {**found["stage"], "train": "all"}}


def learning_share(learning: Sequence[tuple[str, int]], n_groups: int) -> float:
    """Return the cost of an epoch as a share of one in which everything learns, the mean over all epochs.

    Of a pass about a third goes up and two thirds come back, and these only through the layers that learn. What is kept
    of layers that do not learn is not reckoned with.

    Args:
        learning: Of each stage what learns, as in the recipe, and its epochs.
        n_groups: Of the model: embeddings, layers, head; 0 where it is not known.
    """
    n_layers = n_groups - 2
    if n_layers < 1 or not learning:
        return 1.0
    shares = [(1 + 2 * min(1.0, (n_learning(train, n_groups) - 1) / n_layers)) / 3 for train, _ in learning]
    return float(np.average(shares, weights=[epochs for _, epochs in learning]))
