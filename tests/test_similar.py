"""Documents are ranked by the cosine of their vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.bundle import save_bundle
from headrace.data.examples import LabelSet
from headrace.errors import DataError
from headrace.head import HeadSettings
from headrace.model import load_classifier
from headrace.similar import rank, similar
from headrace.text.subwords import Subwords
from tiny import SENTENCES, tiny_folder


def test_the_nearest_come_first_and_length_does_not_count() -> None:
    queries = np.array([[1.0, 0.0], [0.0, 2.0]])
    documents = np.array([[0.0, 9.0], [0.1, 0.0], [-1.0, 0.0], [3.0, 3.0], [0.0, 0.0]])
    indices, cosines = rank(queries, documents, 3)
    assert indices.tolist() == [[1, 3, 0], [0, 3, 1]]
    np.testing.assert_allclose(cosines, [[1, 0.5**0.5, 0], [1, 0.5**0.5, 0]], atol=1e-6)
    indices, cosines = rank(queries[:1], documents, 99)
    assert indices.tolist() == [[1, 3, 0, 4, 2]]
    assert cosines[0, -1] == -1.0


def test_what_cannot_be_ranked_is_refused() -> None:
    with pytest.raises(DataError, match="the 0 nearest documents were asked for"):
        rank(np.ones((1, 2)), np.ones((1, 2)), 0)
    with pytest.raises(DataError, match=r"the queries have the shape \(1, 2\), the documents \(1, 3\)"):
        rank(np.ones((1, 2)), np.ones((1, 3)), 1)


def test_a_text_is_most_similar_to_itself(tmp_path: Path) -> None:
    source = tiny_folder(tmp_path)
    classifier = load_classifier(
        backbone=str(source), head=HeadSettings(), labels=LabelSet(("a", "b")), multi_label=False
    )
    bundle = save_bundle(
        tmp_path / "bundle",
        classifier=classifier,
        subwords=Subwords.load(source),
        task="single_label",
        text={"max_length": 64},
        recipe_yaml="",
    )
    found = similar(bundle, SENTENCES[4], SENTENCES, top=3)
    assert found[0].index == 4
    assert found[0].text == SENTENCES[4]
    assert found[0].cosine == pytest.approx(1.0, abs=1e-5)
    assert [match.cosine for match in found] == sorted((match.cosine for match in found), reverse=True)
    assert len(found) == 3
    assert similar(bundle, "film", []) == []
