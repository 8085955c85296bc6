"""The errors that a user can mend: each says what is wrong, where it is, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class HeadraceError(Exception):
    """Something that the user can mend.

    Args:
        what: One plain sentence with the offending value.
        where: `file:row:column`, the recipe's line, or the parameter's name.
        next: The command or the edit that mends it.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, next: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next = next

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.next:
            lines.append(f"  next:  {self.next}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders (torchrun, DataLoader workers); keyword-only fields need help.
        return _rebuild, (type(self), self.what, self.where, self.next)

    def as_dict(self) -> dict[str, str | None]:
        """Return the error as the `--json` output shows it."""
        return {"error": type(self).__name__, "what": self.what, "where": self.where, "next": self.next}


def _rebuild(kind: type[HeadraceError], what: str, where: str | None, next: str | None) -> HeadraceError:
    return kind(what, where=where, next=next)


class RecipeError(HeadraceError):
    """A recipe is not valid, or asks for what does not exist."""


class DataError(HeadraceError):
    """A data file is missing, unreadable, or holds rows that cannot be used."""


class ModelError(HeadraceError):
    """A pretrained model cannot be found, read or trusted."""


class BundleError(HeadraceError):
    """A bundle is damaged, unsafe, or not a bundle."""


class RunError(HeadraceError):
    """A run's folder is in use, belongs to another recipe, or cannot be written."""


class MissingExtra(HeadraceError):
    """A feature needs an optional dependency that is not installed."""


class TrainingStopped(HeadraceError):
    """Training ended at a step that must not be taken: a loss or gradient that is not finite.

    Attributes:
        rows: Positions of the step's first rows in the training split.
    """

    exit_code = 1
    rows: tuple[int, ...] = ()


class Interrupted(HeadraceError):
    """A signal stopped the run; its state is saved. The exit code is 128 + the signal's number."""

    def __init__(self, what: str, *, where: str | None = None, next: str | None = None, exit_code: int = 130) -> None:
        super().__init__(what, where=where, next=next)
        self.exit_code = exit_code


MAX_SHOWN_FAULTS = 10


def together(kind: type[HeadraceError], faults: Sequence[HeadraceError], *, source: str) -> HeadraceError:
    """Return one error for all faults of one input: the first ten in full, and how many there are.

    A single fault is returned as it is.
    """
    if len(faults) == 1:
        return faults[0]
    shown = faults[:MAX_SHOWN_FAULTS]
    lines = [f"{len(faults)} faults in {source}"]
    for number, fault in enumerate(shown, start=1):
        place = f" ({fault.where})" if fault.where else ""
        lines.append(f"  {number}. {fault.what}{place}")
        if fault.next:
            lines.append(f"     next: {fault.next}")
    if len(faults) > len(shown):
        lines.append(f"  … and {len(faults) - len(shown)} more")
    return kind("\n".join(lines))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to `name`, or None if none is close."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "did you mean …? available: …" for an unknown name."""
    names = sorted(known)
    close = nearest(name, names)
    listed = f"available: {', '.join(names)}"
    return f"did you mean {close!r}? {listed}" if close else listed
