"""Collects the faults of one source, to raise them together or to leave their rows out."""

from __future__ import annotations

from headrace.data.examples import BadRow
from headrace.errors import MAX_SHOWN_FAULTS, DataError, HeadraceError, together

MAX_KEPT_BAD_ROWS = 10_000  # 10,000 x (200 characters + a reason) is about 5 MB
MAX_CONTENT_CHARACTERS = 200
# What else helps, besides mending the row: without a recipe there is no key to set.
_SKIP_ADVICE = {
    True: "or set data.on_bad_row: skip to leave such rows out",
    False: "or leave such rows out of the data",
}


class BadCell(Exception):
    """One value of a record cannot be used.

    Args:
        column: Where it stands.
        what: What was found.
        next: How to mend it.
        in_recipe: What a recipe can do about it, where there is one.
    """

    def __init__(self, column: str, what: str, next: str, in_recipe: str = "") -> None:
        super().__init__(what)
        self.column = column
        self.what = what
        self.next = next
        self.in_recipe = in_recipe


class Faults:
    """The faults of one source, in the order in which they are found; memory does not grow with their number.

    Args:
        source: What a message calls the source.
        skip: Whether bad rows are left out and listed, rather than raised.
        has_recipe: Whether a recipe says what is read, so that a message may name its keys.
    """

    def __init__(self, source: str, *, skip: bool, has_recipe: bool = True) -> None:
        self.source = source
        self.skip = skip
        self.has_recipe = has_recipe
        self.n_faults = 0
        self.first: list[DataError] = []
        self.bad_rows: list[BadRow] = []

    def add(self, place: str, what: str, next: str, content: str = "") -> None:
        """Note one bad row.

        Args:
            place: Where, as it continues the source's name: `:row`, `:row:column` or `/file:row`.
            what: What was found.
            next: How to mend it; that such rows can be left out is added here.
            content: What the row holds; it is cut to 200 characters.
        """
        self.n_faults += 1
        if len(self.first) < MAX_SHOWN_FAULTS:
            self.first.append(DataError(what, where=self.source + place, next=next))
        if self.skip and len(self.bad_rows) < MAX_KEPT_BAD_ROWS:
            # Lone surrogates could not be written to bad_rows.jsonl.
            shown = content[:MAX_CONTENT_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
            self.bad_rows.append(BadRow(where=place, reason=what, content=shown))

    def joined(self, last: HeadraceError | None = None) -> HeadraceError:
        """Return one error for all faults so far, with `last` (one that ends the reading) as the last of them."""
        if self.skip and last is not None:
            return last  # the rows before it would have been left out
        skip = _SKIP_ADVICE[self.has_recipe]
        faults: list[HeadraceError] = [DataError(f.what, where=f.where, next=f"{f.next}; {skip}") for f in self.first]
        # `together` shows the first ten and counts the rest, so that the rest need not be kept.
        faults += faults[-1:] * (self.n_faults - len(faults))
        if last is not None:
            if len(faults) >= MAX_SHOWN_FAULTS:  # one that ends the reading must be seen
                faults.insert(MAX_SHOWN_FAULTS - 1, last)
            else:
                faults.append(last)
        return together(DataError, faults, source=self.source)

    def raise_any(self) -> None:
        """Raise all faults together, if there are any and they are not left out.

        Raises:
            DataError: There are faults.
        """
        if self.n_faults and not self.skip:
            raise self.joined()

    def no_row(self) -> DataError:
        """Return the error for a source without a single good row."""
        if not self.n_faults:
            return DataError("there is no row of data", where=self.source, next="give a source with at least one text")
        first = self.first[0]
        return DataError(
            f"none of the {self.n_faults:,} rows can be used; the first: {first.what}",
            where=first.where,
            next=first.next,
        )
