"""Models move onto a device and off again; one that is larger computes from host memory."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import save_clip
from pools import PICTURE, POCKET, Watched, tensors

from graphflow.machine import Memory
from graphflow.models import modules
from graphflow.models import pool as pools
from graphflow.models.refs import ModelRef
from graphflow.models.weights import model_key, weight_bytes

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def predict(denoiser: Any) -> torch.Tensor:
    latents = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    embeds = torch.randn(1, 8, denoiser.unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return denoiser.predict(latents, 500, embeds)


def test_on_a_cpu_there_is_nowhere_to_offload_to(pool: Watched) -> None:
    denoiser = pool.get(POCKET["denoiser"])
    before = predict(denoiser)
    assert not pool.offload(model_key(POCKET["denoiser"]))
    assert torch.equal(predict(denoiser), before)


class OnTheSide(Watched):
    """A pool whose device is a second copy in host memory: what is copied there and back is counted by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int = 2**40) -> None:
        super().__init__()
        self._on_host, self.there, self.room = False, {}, room
        monkeypatch.setattr(modules, "to_device", lambda device: self._there)
        monkeypatch.setattr(modules, "to_host", lambda pinned: self._back)

    def _there(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() in self.there:
            return tensor
        if sum(self.there.values()) + tensor.nbytes > self.room:
            raise torch.OutOfMemoryError("no room")
        moved = tensor.clone()
        self.there[moved.data_ptr()] = tensor.nbytes
        return moved

    def _back(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone() if self.there.pop(tensor.data_ptr(), None) else tensor


def test_a_model_moves_to_the_device_and_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = save_clip(tmp_path)
    clip = ModelRef("clip", "transformers.clip", "tiny", path=folder)
    vision = ModelRef("image_encoder", "transformers.clip_vision", "tiny", path=folder)
    pool = OnTheSide(monkeypatch)
    pool.prefetch(clip)
    whole = pool.get(clip)
    size = sum(pool.there.values())
    assert size == sum(t.nbytes for t in tensors(whole))
    tower = pool.get(vision)
    assert sum(pool.there.values()) == size, "the tower is there already"
    before = tower.image([PICTURE])
    pool.release([model_key(clip)], keep_on_host=True)
    left = {t.data_ptr() for t in tensors(tower)}
    assert set(pool.there) == left, "what the image encoder shares stays"
    assert torch.equal(tower.image([PICTURE]), before)
    pool.release([model_key(vision)], keep_on_host=True)
    assert pool.there == {}
    assert pool.get(clip) is whole
    assert pool.loads() == [clip.describe(), vision.describe()], "nothing was read again"
    pool.release([model_key(clip)], keep_on_host=False)
    assert not pool.there.keys() & {t.data_ptr() for t in tensors(tower)}
    assert pool.get(vision) is tower, "what a waiting model shares is not dropped"
    assert torch.equal(tower.image([PICTURE]), before)
    assert pool.get(clip) is not whole


def test_a_model_that_does_not_fit_leaves_nothing_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    ref = POCKET["vae"]
    pool = OnTheSide(monkeypatch, room=weight_bytes(ref, "float32") // 2)
    with pytest.raises(torch.OutOfMemoryError):
        pool.get(ref)
    assert pool.there == {}
    pool.room *= 4
    assert pool.get(ref) is not None
    assert pool.loads() == [ref.describe()], "it was not read again"


def test_an_offloaded_model_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = OnTheSide(monkeypatch)
    denoiser, clip, llm = (pool.get(POCKET[role]) for role in ("denoiser", "clip", "llm"))
    question: dict[str, Any] = {"prompt": "turn the cat into a dog", "max_new_tokens": 12, "temperature": 0}
    before = predict(denoiser), clip.image([PICTURE]), llm.complete(**question)
    for role in ("denoiser", "clip", "llm"):
        assert pool.offload(model_key(POCKET[role]))
        assert pool.offload(model_key(POCKET[role])), "it is already"
    assert (pool.there, pool.resident) == ({}, {})
    assert pool.get(POCKET["denoiser"]) is denoiser
    assert torch.equal(predict(denoiser), before[0])
    assert torch.equal(predict(denoiser), before[0]), "and a second time"
    assert torch.equal(clip.image([PICTURE]), before[1])
    assert llm.complete(**question) == before[2]
    pool.release([model_key(POCKET["denoiser"])], keep_on_host=True)
    assert torch.equal(predict(pool.get(POCKET["denoiser"])), before[0])
    assert list(pool.resident) == [model_key(POCKET["denoiser"])], "released, it is a plain model again"


def test_services_and_parts_of_others_are_not_offloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = OnTheSide(monkeypatch)
    service = ModelRef("llm", "openai", "x", endpoint="http://localhost/v1", options={"model": "m"})
    pool.get(service)
    for role in ("clip", "image_encoder"):
        pool.get(POCKET[role])
        assert pool.resident[model_key(POCKET[role])] > 0
    assert not pool.offload(model_key(service))
    assert not pool.offload(model_key(POCKET["clip"]))
    assert not pool.offload("nothing")
    assert model_key(POCKET["clip"]) in pool.resident


def test_what_host_memory_has_no_room_for_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    ref = POCKET["vae"]
    pool = OnTheSide(monkeypatch)
    pool.get(ref)
    room = pools.HOST_RESERVE + weight_bytes(ref, "float32")
    monkeypatch.setattr(pools, "memory", lambda: Memory(room, room))
    assert pool.release([model_key(ref)], keep_on_host=True) > 0
    pool.get(ref)
    assert pool.loads() == [ref.describe()] * 2, "it was read again"
    monkeypatch.setattr(pools, "memory", lambda: Memory(room + 1, room + 1))
    pool.release([model_key(ref)], keep_on_host=True)
    pool.get(ref)
    assert pool.loads() == [ref.describe()] * 2


def test_while_a_model_moves_others_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = OnTheSide(monkeypatch)
    moving, go = threading.Event(), threading.Event()

    def slow(tensor: torch.Tensor) -> torch.Tensor:
        moving.set()
        assert go.wait(30)
        return tensor

    monkeypatch.setattr(modules, "to_device", lambda device: slow)
    thread = threading.Thread(target=lambda: pool.get(POCKET["vae"]))
    thread.start()
    assert moving.wait(30)
    pool.prefetch(POCKET["text_encoder"])
    assert pool.resident == {}
    go.set()
    thread.join(30)
    pool.close()


@pytest.mark.gpu
@no_gpu
def test_models_move_to_a_gpu_and_back() -> None:
    pool = Watched("cuda")
    denoiser = pool.get(POCKET["denoiser"])
    key = model_key(POCKET["denoiser"])
    assert {t.device.type for t in tensors(denoiser)} == {"cuda"}
    assert pool.resident_bytes == weight_bytes(POCKET["denoiser"], "float32")
    before = torch.cuda.memory_allocated()
    assert pool.release([key], keep_on_host=True) == weight_bytes(POCKET["denoiser"], "float32")
    assert torch.cuda.memory_allocated() <= before - weight_bytes(POCKET["denoiser"], "float32")
    assert all(t.is_pinned() for t in tensors(denoiser))
    assert pool.get(POCKET["denoiser"]) is denoiser
    assert len(pool.loads()) == 1


@pytest.mark.gpu
@no_gpu
@pytest.mark.parametrize("role", ["vae", "clip", "image_encoder", "captioner", "llm", "vlm", "text_encoder"])
def test_offloaded_models_compute_on_a_gpu(role: str) -> None:
    pool = Watched("cuda")
    model, question = pool.get(POCKET[role]), "turn the cat into a dog"
    ask: dict[str, Any] = {
        "vae": lambda: model.encode(torch.zeros(1, 3, 64, 64)).cpu(),
        "clip": lambda: model.image([PICTURE]).cpu(),
        "image_encoder": lambda: model.image([PICTURE]).cpu(),
        "captioner": lambda: model.caption(PICTURE),
        "llm": lambda: model.complete(question, max_new_tokens=8, temperature=0),
        "vlm": lambda: model.ask([PICTURE], "What is it?", max_new_tokens=8),
        "text_encoder": lambda: model.encode([question]).cpu(),
    }
    before = ask[role]()
    assert pool.offload(model_key(POCKET[role]))
    after = ask[role]()
    assert torch.allclose(after, before, atol=1e-5) if isinstance(before, torch.Tensor) else after == before
    assert pool.resident_bytes < weight_bytes(POCKET[role], "float32")
