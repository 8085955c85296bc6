"""An explanation for a person: coloured text in a terminal, and one small HTML page that loads nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from itertools import groupby

from headrace.explain.explanation import SMALLEST, Explanation, Piece

# Blue speaks for, orange against: both are told apart with any kind of colour vision.
_FOR, _AGAINST = (0x4C, 0x9B, 0xE8), (0xF0, 0x8A, 0x24)
# Under a tenth of the strongest word's attribution a colour would only be noise.
_FAINT = 0.1
_N_LEVELS = 8
# What rich reads as a tag has a closing bracket, and its first character is one of these.
_BRACKET = re.compile(r"(\\*)\[([a-z#/@][^[]*?\])?")

_STYLE = """
:root { color-scheme: light dark; --for: 32 110 200; --against: 205 95 0; }
@media (prefers-color-scheme: dark) { :root { --for: 90 165 245; --against: 250 150 60; } }
body { font: 1rem/1.7 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.15rem; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 1.1rem; }
.for { --c: var(--for); border-bottom: 2px solid; }
.against { --c: var(--against); border-bottom: 2px dashed; }
.text [class] { background: rgb(var(--c) / calc(var(--s) * 0.6)); border-color: rgb(var(--c) / var(--s)); }
.text span { border-radius: 2px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { text-align: left; padding: 0.15rem 1.2rem 0.15rem 0; overflow-wrap: anywhere; }
td:last-child, th:last-child { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.note { font-size: 0.9rem; opacity: 0.75; }
""".strip()
_PAGE = """
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
{style}
</style></head>
<body>
{body}
</body>
</html>
""".lstrip()


def as_styled(explanation: Explanation, *, n_strongest: int = 5) -> list[tuple[str, str]]:
    """Return the explanation as texts with styles of rich's: the coloured text, then the strongest words with numbers.

    The numbers say all that the colours say, for a terminal without them. Control characters are replaced.

    Args:
        explanation: As `explain` gives it.
        n_strongest: Words listed for and against the label, at most.

    Returns:
        (text, style) each, an empty style for plain text; joined they are a few lines.
    """
    styled = [(headline(explanation), "")]
    if explanation.pieces:
        styled.append(("\n", ""))
        styled += [(text, _colour(strength)) for text, strength, _ in _strengths(explanation)]
        for title, words in zip(_titles(explanation), explanation.strongest(n_strongest), strict=True):
            listed = " · ".join(f"{_flat(word.text)} {word.attribution:+.2f}" for word in words) or "nothing"
            styled.append((f"\n{title}: {listed}", ""))
        styled.append((f"\n{_account(explanation)}", ""))
    return [(_printable(text), style) for text, style in styled]


def as_markup(explanation: Explanation, *, n_strongest: int = 5) -> str:
    """Return what `as_styled` does as rich's markup, in which nothing of the data is read as markup.

    `Text.from_markup(…, emoji=False)` shows it as it is.

    Args:
        explanation: As `explain` gives it.
        n_strongest: Words listed for and against the label, at most.
    """
    return _markup(as_styled(explanation, n_strongest=n_strongest))


def as_html(explanation: Explanation, *, n_strongest: int = 8) -> str:
    """Return the explanation as an HTML page of its own: no script, nothing to load, light or dark as the reader is.

    All that comes from the data is escaped.

    Args:
        explanation: As `explain` gives it.
        n_strongest: Words listed for and against the label, at most.
    """
    title = escape(headline(explanation))
    parts = [f"<h1>{title}</h1>"]
    if explanation.pieces:
        parts += [f'<p class="text">{_marked(explanation)}</p>', _table(explanation, n_strongest)]
        parts.append(f'<p class="note">{escape(_account(explanation))}</p>')
    return _PAGE.format(title=title, style=_STYLE, body="\n".join(parts))


def headline(explanation: Explanation) -> str:
    """Return what is explained, and how much of it comes from the words, in one sentence."""
    name = explanation.label if explanation.against is None else f"{explanation.label} against {explanation.against}"
    if not explanation.pieces:
        return f"{name}: {explanation.value:+.2f} logits; the text has no words that could explain it"
    without = explanation.value - explanation.difference
    split = f"{explanation.difference:+.2f} by the words and {without:+.2f} without them"
    return f"{name}: {explanation.value:+.2f} logits, {split}"


def _titles(explanation: Explanation) -> tuple[str, str]:
    return f"for {explanation.label}", f"against {explanation.label}"


def _account(explanation: Explanation) -> str:
    """Return how the numbers add up."""
    error = f"{explanation.error_share:.1%} off, in {explanation.n_steps} steps"
    line = f"logits; they sum to {explanation.total:+.2f}, {error}"
    if explanation.is_exact:
        return line
    return f"{line}: not within 2 %, read them as rough"


def _strengths(explanation: Explanation) -> list[tuple[str, float, Piece | None]]:
    """Return the whole text in order: each stretch with its strength from -1 to 1, and the word that it is."""
    words = explanation.words()
    strongest = max((abs(word.attribution) for word in words), default=0.0)
    # A text that moves nothing has no strong words.
    scale = max(strongest, SMALLEST)
    found: list[tuple[str, float, Piece | None]] = []
    for which, text in enumerate(explanation.texts):
        if which:
            found.append(("\n", 0.0, None))
        stop = 0
        for word in (word for word in words if word.which == which):
            found.append((text[stop : word.start], 0.0, None))
            found.append((word.text, word.attribution / scale, word))
            stop = word.end
        found.append((text[stop:], 0.0, None))
    return [one for one in found if one[0]]


def _colour(strength: float) -> str:
    level = round(abs(strength) * _N_LEVELS) / _N_LEVELS
    if abs(strength) < _FAINT or not level:
        return ""
    red, green, blue = (round(255 + (to - 255) * level) for to in (_FOR if strength > 0 else _AGAINST))
    # Black on a tint can be read whatever the terminal's own colours are.
    return f"black on #{red:02x}{green:02x}{blue:02x}"


def _markup(styled: Sequence[tuple[str, str]]) -> str:
    """Return rich's markup of texts with their styles, so that each text is shown as it is."""
    shown = []
    # Plain neighbours are escaped together: of "[" and "bold]" neither alone looks like markup.
    groups = [(style, [text for text, _ in of_style]) for style, of_style in groupby(styled, key=lambda one: one[1])]
    for number, (style, texts) in enumerate(groups):
        text = "".join(texts)
        body = text.rstrip("\\")
        n_backslashes = len(text) - len(body)
        # Before a tag of ours a backslash would escape the tag; two of them are one.
        is_before_tag = bool(style) or number < len(groups) - 1
        escaped = _BRACKET.sub(_escaped, body) + "\\" * (n_backslashes * (2 if is_before_tag else 1))
        shown.append(f"[{style}]{escaped}[/]" if style else escaped)
    return "".join(shown)


def _escaped(bracket: re.Match[str]) -> str:
    """Return a bracket that rich shows as it is; `rich.markup.escape` loses a backslash that stands before one."""
    n_backslashes, tag = len(bracket.group(1)), bracket.group(2) or ""
    # Before what looks like a tag two backslashes are one, and one more takes its meaning away. Else rich drops one.
    n_needed = 2 * n_backslashes + 1 if tag else n_backslashes + bool(n_backslashes)
    return "\\" * n_needed + "[" + tag


def _marked(explanation: Explanation) -> str:
    shown = []
    for text, strength, word in _strengths(explanation):
        escaped = escape(_printable(text))
        if word is not None and abs(strength) >= _FAINT:
            kind = "for" if strength > 0 else "against"
            mark = f'class="{kind}" style="--s:{abs(strength):.2f}" title="{word.attribution:+.3f}"'
            escaped = f"<span {mark}>{escaped}</span>"
        elif word is not None and word.is_cut:
            escaped = f'<span title="not read: the text is longer than the model reads">{escaped}</span>'
        shown.append(escaped)
    return "".join(shown)


def _table(explanation: Explanation, n_strongest: int) -> str:
    rows = []
    for title, words in zip(_titles(explanation), explanation.strongest(n_strongest), strict=True):
        for word in words:
            cells = (title, _flat(word.text), f"{word.attribution:+.3f}")
            rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    return f"<table><tr><th>speaks</th><th>word</th><th>logit</th></tr>{''.join(rows)}</table>"


def _flat(text: str) -> str:
    return " ".join(_printable(text).split()) or "(space)"


def _printable(text: str) -> str:
    """Return the text without control characters: data on a terminal must not move the cursor or set colours."""
    return "".join(c if c.isprintable() or c == "\n" else " " if c.isspace() else "\ufffd" for c in text)
