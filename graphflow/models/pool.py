"""Loaded models of one device: each is loaded once, shared by all nodes that use it, moved and dropped when told to."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Hashable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

import torch

from graphflow.errors import MissingError
from graphflow.events import Listener, ModelLoaded, ModelLoading, ModelReleased
from graphflow.imports import importing
from graphflow.machine import memory
from graphflow.models import modules
from graphflow.models.files import local_folder, stamp
from graphflow.models.offload import offload
from graphflow.models.refs import ModelRef, loaders
from graphflow.models.sharing import Parts, sharing
from graphflow.models.trained import ref_of_trained
from graphflow.models.turns import Turns
from graphflow.models.weights import model_key, weight_bytes
from graphflow.threads import one_thread

HOST_RESERVE = 2 * 2**30  # bytes of host memory that models which left the device don't take
Stage = Literal["host", "device"]

# from_pretrained patches torch's module construction process-wide while it runs (diffusers#4296): one load at a time.
_LOADING = Turns()


@dataclass(eq=False)
class _Loaded:
    """A model that is here.

    Attributes:
        stamp: of the files that it was read from, when reading began.
        offloaded: its weights come to the device layer by layer while it runs.
    """

    ref: ModelRef
    value: Any
    stamp: Hashable
    roots: list[torch.nn.Module] = field(default_factory=list)
    on_device: bool = False
    offloaded: bool = False

    @property
    def parts(self) -> dict[int, torch.nn.Module]:
        return modules.parts_of(self.roots)


class ModelPool:
    """Loads models into host memory, moves them onto the device and away again.

    It decides nothing: who calls it says what comes and goes. One thread may use models while another prefetches.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, emit: Listener) -> None:
        self.device, self.dtype, self.emit = device, dtype, emit
        self._on_host = device.type == "cpu"  # the device's memory is the host's: what is loaded is there already
        self._parts: Parts = WeakValueDictionary()
        self._moving = threading.Lock()  # to the device, and away; held for seconds
        self._lock = threading.RLock()  # of the tables below; never held for long
        self._loads: dict[str, Future[_Loaded]] = {}
        self._thread: ThreadPoolExecutor | None = None

    def get(self, ref: ModelRef) -> Any:
        """The loaded model of a preset's entry, on the device.

        Raises:
            MissingError: its files are not on this machine.
            GraphflowError: they hold something else.
            torch.OutOfMemoryError: the device has no room; nothing of the model stays there.
        """
        while True:
            loaded = self._wait(model_key(ref), ref)
            with self._moving:
                if loaded.value is not None:  # else it was dropped in between
                    self._bring(loaded)
                    return loaded.value

    def get_trained(self, folder: Path, role: str) -> Any:
        """The loaded model of a `Weights` value, on the device.

        Raises:
            MissingError: the folder does not say how to load it.
        """
        return self.get(self.ref_of_trained(folder, role))

    ref_of_trained = staticmethod(ref_of_trained)

    @staticmethod
    def key_of_trained(folder: Path, role: str) -> str:
        """`model_key` of a `Weights` value. Raises MissingError when the folder does not say how to load it."""
        return model_key(ref_of_trained(folder, role))

    def prefetch(self, ref: ModelRef) -> None:
        """Load a model into host memory in the background, unless it is here. What goes wrong, `get` raises."""
        key = model_key(ref)
        with self._lock:
            if key in self._loads:
                return
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="graphflow-loader")
            self._loads[key] = self._thread.submit(self._load, ref, urgent=False)

    def release(self, keys: Iterable[str], keep_on_host: bool) -> int:
        """Take models off the device, and out of host memory too unless they are to stay there.

        On a CPU device they are dropped in any case. What another model on the device shares stays.

        Returns:
            Bytes that the device got back.
        """
        freed = 0
        with self._moving:
            for key in keys:
                loaded = self._settled(key)
                if loaded is not None:
                    freed += self._take_off(key, loaded, keep_on_host)
        return freed

    def drop_changed(self) -> None:
        """Drop models whose files have changed since they were read: keys of results name the files as they are."""
        changed = [key for key, loaded in self._here().items() if stamp(loaded.ref) != loaded.stamp]
        self.release(changed, keep_on_host=False)

    def offload(self, key: str) -> bool:
        """Let a model's weights come to the device layer by layer while it runs; see `graphflow.models.offload`.

        Returns:
            Whether it could be done; the model is then used as before, only more slowly. On a CPU device there is
            nowhere to go, and a model that shares parts with another one on the device can't be offloaded.
        """
        with self._moving:
            loaded = self._here().get(key)
            if loaded is None or self._on_host or len(self._own(loaded)) < len(loaded.parts):
                return False
            if not loaded.offloaded:
                self._leave(loaded)
                loaded.offloaded = offload(loaded.roots, self.device)
            return loaded.offloaded

    @property
    def resident(self) -> Mapping[str, int]:
        """The models on the device and their bytes there; shared parts are counted with each."""
        found = {key: loaded for key, loaded in self._here().items() if loaded.on_device}
        return {key: self._bytes([loaded]) for key, loaded in found.items()}

    @property
    def resident_bytes(self) -> int:
        """Bytes of parameters and buffers on the device, measured over the tensors; shared ones once."""
        return self._bytes(self._here().values())

    def close(self) -> None:
        """Drop all models. A load that has begun is waited for, because it can't be interrupted."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(cancel_futures=True)
        with self._lock:
            self._loads.clear()
        self._empty_cache()

    def _wait(self, key: str, ref: ModelRef) -> _Loaded:
        """The loaded model: found, waited for, or loaded in this thread."""
        with self._lock:
            future = self._loads.get(key)
            mine = future is None or future.cancel()  # one that still waits for the loader thread is loaded here
            if future is None or mine:
                future = self._loads[key] = Future()
                future.set_running_or_notify_cancel()
        if mine:
            try:
                future.set_result(self._load(ref, urgent=True))
            except BaseException as error:
                future.set_exception(error)
        try:
            return future.result()
        except BaseException as error:
            with self._lock:  # the next one who asks tries again
                if self._loads.get(key) is future:
                    del self._loads[key]
            if mine or not isinstance(error, MemoryError | torch.OutOfMemoryError):
                raise
        return self._wait(key, ref)  # what had no room ahead of its time may have it now

    def _settled(self, key: str) -> _Loaded | None:
        """The model, if it is here. A load that has not begun, or has failed, is forgotten."""
        with self._lock:
            future = self._loads.get(key)
            if future is not None and (future.cancel() or (future.done() and future.exception() is not None)):
                del self._loads[key]
        return self._here().get(key)

    def _load(self, ref: ModelRef, urgent: bool) -> _Loaded:
        """From disk to host memory."""
        folder, known = local_folder(ref), loaders().get(ref.loader)
        if known is None:
            raise MissingError(f"{ref.role}: there is no loader '{ref.loader}'")
        if folder is None and not ref.endpoint:
            raise MissingError(f"{ref.role}: {ref.describe()} is not on this machine")
        chosen = ref.dtype or known.dtype
        dtype = getattr(torch, chosen) if chosen else self.dtype
        self._announce(ref, weight_bytes(ref, str(dtype).removeprefix("torch.")), "host")
        with _LOADING.turn(urgent), sharing(self._parts), one_thread():
            began, read = time.perf_counter(), stamp(ref)
            value = importing(lambda: known.load(ref, folder, torch.device("cpu"), dtype))
            loaded = _Loaded(ref, value, read, modules.roots_of(value), on_device=self._on_host)
            self._settle_on_host(loaded)
            seconds = time.perf_counter() - began
        bytes_ = modules.bytes_of(modules.tensors_of(loaded.parts.values()), torch.device("cpu"))
        self._report(ref, seconds, bytes_, "host")
        return loaded

    def _settle_on_host(self, loaded: _Loaded) -> None:
        """What came with this load, and not with an earlier one, is read from disk, and pinned for a GPU."""
        known = modules.parts_of(root for other in self._here().values() for root in other.roots)
        new = [part for name, part in loaded.parts.items() if name not in known]
        if self.device.type == "cuda":
            modules.move(new, modules.to_host(pinned=True))
        else:
            modules.read_in(modules.tensors_of(new))

    def _bring(self, loaded: _Loaded) -> None:
        """From host memory onto the device, unless it is there."""
        if loaded.on_device or loaded.offloaded:
            return
        ref, parts = loaded.ref, loaded.parts.values()
        self._announce(ref, modules.bytes_of(modules.tensors_of(parts), torch.device("cpu")), "device")
        began = time.perf_counter()
        try:
            modules.move(parts, modules.to_device(self.device))
            self._synchronize()
        except BaseException:
            self._leave(loaded)
            self._empty_cache()
            raise
        loaded.on_device = True
        self._report(ref, time.perf_counter() - began, self._bytes([loaded]), "device")

    def _take_off(self, key: str, loaded: _Loaded, keep_on_host: bool) -> int:
        """Off the device; returns the bytes that it got back."""
        before, here = self._bytes(self._here().values()), loaded.on_device
        if self._on_host or not (keep_on_host and self._has_room(loaded)) or loaded.offloaded:
            self._drop(key, loaded)
        else:
            self._leave(loaded)
        freed = before - self._bytes(self._here().values())
        if here:
            self._empty_cache()
            self.emit(ModelReleased(name=loaded.ref.describe(), device=str(self.device), bytes=freed))
        return freed

    def _leave(self, loaded: _Loaded) -> None:
        """To host memory, but for the parts that another model on the device shares."""
        loaded.on_device = False
        modules.move(self._own(loaded).values(), modules.to_host(pinned=self.device.type == "cuda"))

    def _has_room(self, loaded: _Loaded) -> bool:
        """Whether host memory can take a model that is on the device."""
        found = memory() if loaded.on_device else None
        available = found.available if found is not None else None
        return available is None or self._bytes([loaded]) + HOST_RESERVE < available

    def _drop(self, key: str, loaded: _Loaded) -> None:
        with self._lock:
            del self._loads[key]
        loaded.on_device = False
        waiting = modules.parts_of(root for other in self._here().values() for root in other.roots)
        left = [part for name, part in self._own(loaded).items() if name in waiting]
        modules.move(left, modules.to_host(pinned=self.device.type == "cuda"))
        alive = [weakref.ref(root) for root in loaded.roots]
        loaded.value, loaded.roots = None, []
        if any(root() is not None for root in alive):
            gc.collect()  # some networks refer to themselves

    def _own(self, loaded: _Loaded) -> dict[int, torch.nn.Module]:
        """The parts of a model that no other model on the device shares."""
        others = [other for other in self._here().values() if other is not loaded and other.on_device]
        taken = modules.parts_of(root for other in others for root in other.roots)
        return {name: part for name, part in loaded.parts.items() if name not in taken}

    def _here(self) -> dict[str, _Loaded]:
        """The models that are in memory."""
        with self._lock:
            done = {key: future for key, future in self._loads.items() if future.done() and not future.cancelled()}
        return {key: future.result() for key, future in done.items() if future.exception() is None}

    def _bytes(self, models: Iterable[_Loaded]) -> int:
        on_device = [loaded for loaded in models if loaded.on_device or not self._on_host]
        parts = modules.parts_of(root for loaded in on_device for root in loaded.roots)
        return modules.bytes_of(modules.tensors_of(parts.values()), self.device)

    def _synchronize(self) -> None:
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def _empty_cache(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _announce(self, ref: ModelRef, bytes_: int, stage: Stage) -> None:
        name, device = ref.describe(), str(self.device)
        self.emit(ModelLoading(role=ref.role, name=name, device=device, bytes=bytes_, stage=stage))

    def _report(self, ref: ModelRef, seconds: float, bytes_: int, stage: Stage) -> None:
        name, device = ref.describe(), str(self.device)
        self.emit(ModelLoaded(role=ref.role, name=name, seconds=seconds, device=device, bytes=bytes_, stage=stage))
