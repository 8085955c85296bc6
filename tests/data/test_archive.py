"""Fetching an archive from a server on loopback, and refusing unsafe ones (X6)."""

import errno
import gzip
import hashlib
import io
import socket
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from headrace.data import _unpack, archive
from headrace.errors import DataError, RunError
from loopback import Site, sha, tar_of


@pytest.fixture
def site():
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(archive, "WAIT_S", 0.01)


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return buffer.getvalue()


FILES = {
    "acl/pos/0_9.txt": b"good",
    "acl/neg/0_1.txt": "böse".encode(),
    "./acl/README": b"",
    "acl/big": b"ab" * 700_000,
}


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# --- fetching


@pytest.mark.parametrize("content", [tar_of(FILES), tar_of(FILES, "w"), zip_of(FILES)], ids=["tar.gz", "tar", "zip"])
def test_an_archive_is_fetched_checked_and_unpacked_once(site, tmp_path, content):
    site.files["/reviews"] = content
    told = []
    folder = archive.fetch(
        f"{site.url}/reviews", sha(content).upper(), cache=tmp_path, progress=lambda done, of: told.append((done, of))
    )
    assert folder == tmp_path / "archives" / sha(content)
    for name, expected in FILES.items():
        assert (folder / name).read_bytes() == expected
    assert told[-1] == (len(content), len(content))
    assert list((tmp_path / "downloads").iterdir()) == []
    site.files.clear()
    assert archive.fetch(f"{site.url}/reviews", sha(content), cache=tmp_path) == folder
    assert len(site.requests) == 1


def test_a_file_address_works_without_a_network(tmp_path):
    content = zip_of(FILES)
    (tmp_path / "my data.zip").write_bytes(content)
    folder = archive.fetch((tmp_path / "my data.zip").as_uri(), sha(content), cache=tmp_path / "cache")
    assert (folder / "acl/pos/0_9.txt").read_bytes() == b"good"
    assert (tmp_path / "my data.zip").exists()


def test_a_missing_sha256_prints_what_to_add_and_the_next_run_needs_no_download(site, tmp_path):
    content = tar_of(FILES)
    site.files["/a.tar.gz"] = content
    for missing in (None, " "):
        with pytest.raises(DataError) as caught:
            archive.fetch(f"{site.url}/a.tar.gz", missing, cache=tmp_path)
        assert caught.value.what.startswith("data.sha256 is missing")
        assert caught.value.what.endswith(f"what came has the sha256 {sha(content)}")
        assert caught.value.where == "data.url"
        assert caught.value.next.endswith(f"add below url:  sha256: {sha(content)}")
        assert not (tmp_path / "archives").exists()
    n_requests = len(site.requests)
    assert archive.fetch(f"{site.url}/a.tar.gz", sha(content), cache=tmp_path).is_dir()
    assert len(site.requests) == n_requests


def test_another_sha256_is_an_error_with_both_and_the_file_is_deleted(site, tmp_path):
    content = tar_of(FILES)
    site.files["/a.tar.gz"] = content
    with pytest.raises(DataError) as caught:
        archive.fetch(f"{site.url}/a.tar.gz", "0" * 64, cache=tmp_path)
    assert sha(content) in caught.value.what
    assert "0" * 64 in caught.value.what
    assert "deleted" in caught.value.what
    assert caught.value.where == "data.sha256"
    assert list((tmp_path / "downloads").iterdir()) == []
    assert not (tmp_path / "archives").exists()


@pytest.mark.parametrize("wrong", ["abc", "g" * 64, "0" * 65, "../" + "0" * 61])
def test_what_is_no_sha256_is_refused_before_anything_is_fetched(site, tmp_path, wrong):
    with pytest.raises(DataError, match="is not a sha256; it has 64 hexadecimal digits"):
        archive.fetch(f"{site.url}/a", wrong, cache=tmp_path)
    assert site.requests == []


@pytest.mark.parametrize("url", ["ftp://host/a.zip", "data:,abc", "a.zip", "/etc/passwd", "javascript:1", ""])
def test_other_schemes_are_refused(tmp_path, url):
    with pytest.raises(DataError, match="must begin with http://, https:// or file://") as caught:
        archive.fetch(url, "0" * 64, cache=tmp_path)
    assert caught.value.where == "data.url"


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/a.zip", "file:///etc/passwd"])
def test_a_redirection_to_another_scheme_is_refused(site, tmp_path, target):
    site.redirects["/a.zip"] = target
    with pytest.raises(DataError, match="cannot fetch"):
        archive.fetch(f"{site.url}/a.zip", "0" * 64, cache=tmp_path)


def test_a_redirection_to_http_is_followed(site, tmp_path):
    content = zip_of(FILES)
    site.files["/there.zip"] = content
    site.redirects["/a.zip"] = f"{site.url}/there.zip"
    assert archive.fetch(f"{site.url}/a.zip", sha(content), cache=tmp_path).is_dir()


def test_404_is_one_clear_error_at_once(site, tmp_path):
    with pytest.raises(DataError) as caught:
        archive.fetch(f"http://me:secret@{site.url.removeprefix('http://')}/no.zip?token=secret", None, cache=tmp_path)
    assert "secret" not in str(caught.value)
    with pytest.raises(DataError) as caught:
        archive.fetch(f"{site.url}/no.zip?token=secret", None, cache=tmp_path)
    assert caught.value.what == f"cannot fetch {site.url}/no.zip: the server answers 404 Not Found"
    assert caught.value.where == "data.url"
    assert "check the network and the address" in caught.value.next
    assert len(site.requests) == 1
    assert list((tmp_path / "downloads").iterdir()) == []


def test_nobody_at_the_address_is_one_clear_error(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DataError) as caught:
        archive.fetch(f"http://127.0.0.1:{port}/a.zip", "0" * 64, cache=tmp_path)
    assert caught.value.what == f"cannot fetch http://127.0.0.1:{port}/a.zip: Connection refused"
    with pytest.raises(DataError, match="No such file or directory"):
        archive.fetch((tmp_path / "none.zip").as_uri(), "0" * 64, cache=tmp_path)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_breaks_off_is_taken_up_again(site, tmp_path, ranges):
    content = tar_of({"noise": hashlib.shake_256(b"x").digest(300_000)})
    site.files["/a"] = content
    site.ranges = ranges
    site.break_after = [100_000, 50_000]
    folder = archive.fetch(f"{site.url}/a", sha(content), cache=tmp_path)
    assert (folder / "noise").stat().st_size == 300_000
    assert len(site.requests) == 3
    assert site.requests[1][1] == "bytes=100000-"


def test_a_server_that_is_busy_is_asked_again_and_not_for_ever(site, tmp_path):
    content = zip_of(FILES)
    site.files["/a"] = content
    site.failures = [503, 500]
    assert archive.fetch(f"{site.url}/a", sha(content), cache=tmp_path).is_dir()
    site.failures = [503] * 10
    with pytest.raises(DataError, match=r"the server answers 503 .* \(4 attempts\)"):
        archive.fetch(f"{site.url}/a", "0" * 64, cache=tmp_path)
    assert len(site.failures) == 6


def test_a_download_above_the_limit_is_stopped(site, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_DOWNLOAD_BYTES", 1000)
    site.files["/a"] = bytes(2000)
    with pytest.raises(DataError, match="is larger than 1,000 bytes"):
        archive.fetch(f"{site.url}/a", "0" * 64, cache=tmp_path)
    assert list((tmp_path / "downloads").iterdir()) == []


# --- unsafe archives


def refused(content: bytes, tmp_path: Path) -> str:
    """Fetch an archive that must be refused; return the error's text, having looked for anything written."""
    room = tmp_path / "room"
    room.mkdir()
    (room / "a.bin").write_bytes(content)
    before = everything_below(tmp_path)
    with pytest.raises(DataError) as caught:
        archive.fetch((room / "a.bin").as_uri(), sha(content), cache=room / "cache")
    assert caught.value.where == "data.url"
    assert caught.value.next
    new = everything_below(tmp_path) - before
    assert new <= {"room/cache", "room/cache/archives", "room/cache/downloads", f"room/cache/downloads/{sha(content)}"}
    return caught.value.what


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        good = tarfile.TarInfo("good.txt")
        good.size = 4
        opened.addfile(good, io.BytesIO(b"good"))
        info = tarfile.TarInfo(name)
        info.type = kind
        info.linkname = target
        opened.addfile(info, io.BytesIO(b""))
    return buffer.getvalue()


def zip_member(name: str, mode: int = stat.S_IFREG | 0o644, content: bytes = b"x") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("good.txt", "good")
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        info.external_attr = mode << 16
        opened.writestr(info, content)
    return buffer.getvalue()


LEADS_OUT = ["../x", "a/../../x", "..", "a/..", "..\\x", "a\\..\\..\\x"]
ABSOLUTE = ["/tmp/x", "//x", "\\x", "C:\\x", "c:/x", "C:x"]


@pytest.mark.parametrize("make", [member, zip_member])
@pytest.mark.parametrize("name", LEADS_OUT)
def test_a_name_that_leads_out_is_refused(tmp_path, make, name):
    assert "which leads out of its folder; nothing was unpacked" in refused(make(name), tmp_path)


@pytest.mark.parametrize("make", [member, zip_member])
@pytest.mark.parametrize("name", ABSOLUTE)
def test_an_absolute_path_is_refused(tmp_path, make, name):
    assert "holds the absolute path" in refused(make(name), tmp_path)


@pytest.mark.parametrize(
    "content",
    [member("a\nb"), zip_member("a\x7fb"), zip_member("goodXx.txt").replace(b"goodXx.txt", b"good\0x.txt")],
    ids=["newline", "delete", "NUL"],
)
def test_a_name_with_control_characters_is_refused(tmp_path, content):
    assert "holds a name with control characters" in refused(content, tmp_path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (member("link", tarfile.SYMTYPE, "/etc/passwd"), "'link', a symbolic link"),
        (member("link", tarfile.SYMTYPE, "good.txt"), "'link', a symbolic link"),
        (member("link", tarfile.LNKTYPE, "good.txt"), "'link', a hard link"),
        (member("link", tarfile.LNKTYPE, "../../a.bin"), "'link', a hard link"),
        (member("dev", tarfile.CHRTYPE), "'dev', a device"),
        (member("dev", tarfile.BLKTYPE), "'dev', a device"),
        (member("pipe", tarfile.FIFOTYPE), "'pipe', a pipe"),
        (member("odd", b"Z"), "'odd', not a plain file"),
        (zip_member("link", stat.S_IFLNK | 0o777, b"/etc/passwd"), "'link', a symbolic link"),
        (zip_member("dev", stat.S_IFCHR | 0o666), "'dev', a device"),
        (zip_member("pipe", stat.S_IFIFO | 0o666), "'pipe', a pipe"),
    ],
)
def test_links_devices_and_pipes_are_refused(tmp_path, content, kind):
    assert kind in refused(content, tmp_path)


def test_a_sparse_file_is_refused(tmp_path):
    info = tarfile.TarInfo("huge")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"77777777777\0"  # the real size: 8 GB
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    assert "'huge', a sparse file" in refused(gzip.compress(bytes(header) + bytes(1024)), tmp_path)


@pytest.mark.parametrize("make", [tar_of, zip_of])
@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("a/x", "./a//x"), "holds 'a/x' twice"),
        (("a", "a/x"), "holds 'a' twice"),
        (("a/x", "a"), "holds 'a' twice"),
        (("a/README", "a/readme"), "holds 'a/README' and 'a/readme', which are one name"),
        (("A/x", "a/y"), "holds 'A' and 'a', which are one name"),
        (("caf\u00e9", "cafe\u0301"), "which are one name"),
    ],
)
def test_names_that_are_there_twice_or_differ_by_case_are_refused(tmp_path, make, names, words):
    assert words in refused(make(dict.fromkeys(names, b"x")), tmp_path)


def zip_of_names(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name in names:
            opened.writestr(name, "")
    return buffer.getvalue()


def test_the_very_same_name_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = zip_of_names("a", "a")
    assert "holds 'a' twice" in refused(content, tmp_path)


def test_a_folder_may_be_there_twice(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = zip_of_names("a/", "a/", "./", "a/x")
    (tmp_path / "a.zip").write_bytes(content)
    folder = archive.fetch((tmp_path / "a.zip").as_uri(), sha(content), cache=tmp_path)
    assert everything_below(folder) == {"a", "a/x"}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_a_folder_that_another_process_unpacked_meanwhile_is_kept(tmp_path, monkeypatch):
    content = zip_of(FILES)
    (tmp_path / "a.zip").write_bytes(content)

    def slow(*args, **kwargs):
        _unpack.unpack(*args, **kwargs)
        (tmp_path / "archives" / sha(content)).mkdir()
        (tmp_path / "archives" / sha(content) / "theirs").touch()

    monkeypatch.setattr(archive, "unpack", slow)
    folder = archive.fetch((tmp_path / "a.zip").as_uri(), sha(content), cache=tmp_path)
    assert everything_below(tmp_path / "archives") == {folder.name, f"{folder.name}/theirs"}


def test_a_disk_that_is_full_leaves_nothing(tmp_path, monkeypatch):
    content = zip_of(FILES)
    (tmp_path / "a.zip").write_bytes(content)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive, "unpack", full)
    with pytest.raises(RunError, match="No space left on device") as caught:
        archive.fetch((tmp_path / "a.zip").as_uri(), sha(content), cache=tmp_path)
    assert "bytes are free there" in caught.value.next
    assert everything_below(tmp_path / "archives") == set()


ZEROS = bytes(40 << 20)


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_a_bomb_is_refused_by_its_ratio(tmp_path, make):
    assert "unpacks to more than 100 times its size" in refused(make({"zeros": ZEROS}), tmp_path)


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_a_large_archive_is_refused_by_its_total(tmp_path, monkeypatch, make):
    monkeypatch.setattr(_unpack, "MAX_UNPACKED_BYTES", 100_000)
    files = {f"{i}": hashlib.shake_256(bytes([i])).digest(30_000) for i in range(4)}
    assert "unpacks to more than 100,000 bytes" in refused(make(files), tmp_path)


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_too_many_files_are_refused(tmp_path, monkeypatch, make):
    monkeypatch.setattr(_unpack, "MAX_FILES", 50)
    assert "holds more than 50 files" in refused(make({f"{i}": b"" for i in range(51)}), tmp_path)


def test_a_zip_that_understates_its_size_is_refused(tmp_path):
    content = bytearray(zip_of({"zeros": bytes(1 << 20)}))
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = content.index(signature) + offset
        assert content[at : at + 4] == struct.pack("<I", 1 << 20)
        content[at : at + 4] = struct.pack("<I", 10)
    assert "is damaged or of an unknown kind" in refused(bytes(content), tmp_path)


def test_a_tar_header_that_is_a_bomb_is_refused_before_it_fills_the_memory(tmp_path):
    info = tarfile.TarInfo("x")
    info.type = tarfile.XHDTYPE
    info.size = 12 << 20
    content = gzip.compress(info.tobuf() + bytes(12 << 20), 1)
    assert "has a header of more than 1,048,576 bytes" in refused(content, tmp_path)


def test_an_encrypted_zip_is_refused(tmp_path):
    content = bytearray(zip_of({"a": b"x"}))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    assert "holds 'a', which is encrypted" in refused(bytes(content), tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a .zip, .tar or .tar.gz archive"),
        (b"<!doctype html><p>Not found", "is not a .zip, .tar or .tar.gz archive"),
        (b"text,label\na,b\n", "is not a .zip, .tar or .tar.gz archive"),
        (gzip.compress(b"text,label\na,b\n" * 1000), "is damaged or of an unknown kind"),
        (tar_of(FILES)[:-300], "is damaged or of an unknown kind"),
        (tar_of(FILES)[:200] + b"\xff" * 40 + tar_of(FILES)[240:], "is damaged or of an unknown kind"),
        (zip_of(FILES)[:-30], "is damaged or of an unknown kind"),
        (zip_member("a", content=b"as it was").replace(b"as it was", b"not so   "), "is damaged or of an unknown kind"),
        (tar_of(FILES, "w")[:-20_000], "is damaged or of an unknown kind"),
    ],
    # The time stands in a gzip's header: without names the workers of a parallel run would not collect the same tests.
    ids=["empty", "page", "table", "gzip", "tar.gz short", "tar.gz changed", "zip short", "zip changed", "tar short"],
)
def test_what_is_no_archive_or_damaged_is_refused(tmp_path, content, words):
    assert words in refused(content, tmp_path)
