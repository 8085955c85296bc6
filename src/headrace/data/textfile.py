"""Opens text files, plain or gzip, and tells exactly where one cannot be decoded."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from headrace.errors import DataError

# Text shrinks 3 to 10 times; 200 is far above, and gzip's own bound is about 1,030.
MAX_GZIP_RATIO = 200
MIN_GZIP_LIMIT_BYTES = 64 << 20
MAX_PIECE_CHARACTERS = 8 << 20
_CHUNK_BYTES = 1 << 18
_GZIP_MAGIC = b"\x1f\x8b"
_MARKS = {  # the longer mark first: UTF-32's begins like UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@contextmanager
def open_bytes(path: Path, *, source: str) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, decompressed where its name ends in `.gz`.

    Raises:
        DataError: The file cannot be opened, its gzip stream is damaged or cut, or it grows beyond the limit.
    """
    try:
        with open(path, "rb") as plain:
            if path.suffix.lower() != ".gz":
                yield plain
                return
            limit = max(MIN_GZIP_LIMIT_BYTES, MAX_GZIP_RATIO * os.fstat(plain.fileno()).st_size)
            with io.BufferedReader(_Decompressed(plain, limit, source), _CHUNK_BYTES) as buffered:
                yield buffered
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        reason = "it ends too early" if isinstance(error, EOFError) else str(error)
        raise DataError(
            f"the gzip file is damaged: {reason}", where=source, next="fetch or compress the file again"
        ) from error
    except OSError as error:
        raise unreadable(source, error) from error


def suffix_of(path: Path) -> str:
    """Return the ending that tells a file's format, in lower case, without `.gz`; empty if there is none."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def unreadable(source: str, error: OSError) -> DataError:
    """Return the error for a file that the system does not let us read."""
    return DataError(
        f"the file cannot be read: {error.strerror or error}",
        where=source,
        next="check the file's permissions and its disk",
    )


class _Decompressed(io.RawIOBase):
    """The bytes inside a gzip file, up to a limit."""

    def __init__(self, compressed: BinaryIO, limit: int, source: str) -> None:
        self._file = gzip.GzipFile(fileobj=compressed, mode="rb")
        self._limit = limit
        self._source = source
        self._n_bytes = 0

    def readable(self) -> bool:
        """Tell that the stream can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with decompressed bytes and return how many; 0 at the end."""
        content = self._file.read(len(buffer))
        self._n_bytes += len(content)
        if self._n_bytes > self._limit:
            raise DataError(
                f"the gzip file holds more than {self._limit:,} bytes, over {MAX_GZIP_RATIO} times its own size",
                where=self._source,
                next="if the file is what it should be, decompress it first",
            )
        buffer[: len(content)] = content
        return len(content)


@contextmanager
def open_text(path: Path, *, encoding: str | None, source: str) -> Iterator[TextIO]:
    """Open a text file with its line ends as they are; a UTF-8 byte order mark is left out.

    Args:
        path: The file, plain or `.gz`.
        encoding: Of the file; None for UTF-8.
        source: What a message calls the file.

    Raises:
        DataError: As `open_bytes`; also bytes that are not text in this encoding, with line and byte offset.
    """
    codec = checked_codec(encoding)
    with open_bytes(path, source=source) as opened:
        if encoding is None:
            refuse_other_encoding(path, source=source)
        try:
            with io.TextIOWrapper(opened, encoding="utf-8-sig" if codec == "utf-8" else codec, newline="") as stream:
                yield stream
        except UnicodeDecodeError as error:
            raise _first_undecodable(path, codec, source) from error


def pieces(stream: TextIO) -> Iterator[str]:
    """Yield the physical lines with their ends; a line beyond 8 million characters comes in several pieces."""
    return iter(partial(stream.readline, MAX_PIECE_CHARACTERS), "")


def ends_line(piece: str) -> bool:
    """Tell whether a piece is the last of its line (the file's last line may lack an end)."""
    return piece.endswith(("\n", "\r"))


def checked_codec(encoding: str | None) -> str:
    """Return Python's name of a text encoding; None is UTF-8.

    Raises:
        DataError: There is no such encoding.
    """
    try:
        name = codecs.lookup(encoding or "utf-8").name
        "".encode(name)
    except LookupError:
        raise DataError(
            f"there is no text encoding named {encoding!r}",
            where="data.encoding",
            next="use utf-8, latin-1, cp1252, utf-16, or another name that Python's codecs know",
        ) from None
    return "utf-8" if name == "utf-8-sig" else name


def refuse_other_encoding(path: Path, *, source: str) -> None:
    """Raise if the first bytes show that a file is not UTF-8.

    Raises:
        DataError: A byte order mark of UTF-16 or UTF-32, or a gzip file without `.gz` in its name.
    """
    with open_bytes(path, source=source) as opened:
        start = opened.read(4)
    if start.startswith(_GZIP_MAGIC):
        raise DataError("the content is compressed with gzip", where=source, next=f"rename the file to {path.name}.gz")
    for mark, name in _MARKS.items():
        if start.startswith(mark):
            raise DataError(
                f"the file begins with the byte order mark of {name.upper()}, so it is not UTF-8",
                where=f"{source}:1 (byte 0)",
                next=f"save the file as UTF-8; a recipe can name its own encoding, data.encoding: {name}",
            )


def undecodable(error: UnicodeDecodeError, codec: str, *, place: str) -> tuple[str, str, str]:
    """Return what, where and next for bytes that are not text in this encoding."""
    byte = error.object[error.start]
    what = f"the byte 0x{byte:02x} is not valid {codec.upper()} ({error.reason})"
    if codec == "utf-8":
        advice = "save the file as UTF-8; a recipe can name its own encoding, such as data.encoding: latin-1 or cp1252"
    else:
        advice = f"data.encoding is {codec}: set the file's own encoding, or save it as UTF-8 and leave the key out"
    return what, place, advice


def _first_undecodable(path: Path, codec: str, source: str) -> DataError:
    """Read the file anew and say where the first undecodable byte stands."""
    decoder = codecs.getincrementaldecoder(codec)()
    n_read, n_lines = 0, 0
    with open_bytes(path, source=source) as opened:
        while True:
            chunk = opened.read(_CHUNK_BYTES)
            begin = n_read - len(decoder.getstate()[0])  # where the bytes held back by the decoder began
            try:
                n_lines += decoder.decode(chunk, final=not chunk).count("\n")
            except UnicodeDecodeError as error:
                n_lines += error.object[: error.start].decode(codec, errors="replace").count("\n")
                unpacked = " of the unpacked content" if path.suffix.lower() == ".gz" else ""
                place = f"{source}:{n_lines + 1} (byte {begin + error.start:,}{unpacked})"
                what, where, advice = undecodable(error, codec, place=place)
                return DataError(what, where=where, next=advice)
            n_read += len(chunk)
            if not chunk:
                return DataError("the file changed while it was read", where=source, next="run the command again")
