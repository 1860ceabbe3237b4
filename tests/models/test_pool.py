"""Models come, are shared, move and go; nothing of them stays behind."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import save_clip, save_phi, save_sd
from PIL import Image
from torch import nn

from graphflow.errors import GraphflowError, Mark, MissingError
from graphflow.events import Event, ModelLoaded, ModelLoading, ModelReleased
from graphflow.models import modules, refs
from graphflow.models.pool import ModelPool
from graphflow.models.preset import load_preset
from graphflow.models.refs import ModelRef
from graphflow.models.weights import model_key, weight_bytes

PICTURE = Image.effect_noise((48, 40), 60).convert("RGB")
POCKET = load_preset("pocket", Mark("test"), Path()).models


class Watched(ModelPool):
    """A pool on the CPU that keeps its events."""

    def __init__(self, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.events: list[Event] = []
        super().__init__(torch.device(device), dtype, self.events.append)

    def loads(self) -> list[str]:
        return [event.name for event in self.events if isinstance(event, ModelLoaded) and event.stage == "host"]


@pytest.fixture
def pool() -> Iterator[Watched]:
    made = Watched()
    yield made
    made.close()


class Gate:
    """A loader that waits until it is let through, and counts."""

    def __init__(self) -> None:
        self.open, self.entered, self.count = threading.Event(), threading.Event(), 0
        self.error: Exception | None = None

    def __call__(self, ref: Any, folder: Any, device: Any, dtype: Any) -> Any:
        self.count += 1
        self.entered.set()
        assert self.open.wait(30)
        if self.error is not None:
            raise self.error
        return nn.Linear(4, 4)


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Gate, ModelRef]:
    made = Gate()
    known = dict(refs.loaders()) | {"gate": refs.Loader("gate", "vae", made, ())}
    monkeypatch.setattr(refs, "_LOADERS", known)
    return made, ModelRef("vae", "gate", "x", path=tmp_path)


def tensors(value: Any) -> list[torch.Tensor]:
    return list(modules.tensors_of(modules.parts_of(modules.roots_of(value)).values()))


def test_a_model_is_loaded_once_and_announced(pool: Watched) -> None:
    ref = POCKET["vae"]
    assert pool.get(ref) is pool.get(replace(ref, role="vae", name="other", space="z"))
    loading, loaded = pool.events
    assert isinstance(loading, ModelLoading)
    assert isinstance(loaded, ModelLoaded)
    assert loading.bytes == loaded.bytes == weight_bytes(ref, "float32") == pool.resident_bytes
    assert (loaded.role, loaded.name, loaded.stage) == ("vae", ref.describe(), "host")


def test_clip_and_its_image_tower_are_held_once(tmp_path: Path) -> None:
    folder = save_clip(tmp_path)
    clip, vision, text = (
        ModelRef(role, f"transformers.{name}", "tiny", path=folder)
        for role, name in (("clip", "clip"), ("image_encoder", "clip_vision"), ("text_encoder", "clip_text"))
    )
    alone = {}
    for ref in (clip, vision, text):
        one = Watched()
        alone[ref.role] = answers(ref.role, one.get(ref))
    for order in ((clip, vision, text), (text, vision, clip), (vision, clip, text)):
        pool = Watched()
        for ref in order:
            pool.get(ref)
        assert pool.resident_bytes == pool.resident[model_key(clip)] < sum(pool.resident.values())
        for ref in order:
            assert torch.equal(answers(ref.role, pool.get(ref)), alone[ref.role])
        pool.release([model_key(clip)], False)
        assert pool.resident_bytes == sum(pool.resident[model_key(ref)] for ref in (vision, text))
        assert torch.equal(answers("image_encoder", pool.get(vision)), alone["image_encoder"])


def answers(role: str, model: Any) -> torch.Tensor:
    if role == "text_encoder":
        return model.encode(["a cat"])
    return model.image([PICTURE])


def test_other_pools_and_other_files_share_nothing(tmp_path: Path) -> None:
    ref = ModelRef("clip", "transformers.clip", "tiny", path=save_clip(tmp_path))
    first, second = Watched().get(ref), Watched().get(ref)
    assert first.model.vision_model is not second.model.vision_model
    pool = Watched()
    old = pool.get(ref)
    pool.release([model_key(ref)], False)
    weights = tmp_path / "model.safetensors"
    weights.rename(tmp_path / "old")  # a mapped file must not be cut
    weights.write_bytes((tmp_path / "old").read_bytes())
    (tmp_path / "old").unlink()
    assert pool.get(ref).model.vision_model is not old.model.vision_model, "the file was written anew"


@pytest.mark.parametrize("role", POCKET)
def test_nothing_keeps_a_released_model_alive(pool: Watched, role: str) -> None:
    ref = POCKET[role]
    held = [weakref.ref(tensor) for tensor in tensors(pool.get(ref))]
    size = pool.resident_bytes
    gc.disable()
    try:
        assert pool.release([model_key(ref)], keep_on_host=True) == size > 0
        assert held
        assert not [tensor for tensor in held if tensor() is not None]
    finally:
        gc.enable()
    assert (pool.resident_bytes, pool.resident) == (0, {})
    released = pool.events[-1]
    assert isinstance(released, ModelReleased)
    assert (released.name, released.bytes) == (ref.describe(), size)
    pool.get(ref)
    assert pool.resident_bytes == size


@pytest.mark.parametrize("role", POCKET)
def test_what_a_wrapper_holds_outside_of_its_networks_is_small_and_on_the_host(pool: Watched, role: str) -> None:
    loose = modules.loose_tensors(pool.get(POCKET[role]))
    assert sum(tensor.nbytes for tensor in loose) <= 2**14
    assert all(tensor.device.type == "cpu" for tensor in loose)


def resident_memory() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="reads Linux's own figures")
def test_the_process_gives_the_memory_back(pool: Watched, tmp_path: Path) -> None:
    from checkpoints import byte_tokenizer
    from transformers import PhiConfig, PhiForCausalLM

    config = PhiConfig(
        vocab_size=257, hidden_size=1024, intermediate_size=4096, num_hidden_layers=4, num_attention_heads=16
    )
    PhiForCausalLM(config).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    ref = ModelRef("llm", "transformers.causal_lm", "tiny", path=tmp_path)
    pool.get(ref)
    full, size = resident_memory(), pool.resident_bytes  # read, and not only mapped
    assert size > 150 * 2**20
    pool.release([model_key(ref)], False)
    assert full - resident_memory() > 0.9 * size


def test_prefetching_returns_at_once_and_get_waits_for_it(pool: Watched, gate: tuple[Gate, ModelRef]) -> None:
    loader, ref = gate
    pool.prefetch(ref)
    pool.prefetch(ref)
    assert loader.entered.wait(30)
    assert pool.resident == {}
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(pool.get(ref))) for _ in range(3)]
    for thread in threads:
        thread.start()
    loader.open.set()
    for thread in threads:
        thread.join(30)
    assert loader.count == 1
    assert len(found) == 3
    assert found[0] is found[1] is found[2]


def test_a_prefetched_model_counts_on_a_cpu(pool: Watched) -> None:
    key = model_key(POCKET["vae"])
    pool.prefetch(POCKET["vae"])
    pool._loads[key].result(30)
    assert pool.resident == {key: weight_bytes(POCKET["vae"], "float32")}


def test_what_still_waits_for_the_loader_thread_is_loaded_by_who_needs_it(
    pool: Watched, gate: tuple[Gate, ModelRef]
) -> None:
    loader, ref = gate
    pool.prefetch(ref)
    assert loader.entered.wait(30)
    other = replace(ref, options={"n": 2})
    pool.prefetch(other)
    pool.prefetch(replace(ref, options={"n": 3}))
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(pool.get(other)))
    thread.start()
    assert pool.release([model_key(replace(ref, options={"n": 3}))], False) == 0
    loader.open.set()
    thread.join(30)
    assert found
    pool.close()
    assert loader.count == 2, "the third was called off"


def test_what_goes_wrong_while_prefetching_is_said_by_get(pool: Watched, gate: tuple[Gate, ModelRef]) -> None:
    loader, ref = gate
    loader.error = GraphflowError("the file is damaged")
    loader.open.set()
    pool.prefetch(ref)
    with pytest.raises(GraphflowError, match="the file is damaged"):
        pool.get(ref)
    loader.error = None
    assert pool.get(ref) is pool.get(ref)
    assert loader.count == 2


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        (ModelRef("vae", "diffusers.vae", "x", path=Path("/nowhere")), "is not on this machine"),
        (ModelRef("vae", "diffusers.va", "x", path=Path("/nowhere")), "there is no loader 'diffusers.va'"),
    ],
)
def test_a_model_that_is_not_here(pool: Watched, ref: ModelRef, says: str) -> None:
    with pytest.raises(MissingError, match=says):
        pool.get(ref)


@pytest.mark.parametrize("build", [lambda: nn.Linear(2, 2).weight, lambda: torch.empty(1)], ids=["network", "tensor"])
def test_other_threads_compute_as_ever_while_a_model_is_loaded(
    tmp_path: Path, build: Callable[[], torch.Tensor]
) -> None:
    sd, phi = save_sd(tmp_path / "sd"), save_phi(tmp_path / "phi")
    models = [
        ModelRef("denoiser", "diffusers.unet", "sd", path=sd, part="unet"),
        ModelRef("llm", "transformers.causal_lm", "sd", path=phi),
    ]
    found: set[tuple[torch.dtype, str]] = set()
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            made = build()
            found.add((made.dtype, made.device.type))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        for _ in range(5):
            pool = Watched(dtype=torch.bfloat16)
            for ref in models:
                assert {t.dtype for t in tensors(pool.get(ref)) if t.dim() > 1} == {torch.bfloat16}
    finally:
        stop.set()
        thread.join(30)
    assert found == {(torch.float32, "cpu")}


def test_networks_that_are_built_meanwhile_get_their_first_weights(tmp_path: Path) -> None:
    ref = ModelRef("denoiser", "diffusers.unet", "sd", path=save_sd(tmp_path), part="unet")
    empty: list[nn.Module] = []
    stop = threading.Event()

    def build() -> None:
        while not stop.is_set():
            made = nn.Linear(64, 64, bias=False)
            nn.init.ones_(made.weight)
            if not bool((made.weight == 1).all()):
                empty.append(made)

    thread = threading.Thread(target=build)
    thread.start()
    try:
        for _ in range(5):
            Watched().get(ref)
    finally:
        stop.set()
        thread.join(30)
    assert empty == []


def test_trained_weights_are_models_like_others(pool: Watched, tmp_path: Path) -> None:
    import json

    folder = save_sd(tmp_path) / "vae"
    (folder / "graphflow.json").write_text(json.dumps({"role": "vae", "loader": "diffusers.vae", "space": "sd"}))
    model = pool.get_trained(folder, "vae")
    key = pool.key_of_trained(folder, "vae")
    assert list(pool.resident) == [key]
    assert weight_bytes(pool.ref_of_trained(folder, "vae"), "float32") == pool.resident_bytes
    assert pool.get_trained(folder, "vae") is model
    with pytest.raises(MissingError, match="holds a vae, expected a denoiser"):
        pool.get_trained(folder, "denoiser")
    with pytest.raises(MissingError, match="does not say how to load"):
        pool.get_trained(tmp_path, "vae")


def predict(denoiser: Any) -> torch.Tensor:
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
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
        if id(tensor.untyped_storage()) in self.there or tensor.data_ptr() in self.there:
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
    assert sum(pool.there.values()) == size + 0, "the tower is there already"
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
    assert pool.there.keys() <= {0} or pool.get(vision) is tower


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
