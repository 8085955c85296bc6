"""A vocabulary's order, its files, and files that mean harm."""

from __future__ import annotations

import collections
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ModelError
from headrace.text.vocabulary import Vocabulary, count_words, read_vocabulary

FIXTURE = json.loads((Path(__file__).parent.parent / "fixtures" / "parity" / "words.json").read_text("utf-8"))
MARKS = ("xxunk", "xxpad", "xxbos", "xxeos", "xxfld", "xxrep", "xxwrep", "xxup", "xxmaj")
WORDS = [*MARKS, "the", "mill", "\n\n", "\n▁", "wörter", "😀", *["xxfake"] * 3]


@pytest.mark.parametrize("which", range(len(FIXTURE["vocabularies"])))
def test_order_and_content_are_those_of_fastai(which: int) -> None:
    expected = FIXTURE["vocabularies"][which]
    found = Vocabulary.of(FIXTURE["texts"], max_size=expected["max_size"], min_count=expected["min_count"])
    assert list(found.words) == expected["words"].split(" ")


def test_marks_come_first_then_frequent_words_then_filling_to_a_multiple_of_eight() -> None:
    found = Vocabulary.of(["b a b a b a a c c", "d c d a d"], min_count=3)
    assert found.words == (*MARKS, "a", "b", "c", "d", *["xxfake"] * 3)
    assert (found.unk_id, found.pad_id, len(found)) == (0, 1, 16)
    assert "xxfake" not in found.ids
    assert (found.id_of("a"), found.id_of("e"), found.id_of("xxfake")) == (9, 0, 0)
    # Never without filling, as in the reference: 16 become 24.
    assert len(Vocabulary.of(["a b c d e f g"], min_count=1)) == 24


def test_pairs_are_counted_with_their_fields() -> None:
    counts = count_words([("One mill", "two mills"), "three"])
    assert list(counts) == ["xxbos", "xxfld", "1", "xxmaj", "one", "mill", "2", "two", "mills", "three"]
    assert (counts["xxbos"], counts["xxfld"]) == (2, 2)


def test_texts_are_read_once_and_may_be_none() -> None:
    assert Vocabulary.of(text for text in ["a x a x a"]).words[:10] == (*MARKS, "a")
    assert Vocabulary.of([]).words == (*MARKS, *["xxfake"] * 7)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("n", [1, 5000])
def test_a_pickled_list_of_strings_is_read_in_every_protocol(tmp_path: Path, protocol: int, n: int) -> None:
    words = WORDS + [f"w{number}" for number in range(n)]
    (tmp_path / "itos.pkl").write_bytes(pickle.dumps(words, protocol=protocol))
    assert list(read_vocabulary(tmp_path / "itos.pkl").words) == words


def test_json_and_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps(WORDS), "utf-8")
    (tmp_path / "vocab.txt").write_text("\n".join(word.replace("\n", "\\n") for word in WORDS) + "\n", "utf-8")
    assert list(read_vocabulary(tmp_path / "vocab.json").words) == WORDS
    assert list(read_vocabulary(str(tmp_path / "vocab.txt")).words) == WORDS
    (tmp_path / "vocab.txt").write_bytes("\r\n".join([*MARKS, "mill"]).encode())
    assert read_vocabulary(tmp_path / "vocab.txt").words == (*MARKS, "mill")


class Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def hostile(path: Path) -> dict[str, bytes]:
    body = b"\x80\x04]\x94(\x8c\x05xxunk\x94\x8c\x05xxpad\x94\x8c\x05xxbos\x94e"
    return {
        "a call": pickle.dumps([*WORDS, Runs(path)]),
        "a call alone": pickle.dumps(Runs(path)),
        "a call in protocol 0": f"cos\nmkdir\n(V{path}\ntR.".encode(),
        "a call before the list": b"\x80\x04cos\nmkdir\n(V" + str(path).encode() + b"\ntR0" + body[2:] + b".",
        "a call behind the end of the list": body + b"cos\nmkdir\n(V" + str(path).encode() + b"\ntR0.",
        "a global": body + b"\x8c\x02os\x8c\x06system\x93.",
        "an instance": b"(V" + str(path).encode() + b"\nios\nmkdir\n.",
        "an object": b"(cos\nmkdir\nV" + str(path).encode() + b"\no.",
        "a persistent id": b"\x80\x04P0\n.",
        "an extension": b"\x80\x04\x82\x01.",
        "a build": body + b"}b.",
        "a list of lists": pickle.dumps([*WORDS, ["a"]]),
        "a tuple": pickle.dumps(tuple(WORDS)),
        "a dict": pickle.dumps({word: 1 for word in WORDS}),
        "a counter": pickle.dumps(collections.Counter(WORDS)),
        "numbers": pickle.dumps([*WORDS, 3]),
        "bytes": pickle.dumps([*WORDS, b"a"]),
        "none": pickle.dumps([*WORDS, None]),
        "a string": pickle.dumps("xxunk"),
        "the list in itself": body[:-1] + b"h\x00e.",
        "a recall of nothing": body[:-1] + b"h\x63e.",
        "two lists": body + b"]\x94.",
        "a string left over": body + b"\x8c\x01a.",
        "no end": body,
        "half": pickle.dumps(WORDS)[:40],
        "a string longer than the file": b"\x80\x04]\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        "a huge number": b"\x80\x04]\x8b\xff\xff\xff\x7fabc.",
        "no pickle": b"hello",
        "nothing": b"",
    }


@pytest.mark.parametrize("kind", hostile(Path("x")))
def test_a_pickle_of_anything_else_is_refused_and_never_run(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "itos.pkl"
    path.write_bytes(hostile(tmp_path / "ran")[kind])
    with pytest.raises(ModelError) as caught:
        read_vocabulary(path)
    assert caught.value.what.startswith("the vocabulary cannot be read: ")
    assert caught.value.where == str(path)
    assert "as JSON" in str(caught.value.next)
    assert not (tmp_path / "ran").exists()


def test_the_hostile_pickles_do_run_where_they_are_unpickled(tmp_path: Path) -> None:
    n_ran = 0
    for number, kind in enumerate(hostile(tmp_path)):
        if kind.startswith("a call") or kind in ("an instance", "an object"):
            pickle.loads(hostile(tmp_path / str(number))[kind])
            n_ran += (tmp_path / str(number)).is_dir()
    assert n_ran == 7


def test_the_refused_operation_is_named(tmp_path: Path) -> None:
    (tmp_path / "itos.pkl").write_bytes(b"\x80\x04]cos\nsystem\n.")
    with pytest.raises(ModelError, match=r"more than a list of strings \(GLOBAL at byte 3\); it was not unpickled"):
        read_vocabulary(tmp_path / "itos.pkl")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.json", '{"a": 1}', "it holds no list but dict"),
        ("v.json", '["xxunk", "a\\ud800"]', "entry 1 of the vocabulary is 'a\\ud800', not a word"),
        ("v.json", "[1, 2]", "entry 0 of the vocabulary is 1, not a word"),
        ("v.json", "[" * 100_000, "the vocabulary cannot be read"),
        ("v.json", "\udcff", "the vocabulary cannot be read"),
        ("v.json", '["xxunk", "xxpad", "xxbos", "a", "a", "b", "b"]', "2 words stand in the vocabulary more than once"),
        ("v.json", '["the", "mill"]', "lacks xxunk, xxpad, xxbos: it is not one of ULMFiT's"),
        ("v.txt", "xxunk\nxxpad\n\nxxbos", "entry 2 of the vocabulary is '', not a word"),
        ("v.txt", "", "entry 0 of the vocabulary is '', not a word"),
        ("v.csv", "a", "cannot be read from a file of the kind '.csv'"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_one_clear_error(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError) as caught:
        read_vocabulary(tmp_path / name)
    assert message in caught.value.what
    assert caught.value.where == str(tmp_path / name)
    assert caught.value.next


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the vocabulary cannot be read: No such file or directory"):
        read_vocabulary(tmp_path / "nothing.json")
