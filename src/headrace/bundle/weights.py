"""A bundle's weights: safetensors that are looked through before any tensor is taken."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from headrace.bundle.manifest import CONFIG, COPY_AGAIN, NOT_OURS, WEIGHTS, CheckedFiles
from headrace.errors import BundleError, ModelError

# name, type, shape and place of a tensor take some 150 bytes in the header
_HEADER_BYTES_PER_TENSOR = 1024
_FLOATS = "F32"
_ANY = 1 << 20  # tensors, more than any model has


Model = TypeVar("Model", bound=nn.Module)


def read_model(checked: CheckedFiles, build: Callable[[dict[str, Any]], Model]) -> Model:
    """Return the model with the file's weights; what is not in the file is refused, never left random.

    Args:
        checked: The bundle's files.
        build: Makes the model of a config, with random weights.

    Raises:
        BundleError: The config or the weights are damaged, or do not fit each other.
    """
    config = checked.json(CONFIG)
    try:
        # Shapes alone: an absurd config takes no memory. To draw there would import torch's compiler, two seconds.
        with torch.device("meta"), Unfilled(_ANY):
            expected = build(config).state_dict()
        tensors = read_weights(checked.folder / WEIGHTS, expected)
        with torch.random.fork_rng(devices=[]), Unfilled(len(expected)):
            model = build(config)
    except ModelError as error:
        raise BundleError(
            error.what, where=str(checked.folder / CONFIG), next=error.next or "take the original bundle"
        ) from error
    model.load_state_dict(tensors, strict=True)
    return model.eval()


def save_weights(model: nn.Module, path: Path) -> None:
    """Write all parameters and kept buffers of a model as safetensors, float32 on the CPU.

    Raises:
        OSError: The disk is full or the folder cannot be written.
    """
    state = {name: tensor.detach().to("cpu").contiguous() for name, tensor in model.state_dict().items()}
    written = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    try:
        save_file(written, str(path))
    except SafetensorError as error:
        raise OSError(str(error)) from error


def weights_bytes(model: nn.Module) -> int:
    """Return the bytes that `save_weights` writes at least."""
    tensors = model.state_dict().values()
    return sum(tensor.numel() * (4 if tensor.is_floating_point() else tensor.itemsize) for tensor in tensors)


def read_weights(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file that holds exactly what a model needs.

    The header is read by itself first: its length, names, types and shapes are checked before any tensor is mapped.

    Args:
        path: The file.
        expected: The state dict of a model of that config; only shapes and types are looked at.

    Raises:
        BundleError: The file is truncated, its header is absurd, a tensor is missing, unknown, of another shape or
            type, or not finite; each says so in its own words.
    """
    header = _header(path, n_expected=len(expected))
    where = str(path)
    for fault, names in (("lacks", set(expected) - set(header)), ("holds unknown", set(header) - set(expected))):
        if names:
            raise BundleError(
                f"{path.name} {fault} {_counted(names)} of the model in {CONFIG}",
                where=where,
                next="take weights and config of one bundle; Headrace never fills in random weights",
            )
    for name, tensor in expected.items():
        entry = header[name]
        if entry.get("shape") != list(tensor.shape):
            raise BundleError(
                f"{path.name}: {name} has the shape {entry.get('shape')}, the model in {CONFIG} {list(tensor.shape)}",
                where=where,
                next="take weights and config of one bundle",
            )
        if tensor.is_floating_point() and entry.get("dtype") != _FLOATS:
            raise BundleError(
                f"{path.name}: {name} has the type {entry.get('dtype')}, not {_FLOATS}", where=where, next=NOT_OURS
            )
    try:
        tensors = load_file(str(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(
            f"{path.name} is not a whole safetensors file: {error}", where=where, next=COPY_AGAIN
        ) from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not math.isfinite(float(tensor.sum())) and not _is_finite(tensor):
            raise BundleError(
                f"{path.name}: {name} holds NaN or infinity",
                where=where,
                next="the training that wrote it diverged: train again with a lower fit.learning_rate",
            )
    return tensors


class Unfilled(TorchFunctionMode):
    """Leaves out the random filling of new weights, 1.7 s for BERT base; the caller then loads every one of them.

    Args:
        n_tensors: How many tensors there are. After some fills of each the rest is filled as ever: a family may draw
            until what it drew suits it.
    """

    _RANDOM = frozenset({"normal_", "uniform_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_"})

    def __init__(self, n_tensors: int) -> None:
        super().__init__()
        self._n_left = 8 * n_tensors

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") in self._RANDOM and self._n_left > 0:
            self._n_left -= 1
            tensor = args[0] if args else kwargs["tensor"]
            with torch.no_grad():
                return tensor.zero_()  # within the usual bounds of those that draw anew while out of bounds
        return function(*args, **kwargs)


def _is_finite(tensor: Tensor) -> bool:
    # a sum may overflow where no value is infinite; only then each is looked at
    return bool(torch.isfinite(tensor).all())


def _header(path: Path, *, n_expected: int) -> dict[str, dict[str, Any]]:
    """Return name -> entry of a safetensors header, without its metadata."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or 8 + length > size:
            raise BundleError(
                f"{path.name} is truncated: its header of {length:,} bytes does not fit into the file's {size:,}",
                where=str(path),
                next=COPY_AGAIN,
            )
        most = _HEADER_BYTES_PER_TENSOR * (n_expected + 100)
        if length > most:
            raise BundleError(
                f"{path.name} describes far more tensors than the {n_expected:,} of the model in {CONFIG}: "
                f"its header has {length:,} bytes",
                where=str(path),
                next=NOT_OURS,
            )
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"))
        entries = {name: dict(entry) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"the header of {path.name} is not readable: {error}", where=str(path), next=COPY_AGAIN
        ) from error
    return entries


def _counted(names: set[str]) -> str:
    shown = sorted(names)[:3]
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return f"{len(names):,} tensor{'s' if len(names) > 1 else ''} ({', '.join(shown)}{more})"
