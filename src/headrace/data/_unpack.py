"""Unpacks a zip or tar archive that nobody vouches for: plain files and folders, inside one folder, within limits."""

from __future__ import annotations

import contextlib
import gzip
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from headrace.errors import DataError

MAX_FILES = 1_000_000
MAX_UNPACKED_BYTES = 64 << 30
# English text packs about 3:1, a table of repeated words 20:1, a bomb 1,000:1
MAX_RATIO = 100
# below this the ratio says nothing: a small file of equal lines packs 1,000:1 and does no harm
RATIO_FREE_BYTES = 16 << 20
# what a tar may hold between two files: names, times, owners; tarfile reads them into memory at once
MAX_HEADER_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20


def unpack(archive: Path, folder: Path, *, source: str) -> None:
    """Unpack `archive` (zip, tar or tar.gz, told by its bytes) into the empty folder `folder`.

    Args:
        archive: The file.
        folder: An empty folder; what it holds after an error is to be thrown away.
        source: What messages call the archive.

    Raises:
        DataError: The file is no such archive or damaged; or a member is outside the folder, a link, a device, there
            twice, or told apart from another by case alone; or the members are too many or too large.
    """
    with open(archive, "rb") as file:
        head = file.read(512)
        file.seek(0)
        with _damage(source):
            limits = _Limits(source, n_packed_bytes=archive.stat().st_size)
            if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
                _unpack_zip(file, folder, limits)
            elif head.startswith(b"\x1f\x8b"):
                with gzip.GzipFile(fileobj=file) as opened:
                    _unpack_tar(_Metered(opened, limits), folder, limits)
            elif head[257:262] == b"ustar":
                _unpack_tar(_Metered(file, limits), folder, limits)
            else:
                raise DataError(
                    f"{source} is not a .zip, .tar or .tar.gz archive",
                    where="data.url",
                    next="give the address of such an archive, or download the file and name it as data.train",
                )


@contextlib.contextmanager
def _damage(source: str) -> Iterator[None]:
    try:
        yield
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        gzip.BadGzipFile,
        zlib.error,
        EOFError,
        NotImplementedError,  # a way of packing that zipfile does not know
        UnicodeError,
    ) as error:
        raise DataError(
            f"the archive {source} is damaged or of an unknown kind: {error}",
            where="data.url",
            next="unpack it with another program and name its folder as data.train",
        ) from error


class _Limits:
    """Counts what comes out of an archive and which names it has used."""

    def __init__(self, source: str, *, n_packed_bytes: int) -> None:
        self.source = source
        self.n_packed_bytes = n_packed_bytes
        self.n_bytes = 0
        self.n_files = 0
        self._seen: dict[str, tuple[str, bool]] = {}  # folded path -> path as first written, and if it is a folder

    def count_bytes(self, n: int) -> None:
        """Count unpacked bytes as they come; what headers state is never trusted."""
        self.n_bytes += n
        if self.n_bytes > MAX_UNPACKED_BYTES:
            raise self.refusal(f"unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
        if self.n_bytes > RATIO_FREE_BYTES and self.n_bytes > MAX_RATIO * self.n_packed_bytes:
            raise self.refusal(f"unpacks to more than {MAX_RATIO} times its size, as decompression bombs do")

    def count_member(self) -> None:
        """Count one file or folder."""
        self.n_files += 1
        if self.n_files > MAX_FILES:
            raise self.refusal(f"holds more than {MAX_FILES:,} files")

    def claim(self, name: str, *, is_folder: bool) -> PurePosixPath | None:
        """Return the safe relative path of a member, or None for the archive's own top folder."""
        path = self._safe_path(name)
        if path is None:
            if not is_folder:
                raise self.refusal(f"holds a file without a name ({name!r})")
            return None
        for parent in reversed(path.parents[:-1]):  # the last one is the archive's own top folder
            self._claim(str(parent), is_folder=True)
        self._claim(str(path), is_folder=is_folder)
        return path

    def refusal(self, reason: str) -> DataError:
        """Return the error for a member or an archive that is not unpacked."""
        return DataError(
            f"the archive {self.source} {reason}; nothing was unpacked",
            where="data.url",
            next="if you trust its origin, unpack it yourself and name its folder as data.train",
        )

    def _claim(self, path: str, *, is_folder: bool) -> None:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
        if key not in self._seen:
            self._seen[key] = (path, is_folder)
            return
        first, first_is_folder = self._seen[key]
        if first != path:
            raise self.refusal(f"holds {first!r} and {path!r}, which are one name on many file systems")
        if not (is_folder and first_is_folder):
            raise self.refusal(f"holds {path!r} twice")

    def _safe_path(self, name: str) -> PurePosixPath | None:
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
            raise self.refusal(f"holds a name with control characters ({name!a})")
        plain = name.replace("\\", "/")  # Windows reads both as a separator
        if plain.startswith("/") or plain[1:2] == ":":
            raise self.refusal(f"holds the absolute path {name!r}")
        parts = [part for part in plain.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self.refusal(f"holds {name!r}, which leads out of its folder")
        return PurePosixPath(*parts) if parts else None


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def _unpack_zip(file: IO[bytes], folder: Path, limits: _Limits) -> None:
    with zipfile.ZipFile(file) as opened:
        members = opened.infolist()
        paths = []
        for member in members:  # all names are checked before the first byte is written
            limits.count_member()
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where the zip was made without Unix modes
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise limits.refusal(f"holds {member.orig_filename!r}, {_KINDS.get(kind, 'not a plain file')}")
            if member.flag_bits & 1:
                raise limits.refusal(f"holds {member.orig_filename!r}, which is encrypted")
            # zipfile cuts a name at a NUL and mends separators; what the archive says is what is checked
            paths.append(limits.claim(member.orig_filename, is_folder=member.is_dir()))
        for member, path in zip(members, paths, strict=True):
            if path is None or member.is_dir():
                continue
            with opened.open(member) as content:
                _write(content, folder / path, limits)


def _write(content: IO[bytes], target: Path, limits: _Limits | None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "xb") as file:
        while piece := content.read(_CHUNK_BYTES):
            if limits is not None:
                limits.count_bytes(len(piece))
            file.write(piece)


class _Metered:
    """Counts all that tarfile reads: names and other headers can be bombs as well as contents."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile, limits: _Limits) -> None:
        self._file = file
        self._limits = limits
        self._header_bytes_left: int | None = MAX_HEADER_BYTES

    def read(self, n: int) -> bytes:
        """Read up to `n` bytes."""
        piece = self._file.read(n)
        self._limits.count_bytes(len(piece))
        if self._header_bytes_left is not None:
            self._header_bytes_left -= len(piece)
            if self._header_bytes_left < 0:
                raise self._limits.refusal(f"has a header of more than {MAX_HEADER_BYTES:,} bytes")
        return piece

    def expect_header(self) -> None:
        """Allow one header's bytes from here on."""
        self._header_bytes_left = MAX_HEADER_BYTES

    def expect_content(self) -> None:
        """Allow a file's bytes from here on."""
        self._header_bytes_left = None


def _unpack_tar(metered: _Metered, folder: Path, limits: _Limits) -> None:
    # a stream is only ever read, so `read` is all that it needs
    with tarfile.open(fileobj=cast(IO[bytes], metered), mode="r|") as opened:
        while (member := opened.next()) is not None:
            opened.members.clear()  # type: ignore[attr-defined]  # tarfile would keep about 1 kB for each file
            limits.count_member()
            _refuse_special(member, limits)
            path = limits.claim(member.name, is_folder=member.isdir())
            content = opened.extractfile(member)
            if path is not None and content is not None:
                metered.expect_content()
                _write(content, folder / path, None)
            metered.expect_header()


def _refuse_special(member: tarfile.TarInfo, limits: _Limits) -> None:
    kinds = (
        (member.issym(), "a symbolic link"),
        (member.islnk(), "a hard link"),
        (member.ischr() or member.isblk(), "a device"),
        (member.isfifo(), "a pipe"),
        (member.issparse(), "a sparse file"),
        (not (member.isreg() or member.isdir()), "not a plain file"),
    )
    for is_it, kind in kinds:
        if is_it:
            raise limits.refusal(f"holds {member.name!r}, {kind}")
