"""Reads labelled texts from a file, a folder per label, an archive, the hub or memory into memory-mapped Examples."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from headrace.data import arrow, delimited, folder, memory, tabular
from headrace.data.columns import Columns
from headrace.data.examples import Examples
from headrace.data.faults import Faults
from headrace.data.rows import Record, batches
from headrace.data.textfile import checked_codec, suffix_of, unreadable
from headrace.errors import DataError, RunError, nearest
from headrace.files import atomic_folder, cache_folder, remove_leftovers, sha256_of, sha256_of_file

__all__ = ["Archived", "Columns", "read"]

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")
HUB_PREFIX = "hub:"
_FORMAT_ADVICE = "use .csv, .tsv, .jsonl or .parquet (each also .gz), a folder per label, or hub:owner/name"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archived:
    """A file or folder inside a published archive.

    Attributes:
        url: Where the archive is.
        sha256: Of the archive; without it nothing is read, and the error tells the hash that was found.
        path: Of the file or folder inside it.
        progress: Called with (bytes fetched, bytes in all if known) while it is fetched.
    """

    url: str
    sha256: str | None
    path: str
    progress: Callable[[int, int | None], None] | None = None


@dataclass(frozen=True)
class _Opened:
    """A source whose columns are known and whose content has been hashed."""

    name: str
    columns: Columns
    content: str
    records: Callable[[Faults], Iterator[Record]]
    has_file: bool = False


@dataclass(frozen=True)
class _Options:
    encoding: str | None
    cache: Path
    label_required: bool


def read(
    source: Any,
    columns: Columns,
    *,
    on_bad_row: Literal["error", "skip"] = "error",
    encoding: str | None = None,
    cache: Path | None = None,
    label_required: bool = True,
    split: str = "train",
    called: str | None = None,
) -> Examples:
    """Read a source into Examples that stay on disk; an equal source that was read before is only opened.

    Args:
        source: Path of a file or a folder per label, `hub:owner/name[@revision][:config][#split]`, Archived,
            or in memory: a list of dicts, a pandas.DataFrame, a datasets.Dataset.
        columns: Which columns hold what.
        on_bad_row: `error` raises all faults of the source together; `skip` leaves such rows out and lists them.
        encoding: Of text files; None for UTF-8.
        cache: Where the Arrow file is kept, under `examples/`; None for the user's cache folder.
        label_required: Whether a row without a label is a fault. Multi-label rows may have none of the labels.
        split: The split of a hub data set whose reference names none.
        called: What a message calls rows in memory; by default the split.

    Raises:
        DataError: The source cannot be read, has faults, or has no row.
    """
    options = _Options(encoding=encoding, cache=cache or cache_folder(), label_required=label_required)
    _begin_cache(options.cache / "examples")
    opened = _open(source, columns, options, split, called or split)
    key = sha256_of(
        str(arrow.FORMAT_VERSION),
        opened.content,
        json.dumps([astuple(opened.columns), on_bad_row, encoding, label_required]),
    )
    kept = options.cache / "examples" / key
    examples = arrow.open_kept(kept, source=opened.name)
    if examples is None:
        _write(kept, opened, skip=on_bad_row == "skip", label_required=label_required)
        examples = arrow.open_kept(kept, source=opened.name)
    if examples is None:
        raise RunError("what was just written cannot be read back", where=str(kept), next="check that disk")
    if examples.n_bad_rows:
        n_bad, n_listed = examples.n_bad_rows, len(examples.bad_rows)
        listed = f", of which the first {n_listed:,} are listed" if n_listed < n_bad else ""
        shown = "1 bad row is" if n_bad == 1 else f"{n_bad:,} bad rows are"
        _log.warning("%s: %s left out%s", opened.name, shown, listed)
    return examples


def _begin_cache(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"cannot use the cache folder: {error.strerror}", where=str(folder), next="name another in $HEADRACE_CACHE"
        ) from error
    remove_leftovers(folder)


def _write(kept: Path, opened: _Opened, *, skip: bool, label_required: bool) -> None:
    faults = Faults(opened.name, skip=skip, has_recipe=opened.columns.has_recipe)
    checked = batches(
        opened.records(faults), opened.columns, faults, label_required=label_required, has_file=opened.has_file
    )
    try:
        with delimited.long_fields(), atomic_folder(kept) as target:
            arrow.write(target, checked, arrow.schema_of(opened.columns, has_file=opened.has_file), faults)
    except RunError:
        # Another process (a rank of the same run) may have put the same content there first.
        if arrow.open_kept(kept, source=opened.name) is None:
            raise


def _open(source: Any, columns: Columns, options: _Options, split: str, called: str) -> _Opened:
    if isinstance(source, Archived):
        return _open_archived(source, columns, options)
    if isinstance(source, str) and source.startswith(HUB_PREFIX):
        from headrace.data import hub

        return _open_memory(hub.load(source, default_split=split, columns=columns.names), columns, options, name=source)
    if isinstance(source, str | Path):
        return _open_path(Path(source).expanduser(), columns, options, name=str(source))
    return _open_memory(source, columns, options, name=called)


def _open_archived(source: Archived, columns: Columns, options: _Options) -> _Opened:
    from headrace.data import archive

    root = Path(archive.fetch(source.url, source.sha256, cache=options.cache, progress=source.progress))
    path = root / source.path
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(
            f"the path {source.path!r} leads out of the archive",
            where="data.url",
            next="give a path inside the archive",
        )
    return _open_path(path, columns, options, name=source.path)


def _open_memory(source: Any, columns: Columns, options: _Options, *, name: str) -> _Opened:
    found = memory.in_memory(source, columns, label_required=options.label_required, name=name)
    content = memory.records_sha256(found.records(Faults(found.name, skip=True)))
    return _Opened(found.name, found.columns, content, found.records)


def _open_path(path: Path, columns: Columns, options: _Options, *, name: str) -> _Opened:
    checked_codec(options.encoding)
    if not path.exists():
        raise _not_there(path, name)
    try:
        if path.is_dir():
            return _open_folder(path, columns, options, name)
        return _open_file(path, columns, options, name)
    except OSError as error:
        raise unreadable(name, error) from error


def _open_folder(path: Path, columns: Columns, options: _Options, name: str) -> _Opened:
    if columns.slices:
        raise DataError(
            f"a folder of texts has no column {columns.slices[0]!r}",
            where=name,
            next="remove data.slices, or give a file with columns",
        )
    flat = not options.label_required and not columns.labels and folder.is_flat(path)
    labels = () if flat else folder.folder_labels(path, columns, source=name)
    # The column names of a folder are ours: what the recipe says of columns does not apply.
    named = replace(columns, text=("text",), label=("label",) if labels and columns.label else (), labels=labels)
    return _Opened(
        name,
        named,
        folder.folder_sha256(path, labels),
        lambda faults: folder.folder_records(
            path, labels, faults, encoding=options.encoding, with_label=bool(named.label)
        ),
        has_file=True,
    )


def _open_file(path: Path, columns: Columns, options: _Options, name: str) -> _Opened:
    suffix = _format(path, name)
    if not path.stat().st_size:
        raise DataError("the file is empty", where=name, next="give a file with at least one text")
    required, encoding, scratch = options.label_required, options.encoding, options.cache / "examples"
    records: Callable[[Faults], Iterator[Record]]
    if suffix == ".parquet":
        wanted = tabular.parquet_columns(path, columns, source=name, folder=scratch, label_required=required)
        records = lambda _: tabular.parquet_records(path, wanted, source=name, folder=scratch)  # noqa: E731
    elif suffix == ".jsonl":
        wanted = tabular.json_columns(path, columns, source=name, encoding=encoding, label_required=required)
        records = lambda faults: tabular.json_records(  # noqa: E731
            path, wanted, faults, source=name, encoding=encoding, label_required=required
        )
    else:
        with delimited.long_fields():
            wanted = delimited.columns_of(path, columns, source=name, encoding=encoding, label_required=required)
        records = partial(_delimited_records, path, wanted, name, encoding)
    # The format belongs to the content: the same bytes as .csv and .tsv hold different rows.
    return _Opened(name, wanted, f"{suffix}:{path.suffix}:{sha256_of_file(path)}", records)


def _delimited_records(
    path: Path, columns: Columns, name: str, encoding: str | None, faults: Faults
) -> Iterator[Record]:
    return delimited.records(path, columns, faults, source=name, encoding=encoding)


def _format(path: Path, name: str) -> str:
    suffix = suffix_of(path)
    if suffix not in FORMATS:
        what = (
            f"files ending in {suffix!r} cannot be read"
            if suffix
            else "the file's name has no ending that tells its format"
        )
        raise DataError(what, where=name, next=_FORMAT_ADVICE)
    return suffix


def _not_there(path: Path, name: str) -> DataError:
    parent = path.parent
    if not parent.is_dir():
        return DataError(
            f"there is no file {name!r}: its folder does not exist",
            where=str(parent),
            next="check the path; in a recipe it is relative to the recipe's folder",
        )
    names = [found.name for found in parent.iterdir() if not found.name.startswith(".")]
    close = nearest(path.name, names)
    return DataError(
        f"there is no file {name!r}",
        where=name,
        next=f"did you mean {str(Path(name).parent / close)!r}?" if close else f"check the path; {_FORMAT_ADVICE}",
    )
