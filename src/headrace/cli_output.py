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
    from headrace.explain import Explanation
    from headrace.export import Exported
    from headrace.predict import Prediction
    from headrace.train.fit import Run

MAX_SHOWN_LABELS = 50
MAX_SHOWN_FINDINGS = 30
MAX_SHOWN_ROWS = 100
MAX_SHOWN_CHARACTERS = 200
MAX_SHOWN_CO_OCCURRENCE = 12
N_SHOWN_SUSPECTS = 20
N_SHOWN_PLACES = 5
MAX_SHOWN_SUSPECT = 100
TOLD_EVERY_S = 5.0


@dataclass(frozen=True)
class Table:
    """Rows under a header; the first column stands left, numbers stand right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Styled:
    """A paragraph of pieces, each with a style of rich's such as `bold red`, or none; colours show on terminals alone."""

    pieces: Sequence[tuple[str, str]]


Part = str | Table | Styled


@dataclass(frozen=True)
class Answer:
    """What a verb has to say.

    Attributes:
        value: The whole of it, for `--json`.
        parts: Paragraphs and tables, for a person.
        exit_code: 0 good, 1 findings.
    """

    value: Mapping[str, Any]
    parts: Sequence[Part] = field(default=())
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
        if isinstance(part, Styled):
            console.print(Text.assemble(*((printable(text), style) for text, style in part.pieces)), soft_wrap=True)
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
    title = f"{check.recipe}: {check.task}, {len(check.labels)} labels, {check.n_steps:,} steps of training"
    parts = [title, *_count_parts(check), *_length_parts(check), *_batch_parts(check)]
    parts += [*_finding_parts(check), *_suspect_parts(check)]
    verdict = "nothing to mend" if check.is_clean else "mend these, or accept them by their codes in data.allow"
    parts.append(f"{verdict}; next: headrace fit {recipe}")
    return Answer(check.as_dict(), parts, exit_code=0 if check.is_clean else 1)


def _count_parts(check: Check) -> list[Part]:
    labels = check.labels[:MAX_SHOWN_LABELS]
    train = check.splits[0]
    rows = [
        [label, *(f"{split.labels[label]:,}" for split in check.splits), _percent(train.labels[label] / train.n_rows)]
        for label in labels
    ]
    if check.co_occurrence is not None:
        without = [f"{split.n_without_label:,}" for split in check.splits]
        rows.append(["(no label)", *without, _percent(train.n_without_label / train.n_rows)])
    rows.append(["rows", *(f"{split.n_rows:,}" for split in check.splits), ""])
    parts: list[Part] = [Table(("label", *(split.name for split in check.splits), "of train"), rows)]
    if len(check.labels) > len(labels):
        parts.append(f"… and {len(check.labels) - len(labels)} more labels")
    both = check.co_occurrence
    if both is not None and len(both.labels) <= MAX_SHOWN_CO_OCCURRENCE:
        cells = [[name, *map("{:,}".format, line)] for name, line in zip(both.labels, both.counts, strict=True)]
        parts.append(Table(("training rows with both", *both.labels), cells))
    return parts


def _length_parts(check: Check) -> list[Part]:
    from headrace.text.statistics import bars

    header = ("tokens", "mean", "median", "95 %", "longest", "texts cut", "tokens cut", "unknown")
    rows = []
    for split in check.splits:
        found = split.lengths
        shares = (_percent(found.cut_share), _percent(found.tokens_cut_share), f"{100 * found.unknown_share:.2f} %")
        whole = (f"{found.mean:,.1f}", *(f"{n:,}" for n in (found.median, found.p95, found.longest)))
        rows.append((split.name, *whole, *shares))
    padding, suggested = check.padding, check.suggested_max_length
    advice = f"data.max_length is {check.max_length:,}; "
    if suggested == check.max_length:
        advice += "no other value is suggested"
    elif check.splits[0].lengths.p95 > suggested:
        advice += f"{suggested:,} is the most that the backbone takes"
    else:
        advice += f"{suggested:,} would keep 95 % of the training texts whole"
    return [
        Table(header, rows),
        "training texts by tokens:\n" + "\n".join(bars(check.splits[0].lengths.histogram, max_length=check.max_length)),
        advice,
        f"padding: {_percent(padding.to_max_length)} if all texts were padded to {check.max_length:,} tokens, "
        f"{_percent(padding.to_longest)} to the longest of a random step, {_percent(padding.in_micro_batches)} in "
        "micro-batches of like length, none where the encoder lays texts end to end (on a CPU, if it can)",
    ]


def _batch_parts(check: Check) -> list[Part]:
    batch = check.batch
    parts: list[Part] = [
        f"the first step: {batch.n_texts} texts, the longest has {batch.width} tokens; "
        f"{_percent(batch.padding_share)} would be padding in one piece; each text as the model sees it:"
    ]
    for text in batch.texts:
        label = ", ".join(text.labels) or "(no label)"
        pieces = [(f"  {Path(text.where).name}  {label}  {text.n_tokens} tokens\n  ", "bold")]
        pieces += map(_token, text.tokens)
        if text.n_left_out:
            pieces.append((f" … {text.n_left_out} tokens … ", "dim"))
        pieces += map(_token, text.last_tokens)
        parts.append(Styled(pieces))
    return parts


def _token(token: Any) -> tuple[str, str]:
    shown = token.text.replace("\n", " ")
    return (f" {shown} ", "reverse") if token.is_special else (shown, "")


def _finding_parts(check: Check) -> list[Part]:
    parts: list[Part] = []
    for severity, style in (("error", "bold red"), ("warning", "yellow"), ("note", "dim")):
        found = [finding for finding in check.findings if finding.severity == severity]
        if found:
            parts.append(Styled([(f"{severity}s: {len(found)}", style)]))
        parts += [finding_line(finding) for finding in found[:MAX_SHOWN_FINDINGS]]
        if len(found) > MAX_SHOWN_FINDINGS:
            parts.append(f"… and {len(found) - MAX_SHOWN_FINDINGS} more")
    return parts


def _suspect_parts(check: Check) -> list[Part]:
    found = check.suspects
    if found is None:
        return []
    rows = [
        (
            Path(row.where or str(row.position)).name,
            *(", ".join(names) or "(no label)" for names in (row.given, row.suggested)),
            f"{row.score:.3f}",
            " ".join(row.text.split())[:MAX_SHOWN_SUSPECT],
        )
        for row in found.rows[:N_SHOWN_SUSPECTS]
    ]
    return [
        f"labels most in doubt, of {found.n_rows:,} training rows; a simple model agrees with "
        f"{_percent(found.agreement_share)} of the labels and holds {found.n_estimated:,} rows for wrong, those that "
        f"are merely hard included; --json lists {len(found.rows):,}",
        Table(("row", "label", "rather", "score", "text"), rows),
    ]


def finding_line(finding: Any) -> str:
    """Return a finding on up to three lines: what, the first few places, what to do."""
    line = f"{finding.severity} [{finding.code}]: {finding.what}"
    if finding.where:
        more = " …" if len(finding.where) > N_SHOWN_PLACES else ""
        line += f"\n  where: {', '.join(finding.where[:N_SHOWN_PLACES])}{more}"
    return f"{line}\n  next:  {finding.next}" if finding.next else line


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
    if prediction.reason is not None:
        best = max(prediction.scores, key=lambda name: prediction.scores[name])
        return f"not sure ({best} {prediction.scores[best]:.2f})"
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


def explained_answer(explanation: Explanation, html: Path | None) -> Answer:
    """Answer `explain`."""
    from headrace.explain import as_styled

    places = [] if html is None else [f"page: {html}"]
    return Answer({**explanation.as_dict(), "html": html}, [Styled(as_styled(explanation)), *places])


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
