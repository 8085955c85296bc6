"""What the audit finds in the texts of a language model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from headrace.data.audit import Finding, audit_texts
from headrace.data.examples import Examples
from headrace.data.kept import kept_findings
from headrace.data.several import Joined
from headrace.files import cache_folder
from headrace.recipe.schema import RecipeValues
from headrace.train.language.prepare import LanguageData

Files = tuple[Examples, ...]


def language_findings(
    values: RecipeValues, prepared: LanguageData, *, cache: Path | None = None
) -> tuple[Finding, ...]:
    """Return the findings about the texts, but for those that `data.allow` names; what was found before is kept.

    Args:
        values: With `task: language_model`.
        prepared: Its texts.
        cache: None for the user's cache folder.
    """
    is_divided = values.data.valid_share is not None
    train, valid = prepared.train.files, prepared.valid.files
    test = () if prepared.test is None else prepared.test.files
    depends_on = [f"language model {is_divided}"]
    for files in (train, valid, test):
        # a finding names file and row, and the rows that could not be read are no part of the content
        depends_on += [str(len(files)), *(part for file in files for part in _known_by(file))]
    found = kept_findings(
        cache or cache_folder(), *depends_on, compute=lambda: _audited(train, valid, test, is_divided=is_divided)
    )
    return tuple(finding for finding in found if finding.code not in values.data.allow)


def _known_by(file: Examples) -> tuple[str, str, str]:
    return file.content_key(), file.source, repr(file.bad_rows)


def _audited(train: Files, valid: Files, test: Files, *, is_divided: bool) -> list[Finding]:
    tested = Joined(test) if test else None
    if not is_divided:
        return audit_texts(Joined(train), Joined(valid), tested)
    # What was divided here is looked at as its files have it, so that the numbers are those of the files.
    whole = tuple(replace(a, rows=np.union1d(a.rows, b.rows)) for a, b in zip(train, valid, strict=True))
    is_valid = np.concatenate([np.isin(file.rows, b.rows) for file, b in zip(whole, valid, strict=True)])
    return audit_texts(Joined(whole), None, tested, is_valid=is_valid)
