"""A folder per label, as aclImdb is published."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.data.read import Archived, Columns, read
from headrace.errors import DataError

ALL = Columns(text=("text",), label=("label",))
CHOSEN = Columns(text=("text",), label=("label",), labels=("neg", "pos"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a small train folder in the form of aclImdb, its bag of words and its unlabelled texts included."""
    train = tmp_path / "aclImdb" / "train"
    texts = {
        "pos/0_9.txt": "good",
        "pos/10_8.txt": "better\n",
        "pos/2_10.txt": "best",
        "neg/0_1.txt": "bad,\r\n“quoted”",
        "neg/1_2.txt": "",
        "unsup/0_0.txt": "unknown",
        "urls_pos.txt": "http://example.org",
        "labeledBow.feat": "1 2:3",
        "pos/notes.md": "not a text",
        "neg/.hidden.txt": "not a text",
        "empty/readme.md": "no text here",
    }
    for name, text in texts.items():
        (train / name).parent.mkdir(parents=True, exist_ok=True)
        (train / name).write_bytes(text.encode())
    return train


def test_named_labels_leave_other_folders_and_stray_files_out(folder: Path, tmp_path: Path) -> None:
    examples = read(folder, CHOSEN, cache=tmp_path / "cache")
    assert examples.column("file") == ["neg/0_1.txt", "neg/1_2.txt", "pos/0_9.txt", "pos/2_10.txt", "pos/10_8.txt"]
    assert examples.texts() == ["bad,\r\n“quoted”", "", "good", "best", "better\n"]
    assert examples.labels() == ["neg", "neg", "pos", "pos", "pos"]
    assert examples.where(3) == f"{folder}/pos/2_10.txt:1"


def test_without_names_every_folder_with_texts_is_a_label(folder: Path, tmp_path: Path) -> None:
    labels = read(folder, ALL, cache=tmp_path / "cache").labels()
    assert labels == ["neg", "neg", "pos", "pos", "pos", "unsup"]


def test_the_order_of_the_names_is_the_order_of_the_labels(folder: Path, tmp_path: Path) -> None:
    columns = Columns(text=("text",), label=("label",), labels=("pos", "neg"))
    assert read(str(folder), columns, cache=tmp_path / "cache").labels() == ["pos", "pos", "pos", "neg", "neg"]


def test_a_missing_label_folder_offers_the_nearest(folder: Path, tmp_path: Path) -> None:
    columns = Columns(text=("text",), label=("label",), labels=("neg", "poz"))
    with pytest.raises(DataError) as caught:
        read(folder, columns, cache=tmp_path / "cache")
    assert caught.value.what == "there is no folder for the label 'poz'"
    assert caught.value.where == str(folder)
    assert caught.value.next == "did you mean 'pos'? available: empty, neg, pos, unsup"


def test_a_folder_without_texts(tmp_path: Path) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no folder in it holds \.txt files"):
        read(tmp_path / "data", ALL, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("columns", "asked"),
    [
        (Columns(text=("a", "b"), label=("label",)), "pairs of texts"),
        (Columns(text=("text",), label=("x", "y")), "several labels for a text"),
    ],
)
def test_pairs_and_several_labels_are_refused(folder: Path, tmp_path: Path, columns: Columns, asked: str) -> None:
    with pytest.raises(DataError) as caught:
        read(folder, columns, cache=tmp_path / "cache")
    assert caught.value.what == f"a folder per label cannot give {asked}"


def test_files_that_cannot_be_used_come_together(folder: Path, tmp_path: Path) -> None:
    (folder / "neg" / "3_1.txt").write_bytes(b"one\ntwo \xff")
    (folder / "pos" / "3_1.txt").write_bytes("x".encode("utf-16"))
    (folder / "pos" / "4_1.txt").write_bytes(b"x" * 5_000_000)
    (folder / "pos" / "5_1.txt").write_bytes(b"x" * 1_050_000)
    with pytest.raises(DataError) as caught:
        read(folder, CHOSEN, cache=tmp_path / "cache")
    what = caught.value.what
    assert what.startswith(f"4 faults in {folder}\n")
    assert f"the byte 0xff is not valid UTF-8 (invalid start byte) ({folder}/neg/3_1.txt:2 (byte 8))" in what
    assert f"the byte order mark of UTF-16, so it is not UTF-8 ({folder}/pos/3_1.txt:1)" in what
    assert f"the text has 5,000,000 bytes; the limit is 1,048,576 ({folder}/pos/4_1.txt:1)" in what
    assert f"the text has 1,050,000 bytes; the limit is 1,048,576 ({folder}/pos/5_1.txt:1:text)" in what
    examples = read(folder, CHOSEN, on_bad_row="skip", cache=tmp_path / "cache")
    assert (len(examples), examples.n_bad_rows) == (5, 4)
    assert examples.bad_rows[0].where == f"{folder}/neg/3_1.txt:2 (byte 8)"


def test_another_encoding_is_used_for_each_file(folder: Path, tmp_path: Path) -> None:
    for file in folder.glob("*/*.txt"):
        file.write_bytes("café".encode("latin-1"))
    assert set(read(folder, CHOSEN, encoding="latin-1", cache=tmp_path / "cache").texts()) == {"café"}


def test_unlabelled_texts_may_stand_in_one_folder(folder: Path, tmp_path: Path) -> None:
    examples = read(folder / "unsup", ALL, label_required=False, cache=tmp_path / "cache")
    assert not examples.is_labelled
    assert (examples.texts(), examples.where(0)) == (["unknown"], f"{folder / 'unsup'}/0_0.txt:1")


def test_a_changed_file_makes_another_data_set(folder: Path, tmp_path: Path) -> None:
    before = read(folder, CHOSEN, cache=tmp_path / "cache").fingerprint
    (folder / "pos" / "0_9.txt").write_text("good!")
    assert read(folder, CHOSEN, cache=tmp_path / "cache").fingerprint != before


def test_a_path_inside_an_archive(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def fetch(url: str, sha256: str | None, *, cache: Path, progress: object = None) -> Path:
        asked.append((url, sha256, cache))
        return folder.parents[1]

    monkeypatch.setattr("headrace.data.archive.fetch", fetch)
    source = Archived(url="http://127.0.0.1/aclImdb_v1.tar.gz", sha256="ab", path="aclImdb/train")
    examples = read(source, CHOSEN, cache=tmp_path / "cache")
    assert asked == [("http://127.0.0.1/aclImdb_v1.tar.gz", "ab", tmp_path / "cache")]
    assert (len(examples), examples.source) == (5, "aclImdb/train")
    with pytest.raises(DataError, match=r"the path '../..' leads out of the archive"):
        read(Archived(url=source.url, sha256="ab", path="../.."), CHOSEN, cache=tmp_path / "cache")
    with pytest.raises(DataError) as caught:
        read(Archived(url=source.url, sha256="ab", path="aclImdb/trian"), CHOSEN, cache=tmp_path / "cache")
    assert caught.value.next == "did you mean 'aclImdb/train'?"
