"""A bundle over whole files: predictions streamed from a table to a table, and an evaluation of a labelled one."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO, TypedDict, Unpack

import numpy as np

from headrace import plugins
from headrace.bundle.about import Threshold
from headrace.bundle.bundle import Bundle, Text
from headrace.data.examples import FILE, ROW, BadRow, Examples, LabelSet
from headrace.data.labels import targets
from headrace.data.read import Columns, read
from headrace.errors import BundleError, DataError
from headrace.evaluate import Evaluation
from headrace.evaluate import evaluate as evaluation_of
from headrace.files import TEMPORARY_PREFIX, cache_folder, remove_leftovers
from headrace.predict import Prediction, thresholds
from headrace.tables import TableWriter, extension_of

STANDARD = "-"
# A batch of 4,096 texts is a few MB, and wide enough to find texts of like length for each pass.
BATCH_ROWS = 4096
_ROW = re.compile(r":(\d+)(?::|$)")


class ReadOptions(TypedDict, total=False):
    """How a file is read and computed.

    Attributes:
        text: The text's column, or the two of a pair; by default the bundle's.
        encoding: Of text files; UTF-8 by default.
        precision: `fp32` (default) or `bf16`.
        device: Where it is computed; by default where the bundle is.
        progress: Called with the rows that are done and all rows; all is 0 while it is not known.
    """

    text: str | Sequence[str] | None
    encoding: str | None
    precision: str
    device: str
    progress: Callable[[int, int], None] | None


class PredictOptions(ReadOptions, total=False):
    """What `predict_file` takes besides; see also ReadOptions.

    Attributes:
        raw: Write texts to CSV as they are, without the guard against formulas.
        on_bad_row: `skip` (default) lists bad rows in OUT.errors.jsonl; `error` raises all of them together.
        stdin, stdout: The streams that `-` stands for.
    """

    raw: bool
    on_bad_row: Literal["error", "skip"]
    stdin: TextIO
    stdout: TextIO


class EvaluateOptions(ReadOptions, total=False):
    """What `evaluate` takes besides; see also ReadOptions.

    Attributes:
        label: The label's column, or several 0/1 columns; by default the bundle's.
        separator: Between the names in one multi-label column; by default the bundle's.
        threshold: As in `Bundle.predict`.
        split: What the rows are called; by default the file's name.
        resamples: Of the bootstrap, 1,000 by default.
        seed: Of the resamples.
    """

    label: str | Sequence[str] | None
    separator: str | None
    threshold: Threshold | None
    split: str
    resamples: int
    seed: int


@dataclass(frozen=True)
class Counts:
    """What became of the rows of a file; `n_rows` is `n_predicted + n_bad`.

    Attributes:
        n_rows: Rows that were read.
        n_predicted: Rows with a prediction.
        n_bad: Rows that could not be read.
        n_flagged: Predicted rows with a flag, by flag.
        errors: Where the bad rows are listed; None without any, or when predictions go to standard output.
        bad_rows: The bad rows, at most 10,000 of them.
    """

    n_rows: int
    n_predicted: int
    n_bad: int
    n_flagged: Mapping[str, int]
    errors: Path | None
    bad_rows: tuple[BadRow, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as the `--json` output shows them."""
        return {
            "rows": self.n_rows,
            "predicted": self.n_predicted,
            "bad": self.n_bad,
            "flagged": dict(self.n_flagged),
            "errors": None if self.errors is None else str(self.errors),
        }


def predict_file(
    bundle: Bundle,
    source: Any,
    out: str | Path | None = None,
    *,
    threshold: Threshold | None = None,
    **options: Unpack[PredictOptions],
) -> Counts:
    """Predict each row of a file and write a table of the same order; memory does not grow with the rows.

    The columns are `row` (as in messages), `label` and `index` (or `labels`), one `score_<label>` each, and `flags`.

    Args:
        bundle: The classifier.
        source: A file, folder, `hub:` reference, table in memory, or `-` for one text a line (a pair with a tab) from
            `stdin`.
        out: .csv .tsv .jsonl (each also .gz) or .parquet; `-` or None writes JSON Lines to `stdout`.
        threshold: As in `Bundle.predict`.
        **options: See `PredictOptions`.

    Raises:
        DataError: The source cannot be read, or the ending of `out` is unknown.
        RecipeError: The threshold does not suit.
        RunError: `out` cannot be written.
    """
    multi_label = bool(plugins.find("task", bundle.task).MULTI_LABEL)
    thresholds(threshold, bundle.labels, multi_label=multi_label)  # faults before any work
    to_stream = out is None or str(out) == STANDARD
    if not to_stream:
        extension_of(Path(str(out)))
    with ExitStack() as stack:
        if isinstance(source, str) and source == STANDARD:
            lines = _Lines(options.get("stdin"), is_pair=bundle.is_pair)
            rows: _Rows = lines
        else:
            rows = _Table(_read(bundle, source, stack, options))
        columns = _columns(bundle, has_file=rows.has_file, multi_label=multi_label)
        write: Callable[[list[list[Any]]], None]
        if to_stream:
            write = _to_stream(options.get("stdout"), list(columns))
        else:
            write = stack.enter_context(TableWriter(Path(str(out)), columns, raw=options.get("raw", False))).write
        flagged: dict[str, int] = {}
        n_done = 0
        for places, texts in rows.batches():
            predictions = bundle.predict(texts, threshold, **_compute(options))
            write([[*place, *_values(p)] for place, p in zip(places, predictions, strict=True)])
            for flag in (flag for p in predictions for flag in p.flags):
                flagged[flag] = flagged.get(flag, 0) + 1
            n_done += len(texts)
            progress = options.get("progress")
            if progress is not None:
                progress(n_done, rows.n_rows)
    errors = None if to_stream else _write_errors(Path(f"{out}.errors.jsonl"), rows.bad_rows)
    return Counts(n_done + rows.n_bad, n_done, rows.n_bad, flagged, errors, tuple(rows.bad_rows))


def evaluate(bundle: Bundle | str | Path, source: Any, **options: Unpack[EvaluateOptions]) -> Evaluation:
    """Return the Evaluation of a bundle on labelled data.

    Args:
        bundle: The classifier, or its folder.
        source: A file, a folder per label, a `hub:` reference, or a table in memory.
        **options: See `EvaluateOptions`.

    Raises:
        BundleError: The bundle is damaged, or does not know the label's column and none is given.
        DataError: The source cannot be read, or has labels that the bundle does not know.
    """
    if not isinstance(bundle, Bundle):
        bundle = Bundle.load(bundle)
    about, labels = bundle.about.text, LabelSet(bundle.labels)
    multi_label = bool(plugins.find("task", bundle.task).MULTI_LABEL)
    threshold = options.get("threshold")
    chosen = bundle.about.threshold if threshold is None else threshold
    limits = thresholds(chosen, bundle.labels, multi_label=multi_label)
    given = options.get("label")
    label = about.label_columns if given is None else _names(given)
    if not label:
        raise BundleError(
            "the bundle does not say which column holds the label", where="label", next="name it with --label COLUMN"
        )
    separator = options.get("separator") or about.separator
    with ExitStack() as stack:
        columns = Columns(
            text=_text_columns(bundle, options),
            label=label,
            separator=separator,
            multi_label=multi_label,
            labels=bundle.labels,
        )
        encoding = options.get("encoding")
        examples = read(source, columns, encoding=encoding, cache=_scratch(stack), split="test")
        wanted = targets(examples, labels)
        scores = np.concatenate(
            [
                bundle.scores(texts, **_compute(options))
                for _, texts in _Table(examples).batches(options.get("progress"))
            ]
        )
    return evaluation_of(
        wanted,
        scores,
        labels=labels,
        task=bundle.task,
        split=options.get("split") or (Path(source).name if isinstance(source, str | Path) else "memory"),
        threshold=limits,
        resamples=options.get("resamples", 1000),
        seed=options.get("seed", 0),
    )


class _Rows:
    """Where rows come from, a batch at a time: the values that go before a prediction, and the texts."""

    has_file = False
    n_rows = 0
    n_bad = 0
    bad_rows: Sequence[BadRow] = ()

    def batches(self) -> Iterator[tuple[list[list[Any]], Any]]:
        """Yield (what goes before each prediction, the texts)."""
        raise NotImplementedError


class _Table(_Rows):
    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        self.has_file = FILE in examples.table.column_names
        self.n_rows = len(examples)
        self.n_bad = examples.n_bad_rows
        self.bad_rows = examples.bad_rows

    def batches(self, progress: Callable[[int, int], None] | None = None) -> Iterator[tuple[list[list[Any]], Any]]:
        """Yield the file and row of each text, and the texts."""
        names = [FILE, ROW] if self.has_file else [ROW]
        for start, stop in self.examples.batches(BATCH_ROWS):
            columns = [self.examples.column(name, start, stop) for name in names]
            yield [list(place) for place in zip(*columns, strict=True)], self.examples.texts(start, stop)
            if progress is not None:
                progress(stop, self.n_rows)


class _Lines(_Rows):
    """One text a line; a pair is two texts with a tab between them."""

    def __init__(self, stream: TextIO | None, *, is_pair: bool) -> None:
        if stream is None:
            raise DataError("there is no standard input to read", where=STANDARD, next="name a file")
        self._lines: Iterator[str] = iter(stream)
        self._is_pair = is_pair
        self._bad: list[BadRow] = []
        self.bad_rows = self._bad

    def batches(self) -> Iterator[tuple[list[list[Any]], Any]]:
        """Yield the number of each line, and the texts."""
        number = 0
        while lines := self._next_lines(number):
            places: list[list[Any]] = []
            texts: list[Text] = []
            for line in lines:
                number += 1
                text = line.rstrip("\n").removesuffix("\r")
                parts = text.split("\t") if self._is_pair else [text]
                if self._is_pair and len(parts) != 2:
                    reason = f"the line has {len(parts) - 1} tabs; a pair is two texts with one tab between them"
                    self._bad.append(BadRow(f"{STANDARD}:{number}", reason, text[:200]))
                    self.n_bad += 1
                    continue
                places.append([number])
                texts.append((parts[0], parts[1]) if self._is_pair else text)
            yield places, texts

    def _next_lines(self, n_read: int) -> list[str]:
        try:
            return list(islice(self._lines, BATCH_ROWS))
        except UnicodeDecodeError as error:
            raise DataError(
                f"the input is not {error.encoding}: {error.reason}",
                where=f"{STANDARD}, after line {n_read}",
                next="convert it, e.g. with iconv -t UTF-8, or name a file and its --encoding",
            ) from error


def _read(bundle: Bundle, source: Any, stack: ExitStack, options: PredictOptions) -> Examples:
    return read(
        source,
        Columns(text=_text_columns(bundle, options)),
        on_bad_row=options.get("on_bad_row", "skip"),
        encoding=options.get("encoding"),
        cache=_scratch(stack),
        label_required=False,
        split="test",
    )


def _scratch(stack: ExitStack) -> Path:
    """Return a folder on the cache's disk that is gone afterwards: what is predicted once need not be kept."""
    parent = cache_folder()
    parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(parent)
    prefix = f"{TEMPORARY_PREFIX}{os.getpid()}-predict-"
    # Windows cannot remove a file that is still mapped
    return Path(stack.enter_context(tempfile.TemporaryDirectory(dir=parent, prefix=prefix, ignore_cleanup_errors=True)))


def _text_columns(bundle: Bundle, options: Mapping[str, Any]) -> tuple[str, ...]:
    given = options.get("text")
    columns = bundle.about.text.columns if given is None else _names(given)
    if len(columns) != len(bundle.about.text.columns):
        raise DataError(
            f"{len(columns)} text column{'s are' if len(columns) > 1 else ' is'} named",
            where="text",
            next="this bundle takes pairs: name two columns"
            if bundle.is_pair
            else "this bundle takes one text: name one",
        )
    return columns


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _columns(bundle: Bundle, *, has_file: bool, multi_label: bool) -> dict[str, type]:
    answer: dict[str, type] = {"labels": list} if multi_label else {"label": str, "index": int}
    scores = {f"score_{name}": float for name in bundle.labels}
    return {**({FILE: str} if has_file else {}), ROW: int, **answer, **scores, "flags": list}


def _values(prediction: Prediction) -> list[Any]:
    answer = [list(prediction.labels)] if prediction.label is None else [prediction.label, prediction.index]
    # the shortest decimal that is this float32: 0.8 rather than 0.800000011920929
    scores = [float(str(np.float32(score))) for score in prediction.scores.values()]
    return [*answer, *scores, list(prediction.flags)]


def _to_stream(stream: TextIO | None, names: list[str]) -> Callable[[list[list[Any]]], None]:
    if stream is None:
        raise DataError("there is no standard output to write to", where="out", next="name a file with -o OUT")

    def write(rows: list[list[Any]]) -> None:
        # ASCII: whatever the terminal's encoding is, the line is valid JSON
        stream.writelines(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
        stream.flush()

    return write


def _write_errors(path: Path, bad_rows: Iterable[BadRow]) -> Path | None:
    bad = list(bad_rows)
    if not bad:
        path.unlink(missing_ok=True)  # of an earlier run: it would speak of rows that are good now
        return None
    with TableWriter(path, {ROW: int, "where": str, "reason": str, "content": str}) as table:
        table.write([_row_of(row.where), row.where, row.reason, row.content] for row in bad)
    return path


def _row_of(where: str) -> int | None:
    found = _ROW.search(where)
    return int(found.group(1)) if found else None


def _compute(options: Mapping[str, Any]) -> Any:
    return {name: options[name] for name in ("precision", "device") if options.get(name) is not None}
