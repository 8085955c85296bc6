"""The limits of single keys, with the words of their refusals."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import RecipeError
from headrace.recipe import load_recipe


def refused(section: str, key: str, value: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe({section: {key: value}})
    return caught.value.what


@pytest.mark.parametrize("value", ["0%", "100%", "150%", "-5%", "x%", "%"])
def test_a_share_lies_between_0_and_100_percent(value: str) -> None:
    assert "a share lies between 0% and 100%, such as 10%" in refused("data", "valid", value)


def test_a_share_and_a_file_are_told_apart() -> None:
    assert load_recipe({"data": {"valid": "2.5%"}}).values.data.valid_share == 0.025
    assert load_recipe({"data": {"valid": "v.csv"}}).values.data.valid_share is None


@pytest.mark.parametrize("value", [["a"], ["a", "b", "c"], []])
def test_a_text_is_one_column_or_two(value: list[str]) -> None:
    assert "a list of two for sentence pairs" in refused("data", "text", value)


@pytest.mark.parametrize("value", [0.1, 0, 500, 500.0, "0.33 epochs", "1 epoch", ".5 epochs"])
def test_a_warmup_is_a_share_steps_or_epochs(value: Any) -> None:
    load_recipe({"fit": {"warmup": value}})


@pytest.mark.parametrize("value", [-0.1, 1.5, "a while", "0.33", True])
def test_another_warmup_is_refused(value: Any) -> None:
    assert refused("fit", "warmup", value).startswith("fit.warmup: ")


def test_early_stopping_is_a_patience_or_a_mapping() -> None:
    assert load_recipe({"fit": {"early_stopping": 3}}).values.fit.early_stopping.patience == 3  # type: ignore[union-attr]
    given = load_recipe({"fit": {"early_stopping": {"patience": 2, "monitor": "accuracy"}}})
    assert given.values.fit.early_stopping.monitor == "accuracy"  # type: ignore[union-attr]


@pytest.mark.parametrize(("section", "key"), [("fit", "epochs"), ("fit", "batch_size"), ("data", "max_length")])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "many"])
def test_a_count_is_a_whole_number_from_1(section: str, key: str, value: Any) -> None:
    assert refused(section, key, value).startswith(f"{section}.{key}: ")


def test_a_part_may_be_one_word_or_a_mapping() -> None:
    assert load_recipe({"head": "native"}).values.head.name == "native"
    assert load_recipe({"head": {"pool": "mean"}}).values.head.name == "linear"


@pytest.mark.parametrize("value", [-1, 2**63, 1.5])
def test_a_seed_is_a_whole_number_below_2_to_the_63(value: Any) -> None:
    with pytest.raises(RecipeError, match="seed"):
        load_recipe({"seed": value})


def test_a_head_of_ulmfit_begins_with_its_own_defaults() -> None:
    own = {"name": "ulmfit", "pool": "concat", "hidden": 50, "dropout": 0.4}
    assert load_recipe({"head": "ulmfit"}).values.head.model_dump() == own
    assert load_recipe({"head": {"name": "ulmfit", "dropout": 0.2}}).values.head.model_dump() == {**own, "dropout": 0.2}
    assert load_recipe({"head": "linear"}).values.head.model_dump() == {
        "name": "linear",
        "pool": "cls",
        "hidden": 0,
        "dropout": 0.1,
    }


@pytest.mark.parametrize(("key", "value"), [("pool", "cls"), ("hidden", 0)])
def test_a_head_of_ulmfit_without_its_parts_is_refused(key: str, value: Any) -> None:
    with pytest.raises(RecipeError, match="ulmfit has pool: concat and a hidden layer"):
        load_recipe({"head": {"name": "ulmfit", key: value}})
