"""The answer of `check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headrace.cli_output.findings import finding_parts, verdict_line
from headrace.cli_output.language_models import language_check_answer, language_parts
from headrace.cli_output.lengths import histogram_part, length_advice
from headrace.cli_output.shown import Answer, Part, Styled, Table

if TYPE_CHECKING:
    from headrace.check import Check, LanguageCheck

MAX_SHOWN_LABELS = 50
MAX_SHOWN_CO_OCCURRENCE = 12
N_SHOWN_SUSPECTS = 20
MAX_SHOWN_SUSPECT = 100


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


# -- the verbs ----------------------------------------------------------------------------------------------------


def check_answer(found: Check | LanguageCheck, *, recipe: str) -> Answer:
    """Answer `check`: exit code 1 if there are findings."""
    if not hasattr(found, "labels"):  # the class itself would bring torch
        return language_check_answer(found, recipe=recipe)
    check = cast("Check", found)
    title = f"{check.recipe}: {check.task}, {len(check.labels)} labels, {check.n_steps:,} steps of training"
    parts = [title] if check.language_model is None else [*language_parts(check.language_model), title]
    parts += [*_count_parts(check), *_length_parts(check), *_batch_parts(check)]
    parts += [*_forecast_parts(check), *finding_parts(check.findings), *_suspect_parts(check)]
    parts.append(verdict_line(is_clean=check.is_clean, recipe=recipe))
    return Answer(check.as_dict(), parts, exit_code=0 if check.is_clean else 1)


def _forecast_parts(check: Check) -> list[Part]:
    found = check.forecast
    if found is None:
        return []
    if found["reason"] is not None:
        return [f"no forecast: {found['reason']}"]
    from headrace.train.forecast import memory_words  # it has loaded Lightning already
    from headrace.train.progress import duration

    steps, whole = duration(found["fit_s"]), duration(found["wall_s"])
    note = f" ({found['note']})" if found["note"] else ""
    return [f"forecast for this machine: {whole} in all, {steps} of it training, {memory_words(found)}{note}"]


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
    header = ("tokens", "mean", "median", "95 %", "longest", "texts cut", "tokens cut", "unknown")
    rows = []
    for split in check.splits:
        found = split.lengths
        shares = (_percent(found.cut_share), _percent(found.tokens_cut_share), f"{100 * found.unknown_share:.2f} %")
        whole = (f"{found.mean:,.1f}", *(f"{n:,}" for n in (found.median, found.p95, found.longest)))
        rows.append((split.name, *whole, *shares))
    padding, training = check.padding, check.splits[0].lengths
    return [
        Table(header, rows),
        histogram_part(training, max_length=check.max_length),
        length_advice(training, max_length=check.max_length, suggested=check.suggested_max_length),
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
