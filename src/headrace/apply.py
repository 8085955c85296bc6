"""Applies a bundle to a file: predictions, an evaluation, vectors, the documents nearest to a query."""

from __future__ import annotations

import heapq
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.bundle import Bundle, TextSettings, versions
from headrace.data.examples import FILE, ROW, Examples, LabelSet
from headrace.data.labels import targets
from headrace.data.read import Columns, read
from headrace.errors import DataError, RecipeError
from headrace.evaluate import evaluate as evaluate_scores
from headrace.evaluation import Evaluation
from headrace.files import atomic_file
from headrace.predict import POOLS, Prediction
from headrace.recipe.document import read_document
from headrace.report import error_rows, write_errors, write_report
from headrace.similar import rank
from headrace.tables import TableWriter, extension_of, write_rows

ROWS_AT_A_TIME = 4096  # texts and scores of so many rows are held at once

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Piped:
    """Texts that came through a pipe; messages call it by its name, not by the file that holds it meanwhile."""

    path: Path
    NAME: ClassVar[str] = "standard input"


@dataclass(frozen=True)
class Predicted:
    """What became of a file.

    Attributes:
        n_rows: Rows that have a prediction.
        n_bad_rows: Rows that could not be read; they are listed in `bad_rows`.
        n_flagged: Predictions by flag: `empty`, `unknown`, `cut`, `surrogate`.
    """

    out: Path
    n_rows: int
    n_bad_rows: int
    bad_rows: Path | None
    n_flagged: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return it as the `--json` output shows it."""
        return asdict(self)


@dataclass(frozen=True)
class Found:
    """A document that is like the query: its row, its text, and the cosine of the two vectors in [-1, 1]."""

    row: int
    cosine: float
    text: str | tuple[str, str]
    file: str | None = None


def predict_file(
    bundle: Bundle | str | Path,
    source: str | Path | Piped,
    out: str | Path,
    *,
    threshold: float | None = None,
    raw: bool = False,
    progress: Progress | None = None,
) -> Predicted:
    """Predict each text of a file and write one row for each, in the file's order.

    The columns are `row`, `label` (or `labels`), `score_NAME` for each label, and `flags`. Rows that cannot be read
    are left out and listed, with reasons, in `OUT.bad_rows.jsonl`.

    Args:
        bundle: A bundle or its folder.
        source: A file with the text's column of the training data, or a pipe.
        out: `.csv .tsv .jsonl .parquet`.
        threshold: Instead of the bundle's own.
        raw: Write texts to CSV without the guard against formulas.
        progress: Told how many rows are done, and how many there are.

    Raises:
        HeadraceError: The bundle, the file or the place to write is no good.
    """
    out = Path(out)
    extension_of(out)  # refused before an hour of work, not after it
    loaded = _loaded(bundle)
    examples = _texts(loaded, source)
    multi_label = loaded.task == "multi_label"
    has_file = FILE in examples.table.column_names
    columns: dict[str, type] = {"row": int, **({"file": str} if has_file else {})}
    columns |= {"labels": list} if multi_label else {"label": str}
    columns |= {**{f"score_{name}": float for name in loaded.labels}, "flags": list}
    n_flagged: dict[str, int] = {}
    with TableWriter(out, columns, raw=raw) as table:
        for start, stop, predictions in _predictions(loaded, examples, threshold, progress):
            rows = examples.column(ROW, start, stop)
            files = [[file] for file in examples.column(FILE, start, stop)] if has_file else [[]] * len(rows)
            table.write(
                [
                    [row, *file, list(p.labels) if multi_label else p.label, *p.scores.values(), list(p.flags)]
                    for row, file, p in zip(rows, files, predictions, strict=True)
                ]
            )
            for prediction in predictions:
                for flag in prediction.flags:
                    n_flagged[flag] = n_flagged.get(flag, 0) + 1
    return Predicted(out, len(examples), examples.n_bad_rows, _write_bad_rows(examples, out), n_flagged)


def predict_rows(
    bundle: Bundle | str | Path, source: str | Path | Piped, *, threshold: float | None = None
) -> tuple[list[tuple[int, Prediction]], Examples]:
    """Return (row, prediction) of each text of a file, and the texts; for files that fit into memory.

    Raises:
        HeadraceError: The bundle or the file is no good.
    """
    loaded = _loaded(bundle)
    examples = _texts(loaded, source)
    found: list[tuple[int, Prediction]] = []
    for start, stop, predictions in _predictions(loaded, examples, threshold, None):
        found += zip(examples.column(ROW, start, stop), predictions, strict=True)
    return found, examples


def evaluate(
    bundle: Bundle | str | Path,
    source: Any,
    *,
    out: str | Path | None = None,
    threshold: float | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score labelled texts with a bundle and say how good it is, with intervals.

    Args:
        bundle: A bundle or its folder.
        source: A file, a folder per label, `hub:owner/name`, or rows in memory, with the columns of the training data.
        out: A folder for report.json and errors.csv.
        threshold: Of multi-label, instead of the bundle's own.
        progress: Told how many rows are done, and how many there are.

    Raises:
        HeadraceError: The bundle or the data are no good; a label that the bundle does not know is one error.
    """
    loaded = _loaded(bundle)
    settings = with_label_columns(loaded)
    multi_label = loaded.task == "multi_label"
    columns = Columns(
        text=settings.columns,
        label=settings.label_columns,
        separator=settings.separator,
        multi_label=multi_label,
        labels=loaded.labels,
    )
    examples = read(source, columns, split="test")
    labels = LabelSet(loaded.labels)
    truth = targets(examples, labels)
    scores = np.concatenate([loaded.scores(texts) for texts in _parts(examples, progress)])
    limit = (threshold if threshold is not None else _own_threshold(loaded)) if multi_label else None
    evaluation = evaluate_scores(truth, scores, labels=labels, task=loaded.task, split=examples.source, threshold=limit)
    if out is not None:
        rows = error_rows(examples, truth, scores, labels=labels, threshold=limit)
        write_errors(Path(out) / "errors.csv", rows)
        write_report(
            out,
            evaluation=evaluation,
            timing={},
            data={"source": examples.source, "rows": len(examples), "fingerprint": examples.fingerprint},
            recipe={"bundle": str(loaded.folder)},
            versions=versions(),
        )
    return evaluation


def embed_file(
    bundle: Bundle | str | Path,
    source: str | Path,
    out: str | Path,
    *,
    pool: str = "mean",
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Write one vector of the last hidden layer for each text of a file; return rows and width.

    Args:
        bundle: A bundle or its folder.
        source: A file with the text's column of the training data.
        out: `.npy` ([rows, width] float32, nothing pickled) or `.parquet` (`row`, `vector`).
        pool: `mean`, `cls` or `max`, or `pooler` where the backbone has one.
        progress: Told how many rows are done, and how many there are.

    Raises:
        HeadraceError: The bundle, the file or the place to write is no good.
    """
    out = Path(out)
    if out.suffix not in (".npy", ".parquet"):
        raise DataError(
            f"vectors are not written as {out.suffix or 'a file without ending'}",
            where=str(out),
            next=".npy or .parquet",
        )
    if pool not in POOLS:
        raise RecipeError(f"there is no pooling {pool!r}", where="--pool", next=f"one of: {', '.join(POOLS)}")
    loaded = _loaded(bundle)
    examples = _texts(loaded, source, on_bad_row="error")  # row i of the file is vector i
    width = int(loaded.classifier.backbone.width)
    with atomic_file(out) as file:
        write = _npy(file, len(examples), width) if out.suffix == ".npy" else _parquet(file, width)
        for start, stop in examples.batches(ROWS_AT_A_TIME):
            vectors = np.asarray(loaded.embed(examples.texts(start, stop), pool=pool), dtype=np.float32)
            write(examples.column(ROW, start, stop), vectors)
            if progress is not None:
                progress(stop, len(examples))
        write([], None)
    return len(examples), width


def similar_in_file(
    bundle: Bundle | str | Path, query: str, source: str | Path, *, top: int = 10, pool: str = "mean"
) -> list[Found]:
    """Return the documents of a file that are nearest to a query by the cosine of their vectors, the nearest first.

    Raises:
        HeadraceError: The bundle or the file is no good.
    """
    loaded = _loaded(bundle)
    examples = _texts(loaded, source, on_bad_row="error")
    wanted = np.asarray(loaded.embed([query], pool=pool))
    best: list[tuple[float, int]] = []
    for start, stop in examples.batches(ROWS_AT_A_TIME):
        indices, cosines = rank(wanted, np.asarray(loaded.embed(examples.texts(start, stop), pool=pool)), top)
        # Of equal ones the earlier row wins: the negative position sorts it first.
        here = zip(cosines[0].tolist(), (-(start + indices[0])).tolist(), strict=True)
        best = heapq.nlargest(top, [*best, *here])
    return [_found(examples, -place, cosine) for cosine, place in best]


@contextmanager
def piped(stream: BinaryIO, bundle: Bundle) -> Iterator[Piped]:
    """Keep what comes through a pipe in a temporary file while the block lasts, and yield it as a source.

    Lines that begin with `{` are JSON objects with the bundle's columns. Other lines are texts; for a bundle of pairs,
    two texts with a tab between them.

    Raises:
        DataError: A line of pairs has not exactly one tab.
    """
    columns = bundle.about.text.columns
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        path = Path(folder) / "lines.jsonl"
        is_json: bool | None = None
        with open(path, "w", encoding="utf-8") as file:
            for number, raw in enumerate(stream, start=1):
                line = raw.decode("utf-8", "replace").rstrip("\r\n")
                if is_json is None and line.strip():
                    is_json = line.lstrip().startswith("{")
                file.write(line if is_json or is_json is None else _json_of(line, columns, number))
                file.write("\n")
        yield Piped(path)


def _json_of(line: str, columns: Sequence[str], number: int) -> str:
    parts = line.split("\t") if len(columns) > 1 else [line]
    if len(parts) != len(columns):
        raise DataError(
            f"the line has {len(parts) - 1} tabs; a pair is two texts with one tab between them",
            where=f"{Piped.NAME}:{number}",
            next=f'or write JSON lines: {{"{columns[0]}": …, "{columns[-1]}": …}}',
        )
    return json.dumps(dict(zip(columns, parts, strict=True)), ensure_ascii=False)


def with_label_columns(bundle: Bundle) -> TextSettings:
    """Return a bundle's text settings, the label's columns taken from its recipe where it does not say them.

    Raises:
        DataError: Neither says it.
    """
    settings = bundle.about.text
    if settings.label_columns:
        return settings
    data = read_document(bundle.recipe_yaml, name="the bundle's recipe").values.get("data", {})
    label = data.get("label")
    if not label:
        raise DataError(
            "the bundle does not say which column holds the label", where=str(bundle.folder), next="train it anew"
        )
    names = (label,) if isinstance(label, str) else tuple(label)
    separator = data.get("label_separator")
    return replace(settings, label_columns=names, separator=separator)


def _loaded(bundle: Bundle | str | Path) -> Bundle:
    return bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)


def _texts(bundle: Bundle, source: str | Path | Piped, *, on_bad_row: Any = "skip") -> Examples:
    columns = Columns(text=bundle.about.text.columns)
    if not isinstance(source, Piped):
        return read(source, columns, on_bad_row=on_bad_row, label_required=False)
    place = str(source.path)
    try:
        examples = read(source.path, columns, on_bad_row=on_bad_row, label_required=False)
    except DataError as error:
        what, where = error.what.replace(place, Piped.NAME), (error.where or Piped.NAME).replace(place, Piped.NAME)
        raise DataError(what, where=where, next=error.next) from error
    bad = tuple(replace(row, where=row.where.replace(place, Piped.NAME)) for row in examples.bad_rows)
    return replace(examples, source=Piped.NAME, bad_rows=bad)


def _parts(examples: Examples, progress: Progress | None) -> Iterator[Any]:
    for start, stop in examples.batches(ROWS_AT_A_TIME):
        yield examples.texts(start, stop)
        if progress is not None:
            progress(stop, len(examples))


def _predictions(
    bundle: Bundle, examples: Examples, threshold: float | None, progress: Progress | None
) -> Iterator[tuple[int, int, list[Prediction]]]:
    for start, stop in examples.batches(ROWS_AT_A_TIME):
        yield start, stop, bundle.predict(examples.texts(start, stop), threshold)
        if progress is not None:
            progress(stop, len(examples))


def _own_threshold(bundle: Bundle) -> float | np.ndarray:
    own = bundle.about.threshold
    if own is None:
        return 0.5
    return float(own) if isinstance(own, int | float) else np.array([own.get(name, 0.5) for name in bundle.labels])


def _write_bad_rows(examples: Examples, out: Path) -> Path | None:
    if not examples.n_bad_rows:
        return None
    path = out.with_name(f"{out.name}.bad_rows.jsonl")
    rows: Sequence[Any] = [(bad.where, bad.reason, bad.content) for bad in examples.bad_rows]
    write_rows(path, {"where": str, "reason": str, "content": str}, rows)
    return path


Write = Callable[[list[int], np.ndarray | None], None]


def _npy(file: BinaryIO, n_rows: int, width: int) -> Write:
    header = {"descr": "<f4", "fortran_order": False, "shape": (n_rows, width)}
    np.lib.format.write_array_header_1_0(file, header)

    def write(rows: list[int], vectors: np.ndarray | None) -> None:
        if vectors is not None:
            file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())

    return write


def _parquet(file: BinaryIO, width: int) -> Write:
    schema = pa.schema([("row", pa.int64()), ("vector", pa.list_(pa.float32(), width))])
    writer = pq.ParquetWriter(file, schema, compression="zstd")

    def write(rows: list[int], vectors: np.ndarray | None) -> None:
        if vectors is None:
            writer.close()
            return
        flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
        arrays = [pa.array(rows, pa.int64()), pa.FixedSizeListArray.from_arrays(flat, width)]
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema))

    return write


def _found(examples: Examples, place: int, cosine: float) -> Found:
    file = examples.column(FILE, place, place + 1)[0] if FILE in examples.table.column_names else None
    text = examples.texts(place, place + 1)[0]
    return Found(examples.column(ROW, place, place + 1)[0], round(cosine, 6), text, file)
