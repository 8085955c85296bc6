"""From the recipe's data settings to the rows and targets of each split, looked over: all that needs no tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headrace.data.audit import Finding, audit
from headrace.data.balance import downsample
from headrace.data.examples import Examples, LabelSet
from headrace.data.kept import kept_arrays, kept_findings
from headrace.data.labels import label_set, targets
from headrace.data.read import Columns, read
from headrace.data.split import limit, split
from headrace.errors import DataError
from headrace.files import cache_folder
from headrace.train.fetching import Progress, placed
from headrace.train.stored import as_given


@dataclass(frozen=True)
class DataPlan:
    """What is read, and how it becomes training, validation and test rows; plain values.

    Attributes:
        train, valid, test: Paths, `hub:` references or objects in memory. Without `valid`, `valid_share` of train.
        url, sha256: Of the archive that the paths are in; without the hash it is fetched and not read.
        tokenizer: Folder or hub id of the tokenizer; `awd_lstm` for the words of the training texts.
        downsample: `rows` and `to` of data.downsample, or None.
    """

    train: Any
    columns: Columns
    tokenizer: str
    valid: Any = None
    test: Any = None
    valid_share: float = 0.1
    revision: str | None = None
    url: str | None = None
    sha256: str | None = None
    max_length: int = 256
    truncate: str = "head"
    limit: int | None = None
    downsample: Mapping[str, Any] | None = None
    on_bad_row: Literal["error", "skip"] = "error"
    encoding: str | None = None
    allow: tuple[str, ...] = ()
    seed: int = 13


@dataclass(frozen=True)
class RowsPart:
    """One split before it has tokens.

    Attributes:
        source: All that was read from its file.
        rows: [rows] int64, which of them are in this split.
        examples: They themselves.
        targets: [rows] int64 (single label) or [rows, labels] float32.
    """

    name: str
    source: Examples
    rows: np.ndarray
    examples: Examples
    targets: np.ndarray

    @classmethod
    def of(cls, name: str, source: Examples, rows: np.ndarray, labels: LabelSet) -> RowsPart:
        """Take rows of a source.

        Raises:
            DataError: There are none, or they have labels that `labels` lacks.
        """
        examples = source.take(rows)
        if not len(examples):
            raise DataError(
                f"the {name} split has no rows", where=source.source, next="give more rows, or a larger share"
            )
        return cls(name, source, np.asarray(rows, dtype=np.int64), examples, targets(examples, labels))


@dataclass(frozen=True)
class Rows:
    """What was read, and which of it trains, validates and tests; no tokens yet.

    Attributes:
        findings: Those that `allow` does not name.
    """

    train: RowsPart
    valid: RowsPart
    test: RowsPart | None
    labels: LabelSet
    findings: tuple[Finding, ...]

    @property
    def sources(self) -> list[Examples]:
        """What was read, each file once."""
        parts = [part for part in (self.train, self.valid, self.test) if part is not None]
        return list({id(part.source): part.source for part in parts}.values())


def read_rows(plan: DataPlan, *, cache: Path | None = None, progress: Progress | None = None) -> Rows:
    """Read, check, split and audit: all of `prepare` that needs no tokenizer.

    Args:
        plan: What is read, and how.
        cache: None for the user's cache folder.
        progress: Told how much of an archive is fetched.

    Raises:
        DataError: A file is missing or has bad rows, all faults of a file together; or a split has no rows.
    """
    cache = cache or cache_folder()
    if plan.train is None:
        raise DataError(
            "no training data is named", where="data.train", next="--set data.train=FILE, or write it there"
        )
    whole = _read(plan, plan.train, "train", cache, progress)
    if plan.limit is not None and plan.limit < len(whole):
        whole = whole.take(limit(whole, n=plan.limit, seed=plan.seed))
    labels = label_set(whole, names=plan.columns.labels)
    own_valid = None if plan.valid is None else _read(plan, plan.valid, "valid", cache, progress)
    test = None if plan.test is None else _read(plan, plan.test, "test", cache, progress)
    if own_valid is None:
        train, valid = kept_arrays(
            cache,
            "splits",
            whole.content_key(),
            f"{plan.valid_share!r} {plan.seed}",
            compute=lambda: split(whole, share=plan.valid_share, seed=plan.seed),
        )
    else:
        train, valid = np.arange(len(whole)), np.arange(len(own_valid))
    train, findings = _balanced(plan, whole, train, labels)
    parts = (
        RowsPart.of("train", whole, train, labels),
        RowsPart.of("valid", whole if own_valid is None else own_valid, valid, labels),
    )
    tested = None if test is None else RowsPart.of("test", test, np.arange(len(test)), labels)
    # What was divided here is looked at as its source has it, so that the numbers are those of the file.
    divided = whole.take(np.union1d(train, valid)) if own_valid is None else None
    findings += _audited(parts[0].examples, parts[1].examples, test, labels, cache, divided)
    return Rows(*parts, tested, labels, tuple(f for f in findings if f.code not in plan.allow))


def _audited(
    train: Examples,
    valid: Examples,
    test: Examples | None,
    labels: LabelSet,
    cache: Path,
    divided: Examples | None,
) -> list[Finding]:
    depends_on = [*labels.names]
    for part in (train, valid, test, divided):
        # a finding names file and row, and the rows that could not be read are no part of the content
        depends_on += ["none"] if part is None else [part.content_key(), part.source, repr(part.bad_rows)]
    return kept_findings(cache, *depends_on, compute=lambda: audit(train, valid, test, labels, divided=divided))


def _read(plan: DataPlan, source: Any, split_name: str, cache: Path, progress: Progress | None) -> Examples:
    with placed(source, url=plan.url, sha256=plan.sha256, progress=progress) as place:
        found = read(
            place, plan.columns, on_bad_row=plan.on_bad_row, encoding=plan.encoding, cache=cache, split=split_name
        )
    return as_given(found)


def _balanced(plan: DataPlan, whole: Examples, rows: np.ndarray, labels: LabelSet) -> tuple[np.ndarray, list[Finding]]:
    if plan.downsample is None:
        return rows, []
    settings = dict(plan.downsample)
    kept, finding = downsample(whole.take(rows), labels, rows=settings["rows"], to=settings["to"], seed=plan.seed)
    found = []
    if finding is not None:
        found.append(
            Finding("warning", "downsample", finding, 1, ("data.downsample",), "lower `to`, or remove data.downsample")
        )
    return rows[kept], found
