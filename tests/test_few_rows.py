"""Figures of few rows: a value without an interval, and the reason once."""

import numpy as np
import pytest

from headrace.data.examples import LabelSet
from headrace.evaluate import Interval, evaluate


def rarely(n_with: int, n_predicted: int, *, n_rows: int = 400):
    """Two labels, the first common; the second on the first rows, and predicted on the first ones, too."""
    targets = np.zeros((n_rows, 2), dtype=bool)
    targets[: n_rows // 2, 0] = targets[:n_with, 1] = True
    scores = np.where(targets, 0.7, 0.3)
    scores[:5, 0] = 0.4  # so that the first label's figures vary
    scores[:, 1] = np.where(np.arange(n_rows) < n_predicted, 0.9, 0.1)
    return evaluate(targets, scores, labels=LabelSet(("a", "b")), task="multi_label", split="test", resamples=100)


@pytest.mark.parametrize(
    ("n_with", "n_predicted", "without"),
    [(5, 40, {"recall", "f1"}), (40, 5, {"precision", "f1"}), (5, 5, {"precision", "recall", "f1"}), (20, 25, set())],
)
def test_under_20_rows_with_or_predicted_as_a_label_its_shares_and_f1_have_no_interval(n_with, n_predicted, without):
    """Recall from 5 rows, all found, was 1.0 from 0.57 to 1."""
    evaluation = rarely(n_with, n_predicted)
    found = evaluation.per_label["b"]
    assert {name for name in ("precision", "recall", "f1") if found[name].low is None} == without
    assert found["recall"].value == min(1.0, n_predicted / n_with)
    for name in without:
        rows = "on which the label was predicted" if name == "precision" or n_with >= 20 else "with the label"
        assert found[name].note == f"no interval: 5 rows {rows}, 20 are needed"
        assert found[name].high is None
    told = "\n".join(evaluation.notes)
    assert told.count("labels that fewer than 20 rows have: 'b' (5)") == (n_with < 20)
    assert told.count("no interval for precision and F1 of labels predicted on fewer than 20 rows: 'b' (5)") == (
        n_predicted < 20
    )
    assert all(evaluation.per_label["a"][name].low is not None for name in ("precision", "recall", "f1"))


@pytest.mark.parametrize(
    ("n_with", "outcome"), [(9, "no interval"), (10, "the interval is approximate"), (20, None), (0, "no interval")]
)
def test_a_mean_f1_is_told_like_the_other_means(n_with, outcome):
    found = rarely(n_with, 30).metrics["f1_macro"]
    assert (found.low is None) == (outcome == "no interval")
    assert found.note == (outcome and f"fewer than 20 rows with the label 'b' ({n_with}): {outcome}")


def test_an_f1_over_all_labels_needs_20_of_them():
    targets = np.zeros((100, 2), dtype=bool)
    targets[:9, 0], targets[5:15, 1] = True, True
    scores = np.where(targets, 0.8, 0.2)
    scores[0, 0] = 0.1
    found = evaluate(targets, scores, labels=LabelSet(("a", "b")), task="multi_label", split="t").metrics["f1_micro"]
    assert found == Interval(36 / 37, note="no interval: 18 labels given or predicted in all, 20 are needed")


def test_many_labels_of_few_rows_are_named_in_one_note():
    names = (*(f"label {i}" for i in range(29)), "x" * 60)
    targets = np.zeros((300, 30), dtype=bool)
    targets[np.arange(300), np.arange(300) % 30] = True
    scores = np.where(targets, 0.7, np.random.default_rng(0).random(targets.shape) * 0.6)
    evaluation = evaluate(targets, scores, labels=LabelSet(names), task="multi_label", split="t", resamples=50)
    few = [note for note in evaluation.notes if "have: " in note]
    assert len(few) == 1
    assert few[0].endswith("'label 19' (10) and 10 more")
    assert evaluation.metrics["f1_macro"].note.endswith("'label 19' (10) and 10 more: the interval is approximate")
