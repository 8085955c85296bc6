"""Parts of the rows: found where they are worse, and silent where they are not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binom

from headrace.data.examples import LabelSet
from headrace.errors import DataError, RecipeError
from headrace.slices import CUT, LENGTH, MISSING, Slice, slices, token_columns

TWO = LabelSet(("neg", "pos"))


def scored(is_right: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return scores whose decided label is right where it is asked."""
    decided = np.where(is_right, targets, 1 - targets)
    return np.where(decided[:, None] == np.arange(2), 0.8, 0.2).astype(np.float32)


def drawn(n: int, accuracy: np.ndarray | float, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    targets = random.integers(0, 2, n)
    return targets, scored(random.random(n) < accuracy, targets)


def found(columns: dict[str, object], targets: np.ndarray, scores: np.ndarray, **options: object) -> list[Slice]:
    return slices(columns, targets, scores, task="single_label", labels=TWO, **options)


def by_value(parts: list[Slice], column: str) -> dict[str, Slice]:
    return {part.value: part for part in parts if part.column == column}


def test_a_part_that_is_worse_is_flagged_and_stands_first() -> None:
    origin = np.array(["a", "b", "c", "d"])[np.arange(2000) % 4]
    targets, scores = drawn(2000, np.where(origin == "c", 0.75, 0.9), seed=0)
    parts = found({"origin": origin}, targets, scores)
    assert [(part.column, part.value) for part in parts if part.is_flagged] == [("origin", "c")]
    assert parts[0].value == "c"
    assert parts[0].n_rows == 500
    assert parts[0].interval.method == "wilson"
    assert parts[0].interval.high < parts[0].overall
    assert parts[0].p_value < 0.001


def test_parts_that_are_alike_are_not_flagged() -> None:
    origin = [str(i % 8) for i in range(2000)]
    targets, scores = drawn(2000, 0.9, seed=1)
    parts = found({"origin": origin}, targets, scores)
    assert len(parts) == 8 + 2
    assert not any(part.is_flagged for part in parts)


def test_a_part_that_is_better_is_not_flagged() -> None:
    origin = np.where(np.arange(4000) % 20 == 0, "easy", "rest")
    targets, scores = drawn(4000, np.where(origin == "easy", 1.0, 0.7), seed=2)
    easy = by_value(found({"origin": origin}, targets, scores), "origin")["easy"]
    assert easy.p_value < 1e-6
    assert not easy.is_flagged


@pytest.mark.parametrize(("n", "accuracy"), [(600, 0.97), (3000, 0.8)])
def test_false_flags_are_rare_over_many_parts(n: int, accuracy: float) -> None:
    random = np.random.default_rng(3)
    n_plain = n_flagged = 0
    for seed in range(150):
        targets, scores = drawn(n, accuracy, seed=seed)
        columns = {name: random.integers(0, 20, n).astype(str) for name in "ab"}
        parts = found(columns, targets, scores)
        n_flagged += any(part.is_flagged for part in parts)
        n_plain += any(part.interval.high is not None and part.interval.high < part.overall for part in parts)
    assert n_plain >= 45, "without correction many draws have a part whose interval lies under the overall value"
    assert n_flagged <= 12  # 5 % of 150 is 7.5; 12 or fewer has a chance of 96 % there, and the test errs to fewer


def test_parts_are_ordered_the_worst_first_and_small_ones_last() -> None:
    targets = np.zeros(130, dtype=np.int64)
    is_right = np.ones(130, dtype=bool)
    is_right[:30:2] = is_right[30:60:5] = False
    is_right[120:] = False
    names = ["half"] * 30 + ["fifth"] * 30 + ["none"] * 60 + ["small"] * 10
    parts = found({"group": names}, targets, scored(is_right, targets))
    groups = [part for part in parts if part.column == "group"]
    assert [part.value for part in groups] == ["half", "fifth", "none", "small"]
    small = groups[-1]
    assert small.interval.value == 0
    assert small.interval.low is None
    assert small.interval.note == "no interval from fewer than 20 rows"
    assert small.p_value is None
    assert not small.is_flagged


def test_lengths_are_parted_at_their_quartiles_and_named_by_range() -> None:
    full = np.arange(1, 401)
    targets, scores = drawn(400, np.where(full > 300, 0.6, 0.95), seed=4)
    parts = found(token_columns(np.minimum(full, 256), full), targets, scores)
    lengths = by_value(parts, LENGTH)
    assert {name: part.n_rows for name, part in lengths.items()} == {
        "1 to 100": 100,
        "101 to 200": 100,
        "201 to 300": 100,
        "301 to 400": 100,
    }
    assert [name for name, part in lengths.items() if part.is_flagged] == ["301 to 400"]
    assert {name: part.n_rows for name, part in by_value(parts, CUT).items()} == {"cut": 144, "not cut": 256}


def test_columns_of_many_values_keep_the_largest_and_pool_the_rest() -> None:
    names = [f"big{i}" for i in range(25) for _ in range(21 + i)] + [f"once{i}" for i in range(40)]
    targets, scores = drawn(len(names), 0.9, seed=5)
    parts = by_value(found({"site": names}, targets, scores), "site")
    assert set(parts) == {*(f"big{i}" for i in range(5, 25)), "other (45 values)"}
    assert parts["other (45 values)"].n_rows == sum(21 + i for i in range(5)) + 40
    assert sum(part.n_rows for part in parts.values()) == len(names)


def test_numbers_as_texts_are_numbers_and_missing_ones_a_part() -> None:
    ages = [str(i) for i in range(100)] + [None, "", " ", float("nan")]
    targets, scores = drawn(104, 0.9, seed=6)
    parts = by_value(found({"age": ages}, targets, scores), "age")
    assert {name: part.n_rows for name, part in parts.items()} == {
        "0 to 24": 25,
        "25 to 49": 25,
        "50 to 74": 25,
        "75 to 99": 25,
        MISSING: 4,
    }
    few = by_value(found({"stars": [i % 5 for i in range(104)]}, targets, scores), "stars")
    assert set(few) == {"0", "1", "2", "3", "4"}


def test_multi_label_rows_are_parted_by_each_label_and_none() -> None:
    random = np.random.default_rng(7)
    targets = (random.random((300, 2)) < 0.3).astype(np.float32)
    scores = np.where(random.random((300, 2)) < 0.9, targets, 1 - targets).astype(np.float32) * 0.6 + 0.1
    options = {"task": "multi_label", "labels": TWO, "threshold": 0.5}
    parts = by_value(slices({}, targets, scores, **options), "true label")
    assert set(parts) == {"neg", "pos", "(no label)"}
    assert parts["pos"].n_rows == int(targets[:, 1].sum())
    right = ((scores >= 0.5) == targets).all(axis=1)
    assert parts["(no label)"].interval.value == pytest.approx(right[~targets.any(axis=1)].mean())
    strict = slices({}, targets, scores, **{**options, "threshold": np.array([0.99, 0.99])})
    assert by_value(strict, "true label")["pos"].interval.value == 0


def test_multi_label_parts_by_true_label_are_shown_but_not_judged() -> None:
    """Nine in ten rows have no label, and nearly all of these are right: by the rule every label would be flagged."""
    random = np.random.default_rng(11)
    is_clean, site = np.arange(4000) % 10 > 0, np.where(np.arange(4000) % 4 == 0, "bad", "good")
    targets = ((random.random((4000, 2)) < 0.6) & ~is_clean[:, None]).astype(np.float32)
    error_rate = np.where(is_clean, np.where(site == "bad", 0.05, 0.002), 0.3)
    is_wrong = random.random((4000, 2)) < error_rate[:, None]
    scores = np.where(is_wrong, 1 - targets, targets) * 0.6 + 0.1
    options = {"task": "multi_label", "labels": TWO}
    parts = slices({"site": site}, targets, scores, **options)
    by_label = by_value(parts, "true label")
    assert len(by_label) == 3
    for part in by_label.values():
        assert part.interval.low is not None
        assert part.p_value is None
        assert not part.is_flagged
    assert max(by_label["neg"].interval.high, by_label["pos"].interval.high) < by_label["neg"].overall - 0.2
    assert [(part.column, part.value) for part in parts if part.is_flagged] == [("site", "bad")]
    assert [part.column for part in parts] == ["site"] * 2 + ["true label"] * 3
    judged = by_value(parts, "site")
    alone = by_value(slices({"site": site}, targets, scores, metric="hamming_loss", **options), "site")
    assert alone["bad"].is_flagged
    # corrected for the two parts that are judged
    right = ((scores >= 0.5) == targets).all(axis=1)
    raw = 2 * binom.cdf(right[site == "bad"].sum(), 1000, right.mean())
    assert judged["bad"].p_value == pytest.approx(2 * raw, rel=1e-6)


def test_other_metrics_get_bootstrap_intervals_and_their_own_direction() -> None:
    origin = np.array(["good", "bad"])[np.arange(600) % 2]
    targets, scores = drawn(600, np.where(origin == "bad", 0.55, 0.95), seed=8)
    for name in ("log_loss", "roc_auc"):
        parts = [
            part
            for part in found({"origin": origin}, targets, scores, metric=name, seed=1)
            if part.column != "true label"
        ]
        assert [part.value for part in parts] == ["bad", "good"]
        assert parts[0].interval.method == "bootstrap"
        assert [part.is_flagged for part in parts] == [True, False]
    assert found({}, targets, scores, metric="log_loss", seed=1) == found(
        {}, targets, scores, metric="log_loss", seed=1
    )
    of_one_label = by_value(found({}, targets, scores, metric="roc_auc"), "true label")["pos"]
    assert of_one_label.interval.value is None
    assert not of_one_label.is_flagged


def test_odd_input_gives_no_error() -> None:
    assert slices({"x": []}, np.array([], dtype=int), np.zeros((0, 2)), task="single_label", labels=TWO) == []
    targets = np.zeros(50, dtype=np.int64)
    all_right = found({"same": ["v"] * 50, "own": list(range(50))}, targets, scored(np.ones(50, bool), targets))
    assert not any(part.is_flagged for part in all_right)
    assert by_value(all_right, "same")["v"].p_value == 1
    assert (
        by_value(found({"id": ["x" * 500] * 50}, targets, scored(np.ones(50, bool), targets)), "id").popitem()[0][-1]
        == "…"
    )


def test_what_does_not_fit_is_refused() -> None:
    targets, scores = drawn(30, 0.9, seed=9)
    with pytest.raises(DataError, match="'site' has 2 values for 30 rows"):
        found({"site": ["a", "b"]}, targets, scores)
    with pytest.raises(RecipeError, match="no metric named 'acuracy'") as caught:
        found({}, targets, scores, metric="acuracy")
    assert "did you mean 'accuracy'" in caught.value.next


def test_the_report_gets_plain_values() -> None:
    targets, scores = drawn(100, 0.9, seed=10)
    shown = json.loads(
        json.dumps([part.as_dict() for part in found(token_columns([1] * 100, [2] * 100), targets, scores)])
    )
    assert {frozenset(part) for part in shown} == {
        frozenset({"column", "value", "n_rows", "metric", "value_of_metric", "overall", "p_value", "is_flagged"})
    }
    assert shown[0]["value_of_metric"]["low"] < shown[0]["value_of_metric"]["value"]
