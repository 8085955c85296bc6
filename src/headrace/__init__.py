"""Labelled text in; a classifier that you can trust, and run anywhere, out.

The public names below are looked up when they are first used, so that `import headrace` imports no torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.apply import evaluate as evaluate
    from headrace.bundle import Bundle as Bundle
    from headrace.check import check as check
    from headrace.compare import compare as compare
    from headrace.errors import HeadraceError as HeadraceError
    from headrace.evaluation import Evaluation as Evaluation
    from headrace.predict import Prediction as Prediction
    from headrace.recipe import Recipe as Recipe
    from headrace.train.data import TextDataModule as TextDataModule
    from headrace.train.fit import fit as fit
    from headrace.train.module import ClassifierModule as ClassifierModule

    __version__: str

#: Where each public name is defined.
_HOMES = {
    "Bundle": "headrace.bundle",
    "ClassifierModule": "headrace.train.module",
    "Evaluation": "headrace.evaluation",
    "HeadraceError": "headrace.errors",
    "Prediction": "headrace.predict",
    "Recipe": "headrace.recipe",
    "TextDataModule": "headrace.train.data",
    "check": "headrace.check",
    "compare": "headrace.compare",
    "evaluate": "headrace.apply",
    "fit": "headrace.train.fit",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("headrace")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'headrace' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class _Face(ModuleType):
    """A module whose public functions are not shadowed by the modules of the same name."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing headrace.check binds the module to `headrace.check`; there the user finds the function.
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
