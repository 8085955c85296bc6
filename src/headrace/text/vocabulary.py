"""The words that a model of words knows, in the order of their ids; made from texts, or read from a file."""

from __future__ import annotations

import json
import pickletools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from headrace.errors import HeadraceError, ModelError
from headrace.text._word_rules import BEGIN, FIELD, FILLER, MARKS, PADDING, UNKNOWN, Chunks

MAX_SIZE = 60_000
MIN_COUNT = 3
_MULTIPLE = 8
_REQUIRED = (UNKNOWN, PADDING, BEGIN)

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which no file in UTF-8 can hold

_STRINGS = frozenset({"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"})
_REMEMBER = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_RECALL = frozenset({"GET", "BINGET", "LONG_BINGET"})
_FRAMING = frozenset({"PROTO", "FRAME", "MARK"})


@dataclass(frozen=True)
class Vocabulary:
    """Words in the order of their ids.

    Args:
        words: Each once; only `xxfake` may stand there several times.

    Raises:
        ModelError: A word is no string, empty, half a character, or there twice, or one of xxunk, xxpad and xxbos is missing.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        fault = _fault_of(self.words)
        if fault:
            raise ModelError(fault, where="vocabulary", next="use the vocabulary that the weights were trained with")

    @classmethod
    def of(
        cls, texts: Iterable[str | tuple[str, str]], *, max_size: int = MAX_SIZE, min_count: int = MIN_COUNT
    ) -> Vocabulary:
        """Return the words of texts: marks first, then by falling count, of equal counts the first seen first.

        Args:
            texts: Single texts or (first, second) pairs, read once.
            max_size: Words kept, marks included; the filling to a multiple of 8 comes on top.
            min_count: Words that are seen less often are left out.

        Source:
            fastai 2.8's `make_vocab`. As there the filling is never empty: 60,000 words become 60,008.
        """
        counts = count_words(texts)
        frequent = [word for word, count in counts.most_common(max_size) if count >= min_count]
        marks = set(MARKS)
        kept = [*MARKS, *(word for word in frequent if word not in marks)][:max_size]
        return cls((*kept, *[FILLER] * (_MULTIPLE - len(kept) % _MULTIPLE)))

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each word; `xxfake` has none."""
        return {word: id for id, word in enumerate(self.words) if word != FILLER}

    @cached_property
    def unk_id(self) -> int:
        """The id of every word that is not there."""
        return self.ids[UNKNOWN]

    @cached_property
    def pad_id(self) -> int:
        """The id that fills short texts up."""
        return self.ids[PADDING]

    def id_of(self, word: str) -> int:
        """Return the id of a word, or that of xxunk."""
        return self.ids.get(word, self.unk_id)


def count_words(texts: Iterable[str | tuple[str, str]]) -> Counter[str]:
    """Return how often each word stands in single texts or (first, second) pairs, marks included, in order of sight."""
    chunks: Chunks[str] = Chunks(tuple)
    counts: Counter[str] = Counter()
    for text in texts:
        if isinstance(text, str):
            counts.update(chain((BEGIN,), chunks.of_text(text)))
        else:
            first, second = text
            counts.update(chain((BEGIN, FIELD, "1"), chunks.of_text(first)))
            counts.update(chain((FIELD, "2"), chunks.of_text(second)))
    return counts


def read_vocabulary(path: str | Path) -> Vocabulary:
    """Return the vocabulary in a file, the place of a word being its id.

    A `.json` file holds a list of strings. A `.txt` file holds a word a line, line breaks within a word written as
    `\\n`. A `.pkl` file, as fastai leaves it, holds a pickled list of strings; it is not unpickled but read by the few
    operations that such a list needs, and any other operation is refused.

    Raises:
        ModelError: The file is missing, of another kind, damaged, or holds anything but distinct words.
    """
    path = Path(path)
    readers = {".json": _from_json, ".txt": _from_lines, ".pkl": _from_pickle}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ModelError(
            f"a vocabulary cannot be read from a file of the kind {path.suffix!r}",
            where=str(path),
            next=f"name a file that ends in one of {', '.join(sorted(readers))}",
        )
    try:
        return Vocabulary(tuple(reader(path.read_bytes())))
    except OSError as error:
        raise ModelError(
            f"the vocabulary cannot be read: {error.strerror or error}", where=str(path), next="check the path"
        ) from error
    except (ValueError, RecursionError) as error:  # what is no UTF-8, JSON or pickle among them
        raise _unreadable(str(error), path) from error
    except HeadraceError as error:
        raise ModelError(error.what, where=str(path), next=error.next) from error


def _fault_of(words: Sequence[Any]) -> str | None:
    """Return what is wrong with the words of a vocabulary, or None."""
    for place, word in enumerate(words):
        if not isinstance(word, str) or not word or _LONE_SURROGATE.search(word):
            return f"entry {place} of the vocabulary is {word!r:.80}, not a word"
    missing = [mark for mark in _REQUIRED if mark not in set(words)]
    if missing:
        return f"the vocabulary lacks {', '.join(missing)}: it is not one of ULMFiT's"
    twice = [word for word, count in Counter(words).items() if count > 1 and word != FILLER]
    if twice:
        return f"{len(twice)} words stand in the vocabulary more than once, {twice[0]!r} first"
    return None


def _unreadable(reason: str, path: Path) -> ModelError:
    return ModelError(
        f"the vocabulary cannot be read: {reason}",
        where=str(path),
        next="give it as a list of strings, best as JSON: json.dump(list(words), file)",
    )


def _from_json(content: bytes) -> list[Any]:
    found = json.loads(content)
    if not isinstance(found, list):
        raise ValueError(f"it holds no list but {type(found).__name__}")
    return found


def _from_lines(content: bytes) -> list[str]:
    # A backslash stands alone among words, so that `\n` in a longer one can only be a line break.
    lines = content.decode("utf-8").removesuffix("\n").split("\n")
    return [line.removesuffix("\r").replace("\\n", "\n") for line in lines]


def _from_pickle(content: bytes) -> list[str]:
    """Return the list of strings that a pickle describes, without running the pickle."""
    words: list[str] | None = None
    waiting: list[str] = []  # strings that no append has taken yet
    remembered: dict[int, str | None] = {}
    last: str | None = None  # what would be remembered next; None for the list
    argument: Any
    for operation, argument, place in pickletools.genops(content):
        name = operation.name
        recalled = remembered.get(argument) if name in _RECALL else None
        if name in _STRINGS or recalled is not None:
            last = str(argument) if recalled is None else recalled
            waiting.append(last)
        elif name in _REMEMBER:
            remembered[len(remembered) if name == "MEMOIZE" else argument] = last
        elif name in ("EMPTY_LIST", "LIST") and words is None:
            words, waiting, last = waiting, [], None
        elif (name == "APPENDS" or (name == "APPEND" and len(waiting) == 1)) and words is not None:
            words += waiting
            waiting = []
        elif name == "STOP" and words is not None and not waiting:
            return words
        elif name not in _FRAMING:
            raise ValueError(
                f"the pickle holds more than a list of strings ({name} at byte {place}); it was not unpickled"
            )
    raise ValueError("the pickle has no end")
