"""The loop that all pocket models are trained by: resumable, and spread over processes by parameter averaging.

The batch of a step depends on (seed, step, rank) alone, so a run that was cut off and resumed ends with the very
parameters of one that was not. With several processes this takes the optimiser of each, and a moment at which all have
the same parameters: right after an averaging. Batches are drawn where the training runs, on the CPU; an accelerator
would wait for them, so that there the other cores draw ahead.
"""

import hashlib
import itertools
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from graphflow.machine import cores

from .optimisers import Optimiser

Steps = Callable[[Iterable[int]], Iterable[int]]
Log = Callable[[str], None]


def all_steps(steps: Iterable[int]) -> Iterable[int]:
    """The progress wrapper that shows nothing."""
    return steps


@dataclass(frozen=True)
class Loop:
    """How to run: the hyper-parameters that every model shares."""

    count: int  # optimiser steps
    batch_size: int  # samples a step, in each process
    learning_rate: float
    seed: int = 0
    warmup: int = 200  # steps of linear warm-up
    flat: float = 0.6  # share of the steps before the learning rate falls linearly to zero
    weight_decay: float = 0.01
    optimiser: str = "adamw"  # of optimisers.NAMES
    ema: float | None = None  # decay of the moving average that is the result; None: the last parameters are
    workers: int = 1  # processes, each with batches of its own
    average_every: int = 8  # steps between two averagings of the parameters over the processes
    save_seconds: float = 60.0
    device: str = "cpu"
    bfloat16: bool = True  # autocast; parameters and optimiser stay in float32
    drawers: int | None = None  # processes that draw batches ahead; None: the other cores, beside an accelerator

    @property
    def drawing(self) -> int:
        """How many processes draw batches ahead; 0: each step draws its own."""
        if self.drawers is None:
            return 0 if self.device == "cpu" else max(1, cores() - 1)
        return self.drawers

    def rate_at(self, step: int) -> float:
        """The learning rate of a step."""
        falling = (self.count - step) / max(1.0, self.count * (1 - self.flat))
        return self.learning_rate * min(1.0, (step + 1) / self.warmup, falling)


@dataclass(frozen=True)
class Step:
    """What the loss of one step may depend on: generators that are the step's own, and the curriculum's progress."""

    number: int
    progress: float  # 0 at the first step, 1 at the end
    rng: random.Random
    torch_rng: torch.Generator  # on the CPU
    batch_size: int
    device: torch.device
    drawn: Any = None  # what `draw` gave for this step, on the CPU


Loss = Callable[[Step], Tensor]
Draw = Callable[[Step], Any]


def fit(
    model: nn.Module,
    loss_of: Loss,
    loop: Loop,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
    draw: Draw | None = None,
) -> None:
    """Minimise `loss_of` over the parameters of `model`, in place, going on from `checkpoint` if it has one.

    `draw` makes what the loss finds as `Step.drawn`; it may run ahead in another process and must not touch a device.
    """
    rank = _rank()
    model.to(loop.device).train()
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimiser = Optimiser(loop.optimiser, parameters, loop.learning_rate, loop.weight_decay)
    average = {name: p.detach().clone() for name, p in parameters.items()} if loop.ema else {}
    first = _restore(checkpoint, parameters, average, optimiser) if checkpoint else 0
    if first:
        log(f"resumed at step {first}")
    saved_at, shown_at, losses = time.monotonic(), time.monotonic(), []
    batches = _batches(draw, loop, rank, first)
    for number in steps(range(first, loop.count)):
        optimiser.set_rate(loop.rate_at(number))
        with torch.autocast(loop.device.split(":")[0], torch.bfloat16, enabled=loop.bfloat16), _attention(loop):
            loss = loss_of(replace(_step(loop, number, rank), drawn=next(batches)))
        loss.backward()
        nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimiser.step()
        last = number == loop.count - 1
        apart = dist.is_initialized() and not (last or number % loop.average_every == 0)
        if dist.is_initialized() and not apart:
            _average_over_processes(parameters)
        if loop.ema:
            decay = min(loop.ema, (number + 1) / (number + 10))
            torch._foreach_lerp_(
                list(average.values()),
                [p.detach() for p in parameters.values()],
                1 - decay,
            )
        losses.append(loss.detach())
        now = time.monotonic()
        if now - shown_at > 20:
            log(f"step {number + 1}/{loop.count} loss {torch.stack(losses).mean().item():.4f}")
            shown_at, losses = now, []
        if checkpoint and not apart and _as_the_first_says(last or now - saved_at > loop.save_seconds):
            _save(checkpoint, parameters, average, optimiser, number + 1)
            saved_at = now
    for name, value in average.items():
        parameters[name].data.copy_(value)
    model.eval()


def _attention(loop: Loop) -> AbstractContextManager[Any]:
    """On a CPU without the fused kernel: with as few tokens as here, going back through it takes longest of all."""
    return sdpa_kernel(SDPBackend.MATH) if loop.device == "cpu" else nullcontext()


class _Batches(Dataset[Any]):
    """The batch of each step, by the step's number."""

    def __init__(self, draw: Draw, loop: Loop, rank: int) -> None:
        self._draw, self._loop, self._rank = draw, replace(loop, device="cpu"), rank

    def __getitem__(self, number: int) -> Any:
        return self._draw(_step(self._loop, number, self._rank, "draw"))


def _batches(draw: Draw | None, loop: Loop, rank: int, first: int) -> Iterator[Any]:
    if draw is None:
        return itertools.repeat(None)
    batches, numbers = _Batches(draw, loop, rank), range(first, loop.count)
    if not loop.drawing:
        return (batches[number] for number in numbers)
    return iter(
        DataLoader(
            batches,
            batch_size=None,
            sampler=numbers,
            num_workers=loop.drawing,
            collate_fn=_as_it_is,
            worker_init_fn=_one_thread,
            prefetch_factor=4,
            multiprocessing_context="fork",  # the batches are never pickled on their way in
        )
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def _step(loop: Loop, number: int, rank: int, purpose: str = "loss") -> Step:
    key = f"{loop.seed}/{number}/{rank}/{purpose}"
    rng = random.Random(key)
    torch_rng = torch.Generator().manual_seed(rng.getrandbits(62))
    return Step(
        number,
        number / loop.count,
        rng,
        torch_rng,
        loop.batch_size,
        torch.device(loop.device),
    )


# --- processes ------------------------------------------------------------------------------------------------------


def in_processes(function: Callable[..., Any], workers: int, steps: Steps, log: Log, **arguments: Any) -> Any:
    """Call `function(steps=, log=, **arguments)` here and in `workers - 1` more processes that average with it.

    The others report nothing. Returns what the call in this process returns.

    Raises:
        RuntimeError: one of the others could not begin, or died; its own message stands on standard error.
    """
    if workers == 1:
        return function(steps=steps, log=log, **arguments)
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meeting"
        context = mp.get_context("spawn")
        begun = context.Semaphore(0)
        others = [
            context.Process(
                target=_other,
                args=(begun, function, meeting, rank, workers, arguments),
                daemon=False,  # a daemon may have no processes that draw for it
            )
            for rank in range(1, workers)
        ]
        with ExitStack() as ending:
            for process in others:
                process.start()
                ending.callback(_end, process)
            _wait_for(begun, others)
            dist.init_process_group("gloo", init_method=meeting, rank=0, world_size=workers)
            try:
                result = function(steps=steps, log=log, **arguments)
            finally:
                dist.destroy_process_group()
            for process in others:
                process.join()
            return result


def _end(process: BaseProcess) -> None:
    """End a process that is no daemon: Python would wait for it for ever when this one fails or is interrupted."""
    process.terminate()
    process.join()


def _wait_for(begun: Semaphore, others: Sequence[BaseProcess]) -> None:
    """Wait until all have begun: the rendezvous itself would wait for a dead one for half an hour."""
    waiting = len(others)
    while waiting:
        if begun.acquire(timeout=1):
            waiting -= 1
        elif any(process.exitcode is not None for process in others):
            raise RuntimeError("a training process died before it began; its message stands above")


def _other(
    begun: Semaphore,
    function: Callable[..., Any],
    meeting: str,
    rank: int,
    workers: int,
    arguments: dict[str, Any],
) -> None:
    torch.set_num_threads(1)
    begun.release()
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=workers)
    function(steps=all_steps, log=lambda _: None, **arguments)
    dist.destroy_process_group()


def is_main() -> bool:
    """Whether this process is the one that writes results."""
    return _rank() == 0


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _as_the_first_says(answer: bool) -> bool:
    """The answer of the first process, in all of them: their clocks differ."""
    if not dist.is_initialized():
        return answer
    said = torch.tensor([answer])
    dist.broadcast(said, 0)
    return bool(said)


def _average_over_processes(parameters: dict[str, nn.Parameter]) -> None:
    flat = torch.cat([p.detach().flatten() for p in parameters.values()])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for p, mean in zip(
        parameters.values(),
        flat.split([p.numel() for p in parameters.values()]),
        strict=True,
    ):
        p.data.copy_(mean.view_as(p))


# --- checkpoints ----------------------------------------------------------------------------------------------------


def _save(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimiser: Optimiser,
    done: int,
) -> None:
    """Write a file for each process, then point `last.json` at them: a crash leaves the older checkpoint in force."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model/{name}": p.detach().contiguous() for name, p in parameters.items()}
    tensors |= {f"average/{name}": value.contiguous() for name, value in average.items()}
    tensors |= {f"optimiser/{name}": value for name, value in optimiser.state().items()}
    first, *others = files = _files(done)
    own = files[_rank()]
    save_file(tensors, folder / f"{own}.part")
    os.replace(folder / f"{own}.part", folder / own)
    if dist.is_initialized():
        dist.barrier()
    if not is_main():
        return
    last: dict[str, Any] = {"done": done, "file": first, "sha256": digest_of(folder / first)}
    if others:
        last["others"] = {file: digest_of(folder / file) for file in others}
    (folder / "last.json.part").write_text(json.dumps(last) + "\n")
    os.replace(folder / "last.json.part", folder / "last.json")
    for old in folder.glob("step-*.safetensors"):
        if old.name not in files:
            old.unlink()


def _files(done: int) -> list[str]:
    """The names of a checkpoint's files, one a process; a process alone writes the first."""
    others = range(1, dist.get_world_size() if dist.is_initialized() else 1)
    return [f"step-{done}.safetensors", *(f"step-{done}-rank-{rank}.safetensors" for rank in others)]


def _restore(
    folder: Path,
    parameters: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimiser: Optimiser,
) -> int:
    """Load the newest checkpoint in place; returns how many steps it has behind it, 0 for none or a damaged one.

    Every process looks at all files, so that all begin at the same step. One of another number of processes counts as
    damaged: it lacks the optimisers of some, or has too many.
    """
    try:
        last = json.loads((folder / "last.json").read_text())
        done, digests = int(last["done"]), {last["file"]: last["sha256"]} | last.get("others", {})
        files = _files(done)
        if digests != {file: digest_of(folder / file) for file in files}:
            return 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    tensors = load_file(folder / files[_rank()])
    for name, p in parameters.items():
        p.data.copy_(tensors[f"model/{name}"])
    prefix = "optimiser/"
    optimiser.load({name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)})
    for name, value in average.items():
        value.copy_(tensors[f"average/{name}"])
    return done


def digest_of(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
