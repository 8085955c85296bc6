"""Imports run one way: each module uses only layers to its left, imports inside functions included."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import headrace

PACKAGE = Path(headrace.__file__).parent

#: From the ground up. Modules of one folder are one layer; what has no place here fails the test.
ORDER = [
    *("errors", "files", "pages", "plugins", "tables", "data", "text", "matmul", "compiled", "backbones", "tasks"),
    *("head", "classifier", "model"),
    *("metrics", "intervals", "evaluation", "evaluate", "decide", "slices", "compare", "predict"),
    *("baseline", "mislabelled", "doctor", "explain"),
    *("report", "bundle", "similar", "recipe", "guess", "new", "sources", "kept_scores"),
    *("apply", "train", "check", "demo"),
    *("export", "serve", "cli_output", "cli", "__main__"),
]
LIGHTNING_IS_FOR = {"train"}
WITHOUT_TORCH = {
    *("errors", "files", "pages", "plugins", "tables", "data", "metrics", "intervals", "evaluation"),
    *(
        "evaluate",
        "decide",
        "slices",
        "compare",
        "baseline",
        "mislabelled",
        "doctor",
        "report",
        "recipe",
        "guess",
        "new",
        "cli_output",
    ),
}


@functools.cache
def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts)] = ast.parse(path.read_text("utf-8"))
    return found


def imported(tree: ast.Module) -> list[str]:
    """Return the absolute dotted names a module imports, wherever the import stands."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            assert all(alias.name != "*" for alias in node.names), "import names, not *"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def layer(name: str) -> str:
    return name.split(".")[0]


def test_every_module_has_its_place_in_the_order() -> None:
    seen = [name for name in modules() if name != "__init__"]
    assert len(seen) >= 35
    assert sorted({layer(name) for name in seen} - set(ORDER)) == []


def test_imports_run_to_the_left_only() -> None:
    n_checked = 0
    wrong = []
    for name, tree in modules().items():
        if name == "__init__":  # the public face looks its names up late, by text
            continue
        for target in imported(tree):
            if not target.startswith("headrace."):
                continue
            there = target.split(".")[1]
            if there not in ORDER:  # `from headrace import __version__` and other names of the face
                wrong.append(f"{name} imports {target}: import from the module that defines it")
            elif ORDER.index(there) > ORDER.index(layer(name)):
                wrong.append(f"{name} imports {target}")
            n_checked += 1
    assert wrong == []
    assert n_checked >= 100


def test_lightning_is_imported_by_train_alone() -> None:
    users = {layer(name) for name, tree in modules().items() for target in imported(tree) if is_lightning(target)}
    assert users == LIGHTNING_IS_FOR


def is_lightning(target: str) -> bool:
    return target.split(".")[0] in ("lightning", "pytorch_lightning", "lightning_fabric")


def test_the_lower_layers_and_the_recipe_name_no_torch() -> None:
    for name, tree in modules().items():
        if layer(name) in WITHOUT_TORCH:
            heavy = {target.split(".")[0] for target in imported(tree)} & {"torch", "transformers", "lightning"}
            assert heavy == set(), f"{name} imports {heavy}"
