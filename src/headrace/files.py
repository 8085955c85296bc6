"""Writes that are whole or not there: temporary file in the target folder, fsync, rename, fsync of the folder."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from headrace.errors import RunError

TEMPORARY_PREFIX = ".tmp-"
_CHUNK_BYTES = 1 << 20


def cache_folder() -> Path:
    """Return the folder for what can be computed anew: `$HEADRACE_CACHE`, else the user's cache folder."""
    named = os.environ.get("HEADRACE_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "headrace"


@contextmanager
def atomic_file(path: Path, *, size_bytes: int | None = None) -> Iterator[BinaryIO]:
    """Open a binary file that appears under `path` only when the block ends without an exception.

    The temporary file stands in the target folder (another file system could not be renamed from), is
    synced before the rename, and the folder after it, so a power cut leaves the old file or the new one.

    Args:
        path: The file.
        size_bytes: What it takes at least, where that is known: an error says so.

    Raises:
        RunError: The disk is full or the folder cannot be written; what stood there before is intact.
    """
    with atomic_path(Path(path), size_bytes=size_bytes) as temporary, open(temporary, "xb") as file:
        yield file
        file.flush()


@contextmanager
def atomic_path(path: Path, *, size_bytes: int | None = None) -> Iterator[Path]:
    """Yield a temporary path in the target folder for a writer that wants a name; see `atomic_file`.

    Raises:
        RunError: The disk is full or the folder cannot be written; what stood there before is intact.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())  # some writers make private files
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()  # what it took counts as free
        raise write_error(path, error, size_bytes=size_bytes) from error
    finally:
        with suppress(OSError):  # no folder to unlink in, or one that is closed: the error above says so
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_error(path: Path, error: OSError, *, size_bytes: int | None = None) -> RunError:
    """Return the clear error for a failed write of `path`, which takes at least `size_bytes` if that is known."""
    free = shutil.disk_usage(existing_parent(path)).free
    reason = error.strerror or str(error)
    in_cache = cache_folder().absolute() in Path(path).absolute().parents
    other = "name another folder in $HEADRACE_CACHE" if in_cache else "choose another folder with --out"
    needed = "" if size_bytes is None else f"at least {size_bytes:,} bytes are needed, and "
    return RunError(
        f"cannot write {path.name}: {reason}",
        where=str(path),
        next=f"{needed}{free:,} bytes are free there; free some space or {other}. "
        "Files that were there before are intact.",
    )


def existing_parent(path: Path) -> Path:
    """Return the nearest folder above `path` that exists."""
    folder = Path(path).absolute().parent
    while not folder.exists():
        folder = folder.parent
    return folder


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_file(path, size_bytes=len(content)) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically; NaN and infinities are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def atomic_folder(path: Path, *, size_bytes: int | None = None) -> Iterator[Path]:
    """Yield a fresh folder beside `path` that takes its place when the block ends without an exception.

    A folder that already stands at `path` is replaced. If another process put one there meanwhile, the last wins.
    What its files take at least is `size_bytes`, where that is known: an error says so.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        temporary.mkdir(parents=True, mode=0o755)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with open(file, "rb") as opened:
                    os.fsync(opened.fileno())
        sync_folder(temporary)
        if path.exists():
            old = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}-old-{path.name}")
            os.rename(path, old)
            os.rename(temporary, path)
            shutil.rmtree(old)
        else:
            os.rename(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)  # what it took counts as free
        raise write_error(path, error, size_bytes=size_bytes) from error
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    if os.name == "nt":  # Windows cannot open a folder; its renames are durable enough
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path, *, older_than_s: float = 3600.0) -> int:
    """Remove temporary files in `folder` whose process is gone or that are old; return how many."""
    removed = 0
    for path in folder.glob(f"{TEMPORARY_PREFIX}*"):
        parts = path.name.removeprefix(TEMPORARY_PREFIX).split("-", 1)
        owner = int(parts[0]) if parts[0].isdigit() else 0
        if is_running(owner) and time.time() - path.lstat().st_mtime < older_than_s:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        removed += 1
    return removed


def is_running(pid: int) -> bool:
    """Tell whether a process with this id lives on this machine."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def sha256_of_file(path: Path) -> str:
    """Return the hexadecimal sha256 of a file's bytes, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(*parts: str | bytes) -> str:
    """Return one hexadecimal sha256 over several parts; the parts' borders count."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8") if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()
