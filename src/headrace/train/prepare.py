"""From the recipe's data settings to rows, targets and stored tokens of each split; no model and no Lightning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headrace.data.audit import Finding, audit
from headrace.data.balance import downsample
from headrace.data.examples import BadRow, Examples, LabelSet
from headrace.data.kept import kept_arrays, kept_findings
from headrace.data.labels import label_set, targets
from headrace.data.read import Archived, Columns, read
from headrace.data.split import limit, split
from headrace.errors import DataError
from headrace.files import cache_folder, sha256_of
from headrace.text.store import TokenStore, tokenize
from headrace.text.tokenizer import Tokenizer
from headrace.train.tokenizers import tokenizer_of

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class DataPlan:
    """What is read, and how it becomes training, validation and test rows; plain values.

    Attributes:
        train, valid, test: Paths, `hub:` references or objects in memory. Without `valid`, `valid_share` of train.
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
class Part:
    """One split: its examples, their tokens and targets.

    Attributes:
        rows: [rows] int64, the position of each example in the token store.
        targets: [rows] int64 (single label) or [rows, labels] float32.
    """

    name: str
    examples: Examples
    store: TokenStore
    rows: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each row after the cut, special tokens included: [rows] int32."""
        lengths: np.ndarray = np.asarray(self.store.lengths)[self.rows]
        return lengths

    def ids(self, row: int) -> np.ndarray:
        """Return the token ids of one row of the split."""
        return self.store.ids(int(self.rows[row]))

    def first_length(self, row: int) -> int:
        """Return how many tokens of one row belong to the first text."""
        return self.store.first_length(int(self.rows[row]))

    def lengths_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the tokens of these rows of the split."""
        return np.asarray(self.lengths[rows])


@dataclass(frozen=True)
class Prepared:
    """Everything that training and evaluation read."""

    train: Part
    valid: Part
    test: Part | None
    labels: LabelSet
    subwords: Tokenizer
    findings: tuple[Finding, ...] = field(default=())
    bad_rows: tuple[BadRow, ...] = field(default=())
    n_bad_rows: int = 0  # of each source `bad_rows` holds the first 10,000

    @property
    def padding(self) -> dict[str, Any]:
        """How token ids become tensors."""
        return {"pad_id": self.subwords.pad_id, "uses_token_types": self.subwords.uses_token_types}

    @property
    def parts(self) -> list[Part]:
        """The splits that exist."""
        return [part for part in (self.train, self.valid, self.test) if part is not None]

    def fingerprints(self) -> dict[str, str]:
        """Return the sha256 of the content of each split and of the label names."""
        found = {part.name: sha256_of(part.examples.content_key()) for part in self.parts}
        found["labels"] = sha256_of(*self.labels.names)
        return found


def prepare(plan: DataPlan, *, cache: Path | None = None, progress: Progress | None = None) -> Prepared:
    """Read, check, split and tokenize; what was computed before is taken from the cache.

    Raises:
        DataError: A file is missing or has bad rows; all faults of a file together.
    """
    cache = cache or cache_folder()
    if plan.train is None:
        raise DataError(
            "no training data is named", where="data.train", next="--set data.train=FILE, or write it there"
        )
    whole = _read(plan, plan.train, "train", cache)
    if plan.limit is not None and plan.limit < len(whole):
        whole = whole.take(limit(whole, n=plan.limit, seed=plan.seed))
    labels = label_set(whole, names=plan.columns.labels)
    own_valid = None if plan.valid is None else _read(plan, plan.valid, "valid", cache)
    test = None if plan.test is None else _read(plan, plan.test, "test", cache)
    if own_valid is None:
        train_rows, valid_rows = kept_arrays(
            cache,
            "splits",
            whole.content_key(),
            f"{plan.valid_share!r} {plan.seed}",
            compute=lambda: split(whole, share=plan.valid_share, seed=plan.seed),
        )
    else:
        train_rows, valid_rows = np.arange(len(whole)), np.arange(len(own_valid))
    train_rows, findings = _balanced(plan, whole, train_rows, labels)
    subwords = tokenizer_of(
        plan.tokenizer, [whole.take(train_rows)], revision=plan.revision, cache=cache, progress=progress
    )
    train_store = _tokens(plan, whole, subwords, cache, progress, "train")
    train = _part("train", whole, train_store, train_rows, labels)
    if own_valid is None:
        valid = _part("valid", whole, train_store, valid_rows, labels)
    else:
        valid = _part(
            "valid", own_valid, _tokens(plan, own_valid, subwords, cache, progress, "valid"), valid_rows, labels
        )
    tested = None
    if test is not None:
        store = _tokens(plan, test, subwords, cache, progress, "test")
        tested = _part("test", test, store, np.arange(len(test)), labels)
    # What was divided here is looked at as its source has it, so that the numbers are those of the file.
    divided = whole.take(np.union1d(train_rows, valid_rows)) if own_valid is None else None
    findings += _audited(train.examples, valid.examples, test, labels, cache, divided)
    sources = [source for source in (whole, own_valid, test) if source is not None]
    return Prepared(
        train=train,
        valid=valid,
        test=tested,
        labels=labels,
        subwords=subwords,
        findings=tuple(f for f in findings if f.code not in plan.allow),
        bad_rows=tuple(bad for source in sources for bad in source.bad_rows),
        n_bad_rows=sum(source.n_bad_rows for source in sources),
    )


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


def _read(plan: DataPlan, source: Any, split_name: str, cache: Path) -> Examples:
    if plan.url is not None and plan.sha256 is not None and not str(source).startswith("hub:"):
        source = Archived(plan.url, plan.sha256, str(source))
    return read(source, plan.columns, on_bad_row=plan.on_bad_row, encoding=plan.encoding, cache=cache, split=split_name)


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


def _tokens(
    plan: DataPlan, examples: Examples, subwords: Tokenizer, cache: Path, progress: Progress | None, name: str
) -> TokenStore:
    def told(done: int, total: int) -> None:
        if progress is not None:
            progress(f"tokenizing {name}", done, total)

    return tokenize(examples, subwords, max_length=plan.max_length, truncate=plan.truncate, cache=cache, progress=told)


def _part(name: str, source: Examples, store: TokenStore, rows: np.ndarray, labels: LabelSet) -> Part:
    examples = source.take(rows)
    if not len(examples):
        raise DataError(f"the {name} split has no rows", where=source.source, next="give more rows, or a larger share")
    return Part(name, examples, store, np.asarray(rows, dtype=np.int64), targets(examples, labels))


def with_sources(plan: DataPlan, **sources: Any) -> DataPlan:
    """Return the plan with other sources under `train`, `valid` or `test`."""
    return replace(plan, **sources)
