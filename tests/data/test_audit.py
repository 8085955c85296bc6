"""Findings about the data before training."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from headrace.data.audit import Finding, audit, shared_rows
from headrace.data.examples import BadRow, Examples, LabelSet
from headrace.data.labels import label_set


def examples(texts: list, labels: list | None, source: str = "train.csv") -> Examples:
    columns: dict = {"text": pa.array([t[0] if isinstance(t, tuple) else t for t in texts], pa.string())}
    if texts and isinstance(texts[0], tuple):
        columns["pair"] = pa.array([t[1] for t in texts], pa.string())
    if labels is not None:
        several = any(isinstance(one, list) for one in labels)
        columns["label"] = pa.array(labels, pa.list_(pa.string()) if several else pa.string())
    columns["row"] = pa.array(range(2, 2 + len(texts)), pa.int64())
    return Examples(pa.table(columns), np.arange(len(texts)), source, "f")


GOOD = examples(["one", "two", "three", "four"], ["a", "b", "a", "b"])
NAMES = LabelSet(("a", "b"))


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def test_good_data_have_no_findings():
    valid, test = examples(["five", "six"], ["b", "a"], "v.csv"), examples(["seven"], ["a"], "t.csv")
    assert audit(GOOD, valid, test, NAMES) == []
    assert audit(GOOD, None, None, NAMES) == []


def test_texts_in_training_and_test_are_an_error():
    test = examples(["ONE ", "new", " tHREE\n", "new 2"], ["a", "b", "b", "a"], "test.csv")
    assert only(audit(GOOD, None, test, NAMES)) == Finding(
        severity="error",
        code="test_in_train",
        what="2 rows of the test data (50.00%) have a text that is in the training data too",
        count=2,
        where=("test.csv:2", "test.csv:4"),
        next="leave these rows out of the training data; metrics with them flatter the model",
    )
    assert shared_rows(GOOD, test).tolist() == [0, 2]
    assert shared_rows(GOOD.take([1, 3]), test).tolist() == []


def test_pairs_are_shared_only_if_both_texts_are():
    train = examples([("p", "h"), ("p", "i"), ("q", "h"), ("r", "s")], ["a", "b", "a", "b"])
    test = examples([("P", "H"), ("q", "i"), ("h", "p")], ["a", "b", "a"], "test.csv")
    assert only(audit(train, None, test, NAMES)).where == ("test.csv:2",)


def test_texts_in_training_and_validation_are_a_warning():
    valid = examples(["six", "Two"], ["a", "b"], "valid.csv")
    found = only(audit(GOOD, valid, None, NAMES))
    assert (found.severity, found.code, found.count, found.where) == ("warning", "valid_in_train", 1, ("valid.csv:3",))
    assert found.what == "1 row of the validation data (50.00%) has a text that is in the training data too"


def test_labels_with_no_or_a_single_training_row_are_errors_with_the_nearest_name():
    train = examples([f"t{i}" for i in range(6)], ["spam", "spam", "ham", "ham", "spma", "other"])
    none, one = audit(train, None, None, LabelSet(("ham", "spam", "spma", "other", "eggs")))
    assert (none.severity, none.code, none.count, none.where) == ("error", "label_without_rows", 1, ("eggs",))
    assert none.what == "1 label has no training row, so nothing can be learnt of 'eggs'"
    assert (one.severity, one.code, one.count) == ("error", "label_with_one_row", 2)
    assert one.what == "2 labels have a single training row: 'spma' (meant to be 'spam'?), 'other'"
    assert one.where == ("train.csv:6", "train.csv:7")
    assert "correct the label" in one.next


def test_many_labels_are_listed_in_part():
    train = examples([f"t{i}" for i in range(20)], [f"id-{i:02d}" for i in range(20)])
    found = only(audit(train, None, None, label_set(train)))
    assert found.what.startswith("20 labels have a single training row: 'id-00' (meant to be")
    assert found.what.endswith(" and 15 more")
    assert len(found.where) == 10


@pytest.mark.parametrize("empty", ["", " ", "\t\n\u3000"])
def test_empty_texts_are_a_warning_in_each_part(empty):
    train = examples(["one", "two", "three", empty, "four"], ["a", "b", "a", "a", "b"])
    test = examples([empty, "x", empty], ["a", "b", "a"], "test.csv")
    found = [finding for finding in audit(train, None, test, NAMES) if finding.code == "empty_text"]
    assert [(finding.count, finding.where) for finding in found] == [
        (1, ("train.csv:5",)),
        (2, ("test.csv:2", "test.csv:4")),
    ]
    assert found[0].what == "1 row of the training data has an empty text, or one of white space alone"
    assert {finding.severity for finding in found} == {"warning"}


def test_a_pair_with_one_empty_text_counts_once():
    train = examples([("p", ""), ("", ""), ("q", "h"), ("r", "s")], ["a", "b", "a", "b"])
    found = only(audit(train, None, None, NAMES))
    assert (found.code, found.where) == ("empty_text", ("train.csv:2", "train.csv:3"))


def test_one_text_with_different_labels_is_a_warning():
    train = examples(["Same", "x", "same ", "y", "Z", "z", "SAME", "q"], ["a", "a", "b", "b", "a", "a", "a", "b"])
    found = only(audit(train, None, None, NAMES))
    assert (found.severity, found.code, found.count) == ("warning", "conflicting_labels", 3)
    assert found.what == "1 text stands in the training data with different labels, in 3 rows"
    assert found.where == ("train.csv:2", "train.csv:4", "train.csv:8")


def test_rows_that_repeat_another_are_a_note():
    train = examples(["same", "same", "x", "Same", "y", "same"], ["a", "a", "b", "a", "b", "a"])
    found = only(audit(train, None, None, NAMES))
    assert (found.severity, found.code, found.count, found.where) == (
        "note",
        "duplicate",
        2,
        ("train.csv:3", "train.csv:7"),
    )
    assert found.what == "2 rows of the training data repeat an earlier row, text and labels alike"


def test_validation_without_a_label_is_a_warning():
    found = only(audit(GOOD, examples(["five"], ["a"], "v.csv"), None, NAMES))
    assert (found.severity, found.code, found.count, found.where) == ("warning", "label_not_in_valid", 1, ("b",))
    assert found.what == "1 label has no validation row, so validation says nothing of 'b'"


def test_multi_label_rows_and_unlabelled_tests_are_audited():
    train = examples(["one", "One", "two", "two", "three"], [["a", "b"], ["b", "a"], ["a"], [], ["b"]])
    test = examples(["THREE", "x"], None, "test.csv")
    found = audit(train, None, test, NAMES)
    assert [(finding.severity, finding.code, finding.count) for finding in found] == [
        ("error", "test_in_train", 1),
        ("warning", "conflicting_labels", 2),
    ]


def test_the_worst_comes_first():
    train = examples(["s", "s", "t", "T", "u"], ["a", "a", "a", "b", "c"])
    found = audit(train, examples(["u"], ["a"], "v.csv"), examples(["t"], ["a"], "t.csv"), LabelSet(("a", "b", "c")))
    assert [finding.severity for finding in found] == ["error", "error", "warning", "warning", "warning", "note"]


def test_rows_left_out_are_a_warning_in_each_part():
    bad = tuple(BadRow(f"test.csv:{row}", "there is no label", "") for row in range(2, 14))
    test = replace(examples(["x", "y"], ["a", "b"], "test.csv"), bad_rows=bad, n_bad_rows=12_000)
    found = only(audit(GOOD, None, test, NAMES))
    assert (found.severity, found.code, found.count) == ("warning", "bad_rows", 12_000)
    assert found.what == (
        "12,000 rows of the test data cannot be read and are left out (data.on_bad_row: skip); "
        "the first, test.csv:2: there is no label"
    )
    assert found.where == tuple(f"test.csv:{row}" for row in range(2, 12))
