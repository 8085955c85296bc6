"""A server on loopback for archives, and what it serves."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading


class Site:
    """A server of a few files: counts requests, can fail, break off or redirect."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.break_after: list[int] = []  # of the next answers: bytes sent before the connection is cut
        self.failures: list[int] = []  # status codes of the next answers
        self.ranges = True
        self.tells_size = True
        self.redirects: dict[str, str] = {}
        site = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, to: http.server.BaseHTTPRequestHandler) -> None:
        asked = to.headers.get("Range")
        self.requests.append((to.path, asked))
        if to.path in self.redirects:
            to.send_response(302)
            to.send_header("Location", self.redirects[to.path])
            to.end_headers()
            return
        if self.failures:
            to.send_error(self.failures.pop(0))
            return
        content = self.files.get(to.path)
        if content is None:
            to.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        to.send_response(206 if start else 200)
        if start:
            to.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.tells_size:
            to.send_header("Content-Length", str(len(content) - start))
        to.end_headers()
        part = content[start:]
        to.wfile.write(part[: self.break_after.pop(0)] if self.break_after else part)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tar_of(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as opened:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
