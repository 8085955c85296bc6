"""Reads a folder per label: each subfolder is a label, each of its .txt files a text."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from headrace.data.columns import Columns
from headrace.data.faults import Faults
from headrace.data.rows import MAX_TEXT_BYTES, Record, too_long
from headrace.data.textfile import checked_codec, refuse_other_encoding, undecodable, unreadable
from headrace.errors import DataError, suggestion

_SUFFIX = ".txt"


def folder_labels(folder: Path, columns: Columns, *, source: str) -> tuple[str, ...]:
    """Return the label folders in the order in which they are read.

    Args:
        folder: The folder above them.
        columns: `labels` chooses the folders; without it every subfolder with .txt files is a label.
        source: What a message calls the folder.

    Raises:
        DataError: There is no such folder, none has texts, or pairs or several labels a text are asked for.
    """
    if len(columns.text) > 1 or columns.has_label_lists:
        asked = "pairs of texts" if len(columns.text) > 1 else "several labels for a text"
        raise DataError(
            f"a folder per label cannot give {asked}", where=source, next="use a .csv, .tsv, .jsonl or .parquet file"
        )
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    missing = [name for name in columns.labels if name not in found]
    if missing:
        raise DataError(
            f"there is no folder for the label {missing[0]!r}",
            where=source,
            next=suggestion(missing[0], found) if found else "give the folder that holds a folder per label",
        )
    labels = columns.labels or tuple(name for name in found if _has_texts(folder / name))
    if not labels:
        raise DataError(
            "no folder in it holds .txt files",
            where=source,
            next="give a folder that holds a folder per label, each with one .txt file a text, or a data file",
        )
    return labels


def is_flat(folder: Path) -> bool:
    """Tell whether the folder itself holds texts and none of its subfolders does, as unlabelled texts do."""
    return _has_texts(folder) and not any(_has_texts(path) for path in folder.iterdir() if path.is_dir())


def files_of(folder: Path, labels: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield (label, path inside the folder) of each text, in natural order; without labels, of the folder's own."""
    for label in labels or ("",):
        for name in sorted(_text_names(folder / label), key=_natural):
            yield label, f"{label}/{name}" if label else name


def folder_sha256(folder: Path, labels: tuple[str, ...]) -> str:
    """Return the sha256 over the names and contents of the texts."""
    digest = hashlib.sha256()
    for _, name in files_of(folder, labels):
        with open(folder / name, "rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        digest.update(os.fsencode(name) + b"\0" + content)
    return digest.hexdigest()


def folder_records(
    folder: Path, labels: tuple[str, ...], faults: Faults, *, encoding: str | None, with_label: bool
) -> Iterator[Record]:
    """Yield (1, [text, label, path inside the folder]) of each text; a file that cannot be used goes to `faults`."""
    codec = checked_codec(encoding)
    for label, name in files_of(folder, labels):
        path = folder / name
        shown = os.fsencode(name).decode("utf-8", "replace")
        try:
            size = path.stat().st_size
            if size > 4 * MAX_TEXT_BYTES:  # before it is in memory; no encoding is shorter than UTF-8 by more
                bad = too_long("text", f"{size:,}")
                faults.add(f"/{shown}:1", bad.what, bad.next)
                continue
            content = path.read_bytes()
            if encoding is None:
                refuse_other_encoding(path, source=f"{faults.source}/{shown}")
            text = content.decode("utf-8-sig" if codec == "utf-8" else codec)
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            what, place, advice = undecodable(error, codec, place=f"/{shown}:{line} (byte {error.start:,})")
            faults.add(place, what, advice)
            continue
        except DataError as bad_file:
            faults.add(f"/{shown}:1", bad_file.what, bad_file.next or "mend the file")
            continue
        except OSError as error:
            raise unreadable(f"{faults.source}/{shown}", error) from error
        yield 1, [text, label, shown] if with_label else [text, shown]


def _text_names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [e.name for e in entries if e.name.endswith(_SUFFIX) and not e.name.startswith(".") and e.is_file()]


def _has_texts(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(e.name.endswith(_SUFFIX) and not e.name.startswith(".") and e.is_file() for e in entries)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a key that puts 2.txt before 10.txt."""
    parts = re.split(r"([0-9]+)", name)
    # A name's parts alternate between text and number, so like stands against like; "01" comes before "1".
    return [(1, int(part), part) if part[:1].isdecimal() and part.isascii() else (0, 0, part) for part in parts]
