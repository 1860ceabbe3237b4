"""A second stage for the autoencoder: its decoder alone, trained on the latents as the denoiser sees them.

The encoder stays as it is, and so do all latents. In the first stage the posterior's noise drowned what one of the
channels says; without it the decoder learns to read that channel too.
"""

import math
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from ..catalogue import Vocabulary
from ..world import Split, sample_scene
from .autoencoder import VARIED, reconstruction_loss
from .loop import Log, Loop, Step, Steps, fit, in_processes, is_main
from .pictures import pixels_of
from .saving import save_half


def train_decoder(
    out: Path,
    vae: Path,
    words: Vocabulary,
    loop: Loop,
    *,
    latent_noise: float,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    """Go on training the decoder of the autoencoder in `vae` and save the whole to `out`.

    `latent_noise` is the deviation of the noise on the latents (which have deviation 1): it makes up for the errors of
    the denoiser, and becomes the deviation of the posterior.
    """
    arguments = {"out": out, "vae": vae, "words": words, "loop": loop, "latent_noise": latent_noise}
    in_processes(_train, loop.workers, steps, log, checkpoint=checkpoint, **arguments)


def _train(
    out: Path,
    vae: Path,
    words: Vocabulary,
    loop: Loop,
    latent_noise: float,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    model = AutoencoderKL.from_pretrained(vae, torch_dtype=torch.float32)
    for part in (model.encoder, model.quant_conv):
        part.requires_grad_(False)
    set_posterior(model, latent_noise)

    def loss_of(step: Step) -> Tensor:
        scenes = [sample_scene(step.rng, words, Split.TRAIN, VARIED) for _ in range(step.batch_size)]
        x_BCHW = pixels_of(scenes, words.size).to(step.device)
        with torch.no_grad():
            z_BChw = model.encode(x_BCHW).latent_dist.mode().float()
        noise_BChw = torch.randn(z_BChw.shape, generator=step.torch_rng).to(step.device)
        y_BCHW = model.decode(z_BChw + latent_noise * noise_BChw).sample.float()
        return reconstruction_loss(y_BCHW, x_BCHW)

    fit(model, loss_of, loop, checkpoint, steps, log)
    if is_main():
        save_half(model, out)


@torch.no_grad()
def set_posterior(model: AutoencoderKL, deviation: float) -> None:
    """Give the posterior the same deviation everywhere; its mean stays."""
    convolution, channels = model.quant_conv, model.config.latent_channels
    convolution.weight[channels:] = 0
    convolution.bias[channels:] = 2 * math.log(deviation)
