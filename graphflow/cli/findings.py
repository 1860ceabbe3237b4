"""What `graphflow doctor` looks at: what works on this machine, what does not, and what to do. Imports no torch."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from graphflow import devices, driver, machine
from graphflow.errors import GraphflowError, Mark
from graphflow.units import plural, size

if TYPE_CHECKING:
    from graphflow.models.hub import RemoteFile, Repository
    from graphflow.models.preset import Preset
    from graphflow.models.refs import ModelRef

State = Literal["good", "note", "todo", "bad"]
INSTALL = "pip install 'graphflow-diffusion[diffusion]'"
PACKAGES = ("diffusers", "transformers", "safetensors", "huggingface-hub", "accelerate")
LEAST_FREE = 2**30  # bytes on the store's disk


@dataclass(frozen=True)
class Finding:
    """What was looked at and found: ``good``, worth a ``note``, ``todo``, or so ``bad`` that runs can't work.

    `todo` is what to do next; `facts` are the figures, for ``--json``.
    """

    state: State
    name: str
    found: str
    todo: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def findings(folder: Path | None = None, online: bool = False) -> Iterator[Finding]:
    """Everything that is looked at.

    Args:
        folder: the store's, or None for the default one.
        online: ask the hub for the sizes of models that are missing.
    """
    yield from _software()
    yield _cpu()
    yield from _gpus()
    yield _store(folder)
    yield _kinds()
    yield from _presets(online)


# --- software ---------------------------------------------------------------------------------------------------------


def _software() -> Iterator[Finding]:
    from graphflow.version import __version__

    system = f"{platform.system()} {platform.machine()}"
    yield Finding("good", "graphflow", f"{__version__}, Python {platform.python_version()}, {system}")
    version, build = devices.torch_version(), devices.torch_build()
    if version is None:
        yield Finding("bad", "torch", "not installed: nodes with models can't run", INSTALL)
        return
    facts = {"version": version, "build": build or "cpu"}
    yield Finding("good", "torch", f"{version}, a build for {build or 'CPUs only'}", facts=facts)
    versions = {name: devices.package_version(name) for name in PACKAGES}
    if lacking := [name for name, found in versions.items() if found is None]:
        yield Finding("bad", "libraries", f"not installed: {', '.join(lacking)}", INSTALL, {"versions": versions})
    else:
        told = ", ".join(f"{name} {found}" for name, found in versions.items())
        yield Finding("good", "libraries", told, facts={"versions": versions})
    yield _torchvision(version, build)


def _torchvision(torch: str, build: str | None) -> Finding:
    """Whether torchvision fits torch: one that does not can break transformers, which imports whatever is installed."""
    version = devices.package_version("torchvision")
    if version is None:
        return Finding("good", "torchvision", "not installed: only the metrics need it")
    wanted, own = _required("torchvision", "torch"), devices.torch_build("torchvision")
    facts = {"version": version, "build": own or "cpu", "torch": wanted}
    if wanted is not None and wanted != torch.partition("+")[0]:
        todo = "pip install --upgrade torchvision, or pip uninstall torchvision"
        return Finding("todo", "torchvision", f"{version} is for torch {wanted}, installed is {torch}", todo, facts)
    if own is not None and own != build:
        found = f"{version}, built for {own}: its own operators can't be loaded beside this torch, graphflow needs none"
        return Finding("note", "torchvision", found, "", facts)
    return Finding("good", "torchvision", version, facts=facts)


def _required(package: str, needs: str) -> str | None:
    """The exact version of a package that another one asks for."""
    from importlib.metadata import requires

    for line in requires(package) or ():
        if found := re.match(rf"{needs}\s*\(?==\s*([\w.]+)", line):
            return found[1]
    return None


# --- hardware ---------------------------------------------------------------------------------------------------------


def _cpu() -> Finding:
    memory, features = machine.memory(), machine.cpu_features()
    parts = [machine.cpu_name(), plural(machine.cores(), "core")]
    if memory is not None:
        parts.append(_memory_text(memory.total, memory.available))
    slow = "" if machine.BFLOAT16 & set(features) else " (bfloat16 is slow here)"
    parts.append(f"{', '.join(features)}{slow}" if features else "")
    default = devices.resolve("auto") == "cpu"
    facts = {
        "cores": machine.cores(), "features": features, "default": default,
        "memory": memory.total if memory else None, "free": memory.available if memory else None,
        "dtypes": _cpu_dtypes(features),
    }  # fmt: skip
    return Finding("good", "cpu" + " (default)" * default, ", ".join(filter(None, parts)), facts=facts)


def _cpu_dtypes(features: list[str]) -> list[str]:
    native = {"bfloat16": bool(machine.BFLOAT16 & set(features)), "float16": any("FP16" in f for f in features)}
    return [dtype for dtype in devices.DTYPES if native.get(dtype, True)]


def _memory_text(total: int, free: int | None) -> str:
    return f"{size(total)} of memory" + (f" ({size(free)} free)" if free is not None else "")


def _gpus() -> Iterator[Finding]:
    found = driver.gpus()
    problem = devices.cuda_problem(len(found)) if found else None
    for number, gpu in enumerate(found):
        dtypes = cuda_dtypes(gpu.capability)
        told = ".".join(map(str, gpu.capability))
        text = f"{gpu.name}, {_memory_text(gpu.memory, gpu.free)}, compute capability {told}: {', '.join(dtypes)}"
        default = problem is None and number == 0
        facts = {
            "memory": gpu.memory, "free": gpu.free, "capability": list(gpu.capability), "dtypes": dtypes,
            "default": default,
        }  # fmt: skip
        name = f"cuda:{number}" + " (default)" * default
        if problem is None:
            yield Finding("good", name, text, facts=facts)
        else:
            yield Finding("todo", name, text, f"it can't be used: {problem}", facts)
    if not found and (cards := driver.cards()):
        text = f"{plural(cards, 'NVIDIA GPU')} in this machine, but the driver does not answer"
        yield Finding("todo", "cuda", text, "install NVIDIA's driver, or give the container access (--gpus all)")
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        yield Finding("note", "mps", "Apple's GPU, on request", "add --device mps")


def cuda_dtypes(capability: tuple[int, int]) -> list[str]:
    """The types in which a GPU of this compute capability computes by itself."""
    native = {"bfloat16": (8, 0), "float16": (5, 3)}
    return [dtype for dtype in devices.DTYPES if capability >= native.get(dtype, (0, 0))]


# --- store, kinds, models ---------------------------------------------------------------------------------------------


def _store(folder: Path | None) -> Finding:
    from graphflow.store import Store, default_budget, default_folder

    try:
        opened = Store(folder or default_folder())
        used, budget = opened.total_bytes(), default_budget(opened.folder)
    except GraphflowError as error:
        return Finding("bad", "store", str(error), "name a folder that can be written: --store or GRAPHFLOW_STORE")
    free = shutil.disk_usage(opened.folder).free
    text = f"{opened.folder}, {size(used)} of {size(budget)} used, {size(free)} free on the disk"
    facts = {"folder": str(opened.folder), "bytes": used, "budget": budget, "free": free}
    if opened.warnings:
        return Finding("todo", "store", f"{text}; {'; '.join(opened.warnings)}", "graphflow cache verify", facts)
    if free < LEAST_FREE:
        return Finding("todo", "store", text, "make room: graphflow cache gc --budget, or another --store", facts)
    if not os.access(opened.folder, os.W_OK):
        return Finding("todo", "store", f"{text}; it can't be written", "results are not kept: see its rights", facts)
    return Finding("good", "store", text, facts=facts)


def _kinds() -> Finding:
    from graphflow import registry

    count = len(registry.all_kinds())
    broken = dict(registry.broken_packs)
    facts = {"kinds": count, "broken": broken}
    if not broken:
        return Finding("good", "kinds", plural(count, "kind"), facts=facts)
    told = "; ".join(f"the pack {name} is broken: {reason}" for name, reason in broken.items())
    return Finding("todo", "kinds", f"{plural(count, 'kind')}; {told}", "repair or uninstall it", facts)


def _presets(online: bool) -> Iterator[Finding]:
    from graphflow.models.preset import load_preset, shipped_presets

    for name, file in shipped_presets().items():
        yield _preset(name, file, load_preset(name, Mark("doctor"), Path()), online)


def _preset(name: str, file: Path, preset: Preset, online: bool) -> Finding:
    from graphflow.models.files import missing
    from graphflow.models.weights import weight_bytes

    absent = {role: ref for role, ref in preset.models.items() if missing({role: ref})}
    sizes = {role: weight_bytes(ref, "float32") for role, ref in preset.models.items() if role not in absent}
    facts: dict[str, Any] = {"title": preset.title, "missing": list(absent), "bytes": sizes}
    if not absent:
        return _complete(name, sizes, facts)
    text = f"no model is here: {preset.title}"
    if sizes:
        text = f"{len(absent)} of {len(preset.models)} models missing ({', '.join(absent)}): {preset.title}"
    if online:
        facts["download"], told = _download(absent.values())
        text += f"; {told}"
    todo = f"graphflow models pull {name}"
    if by_hand := [role for role, ref in absent.items() if not ref.hub]:
        todo = f"{', '.join(by_hand)}: {file.name} says where to get what the hub does not have"
        todo += f"; graphflow models pull {name} gets the others" if len(by_hand) < len(absent) else ""
    return Finding("note", f"models {name}", text, todo, facts)


def _complete(name: str, sizes: dict[str, int], facts: dict[str, Any]) -> Finding:
    """A preset whose models are here; whether the largest one has room where runs are computed."""
    device, largest = devices.resolve("auto"), max(sizes.values(), default=0)
    room = devices.memory_of(device)
    text = f"{plural(len(sizes), 'model')}, {size(sum(sizes.values()))} of weights in float32"
    text += f", the largest {size(largest)}" if len(sizes) > 1 else ""
    if room is not None and largest > room:
        todo = f"the largest exceeds the memory of {device}, {size(room)}: --dtype bfloat16 takes half of it"
        return Finding("todo", f"models {name}", text, todo, facts)
    return Finding("good", f"models {name}", text, facts=facts)


def _download(models: Iterable[ModelRef]) -> tuple[int | None, str]:
    """Bytes that `models pull` would fetch, and that in words; None when the hub does not tell."""
    from graphflow.models.hub import repositories

    total = 0
    try:
        for repository in repositories(models):
            commit, files = _listed(repository)
            here = repository.folder / "snapshots" / commit
            total += sum(file.size for file in files if not (here / file.name).exists())
    except GraphflowError as error:
        return None, f"the size is not known: {error}"
    return total, f"{size(total)} to download"


@lru_cache
def _listed(repository: Repository) -> tuple[str, list[RemoteFile]]:
    """What the hub lists, asked once: presets share repositories."""
    return repository.files()
