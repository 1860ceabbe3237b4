"""One thread computes, another loads, and neither notices the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import save_phi, save_sd
from pools import POCKET, Gate, Watched, tensors
from torch import nn

from graphflow.errors import GraphflowError
from graphflow.models.refs import ModelRef
from graphflow.models.turns import Turns
from graphflow.models.weights import model_key, weight_bytes


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


def test_what_had_no_room_ahead_of_its_time_is_loaded_again(pool: Watched, gate: tuple[Gate, ModelRef]) -> None:
    loader, ref = gate
    loader.error = MemoryError()
    pool.prefetch(ref)
    assert loader.entered.wait(30)
    loader.open.set()
    with pytest.raises(MemoryError):
        pool._loads[model_key(ref)].result(30)
    loader.error = None
    assert pool.get(ref) is not None
    assert loader.count == 2
    loader.error = MemoryError()
    pool.release([model_key(ref)], False)
    with pytest.raises(MemoryError):
        pool.get(ref)


def test_what_a_node_waits_for_goes_before_what_is_only_foreseen() -> None:
    turns, order = Turns(), []
    threads = [threading.Thread(target=take, args=(turns, urgent, order)) for urgent in (False, False, True, True)]
    with turns.turn(urgent=True):
        for thread in threads:
            thread.start()
        while turns._urgent < 2:
            threads[2].join(0.01)
    for thread in threads:
        thread.join(30)
    assert order == [True, True, False, False]


def take(turns: Turns, urgent: bool, order: list[bool]) -> None:
    with turns.turn(urgent):
        order.append(urgent)


def test_a_load_that_fails_gives_its_turn_back() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="no"), turns.turn(urgent=False):
        raise ValueError("no")
    with turns.turn(urgent=False):
        pass


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
