"""How numbers, names and texts from the data are put into words on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.evaluation import Interval
from headrace.metrics import METRICS, MULTI_LABEL

MAX_NAME_CHARACTERS = 80
MAX_TEXT_CHARACTERS = 1000
MINUS = "−"

_TITLES = {
    "accuracy": "Accuracy",
    "average_precision": "Average precision",
    "average_precision_macro": "Average precision, mean over labels",
    "brier": "Brier score",
    "ece": "Calibration error (ECE)",
    "f1": "F1",
    "f1_macro": "F1, mean over labels",
    "f1_micro": "F1, all labels together",
    "hamming_loss": "Hamming loss",
    "log_loss": "Log loss",
    "loss": "Loss (nats a token)",
    "perplexity": "Perplexity",
    "precision": "Precision",
    "recall": "Recall",
    "roc_auc": "ROC AUC",
    "roc_auc_macro": "ROC AUC, mean over labels",
}
_SMALLER_IS_BETTER = {"brier", "ece", "loss", "perplexity"} | {
    name for metrics in METRICS.values() for name, larger_is_better in metrics.items() if not larger_is_better
}
_NO_SHARE = {"log_loss", "brier", "loss", "perplexity"}

# Marks that turn the direction of all that follows, even beyond the text they stand in (UAX #9, section 2).
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(value: Any, most: int = MAX_TEXT_CHARACTERS) -> str:
    """Return a text from the data so that it shows what it holds and cannot disturb its surroundings.

    Control characters become their pictures (NUL is ␀), marks that turn the direction of the text and code points
    that are no characters are spelled out, and the middle of a text longer than `most` is left out.
    """
    text = value if isinstance(value, str) else str(value)
    if len(text) > most:
        tail = most // 4
        text = f"{text[: most - tail - 1]}…{text[-tail:]}" if tail else text[:most]
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    code = ord(character)
    if character in "\n\t":
        return character
    if code < 0x20 or code == 0x7F:
        return chr(0x2400 + code) if code < 0x20 else "␡"
    is_no_character = 0xD800 <= code <= 0xDFFF or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
    if character in _BIDI_CONTROLS or 0x80 <= code < 0xA0 or is_no_character:
        return f"‹U+{code:04X}›"
    return character


def name(value: Any) -> str:
    """Return a label, a column or a file name in one line of at most 80 characters; `(empty)` for an empty one."""
    return " ".join(clean(value, MAX_NAME_CHARACTERS).split()) or "(empty)"


def place(value: Any) -> str:
    """Return a `file:row`, or two of texts that are equal (`=`) or nearly so (`~`), with the last folders alone."""
    for mark in (" = ", " ~ "):
        first, found, second = str(value).partition(mark)
        if found:
            return f"{place(first)}{mark}{place(second)}"
    parts = str(value).replace("\\", "/").split("/")
    return name("/".join(parts[-2:]))


def sentence(value: Any) -> str:
    """Return a text that begins with a capital, unless a name or a key stands there, and ends with a full stop."""
    text = clean(value).strip()
    first = text.split(" ", 1)[0]
    if first.isalpha() and first.isascii() and first.islower():
        text = text[0].upper() + text[1:]
    return text if not text or text[-1] in ".!?…" else f"{text}."


def finite(value: Any) -> float | None:
    """Return a number, or None for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def interval(value: Any) -> Interval:
    """Return what a report holds for a number: a mapping with `value`, `low` and `high`, or a bare number."""
    if not isinstance(value, Mapping):
        return Interval(finite(value))
    low, high = finite(value.get("low")), finite(value.get("high"))
    note = value.get("note")
    both = low is not None and high is not None
    return Interval(
        finite(value.get("value")),
        low if both else None,
        high if both else None,
        str(value.get("method") or ""),
        None if note is None else clean(note),
    )


def mapping(value: Any, *path: str) -> Mapping[str, Any]:
    """Return the mapping at a path of keys, empty where there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def listed(value: Any) -> Sequence[Any]:
    """Return a list as it is, and an empty one for what is no list."""
    return value if isinstance(value, list | tuple) else ()


def digits_for(n_rows: float | None) -> int:
    """Return how many decimals a share of so many rows deserves: 3, and 4 from 5,000 rows."""
    return 4 if n_rows is not None and n_rows >= 5000 else 3


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with a true minus sign, `–` for none."""
    if value is None:
        return "–"
    shown = f"{value:,.{digits}f}"
    return shown.replace("-", MINUS) if float(shown.replace(",", "")) else shown.lstrip("-")


def signed(value: float | None, digits: int = 3) -> str:
    """Return a difference with its sign."""
    shown = number(value, digits)
    return f"+{shown}" if value is not None and value > 0 and any(c in "123456789" for c in shown) else shown


def count(value: Any) -> str:
    """Return a whole number with commas between thousands, `–` for none."""
    found = finite(value)
    return "–" if found is None else f"{round(found):,}".replace("-", MINUS)


def percent(value: float | None, digits: int | None = 1) -> str:
    """Return a share in [0, 1] as per cent; with None for digits, as many as a round number has: 5 %, 2.5 %."""
    if value is None:
        return "–"
    shown = f"{100 * value:.4g}".replace("-", MINUS) if digits is None else number(100 * value, digits)
    return f"{shown}\u00a0%"


def rate(value: float | None) -> str:
    """Return a number of any size in three digits: 0.00002 as 2e−5."""
    if value is None:
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}".replace("-", MINUS)
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}".replace("-", MINUS)


def duration(seconds: float | None) -> str:
    """Return seconds as people say them: 4.2 s, 3 min 05 s, 1 h 02 min."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(n_bytes: float | None) -> str:
    """Return bytes in MB or GB (powers of ten)."""
    if n_bytes is None:
        return "–"
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def rows(n: Any, kind: str = "row") -> str:
    """Return `1 row`, `2,000 rows`."""
    return f"{count(n)} {kind}" + ("" if finite(n) == 1 else "s")


def title(metric: str, task: str | None = None) -> str:
    """Return a metric's name for a reader."""
    if metric == "accuracy" and task == MULTI_LABEL:
        return "Accuracy, all labels of a row right"
    return _TITLES.get(metric, name(metric).replace("_", " "))


def lower(text: str) -> str:
    """Return a metric's name as it stands inside a sentence: ROC AUC and F1 keep their capitals."""
    return text if text[1:2].isupper() or text[1:2].isdigit() else text[:1].lower() + text[1:]


def p_value(value: float | None) -> str:
    """Return `p = 0.032`, `p < 0.0001` (with spaces that do not break), or nothing."""
    if value is None:
        return ""
    return "p\u00a0<\u00a00.0001" if value < 1e-4 else f"p\u00a0=\u00a0{value:.2g}"


def larger_is_better(metric: str) -> bool:
    """Return whether more of a metric is good."""
    return metric not in _SMALLER_IS_BETTER


def is_share(metric: str) -> bool:
    """Return whether a metric lies in [0, 1], so that differences can be told in points of a hundred."""
    return metric not in _NO_SHARE
