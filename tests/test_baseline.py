"""The baseline: scikit-learn's TF-IDF, a penalty chosen on validation, and whatever data people bring."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from headrace.baseline import Baseline, baseline_rows, fit_baseline, majority
from headrace.baseline import fit as fit_module
from headrace.baseline.overlap import overlaps
from headrace.baseline.terms import Terms, fit_terms, words
from headrace.data.examples import LabelSet
from headrace.errors import DataError
from headrace.evaluate import evaluate, monitor_value

GOOD = ["fine", "lovely", "bright", "clever"]
BAD = ["dull", "awful", "slow", "boring"]
PLAIN = ["the", "film", "was", "and", "its", "plot", "ended", "then"]
TWO = LabelSet(("bad", "good"))


def reviews(n: int, *, seed: int) -> tuple[list[str], np.ndarray]:
    """Eight plain words and two that tell the label, in any order."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, 2, n)
    texts = []
    for target in targets:
        told = random.choice(GOOD if target else BAD, 2).tolist()
        texts.append(" ".join(random.permutation([*random.choice(PLAIN, 8).tolist(), *told])))
    return texts, targets


def dense(terms: Terms, texts: list[str]) -> dict[str, np.ndarray]:
    """Return the column of each term by its name."""
    names = list(terms.numbers)
    n = len(names)
    columns = terms.vectors(texts).toarray().T
    return {
        names[key] if key < n else f"{names[key // n - 1]} {names[key % n]}": column
        for key, column in zip(terms.keys.tolist(), columns, strict=True)
    }


@pytest.mark.parametrize("min_df", [1, 2, 3])
def test_the_vectors_are_those_of_scikit_learn(min_df: int) -> None:
    random = np.random.default_rng(min_df)
    vocabulary = [f"w{i}" for i in range(30)] + ["Ärger", "naïve", "x", "don't", "e-mail", "under_score", "42"]
    texts = [" ".join(random.choice(vocabulary, random.integers(0, 25))) for _ in range(120)]
    unseen = [" ".join(random.choice([*vocabulary, "unseen"], 15)) for _ in range(20)] + ["", "unseen"]
    theirs = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=min_df).fit(texts)
    ours = fit_terms(texts, min_df=min_df, max_terms=100_000)
    for some in (texts, unseen):
        expected = theirs.transform(some).toarray()
        found = dense(ours, some)
        assert sorted(found) == sorted(theirs.vocabulary_)
        for name, column in theirs.vocabulary_.items():
            np.testing.assert_allclose(found[name], expected[:, column], atol=1e-6)


def test_counting_in_blocks_and_scoring_in_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, _ = reviews(300, seed=1)
    whole = fit_terms(texts, min_df=2, max_terms=1000)
    expected = whole.vectors(texts).toarray()
    monkeypatch.setattr("headrace.baseline.terms._BLOCK", 100)
    monkeypatch.setattr("headrace.baseline.terms._TEXTS_AT_ONCE", 7)
    parted = fit_terms(texts, min_df=2, max_terms=1000)
    assert parted.keys.tolist() == whole.keys.tolist()
    assert parted.idf.tolist() == whole.idf.tolist()
    np.testing.assert_array_equal(parted.vectors(texts).toarray(), expected)


def test_of_too_many_terms_the_most_frequent_stay() -> None:
    terms = fit_terms(["aa bb", "aa bb cc", "aa dd"], min_df=1, max_terms=3)
    assert set(dense(terms, ["aa bb cc dd"])) == {"aa", "bb", "aa bb"}


def test_words_are_told_apart_by_space_or_by_character_in_chinese() -> None:
    assert words("I'll NOT pay 20 €") == ["ll", "not", "pay", "20"]
    assert words("我喜欢 Python编程") == ["我", "喜", "欢", "python", "编", "程"]


def test_it_learns_what_words_tell() -> None:
    texts, targets = reviews(400, seed=0)
    unseen, truth = reviews(200, seed=9)
    baseline = fit_baseline(texts[:300], targets[:300], texts[300:], targets[300:], TWO, task="single_label", seed=0)
    scores = baseline.scores(unseen)
    assert scores.dtype == np.float32
    assert scores.shape == (200, 2)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert monitor_value(truth, scores, "accuracy") >= 0.95
    assert (baseline.n_train, baseline.n_given) == (300, 300)
    np.testing.assert_array_equal(baseline.scores(unseen[:5]), scores[:5])
    assert baseline.scores([]).shape == (0, 2)


def test_the_scores_are_those_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    texts, targets = reviews(400, seed=3)
    three = np.where(np.arange(400) % 7 == 0, 2, targets)
    theirs = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    vectors = theirs.fit_transform(texts)
    for truth, labels in ((targets, TWO), (three, LabelSet(("bad", "good", "other")))):
        baseline = fit_baseline(texts, truth, texts[:60], truth[:60], labels, task="single_label", seed=0)
        model = LogisticRegression(C=baseline.c, tol=1e-8, max_iter=2000).fit(vectors, truth)
        expected = model.predict_proba(theirs.transform(texts))
        np.testing.assert_allclose(baseline.scores(texts), expected, atol=0.02)


def test_c_is_the_one_with_the_best_figure_on_validation() -> None:
    texts, targets = reviews(500, seed=4)
    noisy = np.where(np.random.default_rng(0).random(500) < 0.3, 1 - targets, targets)
    found = {}
    for c in fit_module.CS:
        model = next(fit_module.path(_vectors(texts[:300]), noisy[:300], 2, (c,)))[1]
        found[c] = monitor_value(noisy[300:], model.scores(_vectors(texts[:300], texts[300:])), "accuracy")
    assert len(set(found.values())) > 1, "the penalty must matter here, or the test tells nothing"
    baseline = fit_baseline(texts[:300], noisy[:300], texts[300:], noisy[300:], TWO, task="single_label", seed=0)
    scores = baseline.scores(texts[300:])
    assert monitor_value(noisy[300:], scores, "accuracy") >= max(found.values()) - 0.011


def _vectors(fitted: list[str], texts: list[str] | None = None) -> object:
    return fit_terms(fitted, min_df=2, max_terms=1000).vectors(fitted if texts is None else texts)


def test_pairs_are_told_by_what_they_share() -> None:
    random = np.random.default_rng(0)
    vocabulary = [f"w{i}" for i in range(400)]
    pairs, targets = [], random.integers(0, 2, 600)
    for target in targets:
        first = random.choice(vocabulary, 8, replace=False).tolist()
        second = random.permutation(first)[:6].tolist() if target else random.choice(vocabulary, 6).tolist()
        pairs.append((" ".join(first), " ".join(second)))
    baseline = fit_baseline(
        pairs[:400], targets[:400], pairs[400:500], targets[400:500], TWO, task="single_label", seed=0
    )
    assert monitor_value(targets[500:], baseline.scores(pairs[500:]), "accuracy") >= 0.95
    with pytest.raises(DataError, match="learnt from pairs"):
        baseline.scores(["one text"])


def test_shared_words_are_counted_in_tenths_both_ways() -> None:
    found = overlaps([("aa bb cc dd", "aa bb"), ("", ""), ("aa", "bb")]).toarray()
    assert [np.flatnonzero(row).tolist() for row in found] == [[10, 11 + 5], [0, 11], [0, 11]]


def test_multi_label_survives_labels_without_contrast() -> None:
    texts, first = reviews(200, seed=5)
    n = len(texts)
    only_one = np.zeros(n, dtype=int)
    only_one[7] = 1
    targets = np.stack([first, np.zeros(n), np.ones(n), only_one], axis=1).astype(np.float32)
    labels = LabelSet(("good", "never", "always", "once"))
    baseline = fit_baseline(texts[:150], targets[:150], texts[150:], targets[150:], labels, task="multi_label", seed=0)
    scores = baseline.scores(texts)
    assert monitor_value(first, np.stack([1 - scores[:, 0], scores[:, 0]], axis=1), "accuracy") >= 0.9
    for column, low, high in ((1, 0, 0.01), (2, 0.99, 1), (3, 0, 0.02)):
        assert np.ptp(scores[:, column]) == 0
        assert low <= scores[0, column] <= high


def test_a_label_without_training_rows_scores_zero() -> None:
    texts, targets = reviews(60, seed=6)
    labels = LabelSet(("bad", "good", "absent"))
    baseline = fit_baseline(texts, targets, texts[:9], targets[:9], labels, task="single_label", seed=0)
    assert baseline.scores(texts)[:, 2].tolist() == [0.0] * 60


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
@pytest.mark.parametrize("texts", [["!!", "…", ""], ["one"], ["same", "same", "same"], ["aa bb", "cc", "dd"]])
def test_odd_data_give_scores_in_range(task: str, texts: list[str]) -> None:
    targets = np.arange(len(texts)) % 2
    if task == "multi_label":
        targets = np.eye(2)[targets]
    for valid in (texts, []):
        baseline = fit_baseline(texts, targets, valid, targets[: len(valid)], TWO, task=task, seed=0)
        scores = baseline.scores([*texts, "unseen words", ""])
        assert scores.shape == (len(texts) + 2, 2)
        assert np.isfinite(scores).all()
        assert ((scores >= 0) & (scores <= 1)).all()


def test_one_class_alone_is_always_answered() -> None:
    baseline = fit_baseline(
        ["aa bb", "cc dd"], np.array([1, 1]), ["aa"], np.array([1]), TWO, task="single_label", seed=0
    )
    assert baseline.scores(["ee"]).tolist() == [[0.0, 1.0]]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="2 training texts and 1 targets"):
        fit_baseline(["aa", "bb"], np.array([0]), [], np.array([]), TWO, task="single_label", seed=0)
    with pytest.raises(DataError, match="no training rows"):
        fit_baseline([], np.array([]), [], np.array([]), TWO, task="single_label", seed=0)


def test_rows_are_bounded_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert baseline_rows(100_000, seed=0).tolist() == list(range(100_000))
    drawn = baseline_rows(100_001, seed=0)
    assert len(drawn) == len(set(drawn.tolist())) == 100_000
    assert drawn.tolist() == sorted(drawn.tolist()) == baseline_rows(100_001, seed=0).tolist()
    assert len(baseline_rows(50_000, n_labels=1000, seed=0)) == 10_000
    monkeypatch.setattr(fit_module, "MAX_CHARACTERS", 3_000)
    texts, targets = reviews(300, seed=7)
    baseline = fit_baseline(texts, targets, texts, targets, TWO, task="single_label", seed=0)
    assert 10 < baseline.n_train < 100
    shown = shape_of(baseline, texts, targets)
    assert shown["note"] == f"fitted on {baseline.n_train} of 300 training rows, drawn at random, to bound its time"


def test_c_chosen_on_fewer_rows_still_fits_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_module, "MAX_CELLS_OF_CHOICE", 60)
    texts, targets = reviews(400, seed=8)
    baseline = fit_baseline(texts, targets, texts[:50], targets[:50], TWO, task="single_label", seed=0)
    assert baseline.n_train == 400
    assert monitor_value(targets, baseline.scores(texts), "accuracy") >= 0.99


def shape_of(baseline: Baseline, texts: list[str], targets: np.ndarray) -> dict[str, object]:
    evaluation = evaluate(targets, baseline.scores(texts), labels=TWO, task="single_label", split="test", resamples=20)
    return baseline.as_dict(evaluation, majority=majority(targets, targets, TWO, "single_label"))


def test_the_report_gets_figures_with_intervals() -> None:
    texts, targets = reviews(100, seed=2)
    baseline = fit_baseline(texts, targets, texts, targets, TWO, task="single_label", seed=0)
    shown = json.loads(json.dumps(shape_of(baseline, texts, targets)))
    assert shown["name"] == "TF-IDF + logistic regression"
    assert shown["c"] in (1, 3, 10, 30)
    assert shown["fit_s"] > 0
    assert shown["metrics"]["accuracy"]["low"] < shown["metrics"]["accuracy"]["value"] <= 1
    assert shown["verdict"] is None
    assert shown["note"] is None
    assert shown["majority"]["label"] in ("bad", "good")


def test_the_majority_of_single_labels_is_the_commonest_of_training() -> None:
    found = majority(np.array([1, 1, 0]), np.array([0, 0, 0, 1]), TWO, "single_label")
    assert found["label"] == "good"
    assert found["metrics"]["accuracy"] == 0.25
    assert found["metrics"]["roc_auc"] == 0.5
    assert found["metrics"]["log_loss"] == pytest.approx(-(0.75 * np.log(1 / 3) + 0.25 * np.log(2 / 3)), rel=1e-5)
    assert "roc_auc_macro" not in found["metrics"]


def test_the_majority_of_multi_label_is_no_label() -> None:
    targets = np.array([[0, 0], [0, 1], [0, 0], [1, 1]], dtype=np.float32)
    found = majority(targets, targets, TWO, "multi_label")
    assert found["label"] is None
    assert found["metrics"]["accuracy"] == 0.5
    assert found["metrics"]["hamming_loss"] == 3 / 8
    assert found["metrics"]["roc_auc_macro"] == 0.5
    assert found["metrics"]["f1_macro"] == 0
    assert majority(targets[:0], targets[:0], TWO, "multi_label")["metrics"]["accuracy"] is None


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("HEADRACE_DATA"), reason="set HEADRACE_DATA to the folder of real data")
def test_on_mnli_the_pair_features_are_worth_seven_points() -> None:
    import csv
    import gzip

    names = ("contradiction", "entailment", "neutral")
    folder = Path(os.environ["HEADRACE_DATA"]) / "mnli_part"
    with gzip.open(folder / "train_part.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:9000]
    pairs = [(row["premise"], row["hypothesis"]) for row in rows]
    targets = np.array([names.index(row["label"]) for row in rows])
    accuracies = []
    for texts in (pairs, [" [SEP] ".join(pair) for pair in pairs]):
        baseline = fit_baseline(
            texts[:6000],
            targets[:6000],
            texts[6000:7000],
            targets[6000:7000],
            LabelSet(names),
            task="single_label",
            seed=0,
        )
        accuracies.append(monitor_value(targets[7000:], baseline.scores(texts[7000:]), "accuracy"))
    assert accuracies[0] - accuracies[1] >= 0.07
