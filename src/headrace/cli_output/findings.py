"""Findings of the audit, as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.cli_output.shown import Part, Styled

if TYPE_CHECKING:
    from headrace.data.audit import Finding

MAX_SHOWN_FINDINGS = 30
N_SHOWN_PLACES = 5


def finding_parts(findings: Sequence[Finding]) -> list[Part]:
    """Return the findings under a heading for each severity, the worst first."""
    parts: list[Part] = []
    for severity, style in (("error", "bold red"), ("warning", "yellow"), ("note", "dim")):
        found = [finding for finding in findings if finding.severity == severity]
        if found:
            parts.append(Styled([(f"{severity}s: {len(found)}", style)]))
        parts += [_finding_line(finding) for finding in found[:MAX_SHOWN_FINDINGS]]
        if len(found) > MAX_SHOWN_FINDINGS:
            parts.append(f"… and {len(found) - MAX_SHOWN_FINDINGS} more")
    return parts


def verdict_line(*, is_clean: bool, recipe: str) -> str:
    """Return the last line of `check`: whether there is something to mend, and the next command."""
    verdict = "nothing to mend" if is_clean else "mend these, or accept them by their codes in data.allow"
    return f"{verdict}; next: headrace fit {recipe}"


def _finding_line(finding: Finding) -> str:
    """Return a finding on up to three lines: what, the first few places, what to do."""
    line = f"{finding.severity} [{finding.code}]: {finding.what}"
    if finding.where:
        more = " …" if len(finding.where) > N_SHOWN_PLACES else ""
        line += f"\n  where: {', '.join(finding.where[:N_SHOWN_PLACES])}{more}"
    return f"{line}\n  next:  {finding.next}" if finding.next else line
