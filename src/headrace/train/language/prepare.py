"""From a language model's recipe to the texts of its splits, their tokens and its words; no model and no Lightning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headrace.backbones._language import NEXT_WORD
from headrace.bundle.language_model import WHOLE_TEXT, predicted_by
from headrace.data.examples import BadRow, Examples
from headrace.data.kept import kept_arrays
from headrace.data.read import Columns, read
from headrace.data.several import Joined, choose, divide
from headrace.data.split import text_keys
from headrace.errors import DataError
from headrace.files import cache_folder, sha256_of
from headrace.recipe.schema import LanguageModelSettings, RecipeValues
from headrace.text.store import tokenize
from headrace.text.tokenizer import Tokenizer
from headrace.train.fetching import Progress, placed
from headrace.train.language.corpus import Corpus
from headrace.train.stored import as_given
from headrace.train.tokenizers import tokenizer_of, tokenizer_place


@dataclass(frozen=True)
class Texts:
    """One split of the texts.

    Attributes:
        name: `train`, `valid` or `test`.
        files: The texts of each file, only those of this split.
        corpus: Their tokens, in the same order.
    """

    name: str
    files: tuple[Examples, ...]
    corpus: Corpus

    def __len__(self) -> int:
        return len(self.corpus)

    def where(self, position: int) -> str:
        """Return `file:row` of one text, for messages."""
        return Joined(self.files).where(position)

    def texts(self, most: int) -> list[Any]:
        """Return the first texts, at most so many."""
        found: list[Any] = []
        for file in self.files:
            found += file.texts(0, most - len(found))
        return found

    def content_key(self) -> str:
        """Return the sha256 of exactly these texts in this order."""
        return sha256_of(*(file.content_key() for file in self.files))


@dataclass(frozen=True)
class LanguageData:
    """All that training and evaluating a language model reads.

    Attributes:
        tokenizer: The words of the training texts, or those of the backbone.
        test_share: Share of the test texts that stand among the training texts, too; None without test texts.
        n_bad_rows: Rows that were left out; `bad_rows` holds the first of them.
    """

    train: Texts
    valid: Texts
    test: Texts | None
    tokenizer: Tokenizer
    test_share: float | None = None
    bad_rows: tuple[BadRow, ...] = field(default=())
    n_bad_rows: int = 0

    @property
    def parts(self) -> list[Texts]:
        """The splits that exist."""
        return [part for part in (self.train, self.valid, self.test) if part is not None]

    def fingerprints(self) -> dict[str, str]:
        """Return the sha256 of the content of each split, and that of the tokenizer."""
        return {**{part.name: part.content_key() for part in self.parts}, "tokenizer": self.tokenizer.fingerprint}


def block_of(values: RecipeValues) -> LanguageModelSettings:
    """Return the recipe's `language_model` block, or one of defaults."""
    return values.language_model or LanguageModelSettings.model_validate({})


def max_length_of(values: RecipeValues) -> int | None:
    """Return how many tokens of a text are kept; None for all: streams have no use for a cut."""
    own = block_of(values).max_length
    if own is not None or predicted_by(values.backbone.name) == NEXT_WORD:
        return own
    return values.data.max_length


def max_length_key(values: RecipeValues) -> str:
    """Return which key of the recipe says how many tokens of a text are kept."""
    is_own = block_of(values).max_length is not None or predicted_by(values.backbone.name) == NEXT_WORD
    return "language_model.max_length" if is_own else "data.max_length"


def columns_of(values: RecipeValues) -> tuple[str, ...]:
    """Return the texts' column, or the two of a pair."""
    text = values.data.text
    return (text,) if isinstance(text, str) else tuple(text)


def prepare_language(
    values: RecipeValues, *, cache: Path | None = None, progress: Progress | None = None
) -> LanguageData:
    """Read, divide and tokenize; what was computed before is taken from the cache. Labels are never looked at.

    Args:
        values: With `task: language_model`.
        cache: None for the user's cache folder.
        progress: Told what is done, how far, and how much there is; 0 where nobody knows.

    Raises:
        DataError: A file is missing or has bad rows; all faults of a file together.
    """
    cache = cache or cache_folder()
    whole, divided, own_valid = _divided_texts(values, cache, progress)
    read_files, train_rows, valid_rows = divided
    data, share = values.data, values.data.valid_share
    train_files = [file.take(rows) for file, rows in zip(read_files, train_rows, strict=True)]
    tokenizer = tokenizer_of(
        tokenizer_place(values.backbone.name),
        train_files,
        revision=values.backbone.revision,
        cache=cache,
        progress=progress,
    )
    stores = _Stores(values, tokenizer, cache, progress)
    train = Texts("train", tuple(train_files), stores.corpus(whole, train_files))
    valid_of = whole if share is not None else own_valid
    valid_files = [
        file.take(rows) for file, rows in zip(read_files if share is not None else own_valid, valid_rows, strict=True)
    ]
    valid = Texts("valid", tuple(valid_files), stores.corpus(valid_of, valid_files))
    tested = [_read(values, data.test, "test", cache, progress)] if data.test is not None else []
    test = Texts("test", tuple(tested), stores.corpus(tested, tested)) if tested else None
    every = [*whole, *own_valid, *tested]
    return LanguageData(
        train=train,
        valid=valid,
        test=test,
        tokenizer=tokenizer,
        test_share=overlap(tested[0], train_files) if tested else None,
        bad_rows=tuple(bad for file in every for bad in file.bad_rows),
        n_bad_rows=sum(file.n_bad_rows for file in every),
    )


def texts_trained_on(values: RecipeValues) -> list[Examples]:
    """Return the texts of each file that a language model is trained on: within the limit, without its validation.

    Raises:
        DataError: A file is missing or has bad rows.
    """
    _, (files, rows, _), _ = _divided_texts(values, cache_folder())
    return [file.take(chosen) for file, chosen in zip(files, rows, strict=True)]


def _divided_texts(
    values: RecipeValues, cache: Path, progress: Progress | None = None
) -> tuple[list[Examples], tuple[list[Examples], list[np.ndarray], list[np.ndarray]], list[Examples]]:
    """Return the files; what of them is read, and which rows of that train and validate; and a validation file."""
    data = values.data
    read_files = training_files(values, cache=cache, progress=progress)
    whole = read_files
    if data.limit is not None:
        rows = kept_arrays(
            cache,
            "language_limits",
            *(file.content_key() for file in whole),
            f"{data.limit} {values.seed}",
            compute=lambda: tuple(choose(whole, n=data.limit or 0, seed=values.seed)),
        )
        read_files = [file.take(chosen) for file, chosen in zip(whole, rows, strict=True)]
    share = data.valid_share
    own_valid = [] if share is not None else [_read(values, data.valid, "valid", cache, progress)]
    if share is not None:
        train_rows, valid_rows = _divided(read_files, share, values.seed, cache)
    else:
        train_rows, valid_rows = [np.arange(len(file)) for file in read_files], [np.arange(len(f)) for f in own_valid]
    return whole, (read_files, list(train_rows), list(valid_rows)), own_valid


def training_files(
    values: RecipeValues, *, cache: Path | None = None, progress: Progress | None = None
) -> list[Examples]:
    """Return all texts of each training file, those that go to validation included.

    Raises:
        DataError: No file is named, one is missing or has bad rows.
    """
    data = values.data
    sources = [data.train] if isinstance(data.train, str) else list(data.train or ())
    if not sources:
        raise DataError(
            "no training data is named", where="data.train", next="--set data.train=FILE, or write it there"
        )
    return [_read(values, source, "train", cache or cache_folder(), progress) for source in sources]


def overlap(texts: Examples, others: Sequence[Examples]) -> float:
    """Return the share of texts that stand, but for case and spaces, among others, too; in [0, 1]."""
    known = np.unique(np.concatenate([text_keys(file) for file in others]))
    return float(np.isin(text_keys(texts), known).mean())


def _divided(
    files: Sequence[Examples], share: float, seed: int, cache: Path
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    def computed() -> tuple[np.ndarray, ...]:
        train, valid = divide(files, share=share, seed=seed)
        return (*train, *valid)

    keys = [file.content_key() for file in files]
    found = kept_arrays(cache, "language_splits", *keys, f"{share!r} {seed}", compute=computed)
    return list(found[: len(files)]), list(found[len(files) :])


def _read(values: RecipeValues, source: str, split: str, cache: Path, progress: Progress | None) -> Examples:
    data = values.data
    with placed(source, url=data.url, sha256=data.sha256, progress=progress) as place:
        found = read(
            place,
            Columns(text=columns_of(values)),
            on_bad_row=data.on_bad_row,
            encoding=data.encoding,
            cache=cache,
            label_required=False,
            split=split,
        )
    return as_given(found)


@dataclass(frozen=True)
class _Stores:
    """Tokenizes whole files, so that another choice of their rows finds the tokens in the cache."""

    values: RecipeValues
    tokenizer: Tokenizer
    cache: Path
    progress: Progress | None

    def corpus(self, whole: Sequence[Examples], chosen: Sequence[Examples]) -> Corpus:
        """Return the tokens of the chosen rows of each file.

        Args:
            whole: All rows of each file.
            chosen: Some of them; a view of the same table.
        """
        stores, rows = [], []
        for file, some in zip(whole, chosen, strict=True):

            def told(done: int, total: int, name: str = file.source) -> None:
                if self.progress is not None:
                    self.progress(f"tokenizing {Path(name).name}", done, total)

            store = tokenize(
                file,
                self.tokenizer,
                max_length=max_length_of(self.values) or WHOLE_TEXT,
                truncate=self.values.data.truncate,
                cache=self.cache,
                progress=told,
            )
            stores.append(store)
            rows.append(np.searchsorted(file.rows, some.rows))  # both are sorted: a file's rows are in its order
        corpus = Corpus.of(stores, rows)
        if not len(corpus):
            raise DataError("a split has no texts", where=", ".join(f.source for f in whole), next="give more rows")
        return corpus
