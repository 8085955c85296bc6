"""Findings about the data before training."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from headrace.data.audit import Finding, audit, audit_texts, shared_rows
from headrace.data.examples import BadRow, Examples, LabelSet
from headrace.data.labels import label_set
from headrace.data.several import Joined


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


def looked(train, valid, test, labels, divided=None) -> list[Finding]:
    """What the audit finds but for two notes that all the small parts and short texts of these tests deserve."""
    return [
        f
        for f in audit(train, valid, test, labels, divided=divided)
        if f.code not in ("rarely_scored_label", "near_empty_text")
    ]


def test_good_data_have_no_findings():
    texts = [f"text number {i}" for i in range(80)]
    valid, test = examples(texts[:40], ["b", "a"] * 20, "v.csv"), examples(texts[40:], ["a", "b"] * 20, "t.csv")
    assert audit(GOOD, valid, test, NAMES) == []
    assert audit(GOOD, None, None, NAMES) == []


def test_texts_in_training_and_test_are_an_error():
    test = examples(["ONE ", "new", " tHREE\n", "new 2"], ["a", "b", "a", "a"], "test.csv")
    assert only(looked(GOOD, None, test, NAMES)) == Finding(
        severity="error",
        code="test_in_train",
        what="2 rows of the test data (50.00%) have a text that is in the training data too",
        count=2,
        where=("test.csv:2 = train.csv:2", "test.csv:4 = train.csv:4"),
        next="leave these rows out of the training data; metrics with them flatter the model",
    )
    assert shared_rows(GOOD, test).tolist() == [0, 2]
    assert shared_rows(GOOD.take([1, 3]), test).tolist() == []


def test_pairs_are_shared_only_if_both_texts_are():
    train = examples([("p", "h"), ("p", "i"), ("q", "h"), ("r", "s")], ["a", "b", "a", "b"])
    test = examples([("P", "H"), ("q", "i"), ("h", "p")], ["a", "b", "a"], "test.csv")
    assert only(looked(train, None, test, NAMES)).where == ("test.csv:2 = train.csv:2",)


def test_texts_in_training_and_validation_are_a_warning():
    valid = examples(["six", "Two"], ["a", "b"], "valid.csv")
    found = only(looked(GOOD, valid, None, NAMES))
    assert (found.severity, found.code, found.count) == ("warning", "valid_in_train", 1)
    assert found.where == ("valid.csv:3 = train.csv:3",)
    assert found.what == "1 row of the validation data (50.00%) has a text that is in the training data too"


def test_labels_with_no_or_a_single_training_row_are_errors_with_the_nearest_name():
    train = examples([f"t{i}" for i in range(6)], ["spam", "spam", "ham", "ham", "spma", "other"])
    none, one = looked(train, None, None, LabelSet(("ham", "spam", "spma", "other", "eggs")))
    assert (none.severity, none.code, none.count, none.where) == ("error", "label_without_rows", 1, ("eggs",))
    assert none.what == "1 label has no training row, so nothing can be learnt of 'eggs'"
    assert (one.severity, one.code, one.count) == ("error", "label_with_one_row", 2)
    assert one.what == "2 labels have a single training row: 'spma' (meant to be 'spam'?), 'other'"
    assert one.where == ("train.csv:6", "train.csv:7")
    assert "correct the label" in one.next


def test_many_labels_are_listed_in_part():
    train = examples([f"t{i}" for i in range(20)], [f"id-{i:02d}" for i in range(20)])
    found = only(looked(train, None, None, label_set(train)))
    assert found.what.startswith("20 labels have a single training row: 'id-00' (meant to be")
    assert found.what.endswith(" and 15 more")
    assert len(found.where) == 10


@pytest.mark.parametrize("empty", ["", " ", "\t\n\u3000"])
def test_empty_texts_are_a_warning_in_each_part(empty):
    train = examples(["one", "two", "three", empty, "four"], ["a", "b", "a", "a", "b"])
    test = examples([empty, "x", empty], ["a", "b", "a"], "test.csv")
    found = [finding for finding in looked(train, None, test, NAMES) if finding.code == "empty_text"]
    assert [(finding.count, finding.where) for finding in found] == [
        (1, ("train.csv:5",)),
        (2, ("test.csv:2", "test.csv:4")),
    ]
    assert found[0].what == "1 row of the training data has an empty text, or one of white space alone"
    assert {finding.severity for finding in found} == {"warning"}


def test_a_pair_with_one_empty_text_counts_once():
    train = examples([("p", ""), ("", ""), ("q", "h"), ("r", "s")], ["a", "b", "a", "b"])
    found = only(looked(train, None, None, NAMES))
    assert (found.code, found.where) == ("empty_text", ("train.csv:2", "train.csv:3"))


def test_one_text_with_different_labels_is_a_warning():
    train = examples(["Same", "x", "same ", "y", "Z", "z", "SAME", "q"], ["a", "a", "b", "b", "a", "a", "a", "b"])
    found, duplicate = looked(train, None, None, NAMES)
    assert (duplicate.code, duplicate.count) == ("duplicate", 3)
    assert (found.severity, found.code, found.count) == ("warning", "conflicting_labels", 3)
    assert found.what == "1 text stands in the training data with different labels, in 3 rows"
    assert found.where == ("train.csv:4 = train.csv:2", "train.csv:8 = train.csv:4")


def test_one_text_with_other_labels_in_another_split_is_a_warning_for_each_two_splits():
    train = examples(["same", "x", "SAME", "y", "z"], ["a", "a", "b", "b", "a"])
    valid = examples(["X", "q"], ["b", "a"], "v.csv")
    test = examples(["same", "new", "x ", "Y", "q", "q"], ["a", "a", "b", "b", "b", "a"], "t.csv")
    found = [f for f in looked(train, valid, test, NAMES) if f.code == "conflicting_labels_across"]
    assert [(f.severity, f.count, f.where) for f in found] == [
        ("warning", 1, ("v.csv:2 = train.csv:3",)),
        ("warning", 2, ("t.csv:2 = train.csv:4", "t.csv:4 = train.csv:3")),  # "same" has both labels in train
        ("warning", 1, ("t.csv:6 = v.csv:3",)),
    ]
    assert found[1].what == "2 rows of the test data have a text that stands in the training data with other labels"
    assert "the validation data with other labels" in found[2].what


def test_labels_of_a_split_that_training_lacks_contradict_it_and_unlabelled_rows_do_not():
    train = examples(["one", "two", "three"], [["a"], [], ["a", "b"]])
    test = examples(["one", "TWO", "three"], [["a"], ["c"], ["b", "a"]], "t.csv")
    found = [f for f in looked(train, None, test, NAMES) if f.code == "conflicting_labels_across"]
    assert only(found).where == ("t.csv:3 = train.csv:3",)
    unlabelled = looked(train, None, examples(["one", "two"], None, "t.csv"), NAMES)
    assert [f.code for f in unlabelled if f.severity == "warning"] == []


def test_one_text_with_different_labels_is_told_in_each_split():
    test = examples(["q", "r", "Q"], ["a", "a", "b"], "t.csv")
    found = next(f for f in looked(GOOD, None, test, NAMES) if f.code == "conflicting_labels")
    assert found.what == "1 text stands in the test data with different labels, in 2 rows"
    assert found.where == ("t.csv:4 = t.csv:2",)


def test_texts_of_test_that_stand_in_a_validation_file_are_told():
    valid = examples(["six", LONG, "Seven"], ["a", "b", "a"], "v.csv")
    test = examples(["SEVEN", "new", LONG + "!"], ["a", "b", "b"], "t.csv")
    found = {f.code: f for f in looked(GOOD, valid, test, NAMES)}
    assert set(found) == {"test_in_valid", "test_near_valid"}
    exact, near = found["test_in_valid"], found["test_near_valid"]
    assert (exact.severity, exact.count, exact.where) == ("warning", 1, ("t.csv:2 = v.csv:4",))
    assert exact.what == "1 row of the test data (33.33%) has a text that is in the validation data too"
    assert exact.next.startswith("leave these rows out of the validation data")
    assert (near.severity, near.count, near.where) == ("note", 1, ("t.csv:4 ~ v.csv:3",))


def test_rows_that_repeat_another_are_a_note():
    train = examples(["same", "same", "x", "Same", "y", "same"], ["a", "a", "b", "a", "b", "a"])
    found = only(looked(train, None, None, NAMES))
    assert (found.severity, found.code, found.count, found.where) == (
        "note",
        "duplicate",
        3,
        ("train.csv:3 = train.csv:2", "train.csv:5 = train.csv:2", "train.csv:7 = train.csv:2"),
    )
    assert found.what == "3 rows of the training data repeat the text of an earlier row; 3 of 6 texts are distinct"


def test_validation_without_a_label_is_a_warning():
    found = only(looked(GOOD, examples(["five"], ["a"], "v.csv"), None, NAMES))
    assert (found.severity, found.code, found.count, found.where) == ("warning", "label_not_in_valid", 1, ("b",))
    assert found.what == "1 label has no validation row, so validation says nothing of 'b'"


def test_multi_label_rows_and_unlabelled_tests_are_audited():
    train = examples(["one", "One", "two", "two", "three"], [["a", "b"], ["b", "a"], ["a"], [], ["b"]])
    test = examples(["THREE", "x"], None, "test.csv")
    found = looked(train, None, test, NAMES)
    assert [(finding.severity, finding.code, finding.count) for finding in found] == [
        ("error", "test_in_train", 1),
        ("warning", "conflicting_labels", 2),
        ("note", "duplicate", 2),
    ]


def test_the_worst_comes_first():
    train = examples(["s", "s", "t", "T", "u"], ["a", "a", "a", "b", "c"])
    found = looked(train, examples(["u"], ["a"], "v.csv"), examples(["t"], ["a"], "t.csv"), LabelSet(("a", "b", "c")))
    assert [finding.severity for finding in found] == ["error"] * 2 + ["warning"] * 5 + ["note"]


def test_rows_left_out_are_a_warning_in_each_part():
    bad = tuple(BadRow(f"test.csv:{row}", "there is no label", "") for row in range(2, 14))
    test = replace(examples(["x", "y"], ["a", "b"], "test.csv"), bad_rows=bad, n_bad_rows=12_000)
    found = only(looked(GOOD, None, test, NAMES))
    assert (found.severity, found.code, found.count) == ("warning", "bad_rows", 12_000)
    assert found.what == (
        "12,000 rows of the test data cannot be read and are left out (data.on_bad_row: skip); "
        "the first, test.csv:2: there is no label"
    )
    assert found.where == tuple(f"test.csv:{row}" for row in range(2, 12))


LONG = "the hotel was clean and quiet, but breakfast was cold and the staff did not seem to care much about us"


def test_texts_nearly_repeated_in_training_are_a_note():
    texts = [LONG, "something else that is long enough to count", LONG + "!", LONG.replace("cold", "cool"), "y"]
    found = only(looked(examples(texts, ["a", "b", "a", "b", "b"]), None, None, NAMES))
    assert (found.severity, found.code, found.count, found.where) == (
        "note",
        "near_duplicate",
        2,
        ("train.csv:4 ~ train.csv:2", "train.csv:5 ~ train.csv:4"),
    )
    assert found.what == (
        "2 rows of the training data have nearly the text of an earlier row, 1 of them with other labels; "
        "train.csv:4 and train.csv:2 share 99% of their runs of five characters"
    )


def test_texts_of_test_and_validation_near_training_ones_are_told_apart_from_equal_ones():
    train = examples([LONG, "one", "two", "three"], ["a", "b", "a", "b"])
    valid = examples([LONG + "!", "six"], ["a", "b"], "v.csv")
    test = examples([LONG + " ", LONG + "!!", "seven", LONG + "!!"], ["a", "a", "b", "b"], "t.csv")
    found = {finding.code: finding for finding in looked(train, valid, test, NAMES)}
    assert {code: (f.severity, f.count, f.where) for code, f in found.items() if "train" in code} == {
        "test_in_train": ("error", 1, ("t.csv:2 = train.csv:2",)),
        "test_near_train": ("warning", 2, ("t.csv:3 ~ train.csv:2", "t.csv:5 ~ train.csv:2")),  # equal to each other
        "valid_near_train": ("note", 1, ("v.csv:2 ~ train.csv:2",)),
    }
    assert found["test_near_train"].what.startswith(
        "2 rows of the test data (50.00%) have nearly a text of the training"
    )


def test_ten_pairs_of_places_are_shown_each_with_the_first_row_of_its_text():
    texts = [f"text number {i}" for i in range(12)]
    test = examples(texts[::-1], ["a", "b"] * 6, "test.csv")
    found = next(f for f in audit(examples(texts * 2, ["b", "a"] * 12), None, test, NAMES) if f.code == "test_in_train")
    assert found.count == 12
    assert found.where == tuple(f"test.csv:{row} = train.csv:{15 - row}" for row in range(2, 12))


def test_divided_rows_are_looked_at_as_their_source_has_them():
    texts = [LONG, "a plain text", "a plain text", LONG + "!", "another one", "and one more"]
    whole = examples(texts, ["a", "b", "b", "a", "a", "b"])
    train, valid = whole.take([0, 1, 2, 4]), whole.take([3, 5])
    test = examples(["a plain text", "and ONE more", LONG + "?"], ["b", "b", "a"], "t.csv")
    apart = {f.code: f.count for f in looked(train, valid, test, NAMES)}
    in_train = {"test_in_train": 1, "test_near_train": 1, "valid_near_train": 1, "duplicate": 1}
    assert apart == {**in_train, "test_in_valid": 1, "test_near_valid": 1}
    together = {f.code: f.count for f in looked(train, valid, test, NAMES, whole)}
    assert together == {
        **{"test_in_train": 2, "test_near_train": 1, "near_duplicate": 1, "duplicate": 1},
        "valid_near_train": 1,
    }
    only_a = whole.take([0, 3, 4])
    found = {f.code: f.where for f in looked(whole.take([1, 2, 5]), only_a, None, NAMES, whole)}
    assert found["label_not_in_valid"] == ("b",)  # labels are counted in each part
    assert found["label_without_rows"] == ("a",)


def test_near_texts_that_the_split_has_parted_are_counted():
    other = "another text that is long enough to be near to some text"
    texts = [LONG, LONG + "!", LONG + "!", LONG + " ?", other, other + ".", "no other text is like this one, I hope"]
    whole = examples(texts, ["a"] * 4 + ["b"] * 3)
    train, valid = whole.take([0, 4, 5, 6]), whole.take([1, 2, 3])
    found = {f.code: f for f in looked(train, valid, None, NAMES, whole)}
    assert found["near_duplicate"].count == 3
    parted = found["valid_near_train"]
    # the second text of validation, too: the one before it that it is near to stands beside it in validation
    assert (parted.severity, parted.count) == ("note", 3)
    assert parted.where == ("train.csv:3 ~ train.csv:2", "train.csv:4 ~ train.csv:2", "train.csv:5 ~ train.csv:2")
    assert parted.what.startswith(
        "3 rows of the validation data (100.00%), which were split off the training data, have nearly a text that stayed "
        "there; train.csv:3 and train.csv:2 share 9"
    )
    apart = whole.take([0, 1, 2, 3]), whole.take([4, 5, 6])
    assert "valid_near_train" not in {f.code for f in looked(*apart, None, NAMES, whole)}
    swapped = {f.code: f for f in looked(valid, train, None, NAMES, whole)}["valid_near_train"]
    assert swapped.count == 1
    assert swapped.where == ("train.csv:2 ~ train.csv:5",)  # the earlier one validates, later ones train


def test_few_rows_of_a_label_are_noted_for_validation_and_for_test():
    train = examples([f"text {i}" for i in range(60)], ["a", "b"] * 30)
    few = examples([f"other {i}" for i in range(38)], ["a", "b"] * 19, "few.csv")
    many = examples([f"more {i}" for i in range(40)], ["a", "b"] * 20, "many.csv")
    assert "the validation data" in only(audit(train, few, None, NAMES)).what
    assert "the test data" in only(audit(train, many, few, NAMES)).what
    assert "the validation data" in only(audit(train, few, many, NAMES)).what
    no_b = examples([f"only {i}" for i in range(20)], ["a"] * 20, "no_b.csv")
    assert only(audit(train, many, no_b, NAMES)).what.endswith("say nothing of 'b'")


def test_a_search_cut_short_is_told(monkeypatch):
    monkeypatch.setattr("headrace.data.near_findings.MAX_COMPARED_SHINGLES", 3000)
    train = examples([f"{LONG} {i}" for i in range(30)], ["a", "b"] * 15)
    found = {finding.code: finding for finding in audit(train, None, None, NAMES)}
    assert found["near_search_limited"].severity == "note"
    assert found["near_search_limited"].where == ("training",)
    assert 0 < found["near_duplicate"].count < 29


def test_the_shipped_samples_deserve_no_warning(samples):
    from headrace.data.read import Columns, read

    columns = {
        "reviews": ("csv", Columns(text=("review",), label=("sentiment",))),
        "tickets": ("csv", Columns(text=("message",), label=("labels",), multi_label=True, separator="|")),
        "pairs": ("jsonl", Columns(text=("premise", "hypothesis"), label=("label",))),
    }
    for name, (suffix, given) in columns.items():
        train, test = (read(samples / name / f"{part}.{suffix}", given) for part in ("train", "test"))
        found = audit(train, None, test, label_set(train))
        assert {finding.severity for finding in found} <= {"note"}, found
        assert len(found) <= 2, found


def test_distinct_comments_are_counted(real_data, tmp_path):
    from headrace.data.read import Columns, read

    labels = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
    path = real_data / "jigsaw_toxic" / "train_first20k.csv.gz"
    train = read(path, Columns(text=("comment_text",), label=labels), cache=tmp_path)
    found = {finding.code: finding for finding in audit(train, None, None, label_set(train))}
    assert found["duplicate"].what.endswith("19,993 of 20,000 texts are distinct")
    assert {code: finding.severity for code, finding in found.items()} == {
        "conflicting_labels": "warning",
        "stray_mojibake": "note",
        "duplicate": "note",
        "near_duplicate": "note",
        "class_imbalance": "note",
    }


# -- texts without their labels -----------------------------------------------------------------------------------


def test_texts_of_several_files_are_audited_as_one():
    first = examples(["one text", LONG, ""], None, "a.csv")
    second = examples(["ONE text", LONG + "!", "schÃ¶n " * 3, "schÃ¶n und gut", "ist schÃ¶ner"], None, "b.csv")
    test = examples(["one text", "", LONG + "?"], None, "t.csv")
    found = {(f.code, f.where[0]): f for f in audit_texts(Joined((first, second)), None, test)}
    assert [(f.severity, code, f.count, f.where) for (code, _), f in found.items()] == [
        ("warning", "empty_text", 1, ("a.csv:4",)),
        ("warning", "mojibake", 3, ("b.csv:4", "b.csv:5", "b.csv:6")),
        ("warning", "empty_text", 1, ("t.csv:3",)),
        ("note", "duplicate", 1, ("b.csv:2 = a.csv:2",)),
        ("note", "near_duplicate", 1, ("b.csv:3 ~ a.csv:3",)),  # that test stands in training may be meant
    ]


def test_texts_that_validate_are_compared_with_those_that_train():
    train = Joined((examples(["one text", LONG], None, "a.csv"), examples(["other text"], None, "b.csv")))
    valid = Joined((examples(["Other  text", LONG + "!"], None, "v.csv"),))
    assert {f.code: (f.severity, f.where) for f in audit_texts(train, valid, None)} == {
        "valid_in_train": ("warning", ("v.csv:2 = b.csv:2",)),
        "valid_near_train": ("note", ("v.csv:3 ~ a.csv:3",)),
    }
    whole = Joined((examples([LONG, "one text"], None, "a.csv"), examples(["two texts", LONG + "!"], None, "b.csv")))
    parted = audit_texts(whole, None, None, is_valid=np.array([False, True, False, True]))
    assert {f.code: f.where for f in parted} == {
        "near_duplicate": ("b.csv:3 ~ a.csv:2",),
        "valid_near_train": ("b.csv:3 ~ a.csv:2",),
    }
    together = audit_texts(whole, None, None, is_valid=np.array([True, False, False, True]))
    assert [f.code for f in together] == ["near_duplicate"]


def test_bad_rows_of_several_files_are_told_together():
    bad = BadRow("a.csv:9", "it is too short", "")
    first = replace(examples(["some text"], None, "a.csv"), bad_rows=(bad,), n_bad_rows=1)
    second = replace(examples(["more text"], None, "b.csv"), bad_rows=(bad, bad), n_bad_rows=2)
    found = only(audit_texts(Joined((first, second)), None, None))
    assert (found.code, found.count, len(found.where)) == ("bad_rows", 3, 3)
