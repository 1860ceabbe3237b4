"""Downloads from the model hub: only what loaders read, at pinned revisions, checked before anybody sees it.

Files lie where huggingface_hub keeps them, in its own layout: a blob for each digest, and a snapshot for each commit
that links to them. What differs from its `snapshot_download`: a download that was cut goes on in the next process, too,
and a blob gets its name only when its bytes have the digest that the hub has promised.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from graphflow.errors import GraphflowError, MissingError, shown
from graphflow.models.files import endpoint, hub_cache, readable
from graphflow.models.hub_errors import explained
from graphflow.models.refs import COMMIT, ModelRef, loaders
from graphflow.units import size as readable_size

_DIGEST = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
WORKERS = 4
ATTEMPTS = 3


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository. `digest`: SHA-256 of large files, git's blob id (SHA-1) of others."""

    name: str
    size: int
    digest: str

    def __post_init__(self) -> None:
        """Raises GraphflowError when the hub's answer would write elsewhere than into the cache."""
        parts = self.name.replace("\\", "/").split("/")
        if not _DIGEST.fullmatch(self.digest) or not all(parts) or ".." in parts or ":" in parts[0]:
            raise GraphflowError(f"{endpoint()} lists a file that can't be: {shown(self.name)} of {shown(self.digest)}")


class Progress(Protocol):
    """Who hears how far a download is; called from several threads."""

    def begin(self, files: int, total: int) -> None:
        """So many files and bytes are to come, those included that are here already."""

    def advance(self, count: int) -> None:
        """So many bytes more (or less, when some have to be fetched again)."""

    def finish(self, file: RemoteFile) -> None:
        """A file is here and checked."""


class Silent:
    """A `Progress` that tells nobody."""

    def begin(self, files: int, total: int) -> None: ...

    def advance(self, count: int) -> None: ...

    def finish(self, file: RemoteFile) -> None: ...


def repositories(models: Iterable[ModelRef]) -> list[Repository]:
    """The repositories that models come from, each once, with all the files that their loaders read."""
    found: dict[tuple[str, str], list[str]] = {}
    for ref in models:
        if ref.hub:
            found.setdefault((ref.hub, ref.revision or "main"), []).extend(loaders()[ref.loader].patterns(ref))
    return [Repository(name, revision, tuple(dict.fromkeys(p))) for (name, revision), p in found.items()]


@dataclass(frozen=True)
class Repository:
    """A repository at a revision, and the patterns of the files that are needed from it."""

    name: str
    revision: str
    patterns: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where it lies in the hub's cache."""
        return hub_cache() / f"models--{self.name.replace('/', '--')}"

    def files(self) -> tuple[str, list[RemoteFile]]:
        """The commit of the revision, and the needed files, as the hub lists them.

        Raises:
            MissingError: the hub can't be reached, or lacks the repository, the revision or a file.
        """
        if ".." in self.revision:  # git allows no such name, and it becomes a path
            raise MissingError(f"{self.name} has no revision {self.revision}")
        with explained(self.name, self.revision):
            from huggingface_hub import HfApi
            from huggingface_hub.hf_api import RepoFile

            api = HfApi(endpoint=endpoint())
            commit = self.revision
            if not COMMIT.fullmatch(commit):
                commit = str(api.repo_info(self.name, revision=self.revision).sha)
            if not COMMIT.fullmatch(commit):
                raise GraphflowError(f"{endpoint()} names no commit for {self.name} at {self.revision}")
            tree = api.list_repo_tree(self.name, recursive=True, revision=commit)
            found = [
                RemoteFile(e.path, e.size, e.lfs.sha256 if e.lfs else e.blob_id)
                for e in tree
                if isinstance(e, RepoFile)
            ]
        for pattern in self.patterns:
            if not any(fnmatch.fnmatch(file.name, pattern) for file in found):
                raise MissingError(f"{self.name} has no file {readable(pattern)} at revision {self.revision}")
        return commit, [f for f in found if any(fnmatch.fnmatch(f.name, pattern) for pattern in self.patterns)]


def pull(models: Iterable[ModelRef], progress: Progress | None = None) -> list[Path]:
    """Download what the models' loaders need; returns the folder of each repository's snapshot.

    Raises:
        MissingError: the hub can't be reached, or lacks the repository, the revision or a file, or refuses it.
        GraphflowError: the disk has no room, or a file comes damaged again and again.
    """
    progress = progress or Silent()
    found = [(repository, *repository.files()) for repository in repositories(models)]
    downloads = [_Download(r, commit, file, progress) for r, commit, files in found for file in files]
    progress.begin(len(downloads), sum(d.file.size for d in downloads))
    _check_room([d for d in downloads if not d.is_here()])
    stop = threading.Event()
    with ThreadPoolExecutor(WORKERS) as threads:
        try:
            for done in as_completed([threads.submit(download.run, stop) for download in downloads]):
                done.result()
        except BaseException:
            stop.set()
            threads.shutdown(cancel_futures=True)
            raise
    for repository, commit, _ in found:
        _point(repository, commit)
    return [repository.folder / "snapshots" / commit for repository, commit, _ in found]


def _check_room(downloads: list[_Download]) -> None:
    needed = sum({d.blob: d.file.size - d.there() for d in downloads}.values())
    cache = hub_cache()
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if needed > free:
        hint = "make room, or name another folder in HF_HUB_CACHE"
        raise GraphflowError(f"{readable_size(needed)} to download, but {cache} has {readable_size(free)} free: {hint}")


def _point(repository: Repository, commit: str) -> None:
    """Note which commit a branch or a tag means."""
    if repository.revision != commit:
        pointer = repository.folder / "refs" / repository.revision
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.write_text(commit)


class Stopped(Exception):
    """Another download has failed, or the user has interrupted."""


@dataclass(frozen=True)
class _Download:
    repository: Repository
    commit: str
    file: RemoteFile
    progress: Progress

    @property
    def blob(self) -> Path:
        return self.repository.folder / "blobs" / self.file.digest

    @property
    def partial(self) -> Path:
        return self.blob.with_name(f"{self.file.digest}.graphflow.incomplete")

    @property
    def place(self) -> Path:
        return self.repository.folder / "snapshots" / self.commit / self.file.name

    def is_here(self) -> bool:
        return any(p.is_file() and p.stat().st_size == self.file.size for p in (self.place, self.blob))

    def there(self) -> int:
        """Bytes that an earlier download has left."""
        found = self.partial.stat().st_size if self.partial.is_file() else 0
        return found if found <= self.file.size else 0

    def run(self, stop: threading.Event) -> None:
        from filelock import FileLock

        self.blob.parent.mkdir(parents=True, exist_ok=True)
        lock = hub_cache() / ".locks" / self.repository.folder.name / f"{self.file.digest}.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):  # huggingface_hub holds the same one while it downloads this blob
            if self.is_here():
                self.progress.advance(self.file.size)
            else:
                self.fetch(stop)
                os.replace(self.partial, self.blob)
            if not (self.place.is_file() and self.place.stat().st_size == self.file.size):
                _link(self.blob, self.place)
        self.progress.finish(self.file)

    def fetch(self, stop: threading.Event) -> None:
        """Until the bytes have the digest that the hub has promised; a damaged file is fetched again, once."""
        found = ""
        self.progress.advance(self.there())
        for _ in range(2):
            self.download(stop)
            found = digest_like(self.file.digest, self.partial)
            if found == self.file.digest:
                return
            self.progress.advance(-self.there())
            self.partial.unlink()
        message = f"{self.repository.name}: {self.file.name} comes damaged from {endpoint()}, twice"
        raise GraphflowError(f"{message}: its digest is {found}, the hub says {self.file.digest}")

    def download(self, stop: threading.Event) -> None:
        """Append to what is there, again and again when the connection is cut."""
        for attempt in range(ATTEMPTS):
            before = self.there()
            try:
                with explained(self.repository.name, self.repository.revision, self.file.name):
                    self.request(stop)
                return
            except MissingError:
                if attempt == ATTEMPTS - 1 or self.there() == before:
                    raise

    def request(self, stop: threading.Event) -> None:
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        url = f"{endpoint()}/{self.repository.name}/resolve/{self.commit}/{quote(self.file.name)}"
        # Compressed, the bytes on the way would not be those that Range counts.
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if self.there() == 0:
            self.partial.write_bytes(b"")
        with self.partial.open("r+b") as out:
            have = out.seek(0, os.SEEK_END)
            bar = _bar(self.progress, stop, have)
            http_get(url, out, resume_size=have, headers=headers, expected_size=self.file.size, tqdm_class=bar)


def _bar(progress: Progress, stop: threading.Event, have: int) -> Any:
    """What huggingface_hub takes for a class of tqdm."""

    class Bar:
        def __init__(self, initial: int = 0, **how: Any) -> None:
            progress.advance(initial - have)  # a server that knows no ranges sends everything again

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *error: object) -> None: ...

        def update(self, count: int) -> None:
            if stop.is_set():
                raise Stopped
            progress.advance(count)

    return Bar


def _link(blob: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    try:
        place.symlink_to(os.path.relpath(blob, place.parent))
    except OSError:  # Windows allows symbolic links to some users only
        os.replace(blob, place)


def digest_like(digest: str, path: Path) -> str:
    """The digest of a file, of the same kind as another one: SHA-256, or git's blob id."""
    with path.open("rb") as file:
        if len(digest) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest()
        header = f"blob {path.stat().st_size}\0".encode()
        return hashlib.file_digest(file, lambda: hashlib.sha1(header, usedforsecurity=False)).hexdigest()
