"""Loads a data set from the Hugging Face hub."""

from __future__ import annotations

import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.errors import DataError

PREFIX = "hub:"
EXAMPLE = "hub:nyu-mll/multi_nli#train, or in full hub:OWNER/NAME@REVISION:CONFIG#SPLIT"
_SYNTAX = re.compile(
    r"hub:(?P<owner>[A-Za-z0-9][\w.-]*)/(?P<name>\w[\w.-]*)"
    r"(?:@(?P<revision>[\w./-]+))?"
    r"(?::(?P<config>[^\s:#@/]+))?"
    r"(?:#(?P<split>\w[\w.-]*(?:\[[^\[\]#]*\])?))?",
    re.ASCII,
)
# The hub's data sets call it "validation"; the recipe's key is `valid`.
_HUB_NAMES = {"valid": "validation"}
_PROBE_S = 3.0


@dataclass(frozen=True)
class HubSource:
    """A data set on the hub, as a recipe names it."""

    repository: str
    revision: str | None = None
    config: str | None = None
    split: str | None = None


def parse(source: str) -> HubSource:
    """Read `hub:OWNER/NAME[@REVISION][:CONFIG][#SPLIT]`.

    Raises:
        DataError: It is not written like that.
    """
    found = _SYNTAX.fullmatch(source)
    if found is None:
        raise DataError(
            f"{source!r} does not name a data set on the hub", where=source, next=f"write it like {EXAMPLE}"
        )
    return HubSource(
        repository=f"{found['owner']}/{found['name']}",
        revision=found["revision"],
        config=found["config"],
        split=found["split"],
    )


def load(source: str, *, default_split: str, columns: Sequence[str] = ()) -> Any:
    """Return one split of a data set on the hub as a `datasets.Dataset`, memory-mapped from the hub's own cache.

    No code of the data set is ever run: `datasets` 4 and later load data only.

    Args:
        source: `hub:OWNER/NAME[@REVISION][:CONFIG][#SPLIT]`.
        default_split: The split where the source names none; `valid` stands for the hub's `validation`.
        columns: Those that are strings as they are written, also where the data set is a CSV file.

    Raises:
        DataError: The source is misspelt, the hub cannot be reached, or it has no such data set, revision,
            configuration or split.
    """
    wanted = parse(source)
    if Path(wanted.repository).exists():
        raise DataError(
            f"the folder {wanted.repository!r} here would be read in place of the hub's data set of that name",
            where=source,
            next="run headrace in another folder, or name the folder's files without 'hub:'",
        )
    import datasets  # half a second; only those who load from the hub wait for it
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    _require_reachable(source, endpoint=datasets.config.HF_ENDPOINT, is_offline=datasets.config.HF_HUB_OFFLINE)
    split = wanted.split or _HUB_NAMES.get(default_split, default_split)
    # The base of the hub's errors is that of its HTTP library, whose package differs between versions.
    kinds = (OSError, ValueError, RuntimeError, DatasetsError, *HfHubHTTPError.__bases__)
    try:
        as_written = _as_written(wanted, columns, is_offline=datasets.config.HF_HUB_OFFLINE)
        return datasets.load_dataset(
            wanted.repository, wanted.config, split=split, revision=wanted.revision, **as_written
        )
    except kinds as error:
        raise _explained(source, wanted, split, error) from error


def _as_written(wanted: HubSource, columns: Sequence[str], *, is_offline: bool) -> dict[str, Any]:
    """Return what keeps pandas, by which `datasets` reads CSV, from taking `NA` for nothing and `01` for a number."""
    from datasets import load_dataset_builder

    for_csv = {"converters": dict.fromkeys(columns, str), "keep_default_na": False}
    try:
        builder = load_dataset_builder(wanted.repository, wanted.config, revision=wanted.revision)
    except ValueError:
        if not is_offline:
            raise
        return for_csv  # a copy is found by the options that it was read with, and without them there is none
    return for_csv if hasattr(builder.config, "keep_default_na") else {}


def _explained(source: str, wanted: HubSource, split: str, error: Exception) -> DataError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, ConnectionError):
        return _offline(source, reason)
    parts = f"split {split!r}"
    if wanted.config:
        parts += f", configuration {wanted.config!r}"
    if wanted.revision:
        parts += f", revision {wanted.revision!r}"
    return DataError(
        f"cannot load {wanted.repository} ({parts}) from the hub: {reason}",
        where=source,
        next=f"check the names at https://huggingface.co/datasets/{wanted.repository} and write the source like "
        f"{EXAMPLE}; a gated data set needs `hf auth login`",
    )


def _offline(source: str, reason: str) -> DataError:
    return DataError(
        f"the hub cannot be reached, and no copy of the data set is here: {reason}",
        where=source,
        next="check the network, or name a file; with a copy from an earlier run, set HF_HUB_OFFLINE=1",
    )


def _require_reachable(source: str, *, endpoint: str, is_offline: bool) -> None:
    """Knock at the hub's door once: its client would knock for 23 s where nobody is."""
    address = urllib.parse.urlsplit(endpoint)
    host = address.hostname or ""
    proxies = urllib.request.getproxies()
    is_proxied = (address.scheme in proxies or "all" in proxies) and not urllib.request.proxy_bypass(host)
    if is_offline or is_proxied:
        return
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), timeout=_PROBE_S).close()
    except OSError as error:
        raise _offline(source, f"{host}:{port}: {error.strerror or error}") from error
