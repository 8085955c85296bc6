"""What an evaluation found: numbers with 95 % intervals, shown as text, as a notebook's table, or as report.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from headrace.errors import DataError, RecipeError, suggestion

_LABEL_METRICS = ("precision", "recall", "f1", "roc_auc", "average_precision")
_LABELS_SHOWN = 40


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval.

    Attributes:
        value: None if the data do not define it; `note` says why.
        low, high: Both None if there is no interval; `note` says why.
        method: `wilson`, `hall`, `delong` or `bootstrap`; of differences also `tango` or `student`, over several seeds
            `rows and seeds`; empty without an interval.
        note: What the reader should know.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    method: str = ""
    note: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return `value`, `low`, `high`, and `method` and `note` where there are any."""
        shown: dict[str, Any] = {"value": self.value, "low": self.low, "high": self.high}
        return shown | ({"method": self.method} if self.method else {}) | ({"note": self.note} if self.note else {})

    def __str__(self) -> str:
        if self.value is None:
            return f"none ({self.note})" if self.note else "none"
        return f"{self.value:.4f}" + (f" ({self.low:.4f} to {self.high:.4f})" if self.low is not None else "")


@dataclass(frozen=True)
class Evaluation:
    """How good scores are, and how sure that is.

    Attributes:
        task: `single_label` or `multi_label`; `language_model`, which has no labels.
        labels: The labels' names in the order of the scores.
        n_rows: Rows that were evaluated, each once; of a language model tokens.
        split: Which part of the data: `test`, `valid`, or a file's name.
        metrics: Name -> number with interval. Ranked metrics of two labels are those of the second label (`roc_auc`);
            with more labels, and in multi-label, they are means over labels (`roc_auc_macro`).
        per_label: Label -> `precision recall f1 roc_auc average_precision` (Interval), `support` and `n_predicted` (int).
        confusion: [labels][labels] rows by true, then predicted label; None for multi-label.
        notes: What a reader must know to read the numbers right.
        threshold: Of multi-label: from which score on a label is decided; one number or one per label. Of two single
            labels, where one was given: None for the label that has none.
    """

    task: str
    labels: tuple[str, ...]
    n_rows: int
    split: str
    metrics: dict[str, Interval]
    per_label: dict[str, dict[str, Any]]
    confusion: list[list[int]] | None = None
    notes: tuple[str, ...] = ()
    threshold: float | tuple[float | None, ...] | None = None

    def metric(self, name: str) -> Interval:
        """Return a metric by its name here or by the name that `fit.monitor` uses (`roc_auc` for the mean, too).

        Raises:
            RecipeError: There is no such metric; offers the nearest name.
        """
        for known in (name, f"{name}_macro", name.removesuffix("_macro")):
            if known in self.metrics:
                return self.metrics[known]
        raise RecipeError(f"there is no metric named {name!r}", where="metric", next=suggestion(name, self.metrics))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values in the form of report.json."""
        confusion = None
        if self.confusion is not None:
            confusion = {"labels": list(self.labels), "rows": "true", "columns": "predicted", "counts": self.confusion}
        return {
            "task": self.task,
            "split": self.split,
            "n_rows": self.n_rows,
            "metrics": {name: interval.as_dict() for name, interval in self.metrics.items()},
            "labels": {
                label: {key: v.as_dict() if isinstance(v, Interval) else v for key, v in values.items()}
                for label, values in self.per_label.items()
            },
            "confusion_matrix": confusion,
            "threshold": list(self.threshold) if isinstance(self.threshold, tuple) else self.threshold,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Evaluation:
        """Return the Evaluation that `as_dict` or a report.json holds; other keys of the report are left out.

        Raises:
            DataError: It is not one.
        """
        try:
            threshold = value.get("threshold")
            return cls(
                task=value["task"],
                labels=tuple(value["labels"]),
                n_rows=value["n_rows"],
                split=value["split"],
                metrics={name: Interval(**shown) for name, shown in value["metrics"].items()},
                per_label={
                    label: {key: Interval(**v) if isinstance(v, Mapping) else v for key, v in values.items()}
                    for label, values in value["labels"].items()
                },
                confusion=value["confusion_matrix"]["counts"] if value.get("confusion_matrix") else None,
                notes=tuple(value.get("notes", ())),
                threshold=tuple(threshold) if isinstance(threshold, list) else threshold,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"this is not an evaluation: {type(error).__name__} {error}",
                where="report.json",
                next="give the content of a report.json that `headrace fit` or `headrace evaluate` wrote",
            ) from error

    def __str__(self) -> str:
        rows = [[name, _digits(i.value), _span(i)] for name, i in self.metrics.items()]
        parts = [self._title(), _fixed_width(["metric", "value", "95 % interval"], rows)]
        shown = list(self.per_label.items())[:_LABELS_SHOWN]
        if shown:
            parts.append(_fixed_width(_label_header(), [_label_row(label, values) for label, values in shown]))
        if len(self.per_label) > len(shown):
            parts.append(f"… and {len(self.per_label) - len(shown)} more labels")
        if notes := self._all_notes():
            parts.append("\n".join(f"note: {note}" for note in notes))
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        rows = [[name, _digits(i.value), _span(i)] for name, i in self.metrics.items()]
        parts = [f"<p><b>{escape(self._title())}</b></p>", _html_table(["metric", "value", "95 % interval"], rows)]
        shown = list(self.per_label.items())[:_LABELS_SHOWN]
        if shown:
            parts.append(_html_table(_label_header(), [_label_row(label, values) for label, values in shown]))
        if len(self.per_label) > len(shown):
            parts.append(f"<p>… and {len(self.per_label) - len(shown)} more labels</p>")
        if self.confusion is not None and len(self.labels) <= _LABELS_SHOWN:
            counts = zip(self.labels, self.confusion, strict=True)
            cells = [[label, *(f"{count:,}" for count in row)] for label, row in counts]
            parts.append(_html_table(["true \\ predicted", *self.labels], cells))
        parts += [f"<p>note: {escape(note)}</p>" for note in self._all_notes()]
        return "\n".join(parts)

    def _all_notes(self) -> list[str]:
        return metric_notes(self.metrics.items()) + list(self.notes)

    def _title(self) -> str:
        if not self.labels:  # a language model's: it has tokens
            return f"{self.split}: {self.n_rows:,} tokens, {self.task}"
        return f"{self.split}: {self.n_rows:,} rows, {self.task}, {len(self.labels)} labels"


def metric_notes(metrics: Iterable[tuple[str, Interval]]) -> list[str]:
    """Return what the reader should know of some metrics: each note once, after the names of all that it is about."""
    by_note: dict[str, list[str]] = {}
    for name, found in metrics:
        if found.note:
            by_note.setdefault(found.note, []).append(name)
    return [f"{'; '.join(names)}: {note}" for note, names in by_note.items()]


def _digits(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _span(interval: Interval) -> str:
    if interval.low is None:
        return ""
    return f"{interval.low:.4f} to {interval.high:.4f}"


def _label_header() -> list[str]:
    return ["label", "rows", *(name.replace("_", " ") for name in _LABEL_METRICS)]


def _label_row(label: str, values: Mapping[str, Any]) -> list[str]:
    shown = label if len(label) <= 40 else f"{label[:39]}…"
    return [shown, f"{values['support']:,}", *(_digits(values[name].value) for name in _LABEL_METRICS)]


def _fixed_width(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return text with the first column to the left, the others to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
