"""How good a bundle is on labelled texts.

The parts of a report are imported where they are used: ten texts to predict should not wait for them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from headrace.apply.where import Progress, Where, is_multi_label, on_device, windows
from headrace.bundle import Bundle, TextSettings, versions
from headrace.bundle.about import Threshold
from headrace.data.examples import Examples, LabelSet
from headrace.data.read import Columns, read
from headrace.errors import BundleError
from headrace.evaluation import Evaluation
from headrace.predict import thresholds
from headrace.sources import scratch


def evaluate(
    bundle: Bundle | str | Path,
    source: Any,
    *,
    out: str | Path | None = None,
    threshold: Threshold | None = None,
    progress: Progress | None = None,
    **where: Unpack[Where],
) -> Evaluation:
    """Score labelled texts with a bundle and say how good it is, with intervals.

    Args:
        bundle: A bundle or its folder.
        source: A file, a folder per label, `hub:owner/name`, or rows in memory, with the columns of the training data.
        out: A folder for report.json, report.html and errors.csv.
        threshold: Instead of the bundle's own; as in `Bundle.predict`.
        progress: Told how many rows are done, and how many there are.
        **where: See `Where`.

    Raises:
        HeadraceError: The bundle or the data are no good; a label that the bundle does not know is one error.
    """
    from headrace.data.labels import targets
    from headrace.evaluate import evaluate as evaluate_scores
    from headrace.report import error_rows, write_errors, write_page, write_report

    loaded = on_device(bundle, where)
    limits = _limits(loaded, threshold)
    settings = with_label_columns(loaded)
    labels = LabelSet(loaded.labels)
    columns = Columns(
        text=settings.columns,
        label=settings.label_columns,
        separator=settings.separator,
        multi_label=is_multi_label(loaded),
        labels=loaded.labels,
        has_recipe=False,
    )
    with scratch() as cache:
        examples = read(source, columns, cache=cache, split="test", called="rows")
        truth = targets(examples, labels)
        precision = where.get("precision", "fp32")
        scores = np.concatenate([loaded.scores(texts, precision=precision) for texts in _parts(examples, progress)])
        evaluation = evaluate_scores(
            truth, scores, labels=labels, task=loaded.decision.task, split=examples.source, threshold=limits
        )
        if out is not None:
            rows = error_rows(examples, truth, scores, labels=labels, threshold=limits)
            write_errors(Path(out) / "errors.csv", rows)
            path = write_report(
                out,
                evaluation=evaluation,
                timing={},
                data={"source": examples.source, "rows": len(examples), "fingerprint": examples.fingerprint},
                recipe={"bundle": str(loaded.folder)},
                versions=versions(),
                name=f"{loaded.folder} on {examples.source}",
            )
            write_page(out, json.loads(path.read_text("utf-8")))
    return evaluation


def with_label_columns(bundle: Bundle) -> TextSettings:
    """Return a bundle's text settings, the label's columns taken from its recipe where it does not say them itself.

    Raises:
        BundleError: Neither says it.
    """
    settings = bundle.about.text
    if settings.label_columns:
        return settings
    from headrace.recipe.document import read_document

    data = read_document(bundle.recipe_yaml, name="the bundle's recipe").values.get("data")
    data = data if isinstance(data, Mapping) else {}
    label = data.get("label")
    if not label:
        raise BundleError(
            "the bundle does not say which column holds the label",
            where=str(bundle.folder),
            next="train it anew with this version, which writes the column into the bundle",
        )
    names = (label,) if isinstance(label, str) else tuple(label)
    return replace(settings, label_columns=names, separator=data.get("label_separator"))


def _limits(bundle: Bundle, threshold: Threshold | None) -> float | np.ndarray | None:
    chosen = bundle.threshold if threshold is None else threshold
    return thresholds(chosen, bundle.labels, multi_label=is_multi_label(bundle))


def _parts(examples: Examples, progress: Progress | None) -> Iterator[Any]:
    for start, stop in windows(examples):
        yield examples.texts(start, stop)
        if progress is not None:
            progress(stop, len(examples))
