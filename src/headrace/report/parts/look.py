"""What to look at: diagnoses of the training and findings about the data, the worst first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.report.parts.section import Section
from headrace.report.words import listed, mapping, name, place, rows, sentence

MAX_SHOWN = 40
MAX_PLACES = 10
_WORDS = {"error": "Error", "warning": "Warning", "note": "Note"}


def look(report: Mapping[str, Any]) -> Section | None:
    """Return diagnoses and findings; None if there are neither."""
    findings = listed(report.get("findings")) or listed(mapping(report, "check").get("findings"))
    found = [_card(one, "training") for one in listed(report.get("diagnoses"))]
    found += [_card(one, "data") for one in findings]
    if not found:
        return None
    rank = {severity: place for place, severity in enumerate(_WORDS)}
    ordered = sorted(found, key=lambda card: rank[card["severity"]])
    more = len(ordered) - MAX_SHOWN
    content = {"cards": ordered[:MAX_SHOWN], "more": rows(more, "more finding") if more > 0 else ""}
    return Section("look", "What to look at", content)


def _card(found: Any, about: str) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        return {"severity": "note", "word": _WORDS["note"], "what": sentence(found), "about": about}
    severity = found.get("severity") if found.get("severity") in _WORDS else "note"
    places = [place(one) for one in listed(found.get("where"))]
    shown = ", ".join(places[:MAX_PLACES]) + (", …" if len(places) > MAX_PLACES else "")
    return {
        "severity": severity,
        "word": _WORDS[str(severity)],
        "about": about,
        "what": sentence(found.get("what", "")),
        "next": sentence(found.get("next") or ""),
        "where": shown,
        "code": name(found["code"]) if found.get("code") else "",
    }
