"""The split and the limit: by content, stratified, equal texts together."""

import time
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.data.examples import Examples
from headrace.data.split import exact_keys, folded, limit, split, text_keys
from headrace.errors import DataError


def examples(texts: list, labels: list | None = None) -> Examples:
    columns: dict = {"text": pa.array([t[0] if isinstance(t, tuple) else t for t in texts], pa.string())}
    if texts and isinstance(texts[0], tuple):
        columns["pair"] = pa.array([t[1] for t in texts], pa.string())
    if labels is not None:
        several = any(isinstance(one, list | tuple) for one in labels)
        columns["label"] = pa.array(labels, pa.list_(pa.string()) if several else pa.string())
    columns["row"] = pa.array(range(2, 2 + len(texts)), pa.int64())
    return Examples(pa.table(columns), np.arange(len(texts)), "train.csv", "f")


def content(source: Examples, positions: np.ndarray) -> Counter:
    chosen = source.take(positions)
    labels = [str(one) for one in chosen.labels()] if chosen.is_labelled else [""] * len(chosen)
    return Counter(zip(chosen.texts(), labels, strict=True))


def single(n: int, shares: list[float], seed: int = 0) -> Examples:
    drawn = np.random.default_rng(seed).choice(len(shares), size=n, p=shares)
    return examples([f"text {i}" for i in range(n)], [f"l{k}" for k in drawn])


# --- folding and keys


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße", "STRASSE"),
        ("caf\u00e9", "CAFE\u0301"),  # one letter, or letter and accent
        ("a\u00a0 b\t\n", " A b"),
        ("\u1e9b\u0323", "\u1e61\u0323"),
        ("ΑΣ", "ας"),
        ("", " \u3000\n"),
    ],
)
def test_folding_makes_equal_what_a_reader_takes_for_equal(one, other):
    assert folded(one) == folded(other)


def test_folding_keeps_apart_what_differs():
    assert len({folded(text) for text in ("a b", "ab", "a-b", "á b", "a b.", "ﬁ b")}) == 6


@given(st.text())
def test_folding_twice_changes_nothing_more(text):
    assert folded(folded(text)) == folded(text)
    assert folded(f" {text}\t\n") == folded(text)


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_the_short_way_for_ascii_gives_what_the_long_way_gives(text):
    assert folded(text + "é").removesuffix("é").rstrip(" ") == folded(text)


def test_keys_of_pairs_know_where_the_first_text_ends():
    keys = text_keys(examples([("ab", "c"), ("a", "bc"), ("AB ", "c"), ("c", "ab")]))
    assert keys.dtype == np.uint64
    assert keys[0] == keys[2]
    assert len(set(keys.tolist())) == 3
    assert len(set(exact_keys(examples(["a", "A", "a"])).tolist())) == 2


def test_a_lone_surrogate_has_a_key_and_no_rows_have_none():
    assert folded("\ud800 A") == "\ud800 a"
    assert len(text_keys(examples([]))) == 0


# --- the split of single-label data


@pytest.mark.parametrize("share", [0.1, 0.25, 0.29, 0.5, 0.8])
@pytest.mark.parametrize("n", [50, 1003])
def test_the_size_is_exact_and_each_label_within_one_row_of_its_share(n, share):
    source = single(n, [0.5, 0.3, 0.15, 0.05])
    train, valid = split(source, share=share, seed=3)
    assert len(valid) == round(share * n)
    assert sorted([*train.tolist(), *valid.tolist()]) == list(range(n))
    assert (np.diff(train) > 0).all()
    assert (np.diff(valid) > 0).all()
    counts, chosen = Counter(source.labels()), Counter(source.take(valid).labels())
    assert len(counts) == 4
    for label, count in counts.items():
        assert abs(chosen[label] - share * count) < 1


@settings(max_examples=60, deadline=None)
@given(
    data=st.lists(st.tuples(st.sampled_from("aAbcde é"), st.sampled_from(["x", "y", "z"])), min_size=8, max_size=60),
    seed=st.integers(0, 5),
    share=st.sampled_from([0.1, 0.3, 0.5]),
    order=st.randoms(use_true_random=False),
)
def test_the_split_depends_on_content_and_seed_alone(data, seed, share, order):
    texts = [f"{text} {number % 23}" for number, (text, _) in enumerate(data)]
    labels = [label for _, label in data]
    source = examples(texts, labels)
    numbers = list(range(len(data)))
    order.shuffle(numbers)
    shuffled = examples([texts[i] for i in numbers], [labels[i] for i in numbers])
    try:
        train, valid = split(source, share=share, seed=seed)
    except DataError:
        with pytest.raises(DataError):
            split(shuffled, share=share, seed=seed)
        return
    other_train, other_valid = split(shuffled, share=share, seed=seed)
    assert content(source, train) == content(shuffled, other_train)
    assert content(source, valid) == content(shuffled, other_valid)
    sides = {folded(text) for text in source.take(train).texts()}, {folded(t) for t in source.take(valid).texts()}
    assert not sides[0] & sides[1]
    assert set(labels) == set(source.take(train).labels())  # no label is lost from training


def test_a_view_is_split_like_a_table_of_its_rows():
    source = single(200, [0.5, 0.5])
    chosen = np.random.default_rng(1).permutation(200)[:80]
    view = source.take(chosen)
    copy = examples(view.texts(), view.labels())
    assert split(view, share=0.2, seed=1)[1].tolist() == split(copy, share=0.2, seed=1)[1].tolist()


def test_other_seeds_give_other_splits_and_the_same_seed_the_same():
    source = single(400, [0.7, 0.3])
    found = [tuple(split(source, share=0.25, seed=seed)[1].tolist()) for seed in (0, 1, 2, 3, -1, 2**70, 0)]
    assert len(set(found)) == 6
    assert found[0] == found[-1]


def test_each_row_is_chosen_about_as_often_as_any_other():
    source = single(40, [0.5, 0.5])
    times = np.zeros(40)
    for seed in range(400):
        times[split(source, share=0.25, seed=seed)[1]] += 1
    # 400 seeds x 1/4 = 100 expected, standard deviation 8.7; five of them
    assert abs(times - 100).max() < 44


def test_equal_texts_never_stand_on_both_sides_and_the_size_still_fits():
    rng = np.random.default_rng(5)
    texts = [f"{'Text' if rng.random() < 0.5 else ' text '} {rng.integers(0, 300)}" for _ in range(1000)]
    labels = [("even", "odd")[int(text.split()[-1]) % 2] for text in texts]
    source = examples(texts, labels)
    train, valid = split(source, share=0.2, seed=7)
    left, right = ({folded(text) for text in source.take(side).texts()} for side in (train, valid))
    assert not left & right
    largest = max(Counter(map(folded, texts)).values())
    assert abs(len(valid) - 200) < largest
    for label in ("even", "odd"):
        assert abs(source.take(valid).labels().count(label) - 0.2 * labels.count(label)) < largest


def test_rows_of_one_text_with_different_labels_stay_together_and_keep_the_rare_label_in_training():
    source = examples([f"t{i}" for i in range(40)] + ["Same", "same "], ["a"] * 20 + ["b"] * 20 + ["a", "rare"])
    for seed in range(20):
        train, valid = split(source, share=0.5, seed=seed)
        assert {40, 41} <= set(train.tolist())
        assert abs(len(valid) - 21) <= 1


def test_a_label_with_a_single_row_or_text_stays_in_training():
    labels = ["a"] * 30 + ["b"] * 30 + ["once"] + ["thrice"] * 3
    source = examples([f"t{i}" for i in range(61)] + ["equal", "Equal", "EQUAL"], labels)
    for seed in range(30):
        train, valid = split(source, share=0.5, seed=seed)
        assert {"once", "thrice"} <= set(source.take(train).labels())
        assert set(source.take(valid).labels()) == {"a", "b"}
        assert len(valid) == 30  # half of a and of b; the four others cannot be made up for


def test_single_rows_stay_in_training_even_if_validation_becomes_smaller():
    source = examples([f"t{i}" for i in range(30)], [f"only {i}" for i in range(20)] + ["a"] * 10)
    train, valid = split(source, share=0.5, seed=0)
    assert source.take(valid).labels() == ["a"] * 5
    assert len(train) == 25


@pytest.mark.parametrize("share", [0.8, 0.9, 0.99])
def test_a_large_share_leaves_a_row_of_each_label_in_training(share):
    source = single(300, [0.9, 0.05, 0.03, 0.02])
    for seed in range(10):
        train, _ = split(source, share=share, seed=seed)
        assert set(source.take(train).labels()) == set(source.labels())


def test_unlabelled_rows_and_pairs_are_split_too():
    texts = [(f"premise {i % 50}", f"hypothesis {i // 2}") for i in range(200)]
    train, valid = split(examples(texts), share=0.25, seed=0)
    assert len(valid) == 50
    assert len(train) == 150


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan"), 25.0])
def test_a_share_outside_0_and_1_is_refused(share):
    with pytest.raises(DataError, match="must be above 0 and below 1") as caught:
        split(single(10, [1.0]), share=share, seed=0)
    assert caught.value.where == "data.valid"
    assert "10%" in caught.value.next


@pytest.mark.parametrize("texts", [[], ["one"], ["same", "Same", " same"]])
def test_rows_that_cannot_be_divided_are_refused(texts):
    with pytest.raises(DataError) as caught:
        split(examples(texts, ["a"] * len(texts)), share=0.5, seed=0)
    assert "cannot be divided with a share of 0.5" in caught.value.what
    assert caught.value.where == "train.csv"
    assert "data.valid" in caught.value.next


# --- multi-label data


def several(n: int, rates: list[float], seed: int = 0) -> Examples:
    drawn = np.random.default_rng(seed).random((n, len(rates))) < rates
    return examples([f"text {i}" for i in range(n)], [[f"l{k}" for k in np.flatnonzero(row)] for row in drawn])


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_label_of_multi_label_data_and_the_rows_without_one_have_their_share(share, seed):
    source = several(4000, [0.1, 0.05, 0.01, 0.003, 0.05, 0.009], seed)
    _, valid = split(source, share=share, seed=seed)
    assert len(valid) == round(share * 4000)
    counts = Counter(name for row in source.labels() for name in row or ["none"])
    chosen = Counter(name for row in source.take(valid).labels() for name in row or ["none"])
    assert len(counts) == 7
    for label, count in counts.items():
        assert abs(chosen[label] - share * count) <= 2.5, label


def test_iterative_stratification_beats_chance_where_nearly_all_label_sets_differ():
    source = several(2000, [0.3] * 20)
    _, valid = split(source, share=0.25, seed=0)
    assert len(valid) == 500
    rows = source.labels()
    is_valid = np.isin(np.arange(2000), valid)
    n_ours = np.array([sum(f"l{k}" in row for row in source.take(valid).labels()) for k in range(20)])
    totals = np.array([sum(f"l{k}" in row for row in rows) for k in range(20)])
    rng = np.random.default_rng(0)
    by_chance = []
    for _ in range(50):
        drawn = rng.permutation(is_valid)
        n_drawn = np.array(
            [sum(f"l{k}" in row for row, taken in zip(rows, drawn, strict=True) if taken) for k in range(20)]
        )
        by_chance.append(np.abs(n_drawn - 0.25 * totals).mean())
    assert np.abs(n_ours - 0.25 * totals).mean() < 0.6 * np.median(by_chance)


def test_a_split_worked_out_by_hand():
    # l0 in 4 rows, l1 in 4, both in 4, none in 4: half of each set goes to each side.
    source = examples([f"t{i}" for i in range(16)], [["l0"]] * 4 + [["l1"]] * 4 + [["l1", "l0"]] * 4 + [[]] * 4)
    for seed in range(5):
        _, valid = split(source, share=0.5, seed=seed)
        assert Counter(str(sorted(row)) for row in source.take(valid).labels()) == Counter(
            {"['l0']": 2, "['l1']": 2, "['l0', 'l1']": 2, "[]": 2}
        )


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.sets(st.sampled_from(["p", "q", "r", "s"])), min_size=10, max_size=50),
    n_texts=st.integers(8, 60),
    share=st.sampled_from([0.1, 0.4, 0.7]),
    order=st.randoms(use_true_random=False),
)
def test_the_multi_label_split_depends_on_content_alone_and_loses_no_label(rows, n_texts, share, order):
    texts = [f"t{number % n_texts}" for number in range(len(rows))]
    labels = [sorted(row) for row in rows]
    labels[0] = labels[0] or ["p"]
    numbers = list(range(len(rows)))
    order.shuffle(numbers)
    source = examples(texts, labels)
    shuffled = examples([texts[i] for i in numbers], [labels[i][::-1] for i in numbers])
    try:
        train, valid = split(source, share=share, seed=1)
    except DataError:
        return  # every text is needed in training
    assert Counter(texts[i] for i in valid) == Counter(shuffled.take(split(shuffled, share=share, seed=1)[1]).texts())
    assert {name for i in train for name in labels[i]} == {name for row in labels for name in row}
    assert not {texts[i] for i in train} & {texts[i] for i in valid}


# --- the limit


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 70), seed=st.integers(0, 3), order=st.randoms(use_true_random=False))
def test_the_limit_is_exact_and_depends_on_content_alone(n, seed, order):
    texts = [f"{'Ab'[i % 2]} {i % 40}" for i in range(60)]
    labels = [("x", "y", "z")[i % 3 if i % 5 else 0] for i in range(60)]
    numbers = list(range(60))
    order.shuffle(numbers)
    source = examples(texts, labels)
    shuffled = examples([texts[i] for i in numbers], [labels[i] for i in numbers])
    chosen = limit(source, n=n, seed=seed)
    assert len(chosen) == min(n, 60) == len(set(chosen.tolist()))
    assert (np.diff(chosen) > 0).all()
    assert content(source, chosen) == content(shuffled, limit(shuffled, n=n, seed=seed))
    if n >= 3:
        assert set(source.take(chosen).labels()) == {"x", "y", "z"}


def test_the_limit_keeps_each_labels_share_and_a_rare_label():
    source = examples([f"t{i}" for i in range(1001)], ["a"] * 600 + ["b"] * 400 + ["rare"])
    assert Counter(source.take(limit(source, n=100, seed=0)).labels()) in (
        {"a": 60, "b": 39, "rare": 1},
        {"a": 59, "b": 40, "rare": 1},
    )
    assert limit(source, n=100, seed=0).tolist() != limit(source, n=100, seed=1).tolist()


def test_a_limit_above_the_rows_keeps_all_and_one_below_1_is_refused():
    source = single(10, [1.0])
    assert limit(source, n=10, seed=0).tolist() == list(range(10))
    assert limit(source, n=99, seed=0).tolist() == list(range(10))
    with pytest.raises(DataError, match="the limit is 0; it must be at least 1") as caught:
        limit(source, n=0, seed=0)
    assert caught.value.where == "data.limit"


# --- size


def test_two_hundred_thousand_rows_are_split_in_seconds():
    # 1,000,000 take five times this; the bound is loose because the machine is shared
    n = 200_000
    rng = np.random.default_rng(0)
    texts = pa.array([f"a short text with the number {i} and more words" for i in range(n)])
    labels = pa.array(np.array([f"l{k}" for k in range(20)])[rng.integers(0, 20, n)])
    source = Examples(pa.table({"text": texts, "label": labels}), np.arange(n), "big.csv", "f")
    start = time.process_time()
    _, valid = split(source, share=0.1, seed=0)
    assert time.process_time() - start < 6
    assert len(valid) == n // 10
