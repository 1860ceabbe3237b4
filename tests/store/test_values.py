"""Values in the store: content addressed, whole or absent."""

from __future__ import annotations

import errno
import sqlite3
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from safetensors import SafetensorError

from graphflow.codecs import CODECS
from graphflow.errors import DamagedBlobError, StoreError
from graphflow.ports import TextCond, Trajectory
from graphflow.series import SeriesWriter
from graphflow.store import Result, Store, Stored

VALUES = {
    "json": {"a": [1, 2.5, "ü", None, True]},
    "image": PIL.Image.effect_noise((9, 7), 60).convert("RGB"),
    "tensor": torch.randn(2, 3, generator=torch.Generator().manual_seed(0)),
    "text_cond": TextCond(torch.randn(1, 4, 8), torch.randn(1, 8)),
    "trajectory": Trajectory([-1, 20, 40], torch.randn(3, 1, 4, 2, 2)),
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, PIL.Image.Image):
        return a.mode == b.mode and a.tobytes() == b.tobytes()
    if isinstance(a, TextCond):
        return same(a.embeds, b.embeds) and (a.pooled is None) == (b.pooled is None)
    if isinstance(a, Trajectory):
        return a.timesteps == b.timesteps and same(a.latents, b.latents)
    return bool(a == b)


@pytest.mark.parametrize("codec", VALUES)
def test_values_come_back_as_they_were(store: Store, codec: str) -> None:
    stored = store.put(VALUES[codec], codec)
    assert same(VALUES[codec], store.load(stored))
    assert CODECS[codec].digest(store.load(stored)) == stored.digest
    assert store.put(VALUES[codec], codec) == stored


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_tensors_of_every_dtype(store: Store, dtype: torch.dtype) -> None:
    value = torch.ones(3, 2).to(dtype)
    assert same(value, store.load(store.put(value, "tensor")))


def test_the_digest_tells_dtype_and_shape_apart() -> None:
    digest = CODECS["tensor"].digest
    zeros = [torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32), torch.zeros(2, dtype=torch.float64)]
    assert len({digest(z) for z in zeros}) == 4
    assert digest(torch.arange(6).reshape(2, 3).t()) == digest(torch.arange(6).reshape(2, 3).t().contiguous())


def test_lists_share_their_elements(store: Store) -> None:
    images = [PIL.Image.new("RGB", (4, 4), c) for c in ("red", "blue", "red")]
    stored = store.put(images, "image", is_list=True)
    assert [i.getpixel((0, 0)) for i in store.load(stored)] == [(255, 0, 0), (0, 0, 255), (255, 0, 0)]
    assert len(list((store.folder / "blobs").rglob("*.png"))) == 2
    assert store.load(store.put([], "image", is_list=True)) == []


def test_folders(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.json").write_text("{}")
    stored = store.put(folder, "folder")
    (folder / "sub" / "a.json").write_text("{1}")
    assert (store.load(stored) / "sub" / "a.json").read_text() == "{}"
    (store.load(stored) / "sub" / "a.json").write_text("{2}")
    with pytest.raises(DamagedBlobError, match="truncated or altered"):
        store.load(stored)
    (folder / "link").symlink_to("/etc/passwd")
    assert "links" in (CODECS["folder"].check(folder) or "")


@pytest.mark.parametrize("value", [torch.tensor([1.0, float("nan")]), torch.tensor([float("inf")]), 3, None])
def test_bad_tensors_are_refused(value: Any) -> None:
    assert CODECS["tensor"].check(value) is not None


def test_a_picture_loses_its_metadata(store: Store, tmp_path: Path) -> None:
    image = PIL.Image.new("RGB", (2, 2))
    image.info["comment"] = "private"
    stored = store.put(image, "image")
    assert b"private" not in store.path(stored.digest, "image").read_bytes()


def test_an_altered_index_entry_is_not_served(store: Store) -> None:
    stored = store.put("text", "json")
    store.close()
    with sqlite3.connect(store.folder / "index.sqlite") as db:
        db.execute("UPDATE blobs SET inline = ?", (b'"evil"',))
    db.close()
    reopened = Store(store.folder)
    with pytest.raises(DamagedBlobError):
        reopened.load(stored)
    assert not reopened.has(stored)


def test_a_value_of_another_codec_is_not_served(store: Store) -> None:
    stored = store.put(VALUES["tensor"], "tensor")
    with pytest.raises(DamagedBlobError, match="altered"):
        store.load(Stored(stored.digest, "text_cond"))


def test_a_list_is_read_one_element_at_a_time(store: Store) -> None:
    alive: list[weakref.ref[PIL.Image.Image]] = []

    def pictures() -> Iterator[PIL.Image.Image]:
        for i in range(100):
            assert sum(r() is not None for r in alive) <= 2
            image = PIL.Image.new("L", (4, 4), i)
            alive.append(weakref.ref(image))
            yield image

    stored = store.put(pictures(), "image", is_list=True)
    assert len(stored.digests) == 100
    assert store.load(stored)[99].getpixel((0, 0)) == 99


def test_a_prepared_value_is_entered_with_its_result_or_not_at_all(store: Store) -> None:
    image = PIL.Image.new("L", (4, 4), 7)
    prepared = store.prepare(image, "image")
    assert not store.has(prepared.stored)
    prepared.discard()
    assert not list((store.folder / "tmp").iterdir())
    prepared = store.prepare(image, "image")
    store.record(Result("a" * 40, "k", "g", "n", {}, {"out": prepared.stored}, 1.0, 1.0), [prepared])
    assert same(store.load(prepared.stored), image)
    assert not list((store.folder / "tmp").iterdir())


def test_a_value_that_is_only_digested_is_not_kept(store: Store) -> None:
    described = store.describe([1, 2], "json", is_list=True)
    assert not described.kept
    assert not store.has(described)
    assert store.put([1, 2], "json", is_list=True).items == described.items


def test_what_is_no_json_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        store.prepare(float("nan"), "json")
    with pytest.raises(TypeError, match="not JSON"):
        store.prepare({1, 2}, "json")


def test_a_full_disk_leaves_the_store_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(value: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(CODECS["image"], "write", full)
    with pytest.raises(StoreError, match="the disk is full"):
        store.put(PIL.Image.new("L", (4, 4)), "image")
    assert not list((store.folder / "tmp").iterdir())
    assert store.usage() == []


def test_a_full_disk_is_no_fault_of_a_tensor(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StoreError, match=rf"{store.folder}: writing .+\.safetensors failed: the disk is full"):
        store.put(torch.zeros(4), "tensor")
    assert not list((store.folder / "tmp").iterdir())
    with pytest.raises(OSError, match="No space left on device: '.*t00981.safetensors'") as caught:
        SeriesWriter(store.folder / "tmp").add(981, {"q": torch.zeros(4)})
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), RuntimeError("can't open x: Too many open files (24)")]
)
def test_a_system_that_lacks_something_for_a_moment_damages_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    stored = store.put(torch.zeros(100_000), "tensor")

    def lacking(path: Path) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(CODECS["tensor"], "read", lacking)
        with pytest.raises(StoreError, match="Too many open files") as caught:
            store.load(stored)
    assert not isinstance(caught.value, DamagedBlobError)
    assert store.load(stored).shape == (100_000,)


def test_a_tensor_of_nothing_is_a_value(store: Store) -> None:
    shapes = [(0, 4), (4, 0)]
    values = [store.put(torch.zeros(shape), "tensor") for shape in shapes]
    assert [tuple(store.load(value).shape) for value in values] == shapes


def test_long_json_is_a_file(store: Store) -> None:
    stored = store.put("x" * 40_000, "json")
    assert store.path(stored.digest, "json").stat().st_size == 40_002 == stored.bytes
    assert store.load(stored) == "x" * 40_000
    assert store.small(stored.digest) is None
    assert store.small(store.put("short", "json").digest) == "'short'"


def test_clear_removes_everything(store: Store) -> None:
    stored = store.put(VALUES["image"], "image")
    store.pin([stored.digest], "it")
    store.checkpoint("a" * 40)
    assert store.clear() > 0
    assert store.usage() == []
    assert store.pins() == {}
    assert not [p for name in ("blobs", "checkpoints") for p in (store.folder / name).iterdir()]
    assert store.load(store.put(VALUES["json"], "json")) == VALUES["json"]


def test_tensors_of_a_value_may_share_memory(store: Store) -> None:
    embeds = torch.randn(1, 4, 8)
    found = store.load(store.put(TextCond(embeds, embeds[:, -1]), "text_cond"))
    assert torch.equal(found.embeds, embeds)
    assert torch.equal(found.pooled, embeds[:, -1])
