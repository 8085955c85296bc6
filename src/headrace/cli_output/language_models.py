"""The answers about language models: of `check`, `fit` and `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.cli_output.findings import finding_parts, verdict_line
from headrace.cli_output.lengths import histogram_part, length_advice
from headrace.cli_output.shown import Answer, Part, Styled, Table

if TYPE_CHECKING:
    from headrace.train.fit import Run
    from headrace.train.language.summary import LanguageCheck


def language_check_answer(check: LanguageCheck, *, recipe: str) -> Answer:
    """Answer `check` of a recipe with `task: language_model`."""
    parts = [*language_parts(check), verdict_line(is_clean=check.is_clean, recipe=recipe)]
    return Answer(check.as_dict(), parts, exit_code=0 if check.is_clean else 1)


def language_parts(check: LanguageCheck) -> list[Part]:
    """Return what a person should see of the texts of a language model."""
    kind = "next words" if check.kind == "next_word" else "masked words"
    title = f"{check.recipe}: a language model of {kind}, {check.n_words:,} words, {check.n_steps:,} steps of training"
    header = ("split", "texts", "tokens", "mean", "longest", "texts cut", "unknown")
    splits = [
        (
            split.name,
            f"{split.n_texts:,}",
            f"{split.n_tokens:,}",
            f"{split.mean_tokens:,.1f}",
            f"{split.longest:,}",
            f"{100 * split.cut_share:.1f} %",
            f"{100 * split.unknown_share:.2f} %",
        )
        for split in check.splits
    ]
    files = [(Path(file).name, split.name, f"{n:,}") for split in check.splits for file, n in split.files]
    parts: list[Part] = [title, Table(header, splits), Table(("file", "read for", "texts"), files)]
    if check.test_share:
        parts.append(f"note: {100 * check.test_share:.1f} % of the test texts stand among the training texts, too")
    return [*parts, *_lengths(check), *_batch(check), *check.notes, *finding_parts(check.findings)]


def _lengths(check: LanguageCheck) -> list[Part]:
    lengths, key = check.splits[0].lengths, check.max_length_key
    parts: list[Part] = [histogram_part(lengths, max_length=check.max_length, key=key)]
    if check.max_length is not None and check.suggested_max_length is not None:
        parts.append(length_advice(lengths, max_length=check.max_length, suggested=check.suggested_max_length, key=key))
    return parts


def _batch(check: LanguageCheck) -> list[Part]:
    if check.sequence_length is not None:
        what = f"{check.n_streams} streams of {check.sequence_length} tokens; what is read, and what shall come next"
    else:
        what = f"{check.n_streams} texts; what is read, and which words are asked for"
    parts: list[Part] = [f"the first step: {what}:"]
    for pair in check.batch:
        wanted = pair.wanted if check.sequence_length is not None else [word or "·" for word in pair.wanted]
        parts.append(Styled([(f"  {_line(pair.seen)}\n  ", ""), (_line(wanted), "dim")]))
    return parts


def _line(words: Sequence[str]) -> str:
    return " ".join(word.replace("\n", "\\n") for word in words)


def language_run_answer(run: Run) -> Answer:
    """Answer `fit` of a recipe with `task: language_model`."""
    folder, bundle = Path(run.folder), Path(run.bundle)
    value = {
        "run": str(folder),
        "bundle": str(bundle),
        "was_finished": run.was_finished,
        "evaluation": run.evaluation.as_dict(),
        "timing": dict(run.timing),
        "findings": list(run.findings),
    }
    places = [("run", folder), ("report", folder / "report.html"), ("bundle", bundle)]
    shown = "\n".join(f"{name + ':':<8} {path}" for name, path in places)
    return Answer(value, [str(run.evaluation), shown, f"next: a classifier on it, with `backbone: {bundle}`"])


def generated_answer(prompt: str, texts: Sequence[str]) -> Answer:
    """Answer `generate`."""
    return Answer({"prompt": prompt, "texts": list(texts)}, list(texts))
