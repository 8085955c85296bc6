"""Ranks documents by how near their vectors are to a query's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np

from headrace.bundle import Bundle
from headrace.errors import DataError, RecipeError, suggestion
from headrace.predict import POOLS, Compute
from headrace.text.subwords import Texts


@dataclass(frozen=True)
class Match:
    """A document that is near a query.

    Attributes:
        index: The document's position.
        text: The document, or the pair.
        cosine: In [-1, 1]; 1 for the same direction.
    """

    index: int
    text: str | tuple[str, str]
    cosine: float


def rank(query_vectors: np.ndarray, document_vectors: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each query the documents with the highest cosine, the nearest first.

    Of equally near documents the first one wins. A vector of zeros has the cosine 0 with everything.

    Args:
        query_vectors: [queries, width].
        document_vectors: [documents, width].
        top: Documents a query, from 1; no more than there are.

    Returns:
        indices [queries, top] int64, and cosines [queries, top] float32.

    Raises:
        DataError: `top` is below 1, or the widths differ.
    """
    queries, documents = np.asarray(query_vectors), np.asarray(document_vectors)
    if top < 1:
        raise DataError(f"the {top} nearest documents were asked for", where="top", next="ask for at least 1")
    if queries.ndim != 2 or documents.ndim != 2 or queries.shape[1] != documents.shape[1]:
        raise DataError(
            f"the queries have the shape {queries.shape}, the documents {documents.shape}",
            where="document_vectors",
            next="embed both with the same bundle and the same pooling",
        )
    cosines = np.clip(_unit(queries) @ _unit(documents).T, -1.0, 1.0)
    # a stable sort of the negated: of equal ones the first stays first
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :top]
    return nearest, np.take_along_axis(cosines, nearest, axis=1).astype(np.float32)


def refuse_empty(query: str | tuple[str, str]) -> None:
    """Refuse a query without a word.

    Raises:
        DataError: It is white space, on either side of a pair.
    """
    parts = query if isinstance(query, tuple | list) else (query,)
    if any(isinstance(part, str) and not part.strip() for part in parts):
        raise DataError("the query is empty, and nothing is near to no words", where="query", next="give a text")


def similar(
    bundle: Bundle,
    query: str | tuple[str, str],
    documents: Texts,
    top: int = 5,
    pool: str = "mean",
    **compute: Unpack[Compute],
) -> list[Match]:
    """Return the documents nearest to a query by the vectors of the bundle's last hidden layer, the nearest first.

    Args:
        bundle: Gives the vectors.
        query: A text, or a pair for a bundle of pairs.
        documents: Texts of the same kind; none give an empty list.
        top: At most so many.
        pool: `mean`, `cls`, `max` or `pooler`.
        **compute: See `headrace.predict.Compute`.

    Raises:
        DataError: An input is not a text, the query is empty, or `top` is below 1.
        RecipeError: There is no such pooling.
    """
    if pool not in POOLS:  # a vector for each token cannot be compared with another text's
        raise RecipeError(f"there is no pooling {pool!r}", where="pool", next=suggestion(pool, POOLS))
    refuse_empty(query)
    if len(documents) == 0:
        return []
    queries: Texts = [query]  # type: ignore[assignment]  # a text for a bundle of texts, a pair for one of pairs
    vectors = [np.asarray(bundle.embed(texts, pool, **compute)) for texts in (queries, documents)]
    indices, cosines = rank(vectors[0], vectors[1], top)
    items: Sequence[str | tuple[str, str]] = documents
    return [
        Match(int(index), items[int(index)], float(cosine))
        for index, cosine in zip(indices[0], cosines[0], strict=True)
    ]


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1.0))
