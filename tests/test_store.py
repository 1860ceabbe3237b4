"""The store: content addressed, whole or absent, shared."""

from __future__ import annotations

import multiprocessing
import sqlite3
import time
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

from graphflow.codecs import CODECS, digest_json
from graphflow.errors import DamagedBlobError, StoreError
from graphflow.ports import TextCond, Trajectory
from graphflow.store import Result, Store

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


def test_results_are_found_by_key(store: Store) -> None:
    parts = {"kind": "k", "parameters": {"b": 1, "a": 2}}
    value = store.put("text", "json")
    store.record(Result(digest_json(parts), "k", "g", "n", parts, {"out": value}, 1.5, time.time()))
    found = store.result(digest_json({"parameters": {"a": 2, "b": 1}, "kind": "k"}))
    assert found is not None
    assert found.outputs == {"out": value}
    assert store.result("0" * 40) is None


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


def test_a_store_of_another_layout_is_refused(store: Store) -> None:
    store.close()
    with sqlite3.connect(store.folder / "index.sqlite") as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(StoreError, match="has layout 99"):
        Store(store.folder)


def test_a_folder_that_can_not_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be opened"):
        Store(tmp_path / "file" / "store")


def _write_many(folder: Path, start: int) -> None:
    store = Store(folder)
    for i in range(60):
        value = store.put({"n": i}, "json")
        store.put(PIL.Image.new("RGB", (8, 8), (i, 0, 0)), "image")
        store.record(Result(f"{start}-{i}", "k", "g", "n", {}, {"out": value}, 0.0, time.time()))


def test_several_processes_write_one_store(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_many, args=(store.folder, n)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [w.exitcode for w in workers] == [0, 0, 0]
    assert len(store.all_results()) == 180
    assert list(store.verify()) == []


def test_clear_removes_everything(store: Store) -> None:
    store.put(VALUES["image"], "image")
    assert store.clear() > 0
    assert store.usage() == []
    assert not [p for p in (store.folder / "blobs").rglob("*") if p.is_file()]
