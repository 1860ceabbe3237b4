"""Training of the autoencoder: pictures to normalised latents and back."""

import random
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from graphflow.nodes.lib import int8

from ..catalogue import Vocabulary
from ..world import Mixture, Split, render, sample_scene
from .loop import Log, Loop, Step, Steps, fit, in_processes, is_main
from .warm_start import add_latents, add_level, wake_channels, widen

VARIED = Mixture(empty=0.05, pair=0.2, colour=0.4, accessory=0.3)


def pictures(rng: random.Random, words: Vocabulary, split: Split, count: int, mixture: Mixture) -> Tensor:
    """Freshly drawn pictures, float32 (count, 3, size, size) in [-1, 1]."""
    drawn = [np.asarray(render(sample_scene(rng, words, split, mixture), words.size)) for _ in range(count)]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 127.5 - 1


def new_autoencoder(channels: tuple[int, ...], layers: int, size: int, latent_channels: int = 4) -> AutoencoderKL:
    """An untrained autoencoder, halving the side len(channels) - 1 times; no attention in the middle."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=layers,
        latent_channels=latent_channels,
        norm_num_groups=8,
        sample_size=size,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def started(
    start: AutoencoderKL, channels: tuple[int, ...], size: int, latent_channels: int | None = None
) -> AutoencoderKL:
    """An autoencoder of these widths for pictures of this size that begins as `start`; None: its latent channels.

    Raises:
        ValueError: `start` is not the same number of levels deep, nor one less, or has more latent channels.
    """
    config = dict(start.config)
    config.pop("_name_or_path", None)  # the folder that it came from
    model = AutoencoderKL.from_config(config)
    model.load_state_dict(_exact(start))
    missing = len(channels) - len(start.config.block_out_channels)
    if missing not in (0, 1):
        found = list(start.config.block_out_channels)
        raise ValueError(f"an autoencoder with channels {list(channels)} can't begin as one with {found}")
    old = start.config.latent_channels
    if latent_channels is not None and latent_channels < old:
        raise ValueError(f"an autoencoder with {latent_channels} latent channels can't begin as one with {old}")
    model = widen(add_level(model, channels[0]) if missing else model, channels)
    if latent_channels is not None and latent_channels > old:
        model = add_latents(model, latent_channels)
    model.register_to_config(sample_size=size)
    return model


def _exact(start: AutoencoderKL) -> dict[str, Tensor]:
    """Its weights in float32 on the CPU: from its own files, where the type of the run has rounded them."""
    folder = Path(start.config.get("_name_or_path") or "")
    if start.dtype != torch.float32 and (folder / "config.json").is_file():
        start = int8.from_pretrained(AutoencoderKL, folder, torch_dtype=torch.float32)
    return {name: value.float().cpu() for name, value in start.state_dict().items()}


def train_autoencoder(
    out: Path,
    words: Vocabulary,
    loop: Loop,
    *,
    channels: tuple[int, ...],
    layers: int,
    latent_channels: int = 4,
    kl_weight: float,
    start: AutoencoderKL | None = None,
    decoder_only: bool = False,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    """Train an AutoencoderKL and save it to `out` in float16, its latents normalised to mean 0 and deviation 1.

    It begins as `start`, which may be narrower, and one level less deep, for pictures half as large, and may have
    fewer latent channels; those that carry nothing begin anew. With `decoder_only` the latents stay those of `start`,
    so that an encoder that float16 would change is saved in float32.
    Loss: L1 + 0.5 L1 of the gradients + MSE + kl_weight · KL (mean over the latents).
    """
    arguments = {
        "out": out,
        "words": words,
        "loop": loop,
        "channels": channels,
        "layers": layers,
        "latent_channels": latent_channels,
        "kl_weight": kl_weight,
        "start": start,
        "decoder_only": decoder_only,
    }
    in_processes(_train, loop.workers, steps, log, checkpoint=checkpoint, **arguments)


def _train(
    out: Path,
    words: Vocabulary,
    loop: Loop,
    channels: tuple[int, ...],
    layers: int,
    latent_channels: int,
    kl_weight: float,
    start: AutoencoderKL | None,
    decoder_only: bool,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    torch.manual_seed(loop.seed)
    if start is not None:
        model = started(start, channels, words.size, latent_channels)
    else:
        model = new_autoencoder(channels, layers, words.size, latent_channels)
    model.to(memory_format=torch.channels_last)
    if start and not decoder_only:
        rng = random.Random(f"{loop.seed}/wake")
        idle = wake_channels(model, pictures(rng, words, Split.TRAIN, 64, VARIED))
        if idle:
            log(f"latent channels {idle} carried nothing and begin anew")
    if decoder_only:
        model.encoder.requires_grad_(False)
        _conv(model.quant_conv).requires_grad_(False)

    def draw(step: Step) -> Tensor:
        return pictures(step.rng, words, Split.TRAIN, step.batch_size, VARIED)

    def loss_of(step: Step) -> Tensor:
        x_BCHW = step.drawn.to(step.device, memory_format=torch.channels_last)
        posterior = model.encode(x_BCHW).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=step.torch_rng).to(step.device)
        y_BCHW = model.decode(posterior.mean + posterior.std * noise).sample.float()
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        return reconstruction_loss(y_BCHW, x_BCHW) + kl_weight * kl

    fit(model, loss_of, loop, checkpoint, steps, log, draw)
    if is_main() and decoder_only:
        model.decoder.half()
        _conv(model.post_quant_conv).half()
        for kept in (model.encoder, _conv(model.quant_conv)):
            if all(torch.equal(p.half().float(), p) for p in kept.parameters()):
                kept.half()
        model.save_pretrained(out)
    elif is_main():
        rng = random.Random(f"{loop.seed}/normalise")
        normalise_latents(model, pictures(rng, words, Split.TRAIN, 512, VARIED).to(loop.device))
        model.half().save_pretrained(out)


def reconstruction_loss(y_BCHW: Tensor, x_BCHW: Tensor) -> Tensor:
    """L1 + 0.5 L1 of the spatial gradients + MSE."""
    error = y_BCHW - x_BCHW
    gradients = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 0.5 * gradients + F.mse_loss(y_BCHW, x_BCHW)


@torch.no_grad()
def normalise_latents(model: AutoencoderKL, x_BCHW: Tensor) -> None:
    """Fold the latents' mean and deviation, a channel each, into the 1×1 convolutions on both sides, in place."""
    latents = torch.cat([model.encode(part).latent_dist.mean for part in x_BCHW.split(32)])
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    encode, decode = _conv(model.quant_conv), _conv(model.post_quant_conv)
    channels = len(mean)
    # The first half of quant_conv's output is the mean, the second the log of the variance.
    encode.weight[:channels] /= std[:, None, None, None]
    encode.bias[:channels] = (encode.bias[:channels] - mean) / std
    encode.bias[channels:] -= 2 * std.log()
    decode.bias += decode.weight[:, :, 0, 0] @ mean
    decode.weight *= std[None, :, None, None]


def _conv(layer: nn.Module | None) -> nn.Conv2d:
    assert isinstance(layer, nn.Conv2d)
    return layer
