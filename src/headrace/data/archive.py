"""Fetches a published archive by address and sha256."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO

from headrace.data._unpack import unpack
from headrace.errors import DataError
from headrace.files import TEMPORARY_PREFIX, remove_leftovers, sha256_of_file, sync_folder, write_error

SCHEMES = ("http", "https", "file")
N_ATTEMPTS = 4
WAIT_S = 1.0  # doubled before each further attempt: 1 + 2 + 4 s in all
_TIMEOUT_S = 30.0
_CHUNK_BYTES = 1 << 20
MAX_DOWNLOAD_BYTES = 64 << 30
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers that another attempt may change

Progress = Callable[[int, int | None], None]

logger = logging.getLogger(__name__)


def fetch(url: str, sha256: str | None, *, cache: Path, progress: Progress | None = None) -> Path:
    """Return the folder of an unpacked archive, fetching it if it is not there yet.

    Args:
        url: The archive's address: http, https or file.
        sha256: What the archive's bytes must hash to, 64 hexadecimal digits.
        cache: Folder for downloads and for unpacked archives (`archives/<sha256>/`).
        progress: Told after each piece: bytes so far, and bytes in all if known.

    Raises:
        DataError: The address cannot be read, the sha256 is missing or another one, or the archive is damaged or
            unsafe (see `unpack`). Nothing is left but, where the sha256 is missing, the download.
    """
    _require_scheme(url)
    expected = _checked(sha256, url)
    folder = cache / "archives" / (expected or "")
    if expected is not None and folder.is_dir():
        return folder
    downloads = cache / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    remove_leftovers(downloads)
    file = downloads / expected if expected is not None else None
    if file is None or not file.is_file():
        file = _download_as_hash(url, downloads, progress)
    if expected is None:
        raise DataError(
            f"data.sha256 is missing, so nothing tells whether {_shown(url)} is the file that you mean; "
            f"what came has the sha256 {file.name}",
            where="data.url",
            next=f"compare it with what the publisher states, then add below url:  sha256: {file.name}",
        )
    found = sha256_of_file(file)
    if found != expected:
        file.unlink()
        raise DataError(
            f"{_shown(url)} has the sha256 {found}, not {expected}; the file was deleted",
            where="data.sha256",
            next="try again if the download was cut; if the publisher changed the file, state its new sha256",
        )
    _unpack_whole(file, folder, source=_shown(url))
    file.unlink(missing_ok=True)  # what was unpacked is all that is needed
    return folder


def _unpack_whole(file: Path, folder: Path, *, source: str) -> None:
    """Unpack so that `folder` is there whole or not at all.

    Not by `atomic_folder`: it syncs file by file, at 3 ms each five minutes for the 100,000 files of IMDb. One sync
    of everything before the rename does the same.
    """
    temporary = folder.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}-{folder.name}")
    try:
        temporary.mkdir(parents=True, mode=0o700)
        remove_leftovers(folder.parent)
        unpack(file, temporary, source=source)
        temporary.chmod(0o755)
        if hasattr(os, "sync"):  # Windows has none; its sha256-named folder is only as safe as its file system
            os.sync()
        if not folder.is_dir():  # another process may have been faster; its folder holds the same
            os.rename(temporary, folder)
        sync_folder(folder.parent)
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def _checked(sha256: str | None, url: str) -> str | None:
    if sha256 is None or not sha256.strip():
        return None
    lowered = sha256.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}", lowered):
        raise DataError(
            f"{sha256!r} is not a sha256; it has 64 hexadecimal digits",
            where="data.sha256",
            next=f"copy it again, or leave it out once: the error then states the sha256 of {_shown(url)}",
        )
    return lowered


def _require_scheme(url: str) -> None:
    scheme = urllib.parse.urlsplit(url).scheme.lower()
    if scheme not in SCHEMES:
        raise DataError(
            f"cannot fetch {_shown(url)}: the address must begin with http://, https:// or file://",
            where="data.url",
            next="give such an address, or download the file and name its folder as data.train",
        )


def _shown(url: str) -> str:
    """Return the address without user, password and query, which may hold secrets."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _download_as_hash(url: str, downloads: Path, progress: Progress | None) -> Path:
    """Download into a file that is named by its sha256."""
    temporary = downloads / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}-download"
    try:
        with open(temporary, "xb") as file:
            _download(url, file, progress)
        target = downloads / sha256_of_file(temporary)
        os.replace(temporary, target)
        return target
    except OSError as error:
        raise write_error(temporary, error) from error
    finally:
        temporary.unlink(missing_ok=True)


class _BrokenOff(Exception):
    """The transfer ended early, in a way that another attempt may mend."""


def _download(url: str, file: BinaryIO, progress: Progress | None) -> None:
    """Download into `file`; an attempt that breaks off is taken up where it ended, if the server can do that."""
    wait_s = WAIT_S
    for attempt in range(1, N_ATTEMPTS + 1):
        try:
            _attempt(url, file, progress)
            return
        except _BrokenOff as error:
            if attempt == N_ATTEMPTS:
                raise _unreachable(url, f"{error} ({N_ATTEMPTS} attempts)") from error
            logger.info("attempt %d at %s ended: %s", attempt, _shown(url), error)
            time.sleep(wait_s)
            wait_s *= 2


def _attempt(url: str, file: BinaryIO, progress: Progress | None) -> None:
    n_done = file.tell()
    with _open(url, n_done) as response:
        if n_done and not response.headers.get("Content-Range", "").startswith(f"bytes {n_done}-"):
            n_done = 0  # the server sends the whole again
            file.seek(0)
            file.truncate()
        stated = response.headers.get("Content-Length", "")
        n_bytes = n_done + int(stated) if stated.isdecimal() else None
        while piece := _read(response):
            n_done += len(piece)
            if n_done > MAX_DOWNLOAD_BYTES:
                raise DataError(
                    f"{_shown(url)} is larger than {MAX_DOWNLOAD_BYTES:,} bytes",
                    where="data.url",
                    next="download and unpack it yourself, and name its folder as data.train",
                )
            file.write(piece)
            if progress is not None:
                progress(n_done, n_bytes)
    if n_bytes is not None and n_done != n_bytes:
        raise _BrokenOff(f"the connection ended after {n_done:,} of {n_bytes:,} bytes")


def _open(url: str, n_done: int) -> Any:
    """Open the address, from byte `n_done` on if the server can do that."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "headrace"})
        if n_done:
            request.add_header("Range", f"bytes={n_done}-")
        return _opener().open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"the server answers {error.code} {error.reason}"
        if error.code in _PASSING:
            raise _BrokenOff(reason) from error
        raise _unreachable(url, reason) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _BrokenOff(f"no answer within {_TIMEOUT_S:g} s") from error
        cause = error.reason.strerror if isinstance(error.reason, OSError) else None
        raise _unreachable(url, cause or str(error.reason)) from error
    except (OSError, HTTPException, ValueError) as error:
        raise _unreachable(url, str(error)) from error


def _read(response: Any) -> bytes:
    try:
        return bytes(response.read(_CHUNK_BYTES))
    except (OSError, HTTPException) as error:
        raise _BrokenOff(f"the connection broke: {error}") from error


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener for http, https and file, and no other scheme, redirects included."""
    opener = urllib.request.OpenerDirector()
    for kind in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.FileHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(kind())
    return opener


def _unreachable(url: str, reason: str) -> DataError:
    return DataError(
        f"cannot fetch {_shown(url)}: {reason}",
        where="data.url",
        next="check the network and the address, or download and unpack it yourself and name its folder as data.train",
    )
