"""pix2pix-zero: graphflow against diffusers' StableDiffusionPix2PixZeroPipeline, same weights, same steps, one run.

    python benchmarks/pix2pix_zero_vs_diffusers.py
    python benchmarks/pix2pix_zero_vs_diffusers.py --unet sd1 --size 512 --steps 50 --device cuda --dtype bfloat16

Weights are random: time does not depend on them. Both sides get ready embeddings and return latents; the pipeline's
decoder is switched off. Two measurements: the edit, and the regularised inversion.
"""

from __future__ import annotations

import argparse
import copy
from functools import partial
from typing import Any

import torch
from common import print_row, side_by_side
from diffusers import (
    AutoencoderKL,
    DDIMInverseScheduler,
    DDIMScheduler,
    StableDiffusionPix2PixZeroPipeline,
    UNet2DConditionModel,
)

from graphflow.nodes.lib.ddim import ddim_inversion
from graphflow.nodes.lib.denoiser import Denoiser
from graphflow.nodes.lib.pix2pix_zero import pix2pix_zero_sample, regularise_noise

SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}

UNETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "block_out_channels": (16, 32, 32, 32),
        "norm_num_groups": 8,
        "attention_head_dim": 4,
        "cross_attention_dim": 32,
    },
    "medium": {"block_out_channels": (64, 128, 256, 256), "attention_head_dim": 8, "cross_attention_dim": 256},
    "sd1": {"block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": 8, "cross_attention_dim": 768},
}
"""All have the blocks of Stable Diffusion 1.x; sd1 has its widths as well."""


def build_pipeline(unet: UNet2DConditionModel) -> StableDiffusionPix2PixZeroPipeline:
    """diffusers' pipeline over `unet`, without text encoder and with a decoder that does nothing."""
    vae = AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
    ).to(unet.device, unet.dtype)
    vae.decode = lambda latents, return_dict: (latents[:, :3],)
    pipeline = StableDiffusionPix2PixZeroPipeline(
        vae=vae,
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
    return pipeline


def relative_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """‖a - b‖ / ‖b‖ in float32."""
    return float((a.float() - b.float()).norm() / b.float().norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unet", choices=UNETS, nargs="+", default=["tiny", "medium"])
    parser.add_argument("--size", type=int, default=256, help="side of the picture in pixels (default 256)")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    args = parser.parse_args()
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    print(f"torch {torch.__version__}, {device}, {args.dtype}, {torch.get_num_threads()} threads, "
          f"{args.size} px, {args.steps} steps, median of {args.repeats}")  # fmt: skip

    for name in args.unet:
        torch.manual_seed(0)
        # Drawn where they are needed: sd1's 860 M random numbers take a minute on a CPU.
        with device:
            unet = UNet2DConditionModel(sample_size=args.size // 8, **UNETS[name]).to(dtype)
        pipeline = build_pipeline(copy.deepcopy(unet))  # it replaces the processors of its UNet for good
        denoiser = Denoiser(unet, SCHEDULER)
        side, width = args.size // 8, UNETS[name]["cross_attention_dim"]
        generator = torch.Generator().manual_seed(0)
        z = torch.randn(1, 4, side, side, generator=generator).to(device)
        cond = torch.randn(1, 77, width, generator=generator).to(device)
        direction = 0.3 * torch.randn(77, width, generator=generator).to(device)

        edit_ours = partial(pix2pix_zero_sample, denoiser, z, cond, direction, args.steps)

        def edit_theirs(pipeline=pipeline, z=z, cond=cond, direction=direction) -> torch.Tensor:
            return pipeline(
                prompt_embeds=cond.to(dtype),
                negative_prompt_embeds=cond.to(dtype),
                source_embeds=torch.zeros_like(direction, dtype=dtype)[None],
                target_embeds=direction.to(dtype)[None],
                latents=z.to(dtype),
                height=args.size,
                width=args.size,
                num_inference_steps=args.steps,
                guidance_scale=5.0,
                cross_attention_guidance_amount=0.15,
                output_type="latent",
            ).images

        def invert_ours(denoiser=denoiser, z=z, cond=cond) -> torch.Tensor:
            regularise = partial(regularise_noise, generator=torch.Generator().manual_seed(1), smallest_shift=0)
            return ddim_inversion(denoiser, z, cond, args.steps, regularise=regularise)[1][-1]

        def invert_theirs(pipeline=pipeline, z=z, cond=cond) -> torch.Tensor:
            return pipeline.invert(
                prompt_embeds=cond.to(dtype),
                image=z.to(dtype),
                num_inference_steps=args.steps,
                generator=torch.Generator().manual_seed(1),
                output_type="latent",
            ).latents

        for title, ours, theirs in (("edit", edit_ours, edit_theirs), ("inversion", invert_ours, invert_theirs)):
            difference = relative_difference(ours(), theirs())
            times = side_by_side({"ours": ours, "theirs": theirs}, args.repeats, device)
            print_row(f"{name}: {title}", times["ours"], times["theirs"], f"difference {difference:.1e}")


if __name__ == "__main__":
    main()
