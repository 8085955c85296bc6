"""A small stand-in for the Hugging Face hub on loopback."""

from __future__ import annotations

import hashlib
import json
import re
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# /OWNER/NAME/resolve/REVISION/FILE, and for data sets /api/datasets/OWNER/NAME/revision/… and …/tree/…
PATH = re.compile(
    r"/(?:api/)?(?P<name>(?:datasets/)?[^/]+/[^/]+)/(?P<what>resolve|revision|tree)/(?P<revision>[^/]+)/?(?P<inside>.*)"
)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class StandIn(ThreadingHTTPServer):
    """Serves the files of repositories as the hub does, and remembers the requests.

    Models are `OWNER/NAME`, data sets `datasets/OWNER/NAME`; of data sets it also tells which files there are.
    """

    daemon_threads = True

    def __init__(self, repositories: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories = repositories
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        asked = PATH.fullmatch(urllib.parse.unquote(urllib.parse.urlsplit(self.path).path))
        if asked is None:
            return self.refuse("EntryNotFound")
        repository = self.server.repositories.get(asked["name"])
        if repository is None:
            return self.refuse("GatedRepo" if asked["name"].startswith("gated/") else "RepoNotFound")
        if asked["revision"] not in ("main", "v1", COMMIT):
            return self.refuse("RevisionNotFound")
        path = repository / asked["inside"]
        if asked["what"] == "revision":
            about = {"id": asked["name"], "sha": COMMIT, "private": False, "gated": False, "tags": []}
            return self.send(json.dumps(about).encode(), with_body=with_body)
        if asked["what"] == "tree" and path.is_dir():
            listed = [entry(one, repository) for one in sorted(path.iterdir())]
            return self.send(json.dumps(listed).encode(), with_body=with_body)
        if asked["what"] == "tree" or not path.is_file():
            return self.refuse("EntryNotFound")
        return self.send(path.read_bytes(), with_body=with_body)

    def send(self, content: bytes, *, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def refuse(self, code: str) -> None:
        self.send_response(403 if code == "GatedRepo" else 404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def entry(path: Path, repository: Path) -> dict[str, object]:
    """Describe a file or a folder as the hub's listings do."""
    name = path.relative_to(repository).as_posix()
    if path.is_dir():
        return {"type": "directory", "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0, "path": name}
    content = path.read_bytes()
    return {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": name}
