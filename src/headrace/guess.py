"""Looks at some rows of a data file and guesses which columns hold texts and labels, and what the task is."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.data.delimited import long_fields, named_records
from headrace.data.faults import Faults
from headrace.data.tabular import json_objects
from headrace.errors import DataError, RecipeError, nearest
from headrace.tables import EXTENSIONS

N_SAMPLED = 2000
N_PASSED = 200_000  # rows that are passed over; a few seconds
MAX_LABELS = 100
MAX_SAMPLED_CHARACTERS = 64 << 20  # 2,000 rows of 32,000 characters; a file of giant fields does not fill the memory
MAX_LENGTH = 256  # of a first recipe: the time of a step grows with it
TOKENS_PER_WORD = 1.4  # MiniLM's tokenizer on English reviews: 1.2 to 1.4 subwords a word, punctuation included
SEPARATORS = ("|", ";", ",")
_LABEL_NAMES = [
    "label",
    "labels",
    "class",
    "classes",
    "category",
    "categories",
    "target",
    "sentiment",
    "topic",
    "topics",
    "intent",
    "tag",
    "tags",
    "y",
    "gold_label",
    "stars",
    "rating",
    "polarity",
    "emotion",
]
_PAIR_NAMES = [
    ("premise", "hypothesis"),
    ("question", "answer"),
    ("question", "context"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("query", "document"),
    ("claim", "evidence"),
]
_PAIR_ENDS = [("1", "2"), ("_1", "_2"), ("_a", "_b")]
_YES = {"1", "1.0", "true"}
_YES_NO = _YES | {"0", "0.0", "false"}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """What the sampled rows tell of one column.

    Attributes:
        values: As text; lists stay lists.
        mean_length: Characters, over rows that have any.
        mean_words: Words, over rows that have any.
    """

    name: str
    values: tuple[Any, ...]
    n_distinct: int
    mean_length: float
    mean_words: float

    @property
    def has_lists(self) -> bool:
        """Whether values are lists of names."""
        return any(isinstance(value, list) for value in self.values)

    @property
    def is_yes_no(self) -> bool:
        """Whether all values are 0 or 1."""
        return set(self.values) <= _YES_NO if not self.has_lists else False

    @property
    def texts(self) -> list[str]:
        """The values that are not empty."""
        return [value for value in self.values if isinstance(value, str) and value.strip()]


@dataclass(frozen=True)
class Guess:
    """What a file seems to hold.

    Attributes:
        n_rows: Rows looked at.
        labels: Names in the sample with their counts, the most frequent first.
        max_length: Tokens kept of a text, and the share of the texts that they hold whole.
        others: Columns that are left alone.
    """

    source: Path
    task: str
    n_rows: int
    text: tuple[str, ...]
    label: tuple[str, ...]
    separator: str | None
    labels: dict[str, int]
    max_length: tuple[int, float]
    others: tuple[str, ...] = ()
    valid: Path | None = None
    test: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the guess as plain data."""
        return {
            "source": str(self.source),
            "task": self.task,
            "n_rows_seen": self.n_rows,
            "text": list(self.text),
            "label": list(self.label),
            "separator": self.separator,
            "labels": self.labels,
            "max_length": self.max_length[0],
        }


def guess(source: str | Path, *, task: str | None = None) -> Guess:
    """Look at up to 2,000 rows and guess task and columns.

    Raises:
        DataError: The file cannot be read, or no column looks like a text or a label.
    """
    if task not in (None, "single_label", "multi_label"):
        raise RecipeError(f"there is no task named {task!r}", where="--task", next="single_label or multi_label")
    path = Path(source)
    if path.is_dir():
        return _guess_folder(path, task)
    rows = sample(path)
    columns = [_column(name, rows) for name in rows[0]]
    label, separator, guessed = _label(columns, task, path)
    text = _text([column for column in columns if column.name not in label], path)
    named = [*text, *label]
    words = [sum(len(str(row.get(name, "")).split()) for name in text) for row in rows]
    return Guess(
        source=path,
        task=guessed,
        n_rows=len(rows),
        text=text,
        label=label,
        separator=separator,
        labels=_counts(columns, label, separator),
        max_length=_max_length(words),
        others=tuple(column.name for column in columns if column.name not in named),
        valid=_sibling(path, ("valid", "validation", "dev")),
        test=_sibling(path, ("test",)),
    )


def sample(path: Path) -> list[Row]:
    """Return at most 2,000 rows of a data file, spread over it, numbers as text.

    Raises:
        DataError: There is no such file, its ending is unknown, it cannot be parsed, or it holds no row that can be used.
    """
    if not path.is_file():
        beside = [p.name for p in path.absolute().parent.iterdir()] if path.absolute().parent.is_dir() else []
        close = nearest(path.name, beside)
        raise DataError(
            f"there is no file {str(path)!r}",
            where=str(path.absolute().parent),
            next=f"did you mean {close!r}?" if close else "name a data file, or a folder with one folder per label",
        )
    name = path.name.lower()
    faults = Faults(str(path), skip=True, has_recipe=False)  # single bad rows are for `headrace check` to tell
    if name.endswith(".parquet"):
        rows = spread(_parquet(path))
    elif name.endswith((".jsonl", ".jsonl.gz")):
        rows = spread(row for _, row in json_objects(path, faults, source=str(path), encoding=None))
    elif name.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
        with long_fields():
            rows = spread(row for _, row in named_records(path, faults, source=str(path)))
    else:
        raise DataError(
            f"cannot tell what {path.name!r} holds from its name",
            where=str(path),
            next=f"give a name that ends in {', '.join(EXTENSIONS)}, or a folder with one folder per label",
        )
    if not rows or not rows[0]:
        raise faults.no_row()
    return [{key: _as_text(value) for key, value in row.items()} for row in rows]


def spread(rows: Iterable[Row]) -> list[Row]:
    """Return at most 2,000 of the first 200,000 rows, evenly spread: files are often sorted by label."""
    kept: list[Row] = []
    stride = 1
    for number, row in enumerate(islice(rows, N_PASSED)):
        if number % stride:
            continue
        kept.append(row)
        if len(kept) >= 2 * N_SAMPLED:
            kept, stride = kept[::2], 2 * stride
        if sum(map(_n_characters, kept[-1:])) * len(kept) > MAX_SAMPLED_CHARACTERS:
            break
    return kept[:: -(-len(kept) // N_SAMPLED)] if kept else []


def _n_characters(row: Row) -> int:
    return sum(len(value) for value in row.values() if isinstance(value, str))


def _parquet(path: Path) -> Iterator[Row]:
    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=N_SAMPLED):
            yield from batch.to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"the file is not Parquet: {error}", where=str(path), next="write the file again") from error


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return [str(item) for item in value]
    return "" if value is None else str(value)


def _column(name: str, rows: Sequence[Row]) -> Column:
    values = tuple(row.get(name, "") for row in rows)
    texts = [value for value in values if isinstance(value, str) and value.strip()]
    return Column(
        name=name,
        values=values,
        n_distinct=len({str(value) for value in values}),
        mean_length=statistics.fmean(map(len, texts)) if texts else 0.0,
        mean_words=statistics.fmean(len(text.split()) for text in texts) if texts else 0.0,
    )


def _label(columns: Sequence[Column], task: str | None, path: Path) -> tuple[tuple[str, ...], str | None, str]:
    """Return the label columns, the separator inside one of them, and the task."""
    if task != "single_label":
        yes_no = tuple(column.name for column in columns if column.is_yes_no)
        if len(yes_no) > 1 and not set(yes_no) & set(_LABEL_NAMES):
            return yes_no, None, "multi_label"
        for column in _named_first(columns):
            if column.has_lists:
                return (column.name,), None, "multi_label"
        for column in _named_first(columns):
            separator = _separator(column)
            if separator is not None:
                return (column.name,), separator, "multi_label"
    few = [column for column in _named_first(columns) if 1 <= len(set(column.texts)) <= _most_labels(column)]
    named = [column for column in few if column.name.lower() in _LABEL_NAMES]
    few = [column for column in few if column.n_distinct > 1]
    if (few or named) and task != "multi_label":
        # Without a telling name: the column with the fewest values, as a year or a country has more than a verdict.
        best = named[0] if named else min(few, key=lambda column: column.n_distinct)
        return (best.name,), None, "single_label"
    listed = ", ".join(f"{column.name} ({column.n_distinct:,} values)" for column in columns)
    wanted = "several 0/1 columns, a column of lists, or names joined by | ; or ," if task else "a few distinct values"
    raise DataError(
        f"no column looks like a label; there are {listed}",
        where=str(path),
        next=f"a label column has {wanted}; print a recipe with `headrace recipes reviews` and name yours there",
    )


def _most_labels(column: Column) -> float:
    # Labels repeat: on average each is seen four times, or the column is an id, a name or a title.
    return min(MAX_LABELS, max(2, len(column.texts) / 4))


def _named_first(columns: Sequence[Column]) -> list[Column]:
    return sorted(columns, key=lambda column: column.name.lower() not in _LABEL_NAMES)


def _separator(column: Column) -> str | None:
    values = column.texts
    if column.mean_words > 8 or not values:
        return None
    for separator in SEPARATORS:
        parts = [part.strip() for value in values for part in value.split(separator)]
        n_parts = len(set(parts))
        # Joined names: fewer names than combinations, each name many times.
        is_joined = len(parts) > len(values) and n_parts < len(set(values)) and n_parts <= len(parts) / 4
        if is_joined and n_parts <= MAX_LABELS and all(parts):
            return separator
    return None


def _text(columns: Sequence[Column], path: Path) -> tuple[str, ...]:
    by_name = {column.name.lower(): column.name for column in columns if column.texts}
    endings = [(name, name[: -len(a)] + b) for name in by_name for a, b in _PAIR_ENDS if name.endswith(a)]
    for first, second in [*_PAIR_NAMES, *endings]:
        if first in by_name and second in by_name and _is_prose(columns, by_name[first], by_name[second]):
            return by_name[first], by_name[second]
    prose = [column for column in columns if column.mean_words >= 2] or [column for column in columns if column.texts]
    if not prose:
        raise DataError("no column looks like a text", where=str(path), next="name a file with a column of texts")
    return (max(prose, key=lambda column: column.mean_length).name,)


def _is_prose(columns: Sequence[Column], *names: str) -> bool:
    return all(column.mean_words >= 2 for column in columns if column.name in names)


def _counts(columns: Sequence[Column], label: tuple[str, ...], separator: str | None) -> dict[str, int]:
    counts: dict[str, int] = {}
    for column in columns:
        if column.name not in label:
            continue
        if len(label) > 1:
            counts[column.name] = sum(value in _YES for value in column.values)
            continue
        for value in column.values:
            names = value if isinstance(value, list) else value.split(separator) if separator else [value]
            for name in names:
                if name.strip():
                    counts[name.strip()] = counts.get(name.strip(), 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _max_length(words: Sequence[int]) -> tuple[int, float]:
    """Return the power of two from 32 to 256 that holds nineteen texts in twenty if one does, and the share it holds."""
    tokens = [n_words * TOKENS_PER_WORD + 3 for n_words in words]  # [CLS], [SEP], and [SEP] of pairs
    for size in (32, 64, 128, MAX_LENGTH):
        share = sum(n_tokens <= size for n_tokens in tokens) / max(1, len(tokens))
        if share >= 0.95:
            break
    return size, share


def _sibling(path: Path, names: Sequence[str]) -> Path | None:
    for name in names:
        if "train" in path.name.lower():
            at = path.name.lower().index("train")
            beside = path.with_name(path.name[:at] + name + path.name[at + len("train") :])
            if beside.exists():
                return beside
    return None


def _guess_folder(path: Path, task: str | None) -> Guess:
    files = {folder.name: sorted(folder.glob("*.txt")) for folder in sorted(path.iterdir()) if folder.is_dir()}
    counts = {name: len(found) for name, found in files.items() if found}
    if len(counts) < 2:
        raise DataError(
            f"{len(counts)} folder(s) with .txt files in it; a classifier needs at least two",
            where=str(path),
            next="give a folder that holds one folder of .txt files per label, or a .csv, .jsonl or .parquet file",
        )
    if task == "multi_label":
        raise RecipeError("a folder per label has one label per text", where="--task", next="leave --task out")
    labels = {name: n for name, n in counts.items() if name != "unsup"}  # aclImdb's unlabelled reviews
    words = [
        len(file.read_text("utf-8", errors="replace").split())
        for name in labels
        for file in files[name][: N_SAMPLED // 10]
    ]
    return Guess(
        source=path,
        task="single_label",
        n_rows=sum(labels.values()),
        text=("text",),
        label=("label",),
        separator=None,
        labels=labels,
        max_length=_max_length(words),
        others=tuple(sorted(set(counts) - set(labels))),
        test=_sibling(path, ("test",)),
    )
