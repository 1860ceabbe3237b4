"""What the hub's answers mean for the user."""

from __future__ import annotations

import errno
import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from graphflow.errors import GraphflowError, MissingError
from graphflow.models.files import endpoint


@contextmanager
def explained(repository: str, revision: str, file: str | None = None) -> Iterator[None]:
    """Turns what the hub's library raises inside into errors that say what is wrong and what to do.

    Raises:
        MissingError: the hub can't be reached, refuses, or lacks the repository, the revision or the file.
        GraphflowError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        said = _said(error, repository, revision, file)
        if said is None:
            raise
        raise said from error


def _said(error: Exception, repository: str, revision: str, file: str | None) -> GraphflowError | None:
    from huggingface_hub import errors

    what = f"{repository}: {file}" if file else repository
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return GraphflowError(f"{what}: the disk is full")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return MissingError(f"{what} is not on this machine, and HF_HUB_OFFLINE forbids to download it")
    if isinstance(error, errors.GatedRepoError):
        page = f"{endpoint()}/{repository}"
        return MissingError(f"{what} is gated: accept its terms at {page}, then log in: hf auth login")
    if isinstance(error, errors.RevisionNotFoundError):
        return MissingError(f"{repository} has no revision {revision}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return MissingError(f"{repository} does not exist, or is private: hf auth login")
    if isinstance(error, errors.EntryNotFoundError):
        return MissingError(f"{repository} has no file {file} at revision {revision}")
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(getattr(error, "response", None), "status_code", "an error")
        return MissingError(f"{what} can't be downloaded: {endpoint()} answers {status}")
    if isinstance(error, (*_transport_errors(), ConnectionError, TimeoutError)):
        return MissingError(
            f"{what} can't be downloaded from {endpoint()}: {str(error) or type(error).__name__}. "
            "Run the command again to go on where it was"
        )
    if isinstance(error, ValueError) and "too large" in str(error):
        return GraphflowError(f"{what} is larger than the hub sends by HTTP: hf download {repository} {file}")
    if isinstance(error, OSError) and "Consistency check" in str(error):
        return MissingError(f"{what} is cut short by {endpoint()}. Run the command again to go on where it was")
    return None


def _transport_errors() -> tuple[type[BaseException], ...]:
    """The base classes of connection errors: huggingface_hub 2 uses httpx2, 1 uses httpx."""
    found = []
    for name in ("httpx2", "httpx"):
        try:
            found.append(importlib.import_module(name).TransportError)
        except ImportError:
            continue
    return tuple(found)
