"""A published archive is fetched, checked, unpacked and read as rows, and only once."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.data.read import Archived, Columns, read
from headrace.errors import DataError

REVIEWS = {"train/pos/0_9.txt": "a fine film", "train/neg/0_2.txt": "a dull film", "train/unsup/0_0.txt": "who knows"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, str, list[str]]]:
    """An archive like aclImdb on a server on loopback: its url, its sha256, and the requests that came."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in REVIEWS.items():
            entry = tarfile.TarInfo(f"aclImdb/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "aclImdb.tar.gz").write_bytes(content.getvalue())
    requests: list[str] = []

    class Site(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path / "site"))  # type: ignore[arg-type]

        def log_message(self, format: str, *args: object) -> None:
            requests.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/aclImdb.tar.gz"
        yield url, hashlib.sha256(content.getvalue()).hexdigest(), requests
    finally:
        server.shutdown()
        server.server_close()


def test_a_folder_inside_a_published_archive_is_read_once_fetched_once(
    served: tuple[str, str, list[str]], tmp_path: Path
) -> None:
    url, sha256, requests = served
    columns = Columns(text=("text",), label=("label",), labels=("neg", "pos"))
    for _ in range(2):
        found = read(Archived(url, sha256, "aclImdb/train"), columns, cache=tmp_path / "cache")
        assert sorted(zip(found.texts(), found.labels(), strict=True)) == [
            ("a dull film", "neg"),
            ("a fine film", "pos"),
        ]
    assert requests == ["/aclImdb.tar.gz"]


def test_a_path_that_is_not_in_the_archive_is_named(served: tuple[str, str, list[str]], tmp_path: Path) -> None:
    url, sha256, _ = served
    columns = Columns(text=("text",), label=("label",))
    with pytest.raises(DataError) as caught:
        read(Archived(url, sha256, "aclImdb/tran"), columns, cache=tmp_path / "cache")
    assert "tran" in str(caught.value)


def test_another_content_than_the_hash_says_is_refused(served: tuple[str, str, list[str]], tmp_path: Path) -> None:
    url, _, _ = served
    with pytest.raises(DataError, match="sha256"):
        read(Archived(url, "0" * 64, "aclImdb/train"), Columns(text=("text",), label=("label",)), cache=tmp_path / "c")
