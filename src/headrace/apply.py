"""Applies a bundle to a file: predictions, an evaluation, vectors, the documents nearest to a query.

What predictions have no use for is imported where it is used: ten texts should not wait for the parts of a report.
"""

from __future__ import annotations

import heapq
import json
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypedDict, Unpack

import numpy as np
import pyarrow as pa
import torch

from headrace import plugins
from headrace.bundle import Bundle, TextSettings, versions
from headrace.bundle.about import Threshold
from headrace.data.examples import FILE, ROW, Examples, LabelSet
from headrace.data.read import Columns, read
from headrace.errors import BundleError, DataError, RecipeError
from headrace.evaluation import Evaluation
from headrace.files import atomic_file, write_error
from headrace.kept_scores import KeptScores
from headrace.matmul import fastest_route
from headrace.predict import POOLS, Prediction, device_of, known_precision, thresholds
from headrace.similar import rank
from headrace.sources import OnBadRow, row_of, scratch, texts_of
from headrace.tables import TableWriter, extension_of, write_rows

# Texts and scores of so many rows are held at once: a few MB, and enough to find texts of like length for each pass.
ROWS_AT_A_TIME = 4096
# Rows whose scores are kept together; what a prediction that was cut has to compute again, at most.
ROWS_KEPT = 1024

Progress = Callable[[int, int], None]


class Where(TypedDict, total=False):
    """Where and how a file's texts are computed.

    Attributes:
        device: `auto` (an accelerator if there is one), `cpu`, or such as `cuda:0`. By default `auto` for a bundle's
            folder; a bundle that is loaded stays where it is.
        precision: `fp32`, or `bf16` (scores move by about 1e-2).
    """

    device: str
    precision: str


@dataclass(frozen=True)
class Predicted:
    """What became of the rows of a file; `n_rows` is `n_predicted + n_bad_rows`.

    Attributes:
        out: The file written.
        n_rows: Rows that were read.
        n_predicted: Rows that have a prediction.
        n_bad_rows: Rows that could not be read.
        n_flagged: Predictions by flag: `empty`, `unknown`, `cut`, `surrogate`.
        errors: Where the bad rows are listed (at most 10,000 of them); None without any.
        n_kept: Rows whose scores an earlier call had computed that did not end.
    """

    out: Path
    n_rows: int
    n_predicted: int
    n_bad_rows: int
    n_flagged: Mapping[str, int]
    errors: Path | None
    n_kept: int = 0

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
    source: Any,
    out: str | Path,
    *,
    threshold: Threshold | None = None,
    raw: bool = False,
    on_bad_row: OnBadRow = "skip",
    progress: Progress | None = None,
    **where: Unpack[Where],
) -> Predicted:
    """Predict each text of a file and write one row for each, in the file's order; memory does not grow with the rows.

    The scores of a longer file are kept in `OUT.partial` until the output is whole: the same call, made again after
    an interruption, computes only what is missing. They belong to this bundle, these texts, this precision and this
    machine; another threshold takes them, too.

    The columns are `row`, `label` and `index` (or `labels`), `reason` if the bundle may abstain, `score_NAME` for each
    label, and `flags`. Rows that cannot
    be read are left out and listed, with reasons, in `OUT.errors.jsonl`; a list that an earlier call left is removed.

    Args:
        bundle: A bundle or its folder.
        source: A file with the text's column of the training data, a pipe, or what else `headrace.evaluate` takes.
        out: `.csv .tsv .jsonl` (each also `.gz`) or `.parquet`.
        threshold: Instead of the bundle's own; as in `Bundle.predict`.
        raw: Write texts to CSV without the guard against formulas.
        on_bad_row: `error` raises all bad rows together, and writes nothing.
        progress: Told how many rows are done, and how many there are.
        **where: See `Where`.

    Raises:
        HeadraceError: The bundle, the file, the threshold or the place to write is no good.
    """
    out = Path(out)
    extension_of(out)  # refused before an hour of work, not after it
    loaded = _loaded(bundle, where)
    multi_label = _is_multi_label(loaded)
    thresholds(threshold, loaded.labels, multi_label=multi_label)
    n_flagged: dict[str, int] = {}
    with texts_of(loaded, source, on_bad_row=on_bad_row) as examples:
        places = [ROW, FILE] if FILE in examples.table.column_names else [ROW]
        columns: dict[str, type] = {ROW: int, FILE: str} if FILE in places else {ROW: int}
        columns |= {"labels": list} if multi_label else {"label": str, "index": int}
        abstains = loaded.decision.abstain_below is not None
        columns |= {"reason": str} if abstains else {}
        columns |= {**{f"score_{name}": float for name in loaded.labels}, "flags": list}
        kept = _kept(loaded, examples, out, where)
        n_kept = 0
        with TableWriter(out, columns, raw=raw) as table:
            for start, stop, predictions, was_kept in _predictions(loaded, examples, threshold, progress, where, kept):
                n_kept += (stop - start) * was_kept
                found = zip(*(examples.column(name, start, stop) for name in places), strict=True)
                rows = zip(found, predictions, strict=True)
                table.write([[*place, *_values(p, abstains=abstains)] for place, p in rows])
                for flag in (flag for prediction in predictions for flag in prediction.flags):
                    n_flagged[flag] = n_flagged.get(flag, 0) + 1
        n_bad = examples.n_bad_rows
        errors = _write_bad_rows(examples, out)
        if kept is not None:
            kept.remove()
        return Predicted(out, len(examples) + n_bad, len(examples), n_bad, n_flagged, errors, n_kept)


def partial_folder(out: str | Path) -> Path:
    """Return the folder in which the scores of an output that is not yet whole are kept."""
    out = Path(out)
    return out.with_name(f"{out.name}.partial")


def predict_rows(
    bundle: Bundle | str | Path, source: Any, *, threshold: Threshold | None = None, **where: Unpack[Where]
) -> tuple[list[tuple[int, Prediction]], Examples]:
    """Return (row, prediction) of each text of a file, and the texts; for files that fit into memory.

    Raises:
        HeadraceError: The bundle or the file is no good.
    """
    loaded = _loaded(bundle, where)
    found: list[tuple[int, Prediction]] = []
    with texts_of(loaded, source) as examples:
        for start, stop, predictions, _ in _predictions(loaded, examples, threshold, None, where):
            found += zip(examples.column(ROW, start, stop), predictions, strict=True)
    return found, examples


def evaluate(
    bundle: Bundle | str | Path,
    source: Any,
    *,
    out: str | Path | None = None,
    threshold: Threshold | None = None,
    progress: Progress | None = None,
    **where: Unpack[Where],
) -> Evaluation:
    """Score labelled texts with a bundle and say how good it is, with intervals.

    Args:
        bundle: A bundle or its folder.
        source: A file, a folder per label, `hub:owner/name`, or rows in memory, with the columns of the training data.
        out: A folder for report.json, report.html and errors.csv.
        threshold: Of multi-label, instead of the bundle's own: one number, or numbers by label name.
        progress: Told how many rows are done, and how many there are.
        **where: See `Where`.

    Raises:
        HeadraceError: The bundle or the data are no good; a label that the bundle does not know is one error.
    """
    from headrace.data.labels import targets
    from headrace.evaluate import evaluate as evaluate_scores
    from headrace.report import error_rows, write_errors, write_page, write_report

    loaded = _loaded(bundle, where)
    limits = _limits(loaded, threshold)
    settings = with_label_columns(loaded)
    labels = LabelSet(loaded.labels)
    columns = Columns(
        text=settings.columns,
        label=settings.label_columns,
        separator=settings.separator,
        multi_label=_is_multi_label(loaded),
        labels=loaded.labels,
    )
    with scratch() as cache:
        examples = read(source, columns, cache=cache, split="test")
        truth = targets(examples, labels)
        precision = where.get("precision", "fp32")
        scores = np.concatenate([loaded.scores(texts, precision=precision) for texts in _parts(examples, progress)])
        evaluation = evaluate_scores(
            truth, scores, labels=labels, task=loaded.decision.task, split=examples.source, threshold=limits
        )
        if out is not None:
            rows = error_rows(examples, truth, scores, labels=labels, threshold=limits)
            write_errors(Path(out) / "errors.csv", rows)
            path = write_report(
                out,
                evaluation=evaluation,
                timing={},
                data={"source": examples.source, "rows": len(examples), "fingerprint": examples.fingerprint},
                recipe={"bundle": str(loaded.folder)},
                versions=versions(),
                name=f"{loaded.folder} on {examples.source}",
            )
            write_page(out, json.loads(path.read_text("utf-8")))
    return evaluation


def embed_file(
    bundle: Bundle | str | Path,
    source: Any,
    out: str | Path,
    *,
    pool: str = "mean",
    progress: Progress | None = None,
    **where: Unpack[Where],
) -> tuple[int, int]:
    """Write one vector of the last hidden layer for each text of a file; return rows and width.

    Args:
        bundle: A bundle or its folder.
        source: A file with the text's column of the training data.
        out: `.npy` ([rows, width] float32, nothing pickled) or `.parquet` (`row`, `vector`).
        pool: `mean`, `cls` or `max`, or `pooler` where the backbone has one.
        progress: Told how many rows are done, and how many there are.
        **where: See `Where`.

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
    loaded = _loaded(bundle, where)
    precision = where.get("precision", "fp32")
    width = loaded.classifier.embedding_width(pool)
    # a row left out would shift the vectors behind it: row i of the file is vector i
    with texts_of(loaded, source, on_bad_row="error") as examples, atomic_file(out) as file:
        write = _npy(file, len(examples), width) if out.suffix == ".npy" else _parquet(file, width)
        for start, stop in examples.batches(ROWS_AT_A_TIME):
            vectors = np.asarray(
                loaded.embed(examples.texts(start, stop), pool=pool, precision=precision), dtype=np.float32
            )
            write(examples.column(ROW, start, stop), vectors)
            if progress is not None:
                progress(stop, len(examples))
        write([], None)
        return len(examples), width


def similar_in_file(
    bundle: Bundle | str | Path, query: str, source: Any, *, top: int = 10, pool: str = "mean", **where: Unpack[Where]
) -> list[Found]:
    """Return the documents of a file that are nearest to a query by the cosine of their vectors, the nearest first.

    Raises:
        HeadraceError: The bundle or the file is no good.
    """
    loaded = _loaded(bundle, where)
    precision = where.get("precision", "fp32")
    wanted = np.asarray(loaded.embed([query], pool=pool, precision=precision))
    best: list[tuple[float, int]] = []
    with texts_of(loaded, source, on_bad_row="error") as examples:
        for start, stop in examples.batches(ROWS_AT_A_TIME):
            vectors = np.asarray(loaded.embed(examples.texts(start, stop), pool=pool, precision=precision))
            indices, cosines = rank(wanted, vectors, top)
            # Of equal ones the earlier row wins: the negative position sorts it first.
            here = zip(cosines[0].tolist(), (-(start + indices[0])).tolist(), strict=True)
            best = heapq.nlargest(top, [*best, *here])
        return [_found(examples, -place, cosine) for cosine, place in best]


def with_label_columns(bundle: Bundle) -> TextSettings:
    """Return a bundle's text settings, the label's columns taken from its recipe where it does not say them itself.

    Raises:
        BundleError: Neither says it.
    """
    settings = bundle.about.text
    if settings.label_columns:
        return settings
    from headrace.recipe.document import read_document

    data = read_document(bundle.recipe_yaml, name="the bundle's recipe").values.get("data")
    data = data if isinstance(data, Mapping) else {}
    label = data.get("label")
    if not label:
        raise BundleError(
            "the bundle does not say which column holds the label",
            where=str(bundle.folder),
            next="train it anew with this version, which writes the column into the bundle",
        )
    names = (label,) if isinstance(label, str) else tuple(label)
    return replace(settings, label_columns=names, separator=data.get("label_separator"))


def _loaded(bundle: Bundle | str | Path, where: Where) -> Bundle:
    """Return the bundle on the device that is asked for."""
    known_precision(where.get("precision", "fp32"))  # refused before anything is read
    name = where.get("device", None if isinstance(bundle, Bundle) else "auto")
    device = None if name is None else device_of(name)
    loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    if device is not None:
        loaded.classifier.to(device)
    return loaded


def _kept(bundle: Bundle, examples: Examples, out: Path, where: Where) -> KeptScores | None:
    """Return what an earlier call has computed of these texts; None where it is not worth a folder."""
    if bundle.identity is None or len(examples) <= ROWS_KEPT:
        return None
    device = next(bundle.classifier.parameters()).device.type
    key = {
        "bundle": bundle.identity,
        "texts": examples.content_key(),
        "rows": ROWS_KEPT,
        "precision": where.get("precision", "fp32"),
        "device": device,
        "route": fastest_route() if device == "cpu" else None,
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "versions": versions(),
    }
    return KeptScores(partial_folder(out), key)


def _is_multi_label(bundle: Bundle) -> bool:
    return bool(plugins.find("task", bundle.task).MULTI_LABEL)


def _limits(bundle: Bundle, threshold: Threshold | None) -> float | np.ndarray | None:
    if _is_multi_label(bundle):
        chosen = bundle.threshold if threshold is None else threshold
        return thresholds(chosen, bundle.labels, multi_label=True)
    if threshold is not None:
        raise RecipeError(
            f"an evaluation of {bundle.task} takes no threshold",
            where="threshold",
            next="leave it out: the label with the highest score is the answer",
        )
    return None


def _values(prediction: Prediction, *, abstains: bool) -> list[Any]:
    if prediction.is_multi_label:
        answer: list[Any] = [None if prediction.reason else list(prediction.labels)]
    else:
        answer = [prediction.label, prediction.index]
    # the shortest decimal that is this float32: 0.8 rather than 0.800000011920929
    scores = [float(str(np.float32(score))) for score in prediction.scores.values()]
    return [*answer, *([prediction.reason] if abstains else []), *scores, list(prediction.flags)]


def _parts(examples: Examples, progress: Progress | None) -> Iterator[Any]:
    for start, stop in examples.batches(ROWS_AT_A_TIME):
        yield examples.texts(start, stop)
        if progress is not None:
            progress(stop, len(examples))


def _predictions(
    bundle: Bundle,
    examples: Examples,
    threshold: Threshold | None,
    progress: Progress | None,
    where: Where,
    kept: KeptScores | None = None,
) -> Iterator[tuple[int, int, list[Prediction], bool]]:
    """Yield (start, stop) of each window, its predictions, and whether its scores were kept."""
    precision = where.get("precision", "fp32")
    for window, (start, stop) in enumerate(examples.batches(ROWS_AT_A_TIME if kept is None else ROWS_KEPT)):
        found = None if kept is None else kept.read(window, stop - start)
        was_kept = found is not None
        if found is None:
            found = bundle.scores_and_flags(examples.texts(start, stop), precision=precision)
            if kept is not None:
                kept.write(window, *found)
        yield start, stop, bundle.answers(*found, threshold), was_kept
        if progress is not None:
            progress(stop, len(examples))


def _write_bad_rows(examples: Examples, out: Path) -> Path | None:
    path = out.with_name(f"{out.name}.errors.jsonl")
    if not examples.n_bad_rows:
        try:
            path.unlink(missing_ok=True)  # of an earlier call: it would speak of rows that are good now
        except OSError as error:
            raise write_error(path, error) from error
        return None
    rows = [(row_of(bad, source=examples.source), bad.where, bad.reason, bad.content) for bad in examples.bad_rows]
    write_rows(path, {ROW: int, "where": str, "reason": str, "content": str}, rows)
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
    import pyarrow.parquet as pq

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
