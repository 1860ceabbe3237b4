"""More models than memory: a map over models of Stable Diffusion 1.5's shape, with room for all and under a budget.

    python benchmarks/model_swap.py                                       # small models: a minute on a CPU
    python benchmarks/model_swap.py --unet sd15 --unets 4 --device cuda --dtype bfloat16 --size 512 --pictures 16

Checkpoints with random weights are written, read as any others are, and taken through one graph twice: encode,
invert under the first UNet, sample under each of the others, decode. A graph that groups its work by model loads
each of them once however small the budget is, as long as the largest fits.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from PIL import Image
from sd15 import SCHEDULER, SIZES, Models, byte_tokenizer

from graphflow.events import Event, ModelLoaded, ModelReleased
from graphflow.options import Options
from graphflow.session import open_session


def write_checkpoints(folder: Path, size: str, unets: int, dtype: torch.dtype) -> None:
    """`unets` different UNets, an autoencoder and a text encoder, in the layout of diffusers' repositories."""
    for number in range(unets):
        models = Models(SIZES[size], torch.device("cpu"), dtype, seed=number)
        models.unet.save_pretrained(folder / f"unet{number}")
        if number == 0:
            models.vae.save_pretrained(folder / "vae")
            models.text.save_pretrained(folder / "text_encoder")
    byte_tokenizer().save_pretrained(folder / "tokenizer")
    DDIMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")


def write_graph(folder: Path, unets: int, steps: int) -> Path:
    """The graph, and a preset beside it."""
    models = ["  vae: {loader: diffusers.vae, path: checkpoints, part: vae, options: {native_size: 64}}"]
    models += ["  text_encoder:"]
    models += [
        "    {loader: transformers.clip_text, path: checkpoints, part: text_encoder, options: {tokenizer: tokenizer}}"
    ]
    models += [
        f"  {'denoiser' if n == 0 else f'unet{n}'}: {{loader: diffusers.unet, path: checkpoints, part: unet{n}}}"
        for n in range(unets)
    ]
    preset = ["graphflow-preset: 1", "title: random weights", "space: sd15", "models:", *models]
    (folder / "preset.yaml").write_text("\n".join(preset) + "\n")
    how = f"{{num_inference_steps: {steps}, guidance_scale: 1.0}}"
    nodes = ["  text: {uses: text.encode, in: {text: inputs.prompt}}"]
    nodes += ["  encode: {uses: vae.encode, map: {image: inputs.pictures}}"]
    nodes += [f"  edit0: {{uses: invert.ddim, map: {{latents: encode.latents}}, in: {{cond: text.cond}}, with: {how}}}"]
    for n in range(1, unets):
        source = "edit0.noise" if n == 1 else f"edit{n - 1}.latents"
        ports = f"in: {{cond: text.cond, model: models.unet{n}}}"
        nodes += [f"  edit{n}: {{uses: denoise.ddim, map: {{noise: {source}}}, {ports}, with: {how}}}"]
    last = "edit0.noise" if unets == 1 else f"edit{unets - 1}.latents"
    nodes += [f"  decode: {{uses: vae.decode, map: {{latents: {last}}}}}"]
    inputs = ["inputs:", "  pictures: list[Image]", "  prompt: {type: Text, default: a red fox}"]
    lines = ["graphflow: 1", *inputs, "models: preset.yaml", "nodes:", *nodes, "outputs: {images: decode.image}"]
    (folder / "swap.yaml").write_text("\n".join(lines) + "\n")
    return folder / "swap.yaml"


@dataclass
class Watch:
    """Counts loads and follows what lies on the device.

    Attributes:
        stage: the one that puts a model on the device; a CPU has its models in host memory.
        loads: model and stage → how often.
        peak: most bytes of weights at once.
    """

    stage: str
    loads: Counter[tuple[str, str]] = field(default_factory=Counter)
    here: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    peak: int = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, ModelLoaded):
            self.loads[event.name, event.stage] += 1
            self.sizes[event.name] = max(event.bytes, self.sizes.get(event.name, 0))
            if event.stage == self.stage:
                self.here[event.name] = event.bytes
                self.peak = max(self.peak, sum(self.here.values()))
        elif isinstance(event, ModelReleased):
            self.here.pop(event.name, None)

    def count(self, stage: str) -> int:
        return sum(count for (_, where), count in self.loads.items() if where == stage)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unet", choices=SIZES, default="medium", help="widths of the networks")
    parser.add_argument("--unets", type=int, default=3, help="how many UNets the graph goes through")
    parser.add_argument("--pictures", type=int, default=6)
    parser.add_argument("--size", type=int, default=64, help="side of a picture in pixels")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--memory", default="", help="budget; left out: 1.2 times the largest model and activations")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoints(folder / "checkpoints", args.unet, args.unets, getattr(torch, args.dtype))
        graph = write_graph(folder, args.unets, args.steps)
        pictures = []
        for number in range(args.pictures):
            pictures.append(folder / f"{number}.png")
            torch.manual_seed(number)
            levels = torch.randint(0, 256, (args.size, args.size, 3), dtype=torch.uint8)
            Image.fromarray(levels.numpy()).save(pictures[-1])

        def run(label: str, memory: int | None) -> tuple[Watch, float, list[bytes]]:
            session = open_session(str(graph), store=folder / f"store-{label}", device=args.device, dtype=args.dtype)
            watch, start = Watch("host" if args.device == "cpu" else "device"), time.perf_counter()
            given = {"pictures": [str(path) for path in pictures]}
            result = session.runner(given, watch, options=Options(memory=memory)).run()
            seconds = time.perf_counter() - start
            return watch, seconds, [image.tobytes() for _, image in result.elements("images")]

        run("warm", None)  # imports, and files that the system has read before
        full, seconds, images = run("full", None)
        sizes = full.sizes
        budget = parsed(args.memory) if args.memory else int(1.2 * max(sizes.values())) + activations(args.size)
        tight, tight_seconds, tight_images = run("tight", budget)
    models, total = len(sizes), sum(sizes.values())
    print(f"torch {torch.__version__}, {args.device}, {args.dtype}: {models} models of {text(total)} together, the "
          f"largest {text(max(sizes.values()))}; {args.pictures} pictures of {args.size} px")  # fmt: skip
    for label, watch, took in (("all fit", full, seconds), (f"budget {text(budget)}", tight, tight_seconds)):
        moved = f"{watch.count('host')} loads from disk"
        moved += "" if args.device == "cpu" else f", {watch.count('device')} onto the device"
        print(f"{label:24s} {took:8.2f} s   {moved}   at most {text(watch.peak)} of weights there")
    same = "equal to the bit" if images == tight_images else "different"
    print(f"time under the budget {tight_seconds / seconds:.2f} times that with room for all; pictures {same}")


def activations(size: int) -> int:
    """A generous guess of what computing takes beside the weights."""
    return 64 * 2**20 + 4096 * size * size


def parsed(memory: str) -> int:
    """Bytes of a size such as 8GiB."""
    found = re.fullmatch(r"([\d.]+)\s*([KMG]?)i?B?", memory)
    if found is None:
        raise SystemExit(f"--memory {memory}: expected a size such as 8GiB")
    return int(float(found[1]) * 1024 ** " KMG".index(found[2] or " "))


def text(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


if __name__ == "__main__":
    main()
