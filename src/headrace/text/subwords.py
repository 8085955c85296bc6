"""Subword tokens of any Hugging Face tokenizer, cut by our own rule and laid out as the tokenizer itself would."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from tokenizers import Tokenizer

from headrace.errors import BundleError, DataError, ModelError
from headrace.text.layout import FlatTokens, Layout, Parts, lay_out, pieces, probe

Texts = Sequence[str] | Sequence[tuple[str, str]]

# Encodings hold about 150 bytes a token until they are dropped: 500,000 characters are some 20 MB of them.
_PIECE_CHARACTERS = 500_000
_PIECE_TEXTS = 4096
# A tokenizer without a limit of its own says 1e30.
_LARGEST_LENGTH = 1_000_000


@dataclass(frozen=True, eq=False)
class Encoded:
    """The tokens of one text or pair.

    Attributes:
        ids: [tokens] int32, special tokens included.
        first_length: Tokens of segment 0; all of them for a single text.
        n_full: Tokens before the cut, special ones included.
        n_unknown: Unknown tokens among those that were kept.
    """

    ids: np.ndarray
    first_length: int
    n_full: int
    n_unknown: int

    @classmethod
    def each_of(cls, flat: FlatTokens) -> list[Encoded]:
        """Return the texts of flat arrays one by one."""
        bounds = pairwise(flat.offsets.tolist())
        columns = (flat.first_lengths.tolist(), flat.full_lengths.tolist(), flat.n_unknown.tolist())
        return [cls(flat.ids[start:stop], *own) for (start, stop), *own in zip(bounds, *columns, strict=True)]


class Subwords:
    """A tokenizer without stored truncation and padding: each text gives all its tokens, cut where we say.

    Args:
        tokenizer: Changed in place: its truncation and padding are cleared.
        settings: `pad_id`, `unk_id`, `mask_id`, `uses_token_types` and `model_max_length`, as `settings()` gives them.
    """

    def __init__(self, tokenizer: Tokenizer, settings: dict[str, Any]) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.pad_id: int = int(settings["pad_id"])
        self.unk_id: int | None = settings["unk_id"]
        self.mask_id: int | None = settings["mask_id"]
        self.uses_token_types: bool = bool(settings["uses_token_types"])
        self.model_max_length: int | None = settings["model_max_length"]
        self._layouts: dict[bool, Layout] = {}

    @classmethod
    def load(cls, name_or_folder: str | Path, *, revision: str | None = None) -> Subwords:
        """Return the tokenizer of a folder or of a hub id; nothing of it is executed.

        Args:
            name_or_folder: A folder (a `Path`, or a string that names one), or a hub id.
            revision: The commit, tag or branch of a hub id.

        Raises:
            ModelError: It does not exist, cannot be reached or read, or has no fast tokenizer.
        """
        name = str(name_or_folder)
        if isinstance(name_or_folder, Path) and not name_or_folder.is_dir():
            raise ModelError(
                f"there is no folder {name!r} to read a tokenizer from",
                where="backbone",
                next="name a folder that holds tokenizer.json, or a hub id such as 'distilbert-base-uncased'",
            )
        # 1.0 s to import (measured, torch being there already): only what loads a new model pays it.
        from transformers import AutoTokenizer

        try:
            found = AutoTokenizer.from_pretrained(name, revision=revision or "main", trust_remote_code=False)
        except Exception as error:
            raise _load_error(name, error) from error
        tokenizer = getattr(found, "backend_tokenizer", None)
        if not isinstance(tokenizer, Tokenizer):
            raise ModelError(
                f"the tokenizer of {name!r} has no fast form (tokenizer.json)",
                where="backbone",
                next="choose a model with a tokenizer.json, or convert the tokenizer with transformers",
            )
        # transformers 5 makes up a tokenizer of five special tokens where a folder has a config.json alone.
        special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
        if not set(tokenizer.get_vocab()) - special:
            raise ModelError(
                f"the tokenizer of {name!r} is missing: it would know no words, only special tokens",
                where="backbone",
                next="copy tokenizer.json and tokenizer_config.json of the model beside its config.json",
            )
        return cls(tokenizer, _settings_of(found))

    @classmethod
    def from_json(cls, text: str, settings: dict[str, Any]) -> Subwords:
        """Return the tokenizer that `to_json` and `settings` describe, without importing transformers.

        Raises:
            BundleError: The text is not a tokenizer, or a setting is missing.
        """
        try:
            tokenizer = Tokenizer.from_str(text)
        except Exception as error:  # `tokenizers` raises plain Exception
            raise BundleError(
                f"the tokenizer cannot be read: {error}", where="tokenizer.json", next="make the bundle anew"
            ) from error
        try:
            return cls(tokenizer, settings)
        except KeyError as error:
            raise BundleError(
                f"the tokenizer's setting {error.args[0]!r} is missing", where="tokenizer", next="make the bundle anew"
            ) from error

    def to_json(self) -> str:
        """Return the tokenizer as the content of a `tokenizer.json`."""
        return str(self._tokenizer.to_str())

    def settings(self) -> dict[str, Any]:
        """Return what `from_json` needs besides the tokenizer itself."""
        names = ("pad_id", "unk_id", "mask_id", "uses_token_types", "model_max_length")
        return {name: getattr(self, name) for name in names}

    @cached_property
    def vocabulary_size(self) -> int:
        """The largest token id there is, plus one."""
        return int(max(self._tokenizer.get_vocab(with_added_tokens=True).values())) + 1

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids that stand for no piece of text: what begins, separates, ends, pads or masks, and the unknown."""
        named = self._tokenizer.get_added_tokens_decoder().items()
        own = {id for id in (self.pad_id, self.unk_id, self.mask_id) if id is not None}
        return frozenset({int(id) for id, token in named if token.special} | own)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the tokenizer's content and settings; the order of keys in its file does not matter."""
        content = {"tokenizer": json.loads(self.to_json()), "settings": self.settings()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def encode(self, texts: Texts, *, max_length: int, truncate: str = "head") -> list[Encoded]:
        """Return the tokens of each text, or of each (first, second) pair.

        Args:
            texts: An empty list gives an empty one; an empty text gives its special tokens.
            max_length: Tokens kept of each, special ones included.
            truncate: `head`, `tail` or `head_tail`.

        Raises:
            RecipeError: `max_length` leaves no room for text, or there is no such `truncate`.
        """
        return Encoded.each_of(self.encode_flat(texts, max_length=max_length, truncate=truncate))

    def encode_flat(self, texts: Texts, *, max_length: int, truncate: str, pair: bool | None = None) -> FlatTokens:
        """Return what `encode` does as a few flat arrays, which is how many texts are stored.

        `pair` tells whether the texts are pairs; None looks at the first of them.
        """
        if pair is None:
            pair = len(texts) > 0 and not isinstance(texts[0], str)
        layout = self.layout(pair=pair)
        if pair:
            parts = [self._parts([text[side] for text in texts]) for side in (0, 1)]
        else:
            parts = [self._parts(list(cast(Sequence[str], texts)))]
        return lay_out(parts, layout, max_length=max_length, truncate=truncate, unk_id=self.unk_id)

    def layout(self, *, pair: bool) -> Layout:
        """Return where the special tokens go around one text, or around and between the texts of a pair."""
        if pair not in self._layouts:
            self._layouts[pair] = probe(self._tokenizer, pair=pair)
        return self._layouts[pair]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Return the text of these tokens, special ones left out."""
        return str(self._tokenizer.decode([int(id) for id in ids], skip_special_tokens=True))

    def tokens(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """Return each token as the vocabulary writes it; an id that it lacks gives an empty string."""
        return [self._tokenizer.id_to_token(int(id)) or "" for id in ids]

    def spans(self, text: str) -> np.ndarray:
        """Return where each token of one text stands in it, [tokens, 2] int64: first character and the one after.

        These are all tokens, before any cut and without special ones. Tokens of one character (an emoji's bytes) have
        the same span; one that stands for no character has an empty span. A text with lone surrogates is counted as
        `without_lone_surrogates` gives it.
        """
        # `encode_batch_fast` does not keep track of offsets.
        encoding = self._tokenizer.encode(without_lone_surrogates(text), add_special_tokens=False)
        return np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)

    def _parts(self, texts: list[str]) -> Parts:
        for position, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(
                    f"a text must be a string, not {text!r:.80}", where=f"text {position}", next="pass strings alone"
                )
        found: list[np.ndarray] = []
        lengths: list[int] = []
        characters = [len(text) for text in texts]
        for start, stop in pieces(characters, max_texts=_PIECE_TEXTS, max_characters=_PIECE_CHARACTERS):
            ids = [encoding.ids for encoding in self._encodings(texts[start:stop])]
            lengths.extend(map(len, ids))
            found.append(np.array(list(chain.from_iterable(ids)), dtype=np.int32))
        return Parts(np.concatenate(found) if found else np.empty(0, np.int32), np.array(lengths, dtype=np.int64))

    def _encodings(self, texts: list[str]) -> list[Any]:
        try:
            return list(self._tokenizer.encode_batch_fast(texts, add_special_tokens=False))
        except (TypeError, UnicodeError):
            # Rust's strings hold no lone surrogates; JSON from the web does ("\ud800"). They become U+FFFD.
            mended = [without_lone_surrogates(text) for text in texts]
            return list(self._tokenizer.encode_batch_fast(mended, add_special_tokens=False))


def without_lone_surrogates(text: str) -> str:
    """Return the text as the tokenizer reads it: half characters become U+FFFD, nearly every text stays itself."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _settings_of(found: Any) -> dict[str, Any]:
    """Return our settings from a tokenizer of transformers."""
    # Padding is masked out: where a tokenizer has no id for it any id will do.
    pad_id = next((id for id in (found.pad_token_id, found.eos_token_id) if id is not None), 0)
    longest = found.model_max_length
    return {
        "pad_id": int(pad_id),
        "unk_id": found.unk_token_id,
        "mask_id": found.mask_token_id,
        "uses_token_types": "token_type_ids" in found.model_input_names,
        "model_max_length": int(longest) if longest and longest <= _LARGEST_LENGTH else None,
    }


def _load_error(name: str, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if Path(name).is_dir():
        next_step = "the folder must hold the tokenizer.json and tokenizer_config.json that the model was saved with"
    else:
        next_step = (
            "check the name; without a network name a folder instead, or a model that is already in the hub's cache "
            "(HF_HUB_OFFLINE=1 then answers at once)"
        )
    return ModelError(f"cannot load the tokenizer of {name!r}: {reason}", where="backbone", next=next_step)
