"""How values are digested and stored. A digest covers what a value means, not the file that holds it.

json        text, numbers, scores, tables       UTF-8 JSON
image       pictures and masks                  PNG; the digest covers mode, size and decoded pixels
tensor      latents, embeddings                 safetensors; the digest covers dtype, shape and raw bytes
text_cond   TextCond                            safetensors
trajectory  Trajectory                          safetensors
folder      Weights                             a folder of plain files
series      Features                            a folder of safetensors, one for each timestep
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from blake3 import blake3

from graphflow.ports import TextCond, Trajectory
from graphflow.series import INDEX, TensorSeries
from graphflow.tensors import read_arrays, read_raw, write_tensors

if TYPE_CHECKING:
    import torch

DIGEST_BYTES = 20
# `json.dumps` with options makes an encoder a call.
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_bytes(*parts: bytes | memoryview) -> str:
    """Hex digest over length-prefixed parts, so that no two lists of parts collide."""
    hasher = blake3()
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.hexdigest(length=DIGEST_BYTES)


def digest_json(value: Any) -> str:
    """Hex digest of a JSON value; independent of the order of keys."""
    return digest_bytes(b"json", canonical_json(value))


def canonical_json(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, no NaN."""
    return _canonical.encode(value).encode()


class Codec(Protocol):
    """Turns values of a port type into a digest and a file, and back. Raise `version` when the digest changes."""

    name: str
    version: int
    suffix: str

    def check(self, value: Any) -> str | None:
        """What is wrong with the value, in a few words, or None when it may be stored."""

    def digest(self, value: Any) -> str:
        """Content digest."""

    def write(self, value: Any, path: Path) -> None:
        """Write a file (or folder) at `path`, which does not exist yet."""

    def read(self, path: Path) -> Any:
        """Read what `write` wrote."""

    def peek(self, path: Path) -> Any:
        """The same for people to look at: tensors as numpy arrays, without importing torch."""


class JsonCodec:
    """Values that JSON can hold."""

    name, version, suffix = "json", 1, ".json"

    def check(self, value: Any) -> str | None:
        try:
            canonical_json(value)
        except (TypeError, ValueError) as error:
            # The encoder's own words for this are about its compliance.
            return "it holds NaN or infinity" if "Out of range float" in str(error) else f"it is not JSON: {error}"
        return None

    def digest(self, value: Any) -> str:
        return digest_json(value)

    def write(self, value: Any, path: Path) -> None:
        path.write_bytes(canonical_json(value))

    def read(self, path: Path) -> Any:
        return json.loads(path.read_bytes())

    def peek(self, path: Path) -> Any:
        return self.read(path)


class ImageCodec:
    """PIL pictures in mode RGB or L."""

    name, version, suffix = "image", 1, ".png"

    def check(self, value: Any) -> str | None:
        import PIL.Image

        if not isinstance(value, PIL.Image.Image):
            return f"it is no PIL image but {type(value).__name__}"
        return None if value.mode in ("RGB", "L") else f"its mode is {value.mode}, expected RGB or L"

    def digest(self, value: Any) -> str:
        header = f"{value.mode} {value.width} {value.height}".encode()
        return digest_bytes(b"image", header, value.tobytes())

    def write(self, value: Any, path: Path) -> None:
        # Only pixels: a picture may carry text chunks, and the same pixels must give the same file.
        value.copy().save(path, format="PNG", compress_level=1, pnginfo=None)

    def read(self, path: Path) -> Any:
        import PIL.Image

        with PIL.Image.open(path) as image:
            image.load()
            return image.copy()

    def peek(self, path: Path) -> Any:
        return self.read(path)


class TensorCodec:
    """Torch tensors; moved to the CPU for storing."""

    name, version, suffix = "tensor", 1, ".safetensors"

    def check(self, value: Any) -> str | None:
        return _tensor_problem(value)

    def digest(self, value: Any) -> str:
        return digest_bytes(b"tensor", *_tensor_parts(value))

    def write(self, value: Any, path: Path) -> None:
        _save({"value": value}, path)

    def read(self, path: Path) -> Any:
        return _load(path)["value"]

    def peek(self, path: Path) -> Any:
        return read_arrays(path)["value"]


class TextCondCodec:
    """`TextCond`."""

    name, version, suffix = "text_cond", 1, ".safetensors"

    def check(self, value: Any) -> str | None:
        if not isinstance(value, TextCond):
            return f"it is no TextCond but {type(value).__name__}"
        return _tensor_problem(value.embeds) or (None if value.pooled is None else _tensor_problem(value.pooled))

    def digest(self, value: Any) -> str:
        pooled = () if value.pooled is None else _tensor_parts(value.pooled)
        return digest_bytes(b"text_cond", *_tensor_parts(value.embeds), *pooled)

    def write(self, value: Any, path: Path) -> None:
        _save({"embeds": value.embeds} | ({} if value.pooled is None else {"pooled": value.pooled}), path)

    def read(self, path: Path) -> Any:
        tensors = _load(path)
        return TextCond(tensors["embeds"], tensors.get("pooled"))

    def peek(self, path: Path) -> Any:
        arrays = read_arrays(path)
        return TextCond(arrays["embeds"], arrays.get("pooled"))


class TrajectoryCodec:
    """`Trajectory`."""

    name, version, suffix = "trajectory", 1, ".safetensors"

    def check(self, value: Any) -> str | None:
        if not isinstance(value, Trajectory):
            return f"it is no Trajectory but {type(value).__name__}"
        if len(value.timesteps) != len(value.latents):
            return f"it has {len(value.timesteps)} timesteps for {len(value.latents)} latents"
        return _tensor_problem(value.latents)

    def digest(self, value: Any) -> str:
        return digest_bytes(b"trajectory", canonical_json(list(value.timesteps)), *_tensor_parts(value.latents))

    def write(self, value: Any, path: Path) -> None:
        import torch

        _save({"timesteps": torch.tensor(value.timesteps), "latents": value.latents}, path)

    def read(self, path: Path) -> Any:
        tensors = _load(path)
        return Trajectory(tensors["timesteps"].tolist(), tensors["latents"])

    def peek(self, path: Path) -> Any:
        arrays = read_arrays(path)
        return Trajectory(arrays["timesteps"].tolist(), arrays["latents"])


class FolderCodec:
    """A folder of plain files, such as trained weights. Links and special files are refused."""

    name, version, suffix = "folder", 1, ""

    def check(self, value: Any) -> str | None:
        if not isinstance(value, Path) or not value.is_dir():
            return f"it is no folder: {value!r}"
        bad = [p.name for p in value.rglob("*") if p.is_symlink() or not (p.is_file() or p.is_dir())]
        return f"it holds links or special files: {bad}" if bad else None

    def digest(self, value: Any) -> str:
        return digest_files(value, (p for p in value.rglob("*") if p.is_file()))

    def write(self, value: Any, path: Path) -> None:
        shutil.copytree(value, path)

    def read(self, path: Path) -> Any:
        return path

    def peek(self, path: Path) -> Any:
        return self.read(path)


class SeriesCodec:
    """`TensorSeries`: gigabytes, of which memory never holds more than one timestep."""

    name, version, suffix = "series", 1, ""

    def check(self, value: Any) -> str | None:
        return None if isinstance(value, TensorSeries) else f"it is no TensorSeries but {type(value).__name__}"

    def digest(self, value: Any) -> str:
        parts = [canonical_json([value.timesteps, value.notes])]
        for path in value.files():
            tensors = sorted(read_raw(path).items())
            named = [(f"{n} {e['dtype']} {e['shape']}".encode(), raw.data) for n, (e, raw) in tensors]
            parts.append(digest_bytes(*(part for pair in named for part in pair)).encode())
        return digest_bytes(b"series", *parts)

    def write(self, value: Any, path: Path) -> None:
        path.mkdir()
        for file in (value.folder / INDEX, *value.files()):
            try:
                os.link(file, path / file.name)  # the writer's folder goes soon; nothing changes in a finished series
            except OSError:
                shutil.copyfile(file, path / file.name)

    def read(self, path: Path) -> Any:
        return TensorSeries(path)

    def peek(self, path: Path) -> Any:
        return self.read(path)


CODECS: dict[str, Codec] = {
    c.name: c
    for c in (
        JsonCodec(), ImageCodec(), TensorCodec(), TextCondCodec(), TrajectoryCodec(), FolderCodec(), SeriesCodec()
    )
}  # fmt: skip


def digest_file(path: Path) -> str:
    """Digest of a file's bytes."""
    hasher = blake3(max_threads=blake3.AUTO)
    hasher.update_mmap(path)
    return hasher.hexdigest(length=DIGEST_BYTES)


def digest_files(root: Path, files: Iterable[Path]) -> str:
    """Digest over relative names and contents, independent of where `root` lies."""
    named = sorted((p.relative_to(root).as_posix(), p) for p in files)
    return digest_bytes(b"folder", *(part.encode() for n, p in named for part in (n, digest_file(p))))


def _tensor_problem(value: Any) -> str | None:
    import torch

    if not isinstance(value, torch.Tensor):
        return f"it is no tensor but {type(value).__name__}"
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        return "it holds NaN or infinity"
    return None


def _tensor_parts(value: torch.Tensor) -> tuple[bytes, bytes | memoryview]:
    import torch

    flat = value.detach().cpu().contiguous()
    header = f"{flat.dtype} {list(flat.shape)}".encode()
    if flat.numel() == 0:
        return header, b""  # a view of nothing can't be cast
    return header, memoryview(flat.reshape(-1).view(torch.uint8).numpy()).cast("B")


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    here = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    if len({t.untyped_storage().data_ptr() for t in here.values()}) < len(here):  # such as a pooled row of embeddings
        here = {name: t.clone() for name, t in here.items()}
    write_tensors(here, path)


def _load(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = load_file(path)
    return tensors
