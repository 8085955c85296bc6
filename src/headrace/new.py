"""Writes a commented recipe for a data file, from what its rows seem to hold."""

from __future__ import annotations

import os
from pathlib import Path

from headrace.errors import RecipeError
from headrace.files import write_text
from headrace.guess import Guess, guess
from headrace.recipe import load_recipe
from headrace.recipe.document import yaml_scalar


def new(source: str | Path, *, out: str | Path = "recipe.yaml", task: str | None = None) -> Guess:
    """Write a commented recipe for a data file and return what was guessed.

    Args:
        source: `.csv .tsv .jsonl .parquet` (the first three also `.gz`), or a folder with a folder of `.txt` per label.
        out: The recipe to write; the paths in it are relative to its folder.
        task: `single_label` or `multi_label`, when the guess is not to be trusted.

    Raises:
        DataError: The file cannot be read, or no column looks like a text or a label.
        RecipeError: `out` is there already.
    """
    out = Path(out)
    if out.exists():
        raise RecipeError(
            f"{out.name} is there already and is not overwritten", where=str(out), next="name another file with --out"
        )
    found = guess(source, task=task)
    text = recipe_text(found, folder=out.absolute().parent)
    write_text(out, text)
    load_recipe(out)
    return found


def recipe_text(found: Guess, *, folder: Path) -> str:
    """Return the recipe as YAML with a comment on each line; its paths are relative to `folder`."""

    def relative(path: Path) -> str:
        try:
            return yaml_scalar(Path(os.path.relpath(path.absolute(), folder)).as_posix())
        except ValueError:  # another drive
            return yaml_scalar(str(path.absolute()))

    size, share = found.max_length
    kind = "each text has exactly one of the labels" if found.task == "single_label" else "none, one or several labels"
    lines = [
        (f"task: {found.task}", kind),
        ("data:", None),
        (f"  train: {relative(found.source)}", f"{found.n_rows:,} rows were looked at"),
        (f"  valid: {relative(found.valid)}", "picks the best checkpoint")
        if found.valid
        else ("  valid: 10%", "a share of train, chosen by content; picks the best checkpoint"),
        (f"  test: {relative(found.test)}", "looked at once, after training")
        if found.test
        else ("  # test: FILE", "name one for figures that you can trust: evaluated once, after training"),
        *_column_lines(found),
        (f"  max_length: {size}", f"tokens kept of a text; about {100 * share:.0f} % of yours are shorter"),
        ("backbone: minilm", "small and quick; or a hub id such as distilbert-base-uncased, or a folder"),
        (
            "head: {pool: mean}",
            "MiniLM was pretrained with the mean of its token vectors; {name: native} can be exported",
        ),
        ("fit:", None),
        ("  epochs: 3", "passes over the training rows"),
        ("  batch_size: 32", "texts per optimizer step"),
        ("  learning_rate: 1.0e-4", "for MiniLM; 2.0e-5 for encoders of BERT's size; or ask `headrace fit --find-lr`"),
        ("seed: 13", "the same seed on the same machine gives the same weights"),
    ]
    width = max(len(code) for code, comment in lines if comment and len(code) <= 48)
    body = [code if comment is None else f"{code:<{width}} # {comment}" for code, comment in lines]
    return (
        "\n".join([f"# {found.task} on {found.source.name}; written by `headrace new`: check each guess.", *body])
        + "\n"
    )


def _column_lines(found: Guess) -> list[tuple[str, str | None]]:
    if found.source.is_dir():
        names = yaml_scalar(sorted(found.labels))
        return [(f"  labels: {names}", f"the folders that are read{_left_alone(found)}")]
    text = yaml_scalar(list(found.text) if len(found.text) > 1 else found.text[0])
    label = yaml_scalar(list(found.label) if len(found.label) > 1 else found.label[0])
    shown = ", ".join(f"{name} {count:,}" for name, count in list(found.labels.items())[:6])
    shown += ", …" if len(found.labels) > 6 else ""
    about = "two columns, read together" if len(found.text) > 1 else "the column with the longest texts"
    lines: list[tuple[str, str | None]] = [
        (f"  text: {text}", about + _left_alone(found)),
        (f"  label: {label}", ("0/1 columns; " if len(found.label) > 1 else "") + f"seen: {_one_line(shown)}"),
    ]
    if found.separator:
        lines.append((f"  label_separator: {yaml_scalar(found.separator)}", "between the names of one text"))
    return lines


def _left_alone(found: Guess) -> str:
    return f"; left alone: {_one_line(', '.join(found.others[:8]))}" if found.others else ""


def _one_line(text: str) -> str:
    # Names come from the data: a line break in one would end the comment.
    shown = "".join(character if character.isprintable() else " " for character in text)
    return shown if len(shown) <= 100 else f"{shown[:99]}…"
