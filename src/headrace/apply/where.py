"""Where and how the texts of a file are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict

from headrace import plugins
from headrace.bundle import Bundle
from headrace.data.examples import Examples
from headrace.pages import give_back
from headrace.predict import device_of, known_precision

# Texts and scores of so many rows are held at once: a few MB, and enough to find texts of like length for each pass.
ROWS_AT_A_TIME = 4096

# Told how many rows are done, and how many there are.
Progress = Callable[[int, int], None]


class Where(TypedDict, total=False):
    """Where and how a file's texts are computed.

    Attributes:
        device: `auto` (an accelerator if there is one), `cpu`, or such as `cuda:0`. By default `auto` for a bundle's
            folder; a bundle that is loaded stays where it is.
        precision: `fp32`, or `bf16` (scores move by about 1e-2).
    """

    device: str
    precision: str


def on_device(bundle: Bundle | str | Path, where: Where) -> Bundle:
    """Return the bundle on the device that is asked for."""
    known_precision(where.get("precision", "fp32"))  # refused before anything is read
    name = where.get("device", None if isinstance(bundle, Bundle) else "auto")
    device = None if name is None else device_of(name)
    loaded = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
    if device is not None:
        loaded.classifier.to(device)
    return loaded


def is_multi_label(bundle: Bundle) -> bool:
    """Tell whether a text may have several labels, or none."""
    return bool(plugins.find("task", bundle.task).MULTI_LABEL)


def windows(examples: Examples, rows: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of consecutive windows of texts; the free pages of each go back to the system.

    Args:
        examples: The texts.
        rows: Rows of a window; by default what is held at once.
    """
    for start, stop in examples.batches(rows or ROWS_AT_A_TIME):
        yield start, stop
        give_back()  # passes of many widths leave holes in the heap, which add up over a long file
