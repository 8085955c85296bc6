"""The public face: these names and no others, looked up when they are used."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

import headrace

PUBLIC = [
    "Bundle",
    "ClassifierModule",
    "Evaluation",
    "HeadraceError",
    "Prediction",
    "Recipe",
    "TextDataModule",
    "__version__",
    "check",
    "compare",
    "evaluate",
    "fit",
]
HEAVY = {"torch", "lightning", "transformers", "datasets", "pandas", "sklearn", "pyarrow", "numpy"}


def loaded_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_public_names_are_these() -> None:
    assert sorted(headrace.__all__) == PUBLIC
    assert dir(headrace) == PUBLIC


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_each_public_name_is_there_and_documented(name: str) -> None:
    thing = getattr(headrace, name)
    assert inspect.isclass(thing) or inspect.isfunction(thing)
    assert thing.__name__ == name
    assert inspect.getdoc(thing)


def test_the_version_is_that_of_the_package() -> None:
    assert headrace.__version__.count(".") == 2


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'headrace' has no attribute 'fitt'"):
        headrace.fitt  # noqa: B018


@pytest.mark.parametrize("name", ["check", "evaluate"])
def test_a_function_is_not_shadowed_by_the_module_of_its_name(name: str) -> None:
    module = importlib.import_module(f"headrace.{name}")
    assert inspect.ismodule(module)
    assert inspect.isfunction(getattr(headrace, name))


def test_import_headrace_imports_nothing_heavy() -> None:
    assert loaded_after("import headrace; headrace.__version__; headrace.HeadraceError") & HEAVY == set()


def test_the_recipe_imports_no_torch() -> None:
    heavy = {"torch", "lightning", "transformers", "datasets"}
    assert loaded_after("import headrace; headrace.Recipe; import headrace.new, headrace.cli") & heavy == set()
