"""Wrong labels are found among small made-up texts."""

from __future__ import annotations

import builtins
import gzip
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.data.examples import LabelSet
from headrace.errors import DataError, MissingExtra
from headrace.mislabelled import MAX_RANKED, Suspects, mislabelled

pytest.importorskip("cleanlab")

TOPICS = {
    "food": ["soup", "bread", "cheese", "apple", "dinner", "kitchen", "salt", "oven", "lunch", "bake"],
    "sport": ["match", "goal", "team", "coach", "league", "race", "tennis", "player", "score", "stadium"],
    "money": ["bank", "loan", "market", "price", "tax", "share", "invest", "credit", "profit", "budget"],
}
LABELS = LabelSet(tuple(TOPICS))


def made(n: int, seed: int, *, n_topics: int = 3) -> tuple[list[str], np.ndarray]:
    """Texts of twelve words, six of their topic and six of any."""
    draw = np.random.default_rng(seed)
    words = [list(TOPICS[name]) for name in LABELS.names[:n_topics]]
    every = [word for topic in words for word in topic]
    targets = draw.integers(0, n_topics, n)
    texts = [" ".join([*draw.choice(words[t], 6), *draw.choice(every, 6), str(i)]) for i, t in enumerate(targets)]
    return texts, targets


def flipped(targets: np.ndarray, n: int, seed: int, *, n_topics: int = 3) -> tuple[np.ndarray, set[int]]:
    draw = np.random.default_rng(seed)
    rows = draw.choice(len(targets), n, replace=False)
    noisy = targets.copy()
    noisy[rows] = (noisy[rows] + draw.integers(1, n_topics, n)) % n_topics
    return noisy, set(rows.tolist())


@pytest.mark.parametrize("n_topics", [2, 3])
def test_flipped_labels_stand_first(n_topics: int) -> None:
    texts, targets = made(300, 0, n_topics=n_topics)
    noisy, wrong = flipped(targets, 15, 1, n_topics=n_topics)
    labels = LabelSet(LABELS.names[:n_topics])
    found = mislabelled(texts, noisy, labels, task="single_label", seed=3)
    top = found.rows[:15]
    assert len(wrong & {row.position for row in top}) >= 12
    for row in top:
        assert row.given == (labels.names[noisy[row.position]],)
        if row.position in wrong:
            assert row.suggested == (labels.names[targets[row.position]],)
    assert [row.score for row in found.rows] == sorted(row.score for row in found.rows)
    assert (found.n_rows, found.n_left_out, found.labels_left_out) == (300, 0, ())
    assert 10 <= found.n_estimated <= 25
    assert 0.9 < found.agreement_share < 0.97


def test_the_same_seed_gives_the_same_ranking() -> None:
    texts, targets = made(120, 4)
    noisy, _ = flipped(targets, 6, 5)
    first, again, other = (mislabelled(texts, noisy, LABELS, task="single_label", seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert [row.score for row in first.rows] != [row.score for row in other.rows]


def test_several_labels_a_row() -> None:
    draw = np.random.default_rng(6)
    targets = (draw.random((300, 3)) < 0.3).astype(np.float32)
    words = list(TOPICS.values())
    texts = [
        " ".join([*(w for label in np.flatnonzero(row) for w in draw.choice(words[label], 5)), f"text{i}", "so it is"])
        for i, row in enumerate(targets)
    ]
    noisy = targets.copy()
    wrong = draw.choice(300, 15, replace=False)
    columns = draw.integers(0, 3, 15)
    noisy[wrong, columns] = 1 - noisy[wrong, columns]
    found = mislabelled(texts, noisy, LABELS, task="multi_label", seed=0)
    top = found.rows[:15]
    assert len({row.position for row in top} & set(wrong.tolist())) >= 13
    right = {int(row): tuple(np.array(LABELS.names)[targets[row] > 0]) for row in wrong}
    assert sum(row.suggested == right.get(row.position) for row in top) >= 12
    assert 10 <= found.n_estimated <= 25


def test_rows_of_a_rare_label_are_not_ranked() -> None:
    texts, targets = made(120, 7, n_topics=2)
    targets[:3] = 2
    found = mislabelled(texts, targets, LABELS, task="single_label", seed=0)
    assert (found.n_rows, found.n_left_out, found.labels_left_out) == (117, 3, ("money",))
    assert min(row.position for row in found.rows) == 3
    dense = np.eye(3)[targets]
    several = mislabelled(texts, dense, LABELS, task="multi_label", seed=0)
    assert (several.n_rows, several.n_left_out, several.labels_left_out) == (120, 0, ("money",))
    by_position = {row.position: row for row in several.rows}
    assert "money" in by_position[0].given  # shown, though not judged
    assert "money" in by_position[0].suggested


def test_equal_texts_do_not_vouch_for_each_other() -> None:
    texts, targets = made(100, 8, n_topics=2)
    texts += [texts[0].upper() + " "] * 6  # seven times the same text, all with the wrong label
    targets = np.concatenate([targets, [0] * 6])
    targets[0] = targets[100:] = 1 - targets[0]
    found = mislabelled(texts, targets, LabelSet(LABELS.names[:2]), task="single_label", seed=0)
    assert {row.position for row in found.rows[:7]} == {0, *range(100, 106)}


def test_extra_features_help_where_words_do_not() -> None:
    draw = np.random.default_rng(9)
    texts = [f"all rows say the same, number {i % 7}" for i in range(200)]
    targets = draw.integers(0, 2, 200)
    # Other columns are of another size, and one is constant: they are standardized.
    features = np.stack([targets * 2.0 + draw.normal(0, 0.3, 200), 1e4 * draw.normal(0, 1, 200), np.ones(200)], axis=1)
    texts = [f"{text} {i}" for i, text in enumerate(texts)]
    noisy, wrong = flipped(targets, 10, 10, n_topics=2)
    labels = LabelSet(LABELS.names[:2])
    found = mislabelled(texts, noisy, labels, task="single_label", seed=0, extra_features=features)
    assert len({row.position for row in found.rows[:10]} & wrong) >= 9


def test_pairs_and_texts_without_spaces() -> None:
    texts, targets = made(150, 11, n_topics=2)
    noisy, wrong = flipped(targets, 8, 12, n_topics=2)
    labels = LabelSet(LABELS.names[:2])
    pairs = [(text, "a second text") for text in texts]
    found = mislabelled(pairs, noisy, labels, task="single_label", seed=0)
    assert found.rows[0].text.endswith("\na second text")
    assert len({row.position for row in found.rows[:8]} & wrong) >= 6
    glued = [text.replace(" ", "") for text in texts]  # as Chinese or Thai: no word occurs twice
    found = mislabelled(glued, noisy, labels, task="single_label", seed=0)
    assert len({row.position for row in found.rows[:8]} & wrong) >= 6


def test_no_more_than_a_thousand_are_named_and_long_texts_are_cut() -> None:
    texts, targets = made(MAX_RANKED + 100, 13, n_topics=2)
    texts = [text + " and so on" * 40 for text in texts]
    found = mislabelled(texts, targets, LabelSet(LABELS.names[:2]), task="single_label", seed=0, folds=2)
    assert len(found.rows) == MAX_RANKED
    assert found.n_rows == MAX_RANKED + 100
    assert {len(row.text) for row in found.rows} == {200}


def test_places_are_added_and_it_is_json() -> None:
    texts, targets = made(60, 14)
    found = mislabelled(texts, targets, LABELS, task="single_label", seed=0)
    placed = found.at([f"a.csv:{row.position + 2}" for row in found.rows])
    assert isinstance(placed, Suspects)
    value: dict[str, Any] = json.loads(json.dumps(placed.as_dict(), allow_nan=False))
    assert value["rows"][0]["where"] == f"a.csv:{value['rows'][0]['position'] + 2}"
    assert value["rows"][0]["given"] == [LABELS.names[targets[value["rows"][0]["position"]]]]


def test_too_few_rows_or_words_are_refused() -> None:
    with pytest.raises(DataError, match="1 of 2 labels have at least 5 rows"):
        mislabelled(["a b"] * 9, np.array([0] * 5 + [1] * 4), LabelSet(("x", "y")), task="single_label", seed=0)
    texts = [f"word{n} other{n}" for n in range(20)]
    with pytest.raises(DataError, match="no word occurs in two texts"):
        mislabelled(texts, np.arange(20) % 2, LabelSet(("x", "y")), task="single_label", seed=0)


def test_without_cleanlab_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "cleanlab"]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.split(".")[0] == "cleanlab":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(importlib, "import_module", missing)
    monkeypatch.setattr("headrace.mislabelled.import_module", missing)
    texts, targets = made(60, 15)
    with pytest.raises(MissingExtra, match="cleanlab is not installed") as caught:
        mislabelled(texts, targets, LABELS, task="single_label", seed=0)
    assert caught.value.next == "pip install 'headrace[labels]'"


@pytest.mark.slow
def test_half_of_the_first_rows_are_flips_on_real_reviews(real_data: Path) -> None:
    with gzip.open(real_data / "imdb" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    draw = np.random.default_rng(1)
    chosen = draw.choice(len(rows), 5000, replace=False)
    targets = np.array([rows[row]["label"] == "pos" for row in chosen], dtype=np.int64)
    noisy, wrong = flipped(targets, 250, 2, n_topics=2)
    texts = [rows[row]["text"] for row in chosen]
    found = mislabelled(texts, noisy, LabelSet(("neg", "pos")), task="single_label", seed=1)
    assert sum(row.position in wrong for row in found.rows[:250]) >= 125
