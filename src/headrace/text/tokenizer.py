"""What every tokenizer gives, whichever kind it is, and which kind a bundle holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from headrace.errors import BundleError, suggestion
from headrace.text.layout import FlatTokens, Layout
from headrace.text.subwords import Encoded, Subwords, Texts


class Tokenizer(Protocol):
    """Turns texts into ids and back; `Subwords` and `Words` do, and their docstrings tell how."""

    pad_id: int
    unk_id: int | None
    mask_id: int | None
    uses_token_types: bool
    model_max_length: int | None

    @property
    def vocabulary_size(self) -> int:
        """The largest token id there is, plus one."""

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids that stand for no piece of text."""

    @property
    def fingerprint(self) -> str:
        """sha256 over all that the tokens of a text depend on."""

    def encode(self, texts: Texts, *, max_length: int, truncate: str = "head") -> list[Encoded]:
        """Return the tokens of each text, or of each (first, second) pair."""

    def encode_flat(self, texts: Texts, *, max_length: int, truncate: str, pair: bool | None = None) -> FlatTokens:
        """Return what `encode` does as a few flat arrays."""

    def layout(self, *, pair: bool) -> Layout:
        """Return where the special tokens go around one text, or around and between the texts of a pair."""

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Return the text of these tokens, special ones left out."""

    def tokens(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """Return each token as the vocabulary writes it."""

    def spans(self, text: str) -> np.ndarray:
        """Return where each token of one text stands in it, [tokens, 2] int64."""

    def to_json(self) -> str:
        """Return the tokenizer as the content of a `tokenizer.json`."""

    def settings(self) -> dict[str, Any]:
        """Return what `tokenizer_from_json` needs besides that content."""


def tokenizer_from_json(text: str, settings: dict[str, Any]) -> Tokenizer:
    """Return the tokenizer that `to_json` and `settings` describe, of the kind that the settings name.

    Raises:
        BundleError: The text is not a tokenizer, a setting is missing, or there is no such kind.
    """
    kind = settings.get("kind")
    if kind is None:
        return Subwords.from_json(text, settings)
    from headrace.text.words import KIND, Words  # its rules take longer to compile than a tokenizer takes to read

    if kind == KIND:
        return Words.from_json(text, settings)
    raise BundleError(
        f"there is no kind of tokenizer called {kind!r}", where="tokenizer", next=suggestion(str(kind), [KIND])
    )
