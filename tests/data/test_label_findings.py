"""Findings about labels."""

import numpy as np
import pyarrow as pa
import pytest

from headrace.data import label_findings
from headrace.data.examples import Examples, LabelSet
from headrace.data.finding import Finding
from headrace.data.label_findings import label_not_in_valid, rarely_scored_label, train_label_findings
from headrace.data.labels import label_set


def rows(labels: list | None, n_rows: int = 0) -> Examples:
    n_rows = n_rows if labels is None else len(labels)
    columns: dict = {"text": pa.array([f"text {i}" for i in range(n_rows)], pa.string())}
    if labels is not None:
        several = any(isinstance(one, list) for one in labels)
        columns["label"] = pa.array(labels, pa.list_(pa.string()) if several else pa.string())
    columns["row"] = pa.array(range(2, 2 + n_rows), pa.int64())
    return Examples(pa.table(columns), np.arange(n_rows), "a.csv", "f")


def counted(**counts: int) -> Examples:
    return rows([name for name, count in counts.items() for _ in range(count)])


def found_in(train: Examples) -> dict[str, Finding]:
    return {finding.code: finding for finding in train_label_findings(train, label_set(train))}


def test_even_and_plain_labels_have_no_findings():
    assert found_in(counted(spam=30, ham=40)) == {}
    assert found_in(rows([["a", "b"], ["a"], ["b"], []] * 30)) == {}
    assert train_label_findings(rows(None, 3), LabelSet(("a", "b"))) == []
    assert rarely_scored_label("test", rows(None, 3), LabelSet(("a", "b"))) is None
    assert label_not_in_valid(rows(None, 3), LabelSet(("a", "b"))) is None


@pytest.mark.parametrize("variant", ["Spam", "spam ", " SPAM", "ｓｐａｍ", "spam\u00a0"])
def test_names_that_differ_in_nothing_visible_are_a_warning(variant):
    found = found_in(rows(["spam"] * 40 + [variant] * 3 + ["ham"] * 40))["label_variants"]
    assert (found.severity, found.count, found.where) == ("warning", 3, ("a.csv:42", "a.csv:43", "a.csv:44"))
    assert found.what == (
        "names of labels differ only in case, white space, hyphens or Unicode form: "
        f"'spam' (40 rows) and {variant!r} (3 rows)"
    )


def test_names_that_look_the_same_are_told_apart():
    found = found_in(rows(["caf\u00e9"] * 25 + ["cafe\u0301"] * 22 + ["bar"] * 30))["label_variants"]
    assert r"'caf\xe9' (25 rows) and 'cafe\u0301' (22 rows)" in found.what
    assert found.count == 22


def test_names_with_other_marks_between_their_words_are_variants_but_marks_at_an_end_are_not():
    found = found_in(rows(["not spam"] * 30 + ["not_spam"] * 25 + ["Not-Spam"] * 22))["label_variants"]
    assert found.count == 47
    assert "label_variants" not in found_in(rows(["B"] * 30 + ["B-"] * 30 + ["B+"] * 30 + ["A"] * 30))


@pytest.mark.parametrize("slip", ["negativ", "negattive", "negatve", "nagative", "negatvie", "Negatvie"])
def test_a_rare_name_one_slip_from_a_frequent_one_is_a_warning(slip):
    found = found_in(rows(["negative"] * 100 + ["positive"] * 100 + [slip] * 3))["label_typo"]
    assert (found.severity, found.count) == ("warning", 3)
    assert found.where == ("a.csv:202", "a.csv:203", "a.csv:204")
    assert found.what.endswith(f"{slip!r} (3 rows) may be 'negative' (100)")


@pytest.mark.parametrize(
    ("rare", "n_rare", "common"),
    [
        ("class 2", 3, "class 1"),  # digits count things
        ("class", 3, "class1"),
        ("cat", 3, "car"),  # too short to tell
        ("legal", 30, "regal"),  # not rare
        ("cats", 15, "bats"),  # rare, but the other is not so frequent: below
        ("positve", 1, "positive"),  # told as a label with one row
        ("postve", 3, "positive"),  # two slips
    ],
)
def test_other_names_are_no_slips(rare, n_rare, common):
    found = found_in(rows([common] * 100 + ["something else"] * 100 + [rare] * n_rare))
    assert "label_typo" not in found
    assert ("label_with_one_row" in found) == (n_rare == 1)


def test_many_names_are_not_each_compared_with_each(monkeypatch):
    compared = []
    is_slip = label_findings._is_slip
    monkeypatch.setattr(label_findings, "_is_slip", lambda a, b: compared.append((a, b)) or is_slip(a, b))
    names = [f"category {number:04d} of {number * 7919 % 997:03d}" for number in range(1000)]
    assert set(found_in(rows(names * 2))) == {"rare_label"}
    assert len(compared) < 20_000  # of 999,000


def test_a_label_with_few_rows_is_rare_beside_many():
    found = found_in(counted(a=500, b=480, rare=12))["rare_label"]
    assert (found.severity, found.count, found.where) == ("warning", 1, ("rare",))
    assert found.what == ("1 label has fewer than 20 of 992 training rows, so little can be learnt of 'rare' (12 rows)")
    assert "rare_label" not in found_in(counted(a=500, b=480, rare=20))
    assert "rare_label" not in found_in(counted(a=18, b=18))  # a small data set has no rare label for that


def test_labels_with_few_rows_to_be_scored_by_are_a_note():
    labels = LabelSet(("a", "b", "c"))
    found = rarely_scored_label("test", counted(a=30, b=19, c=20), labels)
    assert (found.severity, found.code, found.count, found.where) == ("note", "rarely_scored_label", 1, ("b",))
    assert found.what == (
        "1 label has fewer than 20 rows in the test data, so metrics and AUC there say little of 'b' (19 rows)"
    )
    assert rarely_scored_label("test", counted(a=30, b=20, c=20), labels) is None
    missing = label_not_in_valid(counted(a=30, b=20), labels)
    assert (missing.severity, missing.code, missing.where) == ("warning", "label_not_in_valid", ("c",))


def test_a_label_without_test_rows_is_told_too():
    labels = LabelSet(("a", "b", "c"))
    found = rarely_scored_label("test", counted(a=30, b=19), labels)
    assert (found.severity, found.count, found.where) == ("note", 2, ("b", "c"))
    assert found.what == (
        "2 labels have fewer than 20 rows in the test data, so metrics and AUC there say little of 'b' (19 rows), "
        "and nothing of 'c'"
    )
    none = rarely_scored_label("test", counted(a=30, b=20), labels)
    assert none.what == "1 label has no row in the test data, so metrics and AUC there say nothing of 'c'"


def test_validation_is_told_what_is_chosen_there():
    labels = LabelSet(("a", "b", "c"))
    found = rarely_scored_label("validation", counted(a=30, b=5), labels)
    assert (found.count, found.where) == (1, ("b",))  # label_not_in_valid tells of 'c'
    assert found.what == (
        "1 label has fewer than 20 rows in the validation data, so metrics and AUC there, and what is chosen by them, "
        "say little of 'b' (5 rows)"
    )


def test_uneven_labels_are_a_note_with_the_line_for_the_recipe():
    found = found_in(counted(good=400, bad=40, other=200))["class_imbalance"]
    assert (found.severity, found.where) == ("note", ("bad", "good"))
    assert found.what.startswith("'good' has 10 times the training rows of 'bad' (400 and 40)")
    assert found.next.startswith("`fit: {class_weights: balanced}`")
    assert "downsample" not in found.next
    assert "class_imbalance" not in found_in(counted(good=399, bad=40))


def test_one_label_that_has_nearly_all_rows_may_be_thinned():
    import yaml

    train = rows(["good: yes"] * 400 + ["bad"] * 30)
    advice = found_in(train)["class_imbalance"].next
    line = advice.split("; `")[1].split("`")[0]
    assert yaml.safe_load(line) == {"data": {"downsample": {"rows": "good: yes", "to": 30}}}
    assert yaml.safe_load(advice.split("`")[1]) == {"fit": {"class_weights": "balanced"}}


def test_few_positives_of_several_labels_are_a_note_with_the_line_for_the_recipe():
    import yaml

    found = found_in(rows([["a"], ["a", "b"], *([[]] * 20), ["a"], ["a"]] * 20))["class_imbalance"]
    assert (found.severity, found.count, found.where) == ("note", 1, ("b",))
    lines = [yaml.safe_load(part) for part in found.next.split("`")[1::2]]
    assert lines == [
        {"fit": {"pos_weight": "balanced"}},
        {"data": {"downsample": {"rows": "no_label", "to": "labelled"}}},
    ]
    assert "class_imbalance" not in found_in(rows([["a"], ["b"], *([[]] * 8)] * 20))  # one in ten
