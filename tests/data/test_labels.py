"""Label sets, targets and counts."""

import time

import numpy as np
import pyarrow as pa
import pytest

from headrace.data.examples import Examples, LabelSet
from headrace.data.labels import label_counts, label_set, label_sets, targets
from headrace.errors import DataError


def examples(labels: list | None, *, first_row: int = 2, chunk: int = 3) -> Examples:
    n_rows = 0 if labels is None else len(labels)
    kind = pa.list_(pa.string()) if labels and any(isinstance(one, list) for one in labels) else pa.string()
    columns = {"text": pa.array([f"text {i}" for i in range(n_rows)], pa.string())}
    if labels is not None:
        pieces = [pa.array(labels[start : start + chunk], kind) for start in range(0, n_rows, chunk)]
        columns["label"] = pa.chunked_array(pieces, kind)
    columns["row"] = pa.array(range(first_row, first_row + n_rows), pa.int64())
    return Examples(pa.table(columns), np.arange(n_rows), "train.csv", "f")


def test_names_are_sorted_as_words_unless_all_are_integers():
    assert label_set(examples(["b", "a", "B", "b"])).names == ("B", "a", "b")
    assert label_set(examples(["10", "9", "-1", "2"])).names == ("-1", "2", "9", "10")
    assert label_set(examples(["10", "9", "x"])).names == ("10", "9", "x")
    assert label_set(examples(["1", "01", "9" * 30])).names == ("01", "1", "9" * 30)  # the last is no integer of ours


def test_labels_stay_as_written():
    assert set(label_set(examples(["NA", "None", "null", "True", "01"])).names) == {"NA", "None", "null", "True", "01"}


def test_given_names_keep_their_order_and_may_lack_rows():
    assert label_set(examples(["neg", "pos"]), names=("pos", "neg", "mixed")).names == ("pos", "neg", "mixed")


def test_a_label_outside_the_given_names_is_an_error_with_its_row():
    with pytest.raises(DataError) as caught:
        label_set(examples(["neg", "pos", "unsup", "unsup", "unsup"]), names=("neg", "pos"))
    assert caught.value.what == "the label 'unsup' is not in data.labels"
    assert caught.value.where == "train.csv:4 and 2 more rows"
    assert "correct the label" in caught.value.next


def test_a_repeated_name_is_an_error():
    with pytest.raises(DataError, match="the label 'a' is named 2 times") as caught:
        label_set(examples(["a", "b"]), names=("a", "b", "a"))
    assert caught.value.where == "data.labels"
    assert caught.value.next == "name each label once"


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        (["a", "a", "a"], "every row has the same label 'a'; a classifier needs at least two"),
        ([None, None], "no row has a label; a classifier needs at least two"),
        ([["a"], ["a"]], "every row has the same labels a; there is nothing to learn"),
        ([[], []], "no row has a label; there is nothing to learn"),
    ],
)
def test_labels_that_teach_nothing_are_refused(labels, what):
    with pytest.raises(DataError) as caught:
        label_set(examples(labels))
    assert caught.value.what == what
    assert caught.value.where == "train.csv"
    assert "data.label" in caught.value.next


def test_one_label_that_some_rows_have_is_enough_for_multi_label():
    assert label_set(examples([["toxic"], []])).names == ("toxic",)


def test_no_rows_and_no_labels_are_told_apart():
    with pytest.raises(DataError, match="there are no training rows"):
        label_set(examples([]))
    with pytest.raises(DataError, match="the data have no labels") as caught:
        label_set(examples(None))
    assert "data.label" in caught.value.next
    with pytest.raises(DataError, match="the data have no labels"):
        targets(examples(None), LabelSet(("a",)))


def test_a_single_label_row_without_label_is_named():
    with pytest.raises(DataError) as caught:
        label_set(examples(["a", "b", None]))
    assert str(caught.value) == (
        "the row has no label\n  where: train.csv:4\n  next:  give it one, or leave the row out"
    )


def test_targets_are_positions_in_the_label_set():
    found = targets(examples(["b", "a", "c", "b"]), LabelSet(("c", "b", "a")))
    assert found.dtype == np.int64
    assert found.tolist() == [1, 2, 0, 1]


def test_multi_label_targets_are_a_0_1_matrix_with_empty_rows():
    found = targets(examples([["b", "a"], [], ["c", "c"], [], ["a"]]), LabelSet(("a", "b", "c")))
    assert found.dtype == np.float32
    assert found.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("labels", [list("abcabcabca"), [["a"], [], ["b", "c"], ["a", "c"], [], ["c"], ["b"]]])
def test_targets_follow_the_view_not_the_table(labels):
    whole = examples(labels)
    names = label_set(whole)
    everything = targets(whole, names)
    rng = np.random.default_rng(0)
    for size in (1, 3, len(labels)):
        chosen = rng.permutation(len(labels))[:size]
        assert (targets(whole.take(chosen), names) == everything[chosen]).all()
    assert len(targets(whole.take([]), names)) == 0


def test_unseen_labels_are_reported_together_each_once_with_first_row_and_count():
    with pytest.raises(DataError) as caught:
        targets(examples(["a", "x", "y", "x", None, "b"]), LabelSet(("a", "b")))
    message = str(caught.value)
    assert message.startswith("3 faults in train.csv")
    assert "the label 'x' does not occur in the training data (train.csv:3 and 1 more row)" in message
    assert "the label 'y' does not occur in the training data (train.csv:4)" in message
    assert "the row has no label (train.csv:6)" in message


def test_unseen_labels_of_multi_label_rows_are_found():
    with pytest.raises(DataError) as caught:
        targets(examples([["a"], ["a", "odd"], []]), LabelSet(("a", "b")))
    assert caught.value.what == "the label 'odd' does not occur in the training data"
    assert caught.value.where == "train.csv:3"


def test_a_thousand_unseen_labels_show_ten_and_the_count():
    with pytest.raises(DataError) as caught:
        targets(examples([f"id{i}" for i in range(1000)], chunk=100), LabelSet(("a", "b")))
    lines = str(caught.value).splitlines()
    assert lines[0] == "1000 faults in train.csv"
    assert lines[-1] == "  … and 990 more"
    assert sum("does not occur" in line for line in lines) == 10


def test_counts_have_each_label_of_the_set_and_no_other():
    assert label_counts(examples(["b", "a", "x", "b"]), LabelSet(("a", "b", "c"))) == {"a": 1, "b": 2, "c": 0}
    assert label_counts(examples([["a", "b"], [], ["b"]]), LabelSet(("a", "b"))) == {"a": 1, "b": 2}


def test_label_sets_do_not_depend_on_the_rows_order_or_on_the_order_within_a_row():
    labels = [["b", "a"], ["a", "b"], [], ["c"], ["a"]]
    codes, sets = label_sets(examples(labels))
    assert sets == [(), ("a",), ("a", "b"), ("c",)]
    assert codes.tolist() == [2, 2, 0, 3, 1]
    reversed_codes, reversed_sets = label_sets(examples(labels[::-1]))
    assert reversed_sets == sets
    assert reversed_codes.tolist() == codes.tolist()[::-1]
    assert label_sets(examples(["b", None, "a"]))[1] == [(), ("a",), ("b",)]
    assert label_sets(examples(None))[1] == [()]


def test_a_million_targets_take_less_than_five_seconds():
    names = [f"l{i}" for i in range(50)]
    labels = np.array(names)[np.random.default_rng(0).integers(0, 50, 1_000_000)]
    table = pa.table({"text": pa.nulls(len(labels), pa.string()), "label": pa.array(labels)})
    whole = Examples(table, np.arange(len(labels)), "big.csv", "f")
    start = time.process_time()
    found = targets(whole, LabelSet(tuple(names)))
    assert time.process_time() - start < 5
    assert (np.array(names)[found[::1000]] == labels[::1000]).all()
