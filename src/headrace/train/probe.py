"""A few real training steps in a process of their own, timed: how fast this machine is, and how much memory they take."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

import headrace
from headrace.errors import HeadraceError, RunError
from headrace.head import CLASSICAL
from headrace.matmul import DEFAULT, fastest_route, routed
from headrace.model import Classifier
from headrace.pages import keep_pages
from headrace.predict import embed, score
from headrace.text.batch import Tokens, collate
from headrace.text.store import TokenStore
from headrace.text.subwords import Encoded
from headrace.train.checkpoints import AtomicCheckpoints
from headrace.train.data import StepBatch
from headrace.train.loggers import build_loggers
from headrace.train.memory import OUT_OF_MEMORY, peak_resident_bytes
from headrace.train.module import ClassifierModule
from headrace.train.prepare import Part
from headrace.train.touched import touched_rows
from headrace.train.trainer import build_trainer
from headrace.train.workload import N_REQUIRED, Pass

# A first run may have to fetch the model from the hub.
TIMEOUT_S = 900.0
COSTLIEST_BUDGETS = 3.0  # of the time, that the costliest pass may fill with the steps before it
SCORING_SHARE = 0.2  # of the time, for evaluation
N_ROUNDS = 3  # over the batches of evaluation, at most
WRITTEN_BYTES = 32 << 20  # to a file as a checkpoint is, to learn the disk's rate
_STATES = 3  # a checkpoint holds the weights and Adam's two moments

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Order:
    """What the fresh process is to measure; plain values.

    Attributes:
        module: Arguments of `ClassifierModule`.
        trainer: Arguments of `lightning.Trainer`.
        precision: `fp32` or `bf16`.
        loggers: Those of the run that write files only.
        padding: `pad_id` and `uses_token_types`.
        steps: Rows of each micro-batch of each probe step, as positions in the tokens that are given along.
        groups: The same for batches of evaluation.
        budget_s: Seconds of measurement after the model is loaded.
        threads: torch's.
        matmul: torch's precision of float32 products.
    """

    module: dict[str, Any]
    trainer: dict[str, Any]
    precision: str
    loggers: list[str]
    padding: dict[str, Any]
    steps: list[list[list[int]]]
    groups: list[list[int]]
    budget_s: float
    threads: int
    matmul: str


@dataclass(frozen=True)
class Measured:
    """One timed step or batch.

    Attributes:
        passes: Their sizes.
        wall_s, cpu_s: Seconds by the clock, and of this process's computing; several threads count each.
        peak_bytes: Largest resident size until its end.
    """

    passes: tuple[Pass, ...]
    wall_s: float
    cpu_s: float
    peak_bytes: int


@dataclass(frozen=True)
class Answer:
    """What the fresh process measured.

    Attributes:
        load_s: From its start until the model was there.
        steps: Training steps, the warm-up left out; none for a classical head.
        valid: Batches of validation, as the Trainer computes them.
        scored: Batches of evaluation, on the CPU in fp32.
        checkpoint_s: Of one checkpoint, estimated from the bytes of the state and the disk's rate.
        peak_bytes: Largest resident size of the process.
        device_bytes: Largest reserved memory of the accelerator, or None on a CPU.
        width: Of a text's features.
        packs: Training lays texts end to end: there is no padding.
        n_groups: Groups of parameters, from the embeddings to the head.
    """

    load_s: float
    steps: tuple[Measured, ...]
    valid: tuple[Measured, ...]
    scored: tuple[Measured, ...]
    checkpoint_s: float
    peak_bytes: int
    device_bytes: int | None
    width: int
    packs: bool = False
    n_groups: int = 0


# -- in the caller's process ---------------------------------------------------------------------------------------


def ask(order: Order, *, trained: Arrays, scored: Arrays, scratch: Path) -> Answer:
    """Measure in a fresh process.

    Args:
        order: What.
        trained: The rows of `order.steps`, as `packed` gives them.
        scored: The rows of `order.groups`.
        scratch: An empty folder for the exchange.

    Raises:
        RunError: The process ended without an answer; says why.
    """
    for name, arrays in (("trained", trained), ("scored", scored)):
        np.savez(scratch / f"{name}.npz", **arrays)  # type: ignore[arg-type]  # numpy's stub knows one keyword
    content = {**vars(order), "started": time.time()}
    (scratch / "order.json").write_text(json.dumps(content), encoding="ascii")
    returned, stderr = _run(scratch)
    path = scratch / "answer.json"
    if returned != 0 or not path.is_file():
        raise RunError(_failure(returned, stderr), where="the probe", next="headrace fit RECIPE shows the whole error")
    found = json.loads(path.read_text("ascii"))
    for name in ("steps", "valid", "scored"):
        found[name] = tuple(_measured(one) for one in found[name])
    return Answer(**found)


def _measured(one: dict[str, Any]) -> Measured:
    return Measured(tuple(Pass(*numbers) for numbers in one.pop("passes")), **one)


def packed(part: Part, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the tokens and targets of these rows of a split as plain arrays."""
    return {**vars(_of_rows(part, rows.tolist())), "targets": np.asarray(part.targets)[rows]}


def _of_rows(tokens: Tokens, rows: Sequence[int]) -> TokenStore:
    ids = [tokens.ids(row) for row in rows]
    return TokenStore.of(
        [Encoded(one, tokens.first_length(row), len(one), 0) for row, one in zip(rows, ids, strict=True)]
    )


def _run(scratch: Path) -> tuple[int, str]:
    root = str(Path(headrace.__file__).parent.parent)
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    # -P: nothing of the current folder is imported
    command = [sys.executable, "-P", "-c", "import sys, headrace.train.probe as p; p.answer(sys.argv[1])", str(scratch)]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {TIMEOUT_S:.0f} s"
    except OSError as error:
        return 1, f"it could not be started: {error.strerror}"
    return done.returncode, done.stderr


def _failure(returned: int, stderr: str) -> str:
    """Return in a few words what ended the probe."""
    if returned == -9:
        return "the system killed the probe (signal 9), as it does when memory runs out"
    if returned < 0:
        return f"the probe was ended by signal {-returned}"
    last = (stderr.strip().splitlines() or [f"exit code {returned}"])[-1].strip()
    if any(sign in stderr for sign in (*OUT_OF_MEMORY, "MemoryError")):
        return f"the probe ran out of memory: {last}"
    return f"the probe failed: {last}"


# -- in the fresh process ------------------------------------------------------------------------------------------


def answer(scratch: str) -> None:
    """Measure what the caller ordered in a folder, and leave the answer there; runs in the fresh process."""
    keep_pages()  # as a training does
    folder = Path(scratch)
    content = json.loads((folder / "order.json").read_text("ascii"))
    started = float(content.pop("started"))
    order = Order(**content)
    torch.set_num_threads(order.threads)
    torch.set_float32_matmul_precision(order.matmul)
    try:
        # What a fit imports too: it belongs to the time of the start and to the memory.
        importlib.import_module("headrace.train.finish")
        module = ClassifierModule(**order.module)
        found = _measure(order, module, folder, load_s=max(0.0, time.time() - started))
    except HeadraceError as error:
        raise SystemExit(error.what) from error
    (folder / "answer.json").write_text(json.dumps(found), encoding="ascii")


def _measure(order: Order, module: ClassifierModule, folder: Path, *, load_s: float) -> dict[str, Any]:
    is_classical = module.model.settings.name in CLASSICAL
    steps: list[Measured] = []
    device = torch.device("cpu")
    if not is_classical:
        steps, device = _train(order, module, folder)
    packs = bool(getattr(module.model.backbone, "packs", False))
    checkpoint_s = 0.0 if is_classical else _checkpoint_s(module.model, folder)
    budget_s = order.budget_s if is_classical else SCORING_SHARE * order.budget_s
    on_device = device.type != "cpu" or order.precision != "fp32"
    store, _ = _loaded(folder / "scored.npz")
    parts = [_of_rows(store, rows) for rows in order.groups]
    compute = {"device": device, "precision": order.precision, **order.padding}
    valid = _score(module.model, parts, budget_s=budget_s, compute=compute) if on_device else []
    module.model.backbone.end_training()
    compute = {"device": device, "route": fastest_route(), **order.padding}  # as for many texts at once
    scored = _score(module.model, parts, budget_s=budget_s, compute=compute)
    found = Answer(
        load_s=load_s,
        steps=tuple(steps[1:]),
        valid=tuple(valid if on_device else scored),
        scored=tuple(scored),
        checkpoint_s=checkpoint_s,
        peak_bytes=peak_resident_bytes(),
        device_bytes=int(torch.cuda.max_memory_reserved(device)) if device.type == "cuda" else None,
        width=module.model.backbone.width,
        packs=packs,
        n_groups=len(module.groups()),
    )
    return {name: [vars(one) for one in v] if isinstance(v, tuple) else v for name, v in vars(found).items()}


def _loaded(path: Path) -> tuple[TokenStore, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    targets = arrays.pop("targets")
    return TokenStore(**arrays), targets


def _train(order: Order, module: ClassifierModule, folder: Path) -> tuple[list[Measured], torch.device]:
    steps = _ProbeSteps(order, *_loaded(folder / "trained.npz"))
    clock = _Clock(steps.n_tokens(), (1 - SCORING_SHARE) * order.budget_s)
    trainer = build_trainer(
        folder,
        order.trainer,
        epochs=1,
        precision=order.precision,
        callbacks=[clock],
        loggers=build_loggers(order.loggers, folder),
        profiler=None,
        plugins=[],
    )
    module.model.train()
    module.keeps_seen = True
    device = trainer.strategy.root_device
    on_cpu = device.type == "cpu"
    if on_cpu:
        module.model.backbone.train_on_cpu()
    with ExitStack() as stack:
        if on_cpu:
            stack.enter_context(touched_rows(module.model))
            stack.enter_context(routed(fastest_route() if order.precision == "fp32" else DEFAULT))
        trainer.fit(module, DataLoader(steps, batch_size=None, sampler=_InTime(clock, len(steps))))
    return clock.measured, device


class _ProbeSteps(Dataset[StepBatch]):
    """The steps of an order; each counts its own texts only."""

    def __init__(self, order: Order, store: TokenStore, targets: np.ndarray) -> None:
        self.order, self.store, self.targets = order, store, targets

    def n_tokens(self) -> list[int]:
        """Return the padded tokens of each step."""
        lengths = self.store.lengths
        return [sum(len(rows) * int(lengths[rows].max()) for rows in step) for step in self.order.steps]

    def __getitem__(self, index: int) -> StepBatch:
        groups = [np.asarray(rows, dtype=np.int64) for rows in self.order.steps[index]]
        batches = [collate(self.store, rows, self.targets, **self.order.padding) for rows in groups]
        rows = np.concatenate(groups)
        return StepBatch(batches, rows, len(rows), len(rows))

    def __len__(self) -> int:
        return len(self.order.steps)


class _InTime(Sampler[int]):
    """The steps in their order, as long as there is time for the next."""

    def __init__(self, clock: _Clock, n_steps: int) -> None:
        self.clock, self.n_steps = clock, n_steps

    def __iter__(self) -> Iterator[int]:
        for index in range(self.n_steps):
            if self.clock.has_time_for(index):
                yield index

    def __len__(self) -> int:
        return self.n_steps


class _Clock(lightning.Callback):
    """Times each step as the run's own count does: from before its batch is made until after the optimizer."""

    def __init__(self, n_tokens: list[int], budget_s: float) -> None:
        self.n_tokens = n_tokens
        self.budget_s = budget_s
        self.measured: list[Measured] = []
        self._begun = self._wall = self._cpu = 0.0

    def has_time_for(self, index: int) -> bool:
        """Tell whether a step is required, or is likely to end within the budget."""
        if index < N_REQUIRED or not self.measured:
            return True
        # The last required step is the largest so far. The one after it, the costliest, tells the memory, which smaller
        # ones tell badly: it may take more time.
        last = self.measured[N_REQUIRED - 1]
        expected_s = last.wall_s * self.n_tokens[index] / self.n_tokens[N_REQUIRED - 1]
        allowed_s = self.budget_s * (COSTLIEST_BUDGETS if index == N_REQUIRED else 1.0)
        return time.perf_counter() - self._begun + expected_s <= allowed_s

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock before the first batch is asked for."""
        self._begun = time.perf_counter()
        self._mark()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the step's time."""
        float(outputs["loss"])  # an accelerator works on after the call; its value is there when it is done
        wall_s, cpu_s = time.perf_counter() - self._wall, time.process_time() - self._cpu
        passes = tuple(Pass.of(one.attention_mask.sum(dim=1).cpu().numpy()) for one in batch.batches)
        self.measured.append(Measured(passes, wall_s, cpu_s, peak_resident_bytes()))
        self._mark()

    def _mark(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()


def _score(model: Classifier, parts: Sequence[TokenStore], *, budget_s: float, compute: Any) -> list[Measured]:
    """Time batches of evaluation: all of them once, then again while there is time."""
    is_classical = model.settings.name in CLASSICAL
    found: list[Measured] = []
    begun = time.perf_counter()
    for number in range(1 + N_ROUNDS * len(parts)):
        store = parts[max(0, number - 1) % len(parts)]  # the first one twice: it warms up
        if number > len(parts) and time.perf_counter() - begun > budget_s:
            break
        wall, cpu = time.perf_counter(), time.process_time()
        if is_classical:
            embed(model, store, pool=model.settings.pool, **compute)
        else:
            score(model, store, **compute)
        wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
        if number:
            found.append(Measured((Pass.of(store.lengths),), wall_s, cpu_s, peak_resident_bytes()))
    return found


def _checkpoint_s(model: Classifier, folder: Path) -> float:
    """Return the seconds of one checkpoint and one copy of the best weights, from a smaller file of the same kind."""
    n_bytes: int = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    written = min(WRITTEN_BYTES, n_bytes)
    state = {"tensor": torch.zeros(max(1, written), dtype=torch.uint8)}
    checkpoints = AtomicCheckpoints()
    begun = time.perf_counter()
    checkpoints.save_checkpoint(state, folder / "probe.ckpt")
    seconds = time.perf_counter() - begun
    return float(seconds * (_STATES + 1) * n_bytes / max(1, written))
