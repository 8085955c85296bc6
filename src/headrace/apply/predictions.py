"""Predictions of the texts of a file; what was scored survives an interruption."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from headrace import compiled
from headrace.apply.where import Progress, Where, is_multi_label, on_device, windows
from headrace.bundle import Bundle, versions
from headrace.bundle.about import Threshold
from headrace.data.examples import FILE, ROW, Examples
from headrace.files import write_error
from headrace.kept_scores import KeptScores, remove_windows
from headrace.matmul import fastest_route
from headrace.predict import Prediction, thresholds
from headrace.sources import OnBadRow, row_of, texts_of
from headrace.tables import TableWriter, extension_of, write_rows

# Rows whose scores are kept together; what a prediction that was cut has to compute again, at most.
ROWS_KEPT = 1024


@dataclass(frozen=True)
class Predicted:
    """What became of the rows of a file; `n_rows` is `n_predicted + n_bad_rows`.

    Attributes:
        out: The file written.
        n_rows: Rows that were read.
        n_predicted: Rows that have a prediction.
        n_bad_rows: Rows that could not be read.
        n_flagged: Predictions by flag: `empty`, `unknown`, `cut`, `surrogate`.
        errors: Where the bad rows are listed (at most 10,000 of them); None without any.
        n_kept: Rows whose scores an earlier call had computed that did not end.
    """

    out: Path
    n_rows: int
    n_predicted: int
    n_bad_rows: int
    n_flagged: Mapping[str, int]
    errors: Path | None
    n_kept: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as the `--json` output shows it."""
        return asdict(self)


def predict_file(
    bundle: Bundle | str | Path,
    source: Any,
    out: str | Path,
    *,
    threshold: Threshold | None = None,
    raw: bool = False,
    on_bad_row: OnBadRow = "skip",
    progress: Progress | None = None,
    **where: Unpack[Where],
) -> Predicted:
    """Predict each text of a file and write one row for each, in the file's order; memory does not grow with the rows.

    The scores of a longer file are kept in `OUT.partial` until the output is whole: the same call, made again after
    an interruption, computes only what is missing. They belong to this bundle, these texts, this precision and this
    machine; another threshold takes them, too.

    The columns are `row`, `label` and `index` (or `labels`), `reason` if the bundle may abstain, `score_NAME` for each
    label, and `flags`. Rows that cannot
    be read are left out and listed, with reasons, in `OUT.errors.jsonl`; a list that an earlier call left is removed.

    Args:
        bundle: A bundle or its folder.
        source: A file with the text's column of the training data, a pipe, or what else `headrace.evaluate` takes.
        out: `.csv .tsv .jsonl` (each also `.gz`) or `.parquet`.
        threshold: Instead of the bundle's own; as in `Bundle.predict`.
        raw: Write texts to CSV without the guard against formulas.
        on_bad_row: `error` raises all bad rows together, and writes nothing.
        progress: Told how many rows are done, and how many there are.
        **where: See `Where`.

    Raises:
        HeadraceError: The bundle, the file, the threshold or the place to write is no good.
    """
    out = Path(out)
    extension_of(out)  # refused before an hour of work, not after it
    loaded = on_device(bundle, where)
    thresholds(threshold, loaded.labels, multi_label=is_multi_label(loaded))
    n_flagged: dict[str, int] = {}
    with texts_of(loaded, source, on_bad_row=on_bad_row) as examples:
        places: dict[str, type] = {ROW: int, FILE: str} if FILE in examples.table.column_names else {ROW: int}
        abstains = loaded.decision.abstain_below is not None
        columns = places | _answer_columns(loaded, abstains=abstains)
        kept = _kept(loaded, examples, out, where)
        n_kept = 0
        with TableWriter(out, columns, raw=raw) as table:
            for start, stop, predictions, was_kept in _predictions(loaded, examples, threshold, progress, where, kept):
                n_kept += (stop - start) * was_kept
                found = zip(*(examples.column(name, start, stop) for name in places), strict=True)
                rows = zip(found, predictions, strict=True)
                table.write([[*place, *_values(p, abstains=abstains)] for place, p in rows])
                for flag in (flag for prediction in predictions for flag in prediction.flags):
                    n_flagged[flag] = n_flagged.get(flag, 0) + 1
        n_bad = examples.n_bad_rows
        errors = _write_bad_rows(examples, out)
        remove_windows(partial_folder(out))
        return Predicted(out, len(examples) + n_bad, len(examples), n_bad, n_flagged, errors, n_kept)


def partial_folder(out: str | Path) -> Path:
    """Return the folder in which the scores of an output that is not yet whole are kept."""
    out = Path(out)
    return out.with_name(f"{out.name}.partial")


def predict_rows(
    bundle: Bundle | str | Path, source: Any, *, threshold: Threshold | None = None, **where: Unpack[Where]
) -> tuple[list[tuple[int, Prediction]], Examples]:
    """Return (row, prediction) of each text of a file, and the texts; for files that fit into memory.

    Raises:
        HeadraceError: The bundle or the file is no good.
    """
    loaded = on_device(bundle, where)
    found: list[tuple[int, Prediction]] = []
    with texts_of(loaded, source) as examples:
        for start, stop, predictions, _ in _predictions(loaded, examples, threshold, None, where):
            found += zip(examples.column(ROW, start, stop), predictions, strict=True)
    return found, examples


def _kept(bundle: Bundle, examples: Examples, out: Path, where: Where) -> KeptScores | None:
    """Return what an earlier call has computed of these texts; None where it is not worth a folder."""
    if bundle.identity is None or len(examples) <= ROWS_KEPT:
        return None
    device = next(bundle.classifier.parameters()).device.type
    key = {
        "bundle": bundle.identity,
        "texts": examples.content_key(),
        "rows": ROWS_KEPT,
        "precision": where.get("precision", "fp32"),
        "device": device,
        "route": fastest_route() if device == "cpu" else None,
        "loops": device == "cpu"
        and where.get("precision") == "bf16"
        and compiled.attends(torch.bfloat16, head_width=2),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "versions": versions(),
    }
    return KeptScores(partial_folder(out), key)


def _answer_columns(bundle: Bundle, *, abstains: bool) -> dict[str, type]:
    answer: dict[str, type] = {"labels": list} if is_multi_label(bundle) else {"label": str, "index": int}
    scores = dict.fromkeys((f"score_{name}" for name in bundle.labels), float)
    return {**answer, **({"reason": str} if abstains else {}), **scores, "flags": list}


def _values(prediction: Prediction, *, abstains: bool) -> list[Any]:
    if prediction.is_multi_label:
        answer: list[Any] = [None if prediction.reason else list(prediction.labels)]
    else:
        answer = [prediction.label, prediction.index]
    # the shortest decimal that is this float32: 0.8 rather than 0.800000011920929
    scores = [float(str(np.float32(score))) for score in prediction.scores.values()]
    return [*answer, *([prediction.reason] if abstains else []), *scores, list(prediction.flags)]


def _predictions(
    bundle: Bundle,
    examples: Examples,
    threshold: Threshold | None,
    progress: Progress | None,
    where: Where,
    kept: KeptScores | None = None,
) -> Iterator[tuple[int, int, list[Prediction], bool]]:
    """Yield (start, stop) of each window, its predictions, and whether its scores were kept."""
    precision = where.get("precision", "fp32")
    for window, (start, stop) in enumerate(windows(examples, None if kept is None else ROWS_KEPT)):
        found = None if kept is None else kept.read(window, stop - start)
        was_kept = found is not None
        if found is None:
            found = bundle.scores_and_flags(examples.texts(start, stop), precision=precision)
            if kept is not None:
                kept.write(window, *found)
        yield start, stop, bundle.answers(*found, threshold), was_kept
        if progress is not None:
            progress(stop, len(examples))


def _write_bad_rows(examples: Examples, out: Path) -> Path | None:
    path = out.with_name(f"{out.name}.errors.jsonl")
    if not examples.n_bad_rows:
        try:
            path.unlink(missing_ok=True)  # of an earlier call: it would speak of rows that are good now
        except OSError as error:
            raise write_error(path, error) from error
        return None
    rows = [(row_of(bad, source=examples.source), bad.where, bad.reason, bad.content) for bad in examples.bad_rows]
    write_rows(path, {ROW: int, "where": str, "reason": str, "content": str}, rows)
    return path
