"""A bundle's files, and the manifest that vouches for each of them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.errors import BundleError, nearest
from headrace.files import sha256_of_file, write_json

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
LABELS = "labels.json"
BUNDLE = "bundle.json"
RECIPE = "recipe.yaml"
#: All files that a bundle consists of; nothing else in its folder is ever opened.
FILES = (WEIGHTS, CONFIG, TOKENIZER, LABELS, BUNDLE, RECIPE)

_MAX_MANIFEST_BYTES = 1 << 20
# 40 MB are a vocabulary of half a million entries with their merges
_MAX_TEXT_BYTES = {CONFIG: 5 << 20, TOKENIZER: 256 << 20, LABELS: 16 << 20, BUNDLE: 16 << 20, RECIPE: 1 << 20}
_SHA256 = re.compile(r"[0-9a-f]{64}")
COPY_AGAIN = "copy the bundle again, all of its files, or take it from where it was made"
NOT_OURS = "Headrace writes no such file: do not use this bundle, and ask whoever made it"


def write_manifest(folder: Path) -> None:
    """Write manifest.json: bytes and sha256 of each of the bundle's files."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
        for path in (folder / name for name in FILES)
        if path.exists()
    }
    write_json(folder / MANIFEST, {"format": FORMAT_VERSION, "files": files})


@dataclass(frozen=True)
class CheckedFiles:
    """A bundle's folder of which each listed file is what was written; others are never opened."""

    folder: Path
    names: frozenset[str]
    identity: str  # a hash of all their hashes

    def json(self, name: str) -> dict[str, Any]:
        """Return the content of a JSON file, which must be an object.

        Raises:
            BundleError: It is too large or not a JSON object.
        """
        return _json_object(self.folder / name, _MAX_TEXT_BYTES[name])

    def text(self, name: str) -> str:
        """Return the content of a text file.

        Raises:
            BundleError: It is too large or not UTF-8.
        """
        return _text(self.folder / name, _MAX_TEXT_BYTES[name])


def check_files(folder: Path) -> CheckedFiles:
    """Check a bundle's folder against its manifest, before anything else of it is opened.

    Raises:
        BundleError: It is no bundle, a newer format, lists a file that no bundle has, or a listed file is missing,
            truncated, longer or changed.
    """
    manifest = _read_manifest(folder)
    listed = manifest.get("files")
    if not isinstance(listed, dict):
        raise _damaged_manifest(folder, "it lists no files")
    strange = sorted(str(name) for name in listed if name not in FILES)
    if strange:
        raise BundleError(
            f"the manifest lists {strange[0]!r}, which is no file of a bundle", where=str(folder), next=NOT_OURS
        )
    absent = [name for name in FILES if name not in listed]
    if absent:
        raise _damaged_manifest(folder, f"it does not list {absent[0]}")
    for name, entry in listed.items():
        _check_file(folder, name, entry)
    identity = hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
    return CheckedFiles(folder, frozenset(listed), identity)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(
            f"{str(folder)!r} is no bundle: it holds no {MANIFEST}"
            if folder.is_dir()
            else f"there is no bundle {str(folder)!r}",
            where=str(folder),
            next=_other_folder(folder),
        )
    try:
        manifest = _json_object(path, _MAX_MANIFEST_BYTES)
    except BundleError as error:
        raise _damaged_manifest(folder, error.what) from error
    version = manifest.get("format")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise _damaged_manifest(folder, f"its format is {version!r}")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"the bundle has format {version}; this version of Headrace reads up to {FORMAT_VERSION}",
            where=str(path),
            next="pip install --upgrade headrace",
        )
    return manifest


def _other_folder(folder: Path) -> str:
    if (folder / "bundle" / MANIFEST).is_file():
        return f"did you mean {str(folder / 'bundle')!r}? A run's bundle lies in its folder `bundle`"
    neighbours = [path.name for path in folder.parent.iterdir()] if folder.parent.is_dir() else []
    close = nearest(folder.name, [name for name in neighbours if name != folder.name])
    if close and not folder.exists():
        return f"did you mean {str(folder.parent / close)!r}?"
    return "name the folder that `headrace fit` wrote: RUN/bundle"


def _damaged_manifest(folder: Path, reason: str) -> BundleError:
    return BundleError(f"{MANIFEST} is damaged: {reason}", where=str(folder / MANIFEST), next=COPY_AGAIN)


def _check_file(folder: Path, name: str, entry: object) -> None:
    path = folder / name
    n_bytes = entry.get("bytes") if isinstance(entry, dict) else None
    digest = entry.get("sha256") if isinstance(entry, dict) else None
    if not isinstance(n_bytes, int) or not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise _damaged_manifest(folder, f"no size and sha256 for {name}")
    if not path.is_file():
        raise BundleError(f"the bundle's {name} is missing", where=str(path), next=COPY_AGAIN)
    size = path.stat().st_size
    if size != n_bytes:
        how = "truncated" if size < n_bytes else "longer than it was"
        raise BundleError(
            f"the bundle's {name} is {how}: {size:,} bytes, {n_bytes:,} in the manifest",
            where=str(path),
            next=COPY_AGAIN,
        )
    if sha256_of_file(path) != digest:
        raise BundleError(
            f"the bundle's {name} was changed: its sha256 is not the manifest's", where=str(path), next=COPY_AGAIN
        )


def _text(path: Path, most: int) -> str:
    size = path.stat().st_size
    if size > most:
        raise BundleError(f"{path.name} has {size:,} bytes, more than {most:,}", where=str(path), next=NOT_OURS)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{path.name} is not UTF-8: {error}", where=str(path), next=COPY_AGAIN) from error


def _json_object(path: Path, most: int) -> dict[str, Any]:
    text = _text(path, most)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path.name} is not readable JSON: {error}", where=str(path), next=COPY_AGAIN) from error
    if not isinstance(value, dict):
        raise BundleError(f"{path.name} is not a JSON object", where=str(path), next=COPY_AGAIN)
    return value
