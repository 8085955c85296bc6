"""From the recipe's data settings to rows, targets and stored tokens of each split; no model and no Lightning."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from headrace.data.audit import Finding
from headrace.data.examples import BadRow, Examples, LabelSet
from headrace.files import cache_folder, sha256_of
from headrace.text.store import TokenStore, tokenize
from headrace.text.tokenizer import Tokenizer
from headrace.train.fetching import Progress
from headrace.train.rows import DataPlan, RowsPart, read_rows
from headrace.train.tokenizers import tokenizer_of


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


def prepare(
    plan: DataPlan, *, tokenizer: Tokenizer | None = None, cache: Path | None = None, progress: Progress | None = None
) -> Prepared:
    """Read, check, split and tokenize; what was computed before is taken from the cache.

    Args:
        plan: What is read, and how.
        tokenizer: Instead of the one that `plan.tokenizer` names.
        cache: None for the user's cache folder.
        progress: Told what is done, how far, and how much there is; 0 where nobody knows.

    Raises:
        DataError: A file is missing or has bad rows; all faults of a file together.
    """
    cache = cache or cache_folder()
    rows = read_rows(plan, cache=cache, progress=progress)
    subwords = tokenizer or tokenizer_of(
        plan.tokenizer, [rows.train.examples], revision=plan.revision, cache=cache, progress=progress
    )
    stores: dict[int, TokenStore] = {}  # what was divided here is tokenized once

    def tokenized(part: RowsPart) -> Part:
        if id(part.source) not in stores:
            stores[id(part.source)] = _tokens(plan, part.source, subwords, cache, progress, part.name)
        return Part(part.name, part.examples, stores[id(part.source)], part.rows, part.targets)

    return Prepared(
        train=tokenized(rows.train),
        valid=tokenized(rows.valid),
        test=None if rows.test is None else tokenized(rows.test),
        labels=rows.labels,
        subwords=subwords,
        findings=rows.findings,
        bad_rows=tuple(bad for source in rows.sources for bad in source.bad_rows),
        n_bad_rows=sum(source.n_bad_rows for source in rows.sources),
    )


def _tokens(
    plan: DataPlan, examples: Examples, subwords: Tokenizer, cache: Path, progress: Progress | None, name: str
) -> TokenStore:
    def told(done: int, total: int) -> None:
        if progress is not None:
            progress(f"tokenizing {name}", done, total)

    return tokenize(examples, subwords, max_length=plan.max_length, truncate=plan.truncate, cache=cache, progress=told)
