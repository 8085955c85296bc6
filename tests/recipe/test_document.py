"""YAML as data: places of keys, numbers as people mean them, and what is refused (X5 of the fault list)."""

from __future__ import annotations

import time

import pytest

from headrace.errors import RecipeError
from headrace.recipe.document import Document, parse_override, read_document, yaml_scalar


def refused(text: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        read_document(text, name="r.yaml")
    return caught.value


def test_each_key_has_its_line_and_column() -> None:
    document = read_document("task: single_label\nfit:\n  epochs: 2\n", name="r.yaml")
    assert document.values == {"task": "single_label", "fit": {"epochs": 2}}
    assert document.place(("task",)) == "r.yaml:1:1"
    assert document.place(("fit", "epochs")) == "r.yaml:3:3"


def test_each_value_has_its_line_and_column_a_mapping_that_of_its_key() -> None:
    text = "task:   single_label\nfit: {epochs: 2}\ndata:\n  labels:\n    - a\n    - b\n"
    document = read_document(text, name="r.yaml")
    assert document.value_place(("task",)) == "r.yaml:1:9"
    assert document.value_place(("fit",)) == "r.yaml:2:1"
    assert document.value_place(("fit", "epochs")) == "r.yaml:2:15"
    assert document.value_place(("data", "labels")) == "r.yaml:5:5"
    assert document.value_place(("data", "labels", 1)) == "r.yaml:6:7"
    assert document.value_place(("data", "train")) == "r.yaml:3:1"


def test_a_missing_key_stands_where_the_key_above_it_stands() -> None:
    document = read_document("task: single_label\nfit:\n  epochs: 2\n", name="r.yaml")
    assert document.place(("fit", "batch_size")) == "r.yaml:2:1"


def test_an_empty_recipe_is_an_empty_mapping() -> None:
    assert read_document("# nothing\n", name="r.yaml").values == {}


@pytest.mark.parametrize("written", ["1e-5", "1E-5", "1.0e-5", "0.00001", "+1e-5"])
def test_1e_5_is_a_number_however_it_is_written(written: str) -> None:
    value = read_document(f"rate: {written}\n", name="r.yaml").values["rate"]
    assert isinstance(value, float)
    assert value == 1e-5


def test_a_quoted_number_stays_a_text() -> None:
    assert read_document("label: '1e-5'\n", name="r.yaml").values["label"] == "1e-5"


def test_a_date_stays_a_text() -> None:
    assert read_document("label: 2024-05-01\n", name="r.yaml").values["label"] == "2024-05-01"


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system [touch x]", "!!python/name:os.system", "!custom 1", "!!binary aGk="]
)
def test_a_tag_is_refused_with_its_place(tag: str) -> None:
    error = refused(f"task: single_label\nseed: {tag}\n")
    assert "tag" in error.what
    assert "is not used in recipes" in error.what
    assert error.where == "r.yaml:2:7"
    assert error.next == "remove it"


def test_an_alias_bomb_is_refused_at_once() -> None:
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    started = time.process_time()
    error = refused("\n".join(lines))
    assert time.process_time() - started < 1
    assert "anchors and aliases (here 'a0')" in error.what
    assert error.where == "r.yaml:1:5"
    assert error.next == "write the value out"


def test_a_key_that_stands_twice_is_refused_with_the_second_place() -> None:
    error = refused("fit:\n  epochs: 2\n  epochs: 3\n")
    assert error.what == "the key 'epochs' stands twice"
    assert error.where == "r.yaml:3:3"


def test_a_recipe_above_1_mb_is_refused() -> None:
    error = refused("# " + "x" * (1 << 20))
    assert error.what == "the recipe is larger than 1 MB"


def test_deep_nesting_is_refused() -> None:
    assert "nested too deeply" in refused("a: " + "[" * 60 + "]" * 60).what


def test_broken_yaml_names_the_place() -> None:
    error = refused("task: single_label\n  fit: [1, 2\n")
    assert error.what.startswith("this is not valid YAML:")
    assert error.where is not None
    assert error.where.startswith("r.yaml:2:")


def test_a_list_is_no_recipe() -> None:
    error = refused("- task\n- fit\n")
    assert error.what == "a recipe is a mapping of keys to values"
    assert error.next == "begin with `task: single_label`"


def test_a_key_that_is_no_word_is_refused() -> None:
    assert refused("[1, 2]: 3\n").what == "a key is a word"


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("fit.epochs=5", ("fit", "epochs"), 5),
        ("fit.learning_rate=1e-5", ("fit", "learning_rate"), 1e-5),
        ("data.text=[premise, hypothesis]", ("data", "text"), ["premise", "hypothesis"]),
        (
            "data.downsample={rows: no_label, to: labelled}",
            ("data", "downsample"),
            {"rows": "no_label", "to": "labelled"},
        ),
        ("data.test=", ("data", "test"), None),
        ("data.train=a=b.csv", ("data", "train"), "a=b.csv"),
    ],
)
def test_an_override_is_a_path_and_a_yaml_value(text: str, path: tuple[str, ...], value: object) -> None:
    assert parse_override(text) == (path, value)


@pytest.mark.parametrize("text", ["fit.epochs", "=5", ""])
def test_an_override_without_key_or_value_says_how_to_write_it(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_override(text)
    assert caught.value.where == "--set"
    assert caught.value.next == "write --set fit.epochs=5"


@pytest.mark.parametrize(
    "value",
    [
        1e-5,
        2e-05,
        0.1,
        3.0,
        5,
        "text",
        "1e-5",
        "no",
        "25%",
        "a: b",
        "# c",
        "",
        None,
        True,
        ["a", "1"],
        {"a": 1.5e-7},
        "ä\n",
    ],
)
def test_a_written_scalar_reads_back_as_it_was(value: object) -> None:
    again = read_document(f"x: {yaml_scalar(value)}\n", name="r.yaml").values["x"]
    assert again == value
    assert type(again) is type(value)


def test_a_document_without_places_names_itself() -> None:
    assert Document("the recipe given", {}, {}).place(("fit",)) == "the recipe given"
