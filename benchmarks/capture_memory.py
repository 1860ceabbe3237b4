"""Memory of capturing features: a trajectory of Stable Diffusion 1.5's size streams to the disk and back.

    python benchmarks/capture_memory.py --steps 2

The network has Stable Diffusion 1.5's own shape and random weights. The first steps are computed; as a CPU takes long,
the others repeat the tensors of the last computed one of their kind, so that the series has its full size. A row says
how much memory the process held beside the model at most (anonymous pages, which don't go away by themselves).
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from graphflow.nodes.lib.denoiser import Denoiser
from graphflow.nodes.lib.injection import Injection, plug_and_play_injection, unet_costs
from graphflow.nodes.lib.plug_and_play import capture_features
from graphflow.nodes.lib.sources import LATENTS
from graphflow.series import SeriesWriter, TensorSeries
from graphflow.store import Store

SD15 = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
STEPS = 50


def resident() -> int:
    """Bytes of anonymous memory."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def measured(title: str, work: Callable[[], object]) -> None:
    """Run, watch the memory from another thread, and print a row."""
    before, done = resident(), threading.Event()
    peak = [before]

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    held = f"{(peak[0] - before) / 2**20:7.0f} MiB at most, {(resident() - before) / 2**20:6.0f} MiB after"
    print(f"{title:44s} {held}   {seconds:7.1f} s", flush=True)


def denoiser(dtype: torch.dtype) -> Denoiser:
    """Random weights, filled without the initialisation that takes longer than everything else."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD15).to(dtype)
    unet = unet.to_empty(device="cpu")
    for weight in unet.parameters():
        weight.data.normal_(0, 0.02)
    return Denoiser(unet, SCHEDULE)


def complete(
    writer: SeriesWriter, injection: Injection, timesteps: list[int], computed: int, dtype: torch.dtype
) -> None:
    """The other timesteps, with random tensors of the true shapes."""
    sizes = unet_costs(SD15).places
    for step, timestep in list(enumerate(timesteps))[computed : injection.last]:
        tensors = {place: torch.randn(1, sizes[place]).to(dtype) for place in injection.at(step)}
        writer.add(timestep, {LATENTS: torch.randn(1, 4, 64, 64), **tensors})


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2, help="steps that are computed")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--folder", type=Path, help="where the series and the store lie; a temporary folder by default")
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    model = denoiser(dtype)
    timesteps = model.timesteps(STEPS).tolist()
    injection = plug_and_play_injection(unet_costs(SD15).places, STEPS)
    first = Injection({place: min(count, arguments.steps) for place, count in injection.steps.items()})
    latents = {t: torch.randn(1, 4, 64, 64) for t in timesteps}
    cond = torch.randn(1, 77, 768)

    def one() -> None:
        model.predict(latents[timesteps[0]], timesteps[0], cond)

    with tempfile.TemporaryDirectory(dir=arguments.folder) as root:
        folder = Path(root) / "series"
        folder.mkdir()
        writer, store = SeriesWriter(folder), Store(Path(root) / "store")
        measured("one call of the network, nothing captured", one)
        measured(f"capture {arguments.steps} steps", lambda: capture_features(model, latents, cond, first, writer.add))
        measured(f"write the other {injection.last - arguments.steps}", lambda: complete(
            writer, injection, timesteps, arguments.steps, dtype
        ))  # fmt: skip
        series = writer.finish({}, {"cond": cond})
        size = series.bytes
        found: list[TensorSeries] = []
        measured("into the store", lambda: found.append(store.load(store.put(series, "series"))))
        measured(
            "read back, a timestep at a time",
            lambda: [sum(float(v.sum()) for v in t.values()) for t in found[0].values()],
        )
        beside = Path(root) / "lockstep"
        beside.mkdir()
        lockstep = SeriesWriter(beside)
        measured("lock-step: what is written instead", lambda: [
            lockstep.add(t, {LATENTS: latents[t]}) for t in timesteps[: injection.last]
        ])  # fmt: skip
        print(f"\n{injection.last} timesteps, {size / 2**20:.0f} MiB on the disk in {arguments.dtype}; lock-step "
              f"{lockstep.finish({}, {'cond': cond}).bytes / 2**20:.1f} MiB")  # fmt: skip


if __name__ == "__main__":
    main()
