"""ULMFiT's words: lowercase, with marks for what was capital or repeated, and a vocabulary made from texts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np

from headrace.errors import BundleError, DataError, ModelError
from headrace.text._word_join import join_words
from headrace.text._word_places import placed_tokens
from headrace.text._word_rules import BEGIN, END, FIELD, FILLER, PADDING, UNKNOWN, Chunks
from headrace.text.layout import FlatTokens, Layout, Parts, lay_out
from headrace.text.subwords import Encoded, Texts, without_lone_surrogates
from headrace.text.vocabulary import Vocabulary

KIND = "words"
#: Rises with each change of the rules after which a text gives other tokens.
RULES = 1


def split_words(text: str) -> list[str]:
    """Return the words of one text, `xxbos` first, whether a vocabulary knows them or not; slower than `encode_flat`."""
    return [BEGIN, *Chunks(tuple).of_text(text)]


class Words:
    """A tokenizer of whole words, to be used wherever `Subwords` is.

    A text is `xxbos` and its words; a pair is `xxbos xxfld 1`, the first text, `xxfld 2`, the second text.

    Args:
        vocabulary: What is not in it becomes `xxunk`.

    Source:
        Howard & Ruder 2018, arXiv 1801.06146; token for token as fastai 2.8 by default. Two differences are known: white
        space around the texts of a pair is dropped here, and an emoticon or short form that was taken apart (`hi:)`) is
        put together again even if what follows behind a space would make it a longer one (`hi:) )`), which stops
        fastai. Neither was met in 2,000 reviews of IMDb (benchmarks/words.py).
    """

    mask_id: int | None = None
    uses_token_types: bool = False
    model_max_length: int | None = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.pad_id: int = vocabulary.pad_id
        self.unk_id: int | None = vocabulary.unk_id
        ids, unk_id = vocabulary.ids, vocabulary.unk_id
        self._chunks: Chunks[int] = Chunks(lambda tokens: tuple([ids.get(token, unk_id) for token in tokens]))

    def __reduce__(self) -> tuple[Any, ...]:
        return Words, (self.vocabulary,)

    @classmethod
    def from_json(cls, text: str, settings: dict[str, Any]) -> Words:
        """Return the tokenizer that `to_json` and `settings` describe.

        Raises:
            BundleError: The text holds no vocabulary, or it was made with other rules than these.
        """
        if settings.get("kind") != KIND or settings.get("rules") != RULES:
            raise BundleError(
                f"the words were made by rules {settings.get('rules')!r}, and this Headrace knows rules {RULES} alone",
                where="tokenizer",
                next="use the Headrace that made the bundle, or make the bundle anew",
            )
        try:
            words = json.loads(text)["words"]
            return cls(Vocabulary(tuple(words)))
        except (ValueError, KeyError, TypeError, RecursionError, ModelError) as error:
            reason = error.what if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
            raise BundleError(
                f"the vocabulary cannot be read: {reason}", where="tokenizer.json", next="make the bundle anew"
            ) from error

    def to_json(self) -> str:
        """Return the vocabulary as the content of a `tokenizer.json`."""
        return json.dumps({"words": self.vocabulary.words}, ensure_ascii=False)

    def settings(self) -> dict[str, Any]:
        """Return what `from_json` needs besides the vocabulary."""
        names = ("pad_id", "unk_id", "mask_id", "uses_token_types", "model_max_length")
        return {"kind": KIND, "rules": RULES, **{name: getattr(self, name) for name in names}}

    @property
    def vocabulary_size(self) -> int:
        """The largest token id there is, plus one; `xxfake` included."""
        return len(self.vocabulary)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids that stand for no piece of text: what begins, separates, ends or pads, and the unknown."""
        words = self.vocabulary.words
        return frozenset(id for id, word in enumerate(words) if word in (BEGIN, END, FIELD, PADDING, UNKNOWN, FILLER))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the vocabulary and the settings."""
        content = {"words": self.vocabulary.words, "settings": self.settings()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def encode(self, texts: Texts, *, max_length: int, truncate: str = "head") -> list[Encoded]:
        """Return the tokens of each text, or of each (first, second) pair.

        Args:
            texts: An empty list gives an empty one; an empty text gives its special tokens.
            max_length: Tokens kept of each, special ones included.
            truncate: `head`, `tail` or `head_tail`.

        Raises:
            RecipeError: `max_length` leaves no room for text, or there is no such `truncate`.
            DataError: A text is not a string.
        """
        return Encoded.each_of(self.encode_flat(texts, max_length=max_length, truncate=truncate))

    def encode_flat(self, texts: Texts, *, max_length: int, truncate: str, pair: bool | None = None) -> FlatTokens:
        """Return what `encode` does as a few flat arrays, which is how many texts are stored.

        `pair` tells whether the texts are pairs; None looks at the first of them.
        """
        if pair is None:
            pair = len(texts) > 0 and not isinstance(texts[0], str)
        if pair:
            parts = [self._parts([text[side] for text in texts]) for side in (0, 1)]
        else:
            parts = [self._parts(cast(Sequence[str], texts))]
        layout = self.layout(pair=pair)
        return lay_out(parts, layout, max_length=max_length, truncate=truncate, unk_id=self.unk_id)

    def layout(self, *, pair: bool) -> Layout:
        """Return where the special tokens go around one text, or around and between the texts of a pair."""
        begin, field, first, second = map(self.vocabulary.id_of, (BEGIN, FIELD, "1", "2"))
        prefix = (begin, field, first) if pair else (begin,)
        middle = (field, second) if pair else ()
        return Layout(prefix=prefix, middle=middle, suffix=(), n_middle_first=len(middle), n_segments=1)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Return the text of these tokens as one would write it: case and spaces restored, no marks."""
        return join_words(self.tokens(ids))

    def tokens(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """Return each token as the vocabulary writes it; an id that it lacks gives an empty string."""
        words = self.vocabulary.words
        return [words[id] if 0 <= id < len(words) else "" for id in map(int, ids)]

    def spans(self, text: str) -> np.ndarray:
        """Return where each token of one text stands in it, [tokens, 2] int64: first character and the one after.

        These are all tokens, before any cut and without special ones. The mark of a capital stands on the first letter
        of its word; the tokens that tell a repetition all stand on the whole of it. A text with lone surrogates is
        counted as `without_lone_surrogates` gives it.
        """
        found = [(start, stop) for _, start, stop in placed_tokens(without_lone_surrogates(text))]
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    def _parts(self, texts: Sequence[str]) -> Parts:
        found: list[np.ndarray] = []
        for position, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(
                    f"a text must be a string, not {text!r:.80}", where=f"text {position}", next="pass strings alone"
                )
            found.append(np.fromiter(self._chunks.of_text(text), dtype=np.int32))
        lengths = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
        return Parts(np.concatenate(found) if found else np.empty(0, np.int32), lengths)
