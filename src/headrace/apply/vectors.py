"""Vectors of the texts of a file, and the texts nearest to a query."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Unpack

import numpy as np
import pyarrow as pa

from headrace.apply.where import Progress, Where, on_device, windows
from headrace.bundle import Bundle
from headrace.data.examples import FILE, ROW, Examples
from headrace.errors import DataError, RecipeError
from headrace.files import atomic_file
from headrace.head import NO_POOL
from headrace.predict import POOLS
from headrace.similar import rank, refuse_empty
from headrace.sources import texts_of
from headrace.text.subwords import Texts

# Takes rows and their vectors, or tokens with vectors; without them it ends the file.
Write = Callable[[list[int], Any | None], None]

# Of token vectors so much is held at once: with 256 tokens of width 384 those of 341 texts.
TOKEN_WINDOW_BYTES = 128 << 20


@dataclass(frozen=True)
class Found:
    """A document that is like the query: its row, its text, and the cosine of the two vectors in [-1, 1]."""

    row: int
    cosine: float
    text: str | tuple[str, str]
    file: str | None = None


def embed_file(
    bundle: Bundle | str | Path,
    source: Any,
    out: str | Path,
    *,
    pool: str = "mean",
    progress: Progress | None = None,
    **where: Unpack[Where],
) -> tuple[int, int]:
    """Write one vector of the last hidden layer for each text of a file, or for each token; return rows and width.

    Args:
        bundle: A bundle or its folder.
        source: A file with the text's column of the training data.
        out: `.npy` ([rows, width] float32, nothing pickled) or `.parquet` (`row`, `vector`; of tokens `row`, `tokens`,
            `vectors`).
        pool: `mean`, `cls`, `max` or `concat`, `pooler` where the backbone has one, or `none` for a vector a token.
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
    _require_pool(pool, (*POOLS, NO_POOL))
    if pool == NO_POOL and out.suffix == ".npy":
        raise DataError(
            "vectors of tokens are not written as .npy: one text has more of them than another",
            where=str(out),
            next="write them as .parquet, or one vector a text with --pool mean",
        )
    loaded = on_device(bundle, where)
    precision = where.get("precision", "fp32")
    width = loaded.classifier.embedding_width(pool)
    rows = None if pool != NO_POOL else max(1, TOKEN_WINDOW_BYTES // (4 * width * loaded.about.text.max_length))
    # a row left out would shift the vectors behind it: row i of the file is vector i
    with texts_of(loaded, source, on_bad_row="error") as examples, atomic_file(out) as file:
        if out.suffix == ".npy":
            write = _npy(file, len(examples), width)
        else:
            write = _token_parquet(file, width) if pool == NO_POOL else _parquet(file, width)
        for start, stop in windows(examples, rows):
            texts = examples.texts(start, stop)
            vectors = loaded.embed(texts, pool=pool, precision=precision)
            write(examples.column(ROW, start, stop), (loaded.tokens(texts), vectors) if pool == NO_POOL else vectors)
            if progress is not None:
                progress(stop, len(examples))
        write([], None)
        return len(examples), width


def similar_in_file(
    bundle: Bundle | str | Path,
    query: str | tuple[str, str],
    source: Any,
    *,
    top: int = 10,
    pool: str = "mean",
    **where: Unpack[Where],
) -> list[Found]:
    """Return the documents of a file that are nearest to a query by the cosine of their vectors, the nearest first.

    Args:
        bundle: A bundle or its folder.
        query: A text, or a pair for a bundle of pairs.
        source: A file with the text's columns of the training data.
        top: At most so many.
        pool: As in `embed_file`, but for `none`.
        **where: See `Where`.

    Raises:
        HeadraceError: The bundle or the file is no good.
    """
    _require_pool(pool, POOLS)
    refuse_empty(query)
    loaded = on_device(bundle, where)
    precision = where.get("precision", "fp32")
    queries: Texts = [query]  # type: ignore[assignment]  # a text for a bundle of texts, a pair for one of pairs
    wanted = np.asarray(loaded.embed(queries, pool=pool, precision=precision))
    best: list[tuple[float, int]] = []
    with texts_of(loaded, source, on_bad_row="error") as examples:
        for start, stop in windows(examples):
            vectors = np.asarray(loaded.embed(examples.texts(start, stop), pool=pool, precision=precision))
            indices, cosines = rank(wanted, vectors, top)
            # Of equal ones the earlier row wins: the negative position sorts it first.
            here = zip(cosines[0].tolist(), (-(start + indices[0])).tolist(), strict=True)
            best = heapq.nlargest(top, [*best, *here])
        return [_found(examples, -place, cosine) for cosine, place in best]


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


def _token_parquet(file: BinaryIO, width: int) -> Write:
    import pyarrow.parquet as pq

    vector = pa.list_(pa.float32(), width)
    schema = pa.schema([("row", pa.int64()), ("tokens", pa.list_(pa.string())), ("vectors", pa.list_(vector))])
    writer = pq.ParquetWriter(file, schema, compression="zstd")

    def write(rows: list[int], found: tuple[list[list[str]], list[np.ndarray]] | None) -> None:
        if found is None:
            writer.close()
            return
        tokens, vectors = found
        flat = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(vectors).reshape(-1)), width)
        ends = np.cumsum([0, *map(len, vectors)], dtype=np.int32)
        arrays = [pa.array(rows, pa.int64()), pa.array(tokens, schema.field("tokens").type)]
        arrays.append(pa.ListArray.from_arrays(pa.array(ends), flat))
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema))

    return write


def _require_pool(pool: str, known: Sequence[str]) -> None:
    if pool not in known:
        raise RecipeError(f"there is no pooling {pool!r}", where="--pool", next=f"one of: {', '.join(known)}")


def _found(examples: Examples, place: int, cosine: float) -> Found:
    file = examples.column(FILE, place, place + 1)[0] if FILE in examples.table.column_names else None
    text = examples.texts(place, place + 1)[0]
    return Found(examples.column(ROW, place, place + 1)[0], round(cosine, 6), text, file)
