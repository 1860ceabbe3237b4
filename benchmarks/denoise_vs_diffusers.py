"""The denoising path against diffusers: Stable Diffusion 1.5's own networks with random weights, both sides in one run.

    python benchmarks/denoise_vs_diffusers.py                           # 128 px, 3 steps: minutes on a CPU
    python benchmarks/denoise_vs_diffusers.py --device cuda --dtype bfloat16 --size 512 --steps 50 --repeats 5

text to image      beside StableDiffusionPipeline with DDIMScheduler, prompt to pixels
pix2pix-zero       the edit and the regularised inversion, beside StableDiffusionPix2PixZeroPipeline
plug-and-play      beside the published loop, with fused attention: three rows at every step; ours in lock-step and
                   from features that were captured before

Both sides share the weights and take turns. A ratio above 1 means that ours is faster. The bound is the time that the
multiplications of our run would take at the device's measured matrix-multiplication rate.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from common import print_row, side_by_side
from diffusers import DDIMInverseScheduler, DDIMScheduler, StableDiffusionPix2PixZeroPipeline
from sd15 import SCHEDULER, SIZES, TOKENS, Models
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from graphflow.nodes.lib.ddim import ddim_inversion, ddim_sample
from graphflow.nodes.lib.injection import decoder_places, plug_and_play_injection
from graphflow.nodes.lib.pix2pix_zero import pix2pix_zero_sample, regularise_noise
from graphflow.nodes.lib.plug_and_play import Prompts, capture_features, injected_sample
from graphflow.nodes.lib.sources import LATENTS
from graphflow.nodes.lib.taps import Taps

PROMPT = "a photograph of a red fox in the snow"
GUIDANCE = 7.5


class Case:
    """One method on both sides; `ours` also runs on the meta device, to count multiplications."""

    def __init__(self, models: Models, size: int, steps: int) -> None:
        self.models, self.size, self.steps, side = models, size, steps, size // 8
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(models.device)

        self.z = draw(1, 4, side, side)
        self.cond, self.empty = draw(1, TOKENS, models.size.width), draw(1, TOKENS, models.size.width)
        self.direction = 0.3 * draw(TOKENS, models.size.width)
        self.dtype = models.denoiser.dtype

    def ours(self) -> Tensor:
        raise NotImplementedError

    def theirs(self) -> Tensor:
        raise NotImplementedError


class TextToImage(Case):
    """Prompt to pixels in [-1, 1]."""

    def ours(self) -> Tensor:
        encoder, vae = self.models.text_encoder, self.models.graphflow_vae
        empty, cond = encoder.encode(["", PROMPT]).split(1)
        how = {"guidance_scale": GUIDANCE, "negative_BLD": empty}
        z = ddim_sample(self.models.denoiser, self.z, cond, self.steps, **how)
        return vae.decode(z).clamp(-1, 1)

    def theirs(self) -> Tensor:
        images = self.models.pipeline()(
            PROMPT,
            height=self.size,
            width=self.size,
            num_inference_steps=self.steps,
            guidance_scale=GUIDANCE,
            latents=self.z.to(self.dtype),
            output_type="pt",
        ).images
        return images.float() * 2 - 1


class Pix2PixZero(Case):
    """The edit, from noise to latents."""

    def ours(self) -> Tensor:
        return pix2pix_zero_sample(self.models.denoiser, self.z, self.cond, self.direction, self.steps)

    def theirs(self) -> Tensor:
        with self.pipeline() as pipeline:
            return pipeline(
                prompt_embeds=self.cond.to(self.dtype),
                negative_prompt_embeds=self.cond.to(self.dtype),
                source_embeds=torch.zeros_like(self.direction, dtype=self.dtype)[None],
                target_embeds=self.direction.to(self.dtype)[None],
                latents=self.z.to(self.dtype),
                height=self.size,
                width=self.size,
                num_inference_steps=self.steps,
                guidance_scale=5.0,
                cross_attention_guidance_amount=0.15,
                output_type="latent",
            ).images

    @contextmanager
    def pipeline(self) -> Iterator[StableDiffusionPix2PixZeroPipeline]:
        """diffusers' pipeline with a decoder that does nothing; the UNet is as before afterwards."""
        unet, processors = self.models.unet, self.models.unet.attn_processors
        pipeline = StableDiffusionPix2PixZeroPipeline(
            vae=self.models.vae,
            text_encoder=None,
            tokenizer=None,
            unet=unet,
            scheduler=DDIMScheduler(**SCHEDULER),
            inverse_scheduler=DDIMInverseScheduler(**SCHEDULER),
            safety_checker=None,
            feature_extractor=None,
            caption_generator=None,
            caption_processor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        self.models.vae.decode = lambda latents, return_dict: (latents[:, :3],)
        try:
            yield pipeline
        finally:
            del self.models.vae.decode
            unet.set_attn_processor(processors)
            unet.requires_grad_(False)
            for weight in unet.parameters():
                weight.grad = None


class RegularisedInversion(Pix2PixZero):
    """From latents to noise, with the regularisation of pix2pix-zero."""

    def ours(self) -> Tensor:
        regularise = partial(regularise_noise, generator=torch.Generator().manual_seed(1), smallest_shift=0)
        return ddim_inversion(self.models.denoiser, self.z, self.cond, self.steps, regularise=regularise)[1][-1]

    def theirs(self) -> Tensor:
        with self.pipeline() as pipeline:
            return pipeline.invert(
                prompt_embeds=self.cond.to(self.dtype),
                image=self.z.to(self.dtype),
                num_inference_steps=self.steps,
                generator=torch.Generator().manual_seed(1),
                output_type="latent",
            ).latents


class PlugAndPlay(Case):
    """Plug-and-Play in lock-step, from the latents of an inversion."""

    def __init__(self, models: Models, size: int, steps: int) -> None:
        super().__init__(models, size, steps)
        self.timesteps = models.denoiser.timesteps(steps).tolist()
        noises = torch.randn(steps, *self.z.shape, generator=torch.Generator().manual_seed(2)).to(models.device)
        self.source: dict[int, Any] = {t: {LATENTS: z} for t, z in zip(self.timesteps, noises, strict=True)}
        self.injection = plug_and_play_injection(Taps(models.unet).places, steps)

    def ours(self) -> Tensor:
        prompts = Prompts(self.cond, self.empty, GUIDANCE)
        how = {"source_BLD": self.empty}
        return injected_sample(self.models.denoiser, self.source, self.injection, prompts, self.steps, **how)

    @torch.no_grad()
    def theirs(self) -> Tensor:
        """The published loop: the source's row runs beside the other two at every step, hooked or not."""
        unet, scheduler, now = self.models.unet, DDIMScheduler(**SCHEDULER), [0]
        scheduler.set_timesteps(self.steps)
        x = self.source[self.timesteps[0]][LATENTS].to(self.dtype)
        conds = [cond.to(self.dtype) for cond in (self.empty, self.empty, self.cond)]
        with published_patches(unet, self.injection.steps, now):
            for number, t in enumerate(scheduler.timesteps):
                now[0] = number
                rows = torch.cat([self.source[int(t)][LATENTS].to(self.dtype), x, x])
                noise = unet(rows, t, encoder_hidden_states=torch.cat(conds)).sample
                _, negative, cond = noise.chunk(3)
                x = scheduler.step(negative + GUIDANCE * (cond - negative), t, x).prev_sample
        return x


class CapturedPlugAndPlay(PlugAndPlay):
    """The same from features that were captured beforehand, as for a second edit of one picture."""

    def __init__(self, models: Models, size: int, steps: int) -> None:
        super().__init__(models, size, steps)
        latents = {t: tensors[LATENTS] for t, tensors in self.source.items()}
        self.captured: dict[int, Any] = {}
        capture_features(models.denoiser, latents, self.empty, self.injection, self.captured.__setitem__)

    def ours(self) -> Tensor:
        prompts = Prompts(self.cond, self.empty, GUIDANCE)
        return injected_sample(self.models.denoiser, self.captured, self.injection, prompts, self.steps)


@contextmanager
def published_patches(unet: Any, steps: Any, now: list[int]) -> Iterator[None]:
    """pnp-diffusers' patches: in tapped layers the first third of the rows overwrites the rest, for its first steps."""

    def shared(x: Tensor) -> Tensor:
        third = len(x) // 3
        x[third : 2 * third], x[2 * third :] = x[:third], x[:third]
        return x

    class SharedAttention:
        def __init__(self, count: int) -> None:
            self.count = count

        def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
            q, k, v = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
            if now[0] < self.count:
                q, k = shared(q), shared(k)
            q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
            return attn.to_out[0](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    places, taps, before = Taps(unet).places, Taps(unet), unet.attn_processors
    resnets, layers = decoder_places(places)

    def share_features(count: int, module: Any, args: Any, out: Tensor) -> Tensor | None:
        return shared(out) if now[0] < count else None

    hooks = [
        places[f"{name}.conv2"].module.register_forward_hook(partial(share_features, steps.get(f"{name}.conv2", 0)))
        for name in resnets
    ]
    for name in layers:
        taps.attentions[name].set_processor(SharedAttention(steps.get(f"{name}.q", 0)))
    try:
        yield
    finally:
        unet.set_attn_processor(before)
        for hook in hooks:
            hook.remove()


CASES: dict[str, type[Case]] = {
    "text to image": TextToImage,
    "pix2pix-zero": Pix2PixZero,
    "pix2pix-zero inversion": RegularisedInversion,
    "plug-and-play": PlugAndPlay,
    "plug-and-play, captured": CapturedPlugAndPlay,
}


def relative_difference(a: Tensor, b: Tensor) -> tuple[float, float]:
    """‖a - b‖ / ‖b‖ and max |a - b| / max |b|, in float32."""
    a, b = a.float(), b.float()
    return float((a - b).norm() / b.norm()), float((a - b).abs().max() / b.abs().max())


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix multiplication, the best of ten."""
    n = 8192 if device.type == "cuda" else 1536
    a, b, best = torch.randn(n, n, device=device).to(dtype), torch.randn(n, n, device=device).to(dtype), 0.0
    for _ in range(10):
        start = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * n**3 / (time.perf_counter() - start))
    return best


class Flops(TorchDispatchMode):
    """Adds up floating-point operations, those of backward passes included (`FlopCounterMode` fails on some)."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        count = flop_registry.get(func.overloadpacket)
        if count is None:
            with self:  # what is made of other operations is counted by those
                out = func.decompose(*args, **(kwargs or {}))
            if out is not NotImplemented:
                return out
        out = func(*args, **(kwargs or {}))
        self.total += 0 if count is None else count(*args, **(kwargs or {}), out_val=out)
        return out


def flops_of(run: Callable[[], object]) -> int:
    """Floating-point operations of a run on the meta device."""
    with Flops() as counter:
        run()
    return counter.total


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unet", choices=SIZES, nargs="+", default=["sd15"], help="widths of the networks")
    parser.add_argument("--cases", choices=CASES, nargs="+", default=list(CASES), metavar="CASE")
    parser.add_argument("--size", type=int, default=128, help="side of the picture in pixels (default 128)")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    args = parser.parse_args(arguments)
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    rate = matmul_rate(device, dtype)
    print(f"torch {torch.__version__}, {device}, {args.dtype}, {torch.get_num_threads()} threads, {args.size} px, "
          f"{args.steps} steps, median of {args.repeats}; matrix multiplication {rate / 1e12:.2f} TFLOP/s")  # fmt: skip
    for name in args.unet:
        models, shapes = Models(SIZES[name], device, dtype), Models(SIZES[name], torch.device("meta"), dtype)
        for title in args.cases:
            case = CASES[title](models, args.size, args.steps)
            apart = relative_difference(case.ours(), case.theirs())
            times = side_by_side({"ours": case.ours, "theirs": case.theirs}, args.repeats, device)
            bound = flops_of(CASES[title](shapes, args.size, args.steps).ours) / rate
            note = f"difference {apart[0]:.1e} (largest {apart[1]:.1e})   bound {bound:.3f} s, "
            note += f"{bound / times['ours'].seconds:.0%} of it reached"
            print_row(f"{name}: {title}", times["ours"], times["theirs"], note)


if __name__ == "__main__":
    main()
