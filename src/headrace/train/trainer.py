"""Makes the `lightning.Trainer` of a run from the recipe's plain values; nothing of Lightning is hidden."""

from __future__ import annotations

import inspect
import logging
import platform
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Timer

from headrace.errors import RecipeError, suggestion

# What a key of ours decides; the Trainer's argument beside it would say it twice.
OWNED = {
    "max_epochs": "fit.epochs",
    "precision": "fit.precision",
    "gradient_clip_val": "fit.gradient_clip",
    "gradient_clip_algorithm": "fit.gradient_clip",
    "accumulate_grad_batches": "fit.accumulate",
    "logger": "logger",
    "profiler": "profiler",
    "default_root_dir": "--out",
    "enable_checkpointing": "fit.checkpoint_every_s",
    "callbacks": "Python: headrace.ClassifierModule with a Trainer of your own",
    "plugins": "Python: headrace.ClassifierModule with a Trainer of your own",
    "use_distributed_sampler": "nothing: the order of rows is the data module's",
    "reload_dataloaders_every_n_epochs": "nothing: the order of rows is the data module's",
    "val_check_interval": "nothing: validation follows each epoch",
    "check_val_every_n_epoch": "nothing: validation follows each epoch",
    "overfit_batches": "data.limit",
    "fast_dev_run": "trainer.max_steps",
    "barebones": "logger: none",
}
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}


def check_trainer_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that `lightning.Trainer` does not have, and those that a recipe key decides.

    Raises:
        RecipeError: Names the argument and the key.
    """
    known = set(inspect.signature(lightning.Trainer.__init__).parameters) - {"self"}
    for name in arguments:
        if name in OWNED:
            raise RecipeError(
                f"trainer.{name} is decided elsewhere", where=f"trainer.{name}", next=f"use {OWNED[name]}"
            )
        if name not in known:
            raise RecipeError(
                f"lightning.Trainer has no argument {name!r}",
                where=f"trainer.{name}",
                next=suggestion(name, known - set(OWNED)),
            )
    seconds_left(arguments, 0.0)


def n_devices(arguments: Mapping[str, Any]) -> int:
    """Return how many processes a recipe's `trainer.devices` asks for."""
    devices = arguments.get("devices", 1)
    n_accelerators = 0 if arguments.get("accelerator") == "cpu" else torch.accelerator.device_count()
    if isinstance(devices, list):
        return max(1, len(devices))
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    if devices in ("auto", -1, "-1"):
        return max(1, n_accelerators)
    if isinstance(devices, int | str) and str(devices).isdigit() and int(devices) > 0:
        return int(devices)
    raise RecipeError(f"trainer.devices: {devices!r} is no number of devices", where="trainer.devices", next="write 2")


def evaluation_device(arguments: Mapping[str, Any]) -> torch.device:
    """Return where rates are tried before a training and rows scored after it: the accelerator that trains, or the CPU.

    Args:
        arguments: The recipe's `trainer`.
    """
    found = (
        None if arguments.get("accelerator") == "cpu" else torch.accelerator.current_accelerator(check_available=True)
    )
    return torch.device("cpu") if found is None else found


def resolved_precision(setting: str, *, accelerator: str = "auto") -> tuple[str, str]:
    """Return (`fp32` | `bf16`, why): `auto` takes bf16 where the machine computes in it."""
    if setting != "auto":
        return setting, "as the recipe says"
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", f"{torch.cuda.get_device_name()} has bf16"
        return "fp32", f"{torch.cuda.get_device_name()} has no bf16"
    if accelerator in ("auto", "cpu"):
        flag = next((f for f in ("amx_bf16", "avx512_bf16") if f in processor_flags()), None)
        return ("bf16", f"the processor has {flag}") if flag else ("fp32", "the processor has no bf16 arithmetic")
    return "fp32", f"the safe choice on {accelerator}"


def processor_flags() -> frozenset[str]:
    """Return the processor's feature flags, where the system tells them (Linux)."""
    path = Path("/proc/cpuinfo")
    if platform.system() != "Linux" or not path.is_file():
        return frozenset()
    for line in path.read_text("utf-8", "replace").splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def build_profiler(name: str | None, folder: Path) -> Any:
    """Return Lightning's profiler by name; it writes `fit-profile.txt` into the run's folder. None for none."""
    if name is None:
        return None
    kinds = {"simple": "SimpleProfiler", "advanced": "AdvancedProfiler", "pytorch": "PyTorchProfiler"}
    return getattr(lightning.pytorch.profilers, kinds[name])(dirpath=folder, filename="profile")


def seconds_left(arguments: Mapping[str, Any], spent_s: float) -> float | None:
    """Return what of `max_time` is left after the time that all steps so far have taken; None without such a limit.

    Raises:
        RecipeError: It is no time.
    """
    limit = arguments.get("max_time")
    if limit is None:
        return None
    try:
        left = Timer(duration=limit).time_remaining()
    except (MisconfigurationException, AttributeError, TypeError, ValueError) as error:
        raise RecipeError(
            f"{limit!r} is no time",
            where="trainer.max_time",
            next='write days:hours:minutes:seconds in quotes, such as "00:01:30:00"',
        ) from error
    return None if left is None else max(0.0, left - spent_s)


def build_trainer(
    folder: Path,
    arguments: Mapping[str, Any],
    *,
    epochs: int,
    precision: str,
    callbacks: Sequence[lightning.Callback],
    loggers: Sequence[Any],
    profiler: str | None,
    plugins: Sequence[Any],
) -> lightning.Trainer:
    """Return the Trainer of a run."""
    given = dict(arguments)
    if not isinstance(given.get("devices"), list):
        given["devices"] = n_devices(given)
    if n_devices(given) != 1:
        given.setdefault("strategy", "ddp")
    given.pop("limit_train_batches", None)  # the data module counts the steps
    defaults: dict[str, Any] = {
        "accelerator": "auto",
        "devices": 1,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 10,
    }
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    quiet_lightning()
    try:
        trainer = lightning.Trainer(
            **{**defaults, **given},
            max_epochs=epochs,
            precision=PRECISIONS[precision],  # type: ignore[arg-type]  # a literal of Lightning's
            callbacks=list(callbacks),
            logger=list(loggers) or False,
            profiler=build_profiler(profiler, folder),
            plugins=list(plugins),
            default_root_dir=folder,
            enable_checkpointing=False,
            use_distributed_sampler=False,
            reload_dataloaders_every_n_epochs=1,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise RecipeError(f"Lightning refuses these settings: {error}", where="trainer", next="change them") from error
    # Lightning's own handler of SIGTERM ends the process with code 0 and, with several processes, talks to the others
    # from inside the handler; ours waits for the step's end and saves. There is no option for it.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return trainer


def quiet_lightning() -> None:
    """Silence advice of Lightning's that does not hold here."""
    # One batch is a whole step, made in a millisecond: more workers would only take cores from the arithmetic.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    # A backbone comes in eval mode from `from_pretrained`; the module is put into training mode before the fit.
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
    warnings.filterwarnings("ignore", message=".*Trying to infer the `batch_size`.*")
    # Lightning's own call of a torch function that is being renamed.
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
