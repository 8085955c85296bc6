"""Downsampling and weights."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from headrace.data.balance import class_weights, downsample, pos_weight
from headrace.data.examples import Examples, LabelSet
from headrace.errors import DataError


def examples(labels: list, texts: list[str] | None = None) -> Examples:
    kind = pa.list_(pa.string()) if any(isinstance(one, list) for one in labels) else pa.string()
    texts = texts or [f"text {i}" for i in range(len(labels))]
    table = pa.table({"text": pa.array(texts, pa.string()), "label": pa.array(labels, kind)})
    return Examples(table, np.arange(len(labels)), "train.csv", "f")


SEVERAL = examples([["toxic"], ["toxic", "threat"]] * 5 + [["threat"]] * 3 + [[]] * 40)
NAMES = LabelSet(("toxic", "threat"))


def test_rows_without_a_label_are_thinned_out_to_the_number_of_labelled_ones():
    kept, finding = downsample(SEVERAL, NAMES, rows="no_label", to="labelled", seed=0)
    assert finding is None
    assert kept[:13].tolist() == list(range(13))  # every labelled row stays
    assert len(kept) == 26
    assert (np.diff(kept) > 0).all()


def test_a_label_is_thinned_out_to_a_number():
    source = examples(["a"] * 30 + ["b"] * 10)
    kept, finding = downsample(source, LabelSet(("a", "b")), rows="a", to=12, seed=0)
    assert Counter(source.take(kept).labels()) == {"a": 12, "b": 10}
    assert finding is None


def test_a_label_of_multi_label_rows_is_thinned_out_wherever_it_stands():
    kept, _ = downsample(SEVERAL, NAMES, rows="toxic", to=4, seed=0)
    assert sum("toxic" in row for row in SEVERAL.take(kept).labels()) == 4
    assert len(kept) == 53 - 6


def test_the_choice_depends_on_content_and_seed_alone():
    labels = [["x"] if i % 4 == 0 else [] for i in range(80)]
    texts = [f"text {i % 30}" for i in range(80)]
    order = np.random.default_rng(3).permutation(80)
    source = examples(labels, texts)
    shuffled = examples([labels[i] for i in order], [texts[i] for i in order])
    names = LabelSet(("x",))
    kept = downsample(source, names, rows="no_label", to=17, seed=5)[0]
    other = downsample(shuffled, names, rows="no_label", to=17, seed=5)[0]
    assert Counter(source.take(kept).texts()) == Counter(shuffled.take(other).texts())
    assert kept.tolist() != downsample(source, names, rows="no_label", to=17, seed=6)[0].tolist()


def test_more_than_there_are_keeps_all_and_says_so():
    kept, finding = downsample(SEVERAL, NAMES, rows="no_label", to=50, seed=0)
    assert len(kept) == len(SEVERAL)
    assert finding == "data.downsample asks for 50 rows without a label, but there are 40; all were kept"
    kept, finding = downsample(SEVERAL, NAMES, rows="threat", to=9, seed=0)
    assert len(kept) == len(SEVERAL)
    assert finding == "data.downsample asks for 9 rows with the label 'threat', but there are 8; all were kept"
    assert downsample(SEVERAL, NAMES, rows="no_label", to=40, seed=0)[1] is None


def test_no_row_without_a_label_at_all_is_allowed_as_a_target():
    kept, finding = downsample(SEVERAL, NAMES, rows="no_label", to=0, seed=0)
    assert kept.tolist() == list(range(13))
    assert finding is None


def test_an_unknown_label_offers_the_nearest():
    with pytest.raises(DataError) as caught:
        downsample(SEVERAL, NAMES, rows="toxik", to=3, seed=0)
    assert caught.value.what == "there is no label named 'toxik' to downsample"
    assert caught.value.where == "data.downsample.rows"
    assert caught.value.next == "did you mean 'toxic'? available: no_label, threat, toxic"


def test_no_label_is_refused_in_single_label_data_unless_a_label_is_called_so():
    source = examples(["a", "b", "no_label", "no_label"])
    with pytest.raises(DataError, match="each row of single-label data has a label") as caught:
        downsample(source, LabelSet(("a", "b")), rows="no_label", to=1, seed=0)
    assert caught.value.next == "name a label; available: a, b"
    assert len(downsample(source, LabelSet(("a", "b", "no_label")), rows="no_label", to=1, seed=0)[0]) == 3


@pytest.mark.parametrize(
    ("rows", "to", "what"),
    [
        ("toxic", "labelled", "'to: labelled' goes with 'rows: no_label' only"),
        ("toxic", 0, "data.downsample.to is 0; it must be at least 1"),
        ("no_label", -1, "data.downsample.to is -1; it must be at least 0"),
    ],
)
def test_a_number_that_does_not_fit_is_refused(rows, to, what):
    with pytest.raises(DataError) as caught:
        downsample(SEVERAL, NAMES, rows=rows, to=to, seed=0)
    assert caught.value.what == what
    assert caught.value.where == "data.downsample.to"
    assert caught.value.next


def test_class_weights_are_inverse_to_counts_with_mean_1_over_rows():
    targets = np.array([0] * 6 + [1] * 3 + [2] * 1)
    weights = class_weights(targets, 3)
    assert weights.dtype == np.float32
    # 10 / (3 x 6), 10 / (3 x 3), 10 / (3 x 1)
    assert weights.tolist() == pytest.approx([0.555556, 1.111111, 3.333333], abs=1e-5)
    assert weights[targets].mean() == pytest.approx(1.0, abs=1e-6)


def test_a_class_without_rows_weighs_1_and_leaves_the_mean_at_1():
    targets = np.array([0, 0, 2])
    weights = class_weights(targets, 4)
    assert weights[[1, 3]].tolist() == [1.0, 1.0]
    assert weights[targets].mean() == pytest.approx(1.0)
    assert class_weights(np.array([], dtype=np.int64), 2).tolist() == [1.0, 1.0]


def test_pos_weight_is_negatives_over_positives_within_1_and_100():
    targets = np.zeros((1000, 4), dtype=np.float32)
    targets[:200, 0] = 1  # 800 / 200 = 4
    targets[:900, 1] = 1  # 100 / 900, raised to 1
    targets[:1, 2] = 1  # 999, lowered to 100
    assert pos_weight(targets).tolist() == [4.0, 1.0, 100.0, 100.0]  # the last label has no positive row
    assert pos_weight(targets).dtype == np.float32
    assert pos_weight(np.zeros((0, 2), dtype=np.float32)).tolist() == [1.0, 1.0]
