"""What travels between a run and the processes of its devices: JSON lines, and values as files.

Nothing is pickled. A value that the store has is named by its digest; what is a folder already is named by its place;
JSON stands in the message; everything else is written by its codec.
"""

from __future__ import annotations

import json
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from graphflow import errors, events
from graphflow.codecs import CODECS
from graphflow.errors import Cancelled, GraphflowError, Mark, NodeError
from graphflow.events import Event, as_json
from graphflow.models.refs import ModelRef
from graphflow.ports import EXTERNAL, ModelRole, Port
from graphflow.series import TensorSeries
from graphflow.store import Store, Stored

Message = dict[str, Any]
_EVENTS: dict[str, Callable[..., Event]] = {
    cls.__name__: cls
    for cls in (events.Logged, events.NodeProgress, events.ModelLoading, events.ModelLoaded, events.ModelReleased)
}


class Sink:
    """Writes messages into a pipe, from whichever thread. Nobody at the other end: they are lost."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe, self._lock = pipe, threading.Lock()

    def __call__(self, message: Message) -> None:
        """Write a message.

        Raises:
            ValueError: it holds NaN or infinity, which JSON does not have.
            TypeError: it holds what is no JSON.
        """
        line = json.dumps(message, allow_nan=False).encode() + b"\n"
        with suppress(OSError), self._lock:
            if not self._pipe.closed:
                self._pipe.write(line)
                self._pipe.flush()

    def close(self) -> None:
        """Close the pipe."""
        with suppress(OSError), self._lock:
            self._pipe.close()


def messages(pipe: BinaryIO) -> Iterator[Message]:
    """The messages that come through a pipe, until it is closed."""
    for line in pipe:
        if line.endswith(b"\n"):  # else its writer died in the middle
            yield json.loads(line)


def new_file(folder: Path, suffix: str) -> Path:
    """A path that nobody has."""
    return folder / f"{os.urandom(8).hex()}{suffix}"


# --- values ---------------------------------------------------------------------------------------------------------


def codec_of(port: Port) -> str:
    """The codec of a port's values; trained weights at a model port are folders."""
    return "folder" if isinstance(port.type, ModelRole) else port.type.codec


def pack(value: Any, port: Port, new_file: Callable[[str], Path], stored: Stored | None = None) -> Message:
    """A value as a message names it.

    Args:
        value: what is at the port.
        port: says how it travels.
        new_file: suffix → where a file may be written.
        stored: how the store has the value, if it does.

    Raises:
        TypeError: there is no codec for it.
    """
    codec = codec_of(port)
    if codec == "json":
        return {"json": value}
    if port.is_list:
        digests = stored.items if stored is not None else None
        return {"items": [_pack(v, codec, new_file, digests[i] if digests else None) for i, v in enumerate(value)]}
    return _pack(value, codec, new_file, stored.digest if stored is not None else None)


def _pack(value: Any, codec: str, new_file: Callable[[str], Path], digest: str | None) -> Message:
    if codec in ("folder", EXTERNAL):
        return {"folder": str(value)}
    if isinstance(value, TensorSeries):
        return {"series": str(value.folder)}
    if codec not in CODECS:
        raise TypeError(f"no codec says how a value of {codec} is written")
    if digest is not None:
        return {"stored": digest}
    path = new_file(CODECS[codec].suffix)
    CODECS[codec].write(value, path)
    return {"file": str(path)}


def unpack(told: Message, port: Port, store: Store | None = None) -> Any:
    """The value that a message names; raises what reading it raises.

    Raises:
        DamagedBlobError: the store does not have it any more.
    """
    codec = codec_of(port)
    if "json" in told:
        return told["json"]
    if "items" in told:
        return [_unpack(item, codec, store) for item in told["items"]]
    return _unpack(told, codec, store)


def _unpack(told: Message, codec: str, store: Store | None) -> Any:
    if "folder" in told:
        return Path(told["folder"])
    if "series" in told:
        return TensorSeries(Path(told["series"]))
    if "stored" in told:
        assert store is not None
        return store.load(Stored(told["stored"], codec))
    return CODECS[codec].read(Path(told["file"]))


# --- models, events, errors -----------------------------------------------------------------------------------------


def pack_ref(ref: ModelRef) -> Message:
    """A model's entry, without its place in a file."""
    path = None if ref.path is None else str(ref.path)
    told = {**vars(ref), "path": path, "options": dict(ref.options)}
    del told["mark"]
    return told


def unpack_ref(told: Message) -> ModelRef:
    """The entry that `pack_ref` wrote."""
    path = None if told["path"] is None else Path(told["path"])
    return ModelRef(**{**told, "path": path}, mark=Mark("<preset>"))


def pack_event(event: Event) -> Message:
    """An event with its time."""
    return as_json(event)


def unpack_event(told: Message) -> Event:
    """The event that `pack_event` wrote."""
    fields = dict(told)
    return _EVENTS[fields.pop("event")](**fields)


class RemoteError(Exception):
    """An error of another process. Its class has the name of the original one; its note is where that was raised."""


def pack_error(error: BaseException) -> Message:
    """An error as a message tells it."""
    return {
        "type": type(error).__name__, "text": str(error), "value": isinstance(error, ValueError),
        "graphflow": isinstance(error, GraphflowError), "node": getattr(error, "node", ""),
        "kind": getattr(error, "kind", ""), "trace": "".join(traceback.format_exception(error)),
    }  # fmt: skip


def unpack_error(told: Message) -> BaseException:
    """An error that reads like the one that was packed; graphflow's own come back as what they were."""
    if told["type"] == "Cancelled":
        return Cancelled()
    text = told["text"]
    known = getattr(errors, told["type"], None) if told["graphflow"] else None
    error: Exception
    if known is not None:
        error = known.__new__(known)  # their constructors make the text, which is made already
        Exception.__init__(error, text)
        if isinstance(error, NodeError):
            error.node, error.kind = told["node"], told["kind"]
    else:
        bases = (RemoteError, ValueError) if told["value"] else (RemoteError,)
        error = type(told["type"], bases, {})(text)
    error.add_note(told["trace"].rstrip())
    return error
