"""A small model hub on loopback: it speaks what huggingface_hub asks for, and fails as networks do when told to."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = 3  # entries of a listing's page


def git_digest(data: bytes) -> str:
    """git's id of a blob."""
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


@dataclass
class Repo:
    """A repository with one commit."""

    files: dict[str, bytes]
    branches: set[str] = field(default_factory=lambda: {"main"})

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    def entry(self, name: str) -> dict[str, object]:
        data = self.files[name]
        entry: dict[str, object] = {"type": "file", "path": name, "size": len(data), "oid": git_digest(data)}
        if name.endswith(".safetensors"):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry


@dataclass
class Hub:
    """Repositories, and what goes wrong with them.

    Attributes:
        requests: method, path and range of every request for a file, in order.
        authorised: paths of requests that carried a token.
        cuts: file → after how many bytes each of the next answers breaks off.
        damaged: file → how many of the next answers have a wrong byte.
        gated: repositories whose files are refused.
        status: what every request is answered, instead.
        no_ranges: whether Range is ignored.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    authorised: list[str] = field(default_factory=list)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    status: int = 200
    no_ranges: bool = False
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, name: str, folder: Path) -> Repo:
        """A repository of a folder's files."""
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        self.repos[name] = Repo(files)
        return self.repos[name]

    def ranges(self, name: str) -> list[str]:
        """The Range of each request for a file's bytes; empty for the whole."""
        return [range_ for method, path, range_ in self.requests if method == "GET" and path == name]


@contextmanager
def running_hub() -> Iterator[Hub]:
    """The hub at `Hub.url`, until the end of the block."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None: ...

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        url = urlsplit(self.path)
        parts = unquote(url.path).strip("/").split("/")
        if "authorization" in self.headers:
            self.hub.authorised.append(url.path)
        if self.hub.status != 200:
            self.refuse(self.hub.status, "")
        elif parts[:2] == ["api", "models"]:
            self.about("/".join(parts[2:4]), parts[4:], parse_qs(url.query))
        elif parts[0] == "cdn":
            self.file("/".join(parts[1:3]), "/".join(parts[3:]), redirect=False)
        elif parts[2:3] == ["resolve"]:
            self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self.refuse(404, "EntryNotFound")

    def about(self, name: str, what: list[str], query: dict[str, list[str]]) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            self.refuse(401, "RepoNotFound")
        elif what[1] not in {repo.commit, *repo.branches}:
            self.refuse(404, "RevisionNotFound")
        elif what[0] == "revision":
            self.json({"id": name, "sha": repo.commit, "siblings": [{"rfilename": f} for f in repo.files]})
        else:
            start = int(query.get("cursor", ["0"])[0])
            entries = [repo.entry(file) for file in sorted(repo.files)]
            more = f"{self.hub.url}{urlsplit(self.path).path}?recursive=true&cursor={start + PAGE}"
            link = {"Link": f'<{more}>; rel="next"'} if start + PAGE < len(entries) else {}
            self.json(entries[start : start + PAGE], link)

    def resolve(self, name: str, revision: str, file: str) -> None:
        repo = self.hub.repos.get(name)
        if repo is None:
            self.refuse(401, "RepoNotFound")
        elif name in self.hub.gated:
            self.refuse(403, "GatedRepo")
        elif revision not in {repo.commit, *repo.branches}:
            self.refuse(404, "RevisionNotFound")
        elif file not in repo.files:
            self.refuse(404, "EntryNotFound", {"X-Repo-Commit": repo.commit})
        else:
            self.file(name, file, redirect=file.endswith(".safetensors"))

    def file(self, name: str, file: str, redirect: bool) -> None:
        """The bytes of a file; large ones come from another host, as from the hub's CDN."""
        repo = self.hub.repos[name]
        data, entry = repo.files[file], repo.entry(file)
        lfs = entry.get("lfs")
        digest = str(lfs["oid"] if isinstance(lfs, dict) else entry["oid"])
        about = {"X-Repo-Commit": repo.commit, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if redirect:
            about |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            self.head(302, 0, about | {"Location": f"http://localhost:{self.hub.port}/cdn/{name}/{file}"})
            return
        range_ = self.headers.get("Range", "")
        self.hub.requests.append((self.command, file, range_))
        start = int(range_.removeprefix("bytes=").split("-")[0]) if range_ and not self.hub.no_ranges else 0
        if start:
            about["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.head(206 if start else 200, len(data) - start, about)
        if self.command == "GET":
            self.body(file, data[start:])

    def body(self, file: str, data: bytes) -> None:
        if self.hub.damaged.get(file, 0) > 0:
            self.hub.damaged[file] -= 1
            data = bytes([data[0] ^ 1]) + data[1:]
        cuts = self.hub.cuts.get(file)
        cut = cuts.pop(0) if cuts else None
        self.wfile.write(data[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True

    def json(self, value: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.head(200, len(body), {"Content-Type": "application/json", **(headers or {})})
        self.wfile.write(body)

    def refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        named = {"X-Error-Code": code, "X-Error-Message": code} if code else {}
        self.head(status, 0, {**named, **(headers or {})})

    def head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
