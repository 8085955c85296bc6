"""What the verbs answer, as text for a person or as one JSON object for a program."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from headrace.apply import Found, Predicted
    from headrace.check import Check
    from headrace.data.examples import Examples
    from headrace.demo import Demo
    from headrace.errors import HeadraceError
    from headrace.evaluation import Evaluation
    from headrace.export import Exported
    from headrace.predict import Prediction
    from headrace.train.fit import Run

MAX_SHOWN_LABELS = 50
MAX_SHOWN_FINDINGS = 30
MAX_SHOWN_ROWS = 100
MAX_SHOWN_CHARACTERS = 200
TOLD_EVERY_S = 5.0


@dataclass(frozen=True)
class Table:
    """Rows under a header; the first column stands left, numbers stand right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Answer:
    """What a verb has to say.

    Attributes:
        value: The whole of it, for `--json`.
        parts: Paragraphs and tables, for a person.
        exit_code: 0 good, 1 findings.
    """

    value: Mapping[str, Any]
    parts: Sequence[str | Table] = field(default=())
    exit_code: int = 0


def show(answer: Answer, *, as_json: bool, stream: TextIO) -> None:
    """Write an answer to the stream."""
    if as_json:
        write_json_line(answer.value, stream)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    for part in answer.parts:
        if isinstance(part, str):
            # Soft wrap: a path that is cut in two cannot be copied.
            console.print(Text(printable(part)), soft_wrap=True)
            continue
        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        for number, name in enumerate(part.header):
            is_text = number == 0 or not all(_is_number(row[number]) for row in part.rows)
            table.add_column(Text(printable(name)), justify="left" if is_text else "right", overflow="fold")
        for row in part.rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        console.print(table)


def write_json_line(value: Mapping[str, Any], stream: TextIO) -> None:
    """Write one JSON object to the stream; what JSON does not know becomes text."""
    stream.write(json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n")
    stream.flush()


def show_error(error: HeadraceError, *, as_json: bool, stdout: TextIO, stderr: TextIO) -> None:
    """Write what is wrong, where and what to do next: to the error stream, with `--json` to the output."""
    if as_json:
        write_json_line(error.as_dict(), stdout)
    else:
        stderr.write(f"{type(error).__name__}: {printable(str(error))}\n")


def printable(text: str) -> str:
    """Return the text without control characters: data on a terminal must not move the cursor or set colours."""
    if text.isprintable():
        return text
    cleaned = (c if c.isprintable() or c == "\n" else " " if c.isspace() else "\ufffd" for c in text)
    return "".join(cleaned)


def _plain(value: Any) -> Any:
    if hasattr(value, "as_dict"):
        return value.as_dict()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "").replace("%", "").replace("-", "").strip().isdigit() or not text


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


# -- the verbs ----------------------------------------------------------------------------------------------------


def recipes_answer(recipes: Mapping[str, str]) -> Answer:
    """Answer `recipes`."""
    return Answer(
        {"recipes": dict(recipes)},
        [
            Table(("recipe", "what it does"), list(recipes.items())),
            "`headrace recipes NAME` prints one; `base: NAME` in a recipe of yours starts from it",
        ],
    )


def check_answer(check: Check, *, recipe: str) -> Answer:
    """Answer `check`: exit code 1 if there are findings."""
    labels = check.labels[:MAX_SHOWN_LABELS]
    counts = [[label, *(f"{split.labels[label]:,}" for split in check.splits)] for label in labels]
    if check.task == "multi_label":
        counts.append(["(no label)", *(f"{split.n_without_label:,}" for split in check.splits)])
    counts.append(["rows", *(f"{split.n_rows:,}" for split in check.splits)])
    lengths = [
        [
            split.name,
            f"{split.lengths.mean:,.1f}",
            f"{split.lengths.median:,}",
            f"{split.lengths.p95:,}",
            f"{split.lengths.longest:,}",
            _percent(split.lengths.cut_share),
            _percent(split.lengths.kept_share),
        ]
        for split in check.splits
    ]
    parts: list[str | Table] = [
        f"{check.recipe}: {check.task}, {len(check.labels)} labels, {check.n_steps:,} steps of training",
        Table(("label", *(split.name for split in check.splits)), counts),
    ]
    if len(check.labels) > len(labels):
        parts.append(f"… and {len(check.labels) - len(labels)} more labels")
    parts.append(Table(("tokens", "mean", "median", "95 %", "longest", "texts cut", "tokens kept"), lengths))
    parts += _batch_parts(check)
    parts += [finding_line(finding) for finding in check.findings[:MAX_SHOWN_FINDINGS]]
    if len(check.findings) > MAX_SHOWN_FINDINGS:
        parts.append(f"… and {len(check.findings) - MAX_SHOWN_FINDINGS} more findings")
    verdict = "nothing to mend" if check.is_clean else "mend these, or accept them by their codes in data.allow"
    parts.append(f"{verdict}; next: headrace fit {recipe}")
    return Answer(check.as_dict(), parts, exit_code=0 if check.is_clean else 1)


def _batch_parts(check: Check) -> list[str | Table]:
    batch = check.batch
    rows = [
        (Path(text.where).name, ", ".join(text.labels) or "(no label)", str(text.n_tokens), text.text)
        for text in batch.texts
    ]
    title = (
        f"the first step: {batch.n_texts} texts, the longest has {batch.width} tokens; "
        f"{_percent(batch.padding_share)} would be padding in one piece"
    )
    return [title, Table(("row", "label", "tokens", "text as the model sees it"), rows)]


def finding_line(finding: Any) -> str:
    """Return a finding on one or two lines."""
    line = f"{finding.severity} [{finding.code}]: {finding.what}"
    return f"{line}\n  next: {finding.next}" if getattr(finding, "next", None) else line


def run_answer(run: Run) -> Answer:
    """Answer `fit`."""
    folder = Path(run.folder)
    value = {
        "run": str(folder),
        "bundle": str(run.bundle),
        "was_finished": run.was_finished,
        "evaluation": run.evaluation.as_dict(),
        "timing": dict(run.timing),
        "findings": list(run.findings),
    }
    return Answer(value, [str(run.evaluation), _places(folder, Path(run.bundle)), _next(Path(run.bundle))])


def _places(folder: Path, bundle: Path) -> str:
    places = [("run", folder), ("figures", folder / "report.json"), ("worst errors", folder / "errors.csv")]
    return "\n".join(f"{name + ':':<13} {path}" for name, path in [*places, ("bundle", bundle)])


def _next(bundle: Path) -> str:
    return f"next: headrace predict {bundle} FILE -o predictions.csv"


def demo_answer(demo: Demo, texts: Sequence[str]) -> Answer:
    """Answer `demo`."""
    run = run_answer(demo.run)
    predictions = [{"text": text, **p.as_dict()} for text, p in zip(texts, demo.predictions, strict=True)]
    told = "it had been finished before: nothing was trained" if demo.run.was_finished else "fine-tuned MiniLM"
    rows = [(best_of(p), text) for text, p in zip(texts, demo.predictions, strict=True)]
    bundle = Path(demo.run.bundle)
    commands = [
        f"headrace predict {bundle} FILE -o predictions.csv   # your own texts, in a column `review`",
        "headrace new FILE                                    # a recipe for your own labelled texts",
    ]
    return Answer(
        {**run.value, "predictions": predictions},
        [
            told,
            *run.parts[:1],
            "three new texts:",
            Table(("prediction", "text"), rows),
            *run.parts[1:2],
            "next:\n  " + "\n  ".join(commands),
        ],
    )


def best_of(prediction: Prediction) -> str:
    """Return a prediction's label or labels with their scores."""
    names = [prediction.label] if prediction.label is not None else list(prediction.labels)
    return ", ".join(f"{name} {prediction.scores[name]:.2f}" for name in names) or "(no label)"


def evaluation_answer(evaluation: Evaluation, out: Path | None) -> Answer:
    """Answer `evaluate`."""
    places = [] if out is None else [f"figures:      {out / 'report.json'}\nworst errors: {out / 'errors.csv'}"]
    return Answer({"evaluation": evaluation.as_dict(), "out": out}, [str(evaluation), *places])


def predicted_answer(predicted: Predicted) -> Answer:
    """Answer `predict -o`: exit code 1 if rows could not be read."""
    parts = [f"{predicted.n_predicted:,} predictions: {predicted.out}"]
    parts += [f"{count:,} texts are flagged {flag!r}" for flag, count in sorted(predicted.n_flagged.items())]
    if predicted.n_bad_rows:
        parts.append(f"{predicted.n_bad_rows:,} rows could not be read, with reasons: {predicted.errors}")
    return Answer(predicted.as_dict(), parts, exit_code=1 if predicted.n_bad_rows else 0)


def predictions_answer(found: Sequence[tuple[int, Prediction]], examples: Examples) -> Answer:
    """Answer `predict` without a file to write to: exit code 1 if rows could not be read."""
    bad = [{"where": b.where, "reason": b.reason} for b in examples.bad_rows]
    value = {
        "predictions": [{"row": row, **prediction.as_dict()} for row, prediction in found],
        "n_bad_rows": examples.n_bad_rows,
        "bad_rows": bad,
    }
    shown = found[:MAX_SHOWN_ROWS]
    texts = examples.texts(0, len(shown))
    rows = [(str(row), best_of(p), _shown(text)) for (row, p), text in zip(shown, texts, strict=True)]
    parts: list[str | Table] = [Table(("row", "prediction", "text"), rows)]
    if len(found) > len(shown):
        parts.append(f"… and {len(found) - len(shown):,} more; -o FILE writes all of them")
    parts += [f"row left out: {b['where']}: {b['reason']}" for b in bad[:MAX_SHOWN_FINDINGS]]
    return Answer(value, parts, exit_code=1 if examples.n_bad_rows else 0)


def similar_answer(matches: Sequence[Found]) -> Answer:
    """Answer `similar`."""
    rows = [(f"{match.cosine:.4f}", str(match.row), _shown(match.text)) for match in matches]
    return Answer({"matches": [asdict(match) for match in matches]}, [Table(("cosine", "row", "text"), rows)])


def exported_answer(exported: Exported) -> Answer:
    """Answer `export`."""
    value = {
        "out": exported.folder,
        "largest_difference": exported.largest_difference,
        "notes": list(exported.notes),
    }
    agreed = f"its logits differ from the bundle's by at most {exported.largest_difference:.2g}"
    return Answer(value, [f"written: {exported.folder}\n{agreed}", *(f"note: {note}" for note in exported.notes)])


def _shown(text: str | Sequence[str]) -> str:
    joined = text if isinstance(text, str) else " / ".join(text)
    return joined if len(joined) <= MAX_SHOWN_CHARACTERS else f"{joined[: MAX_SHOWN_CHARACTERS - 1]}…"


def counted(what: str) -> Callable[[int, int], None]:
    """Return a function that tells on the error stream, every five seconds, how far the work is."""
    told = [time.monotonic()]

    def tell(done: int, total: int) -> None:
        if time.monotonic() - told[0] >= TOLD_EVERY_S:
            told[0] = time.monotonic()
            to_stderr(f"{what} {done:,} of {total:,}")

    return tell


def to_stderr(line: str) -> None:
    """Write a line of progress."""
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()
