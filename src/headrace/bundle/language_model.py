"""A trained language model with its tokenizer, in memory and as a folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headrace.backbones._language import LanguageModel, build_language_model, kind_of_backbone, n_words
from headrace.backbones._masked_word import MaskedWordModel
from headrace.backbones._next_word import NextWordModel
from headrace.bundle import manifest
from headrace.bundle.about import LANGUAGE_MODEL, damaged, versions
from headrace.bundle.generate import Sampling, generate
from headrace.bundle.weights import read_model, save_weights, weights_bytes
from headrace.data.rows import RowBatch
from headrace.errors import BundleError, DataError, RecipeError
from headrace.files import atomic_folder, write_json, write_text
from headrace.text.batch import collate
from headrace.text.masks import Masks
from headrace.text.store import TokenStore
from headrace.text.tokenizer import Tokenizer, tokenizer_from_json

WHOLE_TEXT = 1 << 40  # tokens kept of a text where nothing is cut
_MASK_SEED = 0  # of the masks under which a masked-word model's loss is told


@dataclass(frozen=True)
class LanguageAbout:
    """What a language model's bundle says of itself besides weights and tokenizer.

    Attributes:
        columns: The texts' column in a file, or the two of a pair.
        max_length: Tokens kept of a text; None for whole texts.
        truncate: `head`, `tail` or `head_tail`.
        data: Files and fingerprints of the texts it was trained on.
        versions: Of the packages that made it.
        metrics: `loss`, `accuracy` and `perplexity` of its validation.
        created: When, in UTC, as ISO 8601.
    """

    columns: tuple[str, ...] = ("text",)
    max_length: int | None = None
    truncate: str = "head"
    data: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    created: str = ""


class LanguageModelBundle:
    """A trained language model with its tokenizer.

    Attributes:
        model: In evaluation mode.
        tokenizer: Of the texts; a classifier on this model must have the same.
        about: Text settings, data, versions and so on.
        folder: Where it was loaded from; None for one in memory.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        about: LanguageAbout,
        *,
        folder: Path | None = None,
        recipe: str = "",
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.about = about
        self.folder = folder
        self.recipe_yaml = recipe

    @classmethod
    def load(cls, folder: str | Path) -> LanguageModelBundle:
        """Return the bundle of a folder; the manifest is checked before any other file is opened.

        Nothing is executed or unpickled, no weight is random, and the network is not asked.

        Raises:
            BundleError: It is no language model's bundle, or damaged, changed, unsafe, or of a newer format.
        """
        folder = Path(folder).expanduser()
        checked = manifest.check_files(folder)
        raw = checked.json(manifest.BUNDLE)
        if raw.get("kind") != LANGUAGE_MODEL:
            raise BundleError(
                f"the bundle is a {raw.get('kind')!r}, not a language model",
                where=str(folder),
                next="name the bundle of a run with `task: language_model`",
            )
        try:
            about = _about(raw)
            tokenizer = tokenizer_from_json(checked.text(manifest.TOKENIZER), dict(raw["tokenizer"]))
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(folder / manifest.BUNDLE, str(error)) from error
        model = read_model(checked, build_language_model)
        if tokenizer.vocabulary_size > n_words(model):
            raise damaged(
                folder / manifest.CONFIG,
                f"the model knows {n_words(model):,} words, its tokenizer {tokenizer.vocabulary_size:,}",
            )
        return cls(model, tokenizer, about, folder=folder, recipe=checked.text(manifest.RECIPE))

    @property
    def kind(self) -> str:
        """`next_word` or `masked_word`."""
        return self.model.kind

    def __repr__(self) -> str:
        where = f"{str(self.folder)!r}, " if self.folder else ""
        return f"LanguageModelBundle({where}kind={self.kind!r}, words={self.tokenizer.vocabulary_size:,})"

    def generate(
        self,
        text: str,
        *,
        words: int = 40,
        n: int = 1,
        temperature: float = 0.75,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
    ) -> list[str]:
        """Return `n` ways in which the model goes on with a text, the text itself included.

        Args:
            text: The beginning; an empty one starts a text of its own.
            words: Words (and signs) to add; fewer where the model ends the text.
            n: How many, from 1.
            temperature: Below 1 the likelier words are drawn more often, 0 takes the likeliest.
            top_k: Draw among so many of the likeliest words.
            top_p: Draw among the likeliest words that have this probability together, in (0, 1].
            seed: The same seed gives the same texts; None gives others each time.

        Raises:
            BundleError: The model guesses masked words, or reads backward, and writes no text.
            RecipeError: A setting is out of its range.
        """
        if not isinstance(text, str):
            raise RecipeError(f"the text is a {type(text).__name__}", where="text", next="give a string")
        if not isinstance(self.model, NextWordModel):
            raise BundleError(
                "the model guesses words that are hidden in a text; it was not trained to go on with one",
                where=str(self.folder or "generate"),
                next="train with `backbone: awd_lstm`, whose language model predicts the next word",
            )
        if self.model.backbone.direction == "backward":
            raise BundleError(
                "the model reads texts from their end to their beginning, so it cannot go on with one",
                where=str(self.folder or "generate"),
                next="take the bundle of the forward direction",
            )
        sampling = Sampling(words=words, n=n, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        return generate(self.model, self.tokenizer, _clean([text])[0], sampling)

    def perplexity(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> float:
        """Return exp of the mean loss of all predicted tokens, each text read from its own start.

        Of a masked-word model these are the tokens that a fixed choice hides, which no next-word model's perplexity
        can be compared with.

        Raises:
            DataError: There is no text with a token to predict.
        """
        losses = [self._loss(row, store) for store in [self._encoded(texts)] for row in range(len(store))]
        n_tokens = sum(n for _, n in losses)
        if not n_tokens:
            raise DataError("there is no word to predict", where="texts", next="give texts")
        return math.exp(sum(loss for loss, _ in losses) / n_tokens)

    def scores(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> np.ndarray:
        """Return the mean loss of each text in nats a token, [texts] float32; 0 where there is nothing to predict."""
        store = self._encoded(texts)
        losses = [self._loss(row, store) for row in range(len(store))]
        return np.array([loss / max(1, n) for loss, n in losses], dtype=np.float32)

    def save(self, folder: str | Path) -> None:
        """Write the bundle as a folder, whole or not at all.

        Raises:
            RunError: The disk is full or the folder cannot be written.
        """
        with atomic_folder(Path(folder), size_bytes=weights_bytes(self.model)) as temporary:
            save_weights(self.model, temporary / manifest.WEIGHTS)
            write_json(temporary / manifest.CONFIG, self.model.config())
            write_text(temporary / manifest.TOKENIZER, self.tokenizer.to_json())
            write_json(temporary / manifest.LABELS, {"labels": []})
            write_text(temporary / manifest.RECIPE, self.recipe_yaml)
            about = {**asdict(self.about), "versions": dict(self.about.versions or versions())}
            about["created"] = self.about.created or datetime.now(UTC).isoformat(timespec="seconds")
            description = {"kind": LANGUAGE_MODEL, **about, "tokenizer": self.tokenizer.settings()}
            write_json(temporary / manifest.BUNDLE, {"format": manifest.FORMAT_VERSION, **description})
            manifest.write_manifest(temporary)

    def _encoded(self, texts: Any) -> TokenStore:
        if isinstance(texts, str):
            texts = [texts]
        is_pair = len(self.about.columns) == 2
        flat = self.tokenizer.encode_flat(
            _clean(texts),
            max_length=self.about.max_length or WHOLE_TEXT,
            truncate=self.about.truncate,
            pair=is_pair,
        )
        return TokenStore(flat.ids, flat.offsets, flat.first_lengths, flat.full_lengths, flat.n_unknown)

    def _loss(self, row: int, store: TokenStore) -> tuple[float, int]:
        """Return the summed loss of one text, and how many tokens were predicted."""
        with torch.no_grad():
            if isinstance(self.model, NextWordModel):
                return _next_word_loss(self.model, store.ids(row))
            return self._masked_loss(self.model, row, store)

    def _masked_loss(self, model: MaskedWordModel, row: int, store: TokenStore) -> tuple[float, int]:
        tokenizer = self.tokenizer
        batch = collate(
            store, np.array([row]), None, pad_id=tokenizer.pad_id, uses_token_types=tokenizer.uses_token_types
        )
        masks = Masks.of(tokenizer, seed=_MASK_SEED)
        seen, places, targets = masks.of_batch(batch, epoch=None)
        hidden = type(batch)(torch.from_numpy(seen), batch.attention_mask, batch.token_type_ids, batch.rows)
        if not len(places):
            return 0.0, 0
        found = model.learn(hidden, torch.from_numpy(places), torch.from_numpy(targets))
        return float(found.loss_sum), found.n_tokens


def _next_word_loss(model: NextWordModel, ids: np.ndarray) -> tuple[float, int]:
    tokens = torch.from_numpy(ids.astype(np.int64)).unsqueeze(0)
    if model.backbone.direction == "backward":
        tokens = tokens.flip(1)
    n = tokens.shape[1] - 1
    if n < 1:
        return 0.0, 0
    found = model.learn(tokens[:, :-1], tokens[:, 1:], model.initial_state(1))
    return float(found.loss) * n, n


def _clean(texts: Any) -> Any:
    """Return the texts without control characters: they go the same way as in training."""
    if texts and not isinstance(texts[0], str):
        batch = RowBatch(texts=[text[0] for text in texts], pairs=[text[1] for text in texts]).clean()
        return list(zip(batch.texts, batch.pairs, strict=True))
    return RowBatch(texts=list(texts)).clean().texts


def _about(raw: Mapping[str, Any]) -> LanguageAbout:
    max_length = raw["max_length"]
    if max_length is not None and (isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 1):
        raise ValueError(f"max_length is {max_length!r}")
    columns = tuple(str(name) for name in raw["columns"])
    if len(columns) not in (1, 2):
        raise ValueError(f"its text columns are {list(columns)!r}")
    return LanguageAbout(
        columns=columns,
        max_length=max_length,
        truncate=str(raw["truncate"]),
        data=dict(raw.get("data") or {}),
        versions=dict(raw.get("versions") or {}),
        metrics=dict(raw.get("metrics") or {}),
        created=str(raw.get("created", "")),
    )


def predicted_by(backbone: str) -> str:
    """Return what the language model on a backbone predicts: `next_word` or `masked_word`.

    Args:
        backbone: A name as in a recipe; the bundle of a language model tells its own.
    """
    if not is_language_model(backbone):
        return kind_of_backbone(backbone)
    config = manifest.check_files(Path(backbone).expanduser()).json(manifest.CONFIG)
    return str(config.get("kind"))


def is_language_model(folder: str | Path) -> bool:
    """Return whether a folder looks like a language model's bundle; nothing of it is trusted for that.

    Args:
        folder: Any path, or a name that is no path.
    """
    path = Path(folder).expanduser() / manifest.BUNDLE
    try:
        return path.is_file() and f'"kind": "{LANGUAGE_MODEL}"' in path.read_text("utf-8")[:1000]
    except (OSError, UnicodeDecodeError):
        return False
