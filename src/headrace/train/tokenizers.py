"""Which tokenizer a backbone has: its own, that of a language model's bundle, or words of the training texts."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from headrace.bundle.language_model import LanguageModelBundle, is_language_model
from headrace.data.examples import Examples
from headrace.errors import ModelError
from headrace.files import sha256_of, write_json
from headrace.model import tokenizer_source
from headrace.text.subwords import Subwords
from headrace.text.tokenizer import Tokenizer
from headrace.text.vocabulary import MAX_SIZE, MIN_COUNT, Vocabulary
from headrace.text.words import RULES, Words

logger = logging.getLogger(__name__)

AWD_LSTM = "awd_lstm"
_BATCH_TEXTS = 4096


def tokenizer_place(backbone: str) -> str:
    """Return where the tokenizer of a backbone is: a folder, a hub id, or `awd_lstm`, whose words are in the texts.

    Raises:
        ModelError: There is no such backbone.
    """
    return backbone if backbone == AWD_LSTM else tokenizer_source(backbone)


def tokenizer_of(
    place: str,
    texts: Sequence[Examples],
    *,
    revision: str | None = None,
    cache: Path,
    progress: Callable[[str, int, int], None] | None = None,
) -> Tokenizer:
    """Return the tokenizer for a backbone.

    Args:
        place: What `tokenizer_place` gave. `awd_lstm` has the words of the training texts, whatever weights they are
            then matched with; the bundle of a language model has its own; any other backbone brings one.
        texts: The training texts.
        revision: Of a hub id.
        cache: Where a vocabulary is kept.
        progress: Told how many texts have been counted.

    Raises:
        ModelError: There is no such tokenizer.
        BundleError: The bundle is damaged.
    """
    if place == AWD_LSTM:
        return words_of(texts, cache=cache, progress=progress)
    if is_language_model(place):
        return LanguageModelBundle.load(place).tokenizer
    return Subwords.load(place, revision=revision)


def words_of(
    texts: Sequence[Examples], *, cache: Path, progress: Callable[[str, int, int], None] | None = None
) -> Words:
    """Return the words of some texts: the 60,000 most frequent that occur three times or more.

    Args:
        texts: Of one or several files.
        cache: The vocabulary is kept in `cache/vocabularies/`.
        progress: Told how many texts have been counted.
    """
    key = sha256_of(f"rules {RULES}, {MAX_SIZE} {MIN_COUNT}", *(file.content_key() for file in texts))
    path = Path(cache) / "vocabularies" / f"{key}.json"
    try:
        return Words(Vocabulary(tuple(json.loads(path.read_text("utf-8")))))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, ModelError) as error:
        logger.warning("%s is damaged (%s); it is computed anew", path, error)
    vocabulary = Vocabulary.of(_each(texts, progress))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, list(vocabulary.words))
    return Words(vocabulary)


def _each(
    texts: Sequence[Examples], progress: Callable[[str, int, int], None] | None
) -> Iterator[str | tuple[str, str]]:
    total, done = sum(map(len, texts)), 0
    for file in texts:
        for start, stop in file.batches(_BATCH_TEXTS):
            yield from file.texts(start, stop)
            done += stop - start
            if progress is not None:
                progress("counting words", done, total)
