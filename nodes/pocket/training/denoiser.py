"""Training of the denoiser together with its text encoder: a small Stable Diffusion.

Shapes: B batch, T tokens, D text width, chw latents.
"""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..captions import any_wording, describe, phrase
from ..world import Scene
from .latents import Encoded, load_encoded
from .loop import Log, Loop, Step, Steps, fit, in_processes, is_main
from .noise import denoising_loss, new_scheduler
from .saving import save_half
from .tokenizer import MAX_LENGTH, TOKENIZER
from .warm_start import begin_as


@dataclass(frozen=True)
class Size:
    """The widths of the denoiser and of its text encoder."""

    channels: tuple[int, ...]  # the first level has no attention
    layers: int
    heads: int
    text_width: int
    text_layers: int


@dataclass(frozen=True)
class Start:
    """Trained models to begin as; None: random weights."""

    denoiser: UNet2DConditionModel | None = None
    text_encoder: CLIPTextModel | None = None


@dataclass(frozen=True)
class Curriculum:
    """Simple scenes first: without them, objects did not come out at all. Steps of the loop."""

    simple_until: int
    full_from: int

    def share_of_full(self, number: int) -> float:
        """How many samples of this step come from the full mixture; rises linearly in between."""
        return min(1.0, max(0.0, (number - self.simple_until) / max(1, self.full_from - self.simple_until)))


def new_denoiser(size: Size, latent_channels: int, latent_size: int) -> UNet2DConditionModel:
    """An untrained denoiser; self- and cross-attention at every level but the first."""
    deeper = len(size.channels) - 1
    return UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * deeper),
        up_block_types=(*("CrossAttnUpBlock2D",) * deeper, "UpBlock2D"),
        block_out_channels=size.channels,
        layers_per_block=size.layers,
        norm_num_groups=8,
        attention_head_dim=size.heads,  # diffusers reads this as the number of heads
        cross_attention_dim=size.text_width,
    )


def plain_attention(unet: UNet2DConditionModel, device: str) -> UNet2DConditionModel:
    """Let attention be computed step by step where that trains faster: on a CPU, with so few and narrow tokens."""
    if device == "cpu":
        unet.set_attn_processor(AttnProcessor())
    return unet


def new_text_encoder(size: Size, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder for the pocket tokenizer."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.text_width,
        intermediate_size=4 * size.text_width,
        num_hidden_layers=size.text_layers,
        num_attention_heads=size.text_width // 32,
        max_position_embeddings=MAX_LENGTH,
        projection_dim=size.text_width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def train_denoiser(
    out: Path,
    simple: Path,
    full: Path,
    loop: Loop,
    *,
    size: Size,
    curriculum: Curriculum,
    drop_caption: float,
    drop_background: float,
    start: Start = Start(),
    train_text_encoder: bool = True,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    """Train on the latents in `simple` and `full`; saves `out/denoiser` (with its scheduler) and `out/text_encoder`.

    `drop_caption` of the captions are empty, for classifier-free guidance (Ho and Salimans 2022); `drop_background`
    leave the place open. Weights of the timesteps: min-SNR-5 (Hang et al. 2023). Without `train_text_encoder` that of
    `start` stays as it is, so that other denoisers can go on with it.

    Raises:
        ValueError: a model of `start` has another shape than `size` says, or there is no text encoder to leave alone.
    """
    if not train_text_encoder and start.text_encoder is None:
        raise ValueError("a text encoder that is not trained must be given: connect 'text_encoder' or bind that role")
    arguments = {"out": out, "simple": simple, "full": full, "loop": loop, "size": size, "curriculum": curriculum}
    arguments |= {"drop_caption": drop_caption, "drop_background": drop_background, "start": start}
    arguments |= {"train_text_encoder": train_text_encoder, "checkpoint": checkpoint}
    in_processes(_train, loop.workers, steps, log, **arguments)


def _train(
    out: Path,
    simple: Path,
    full: Path,
    loop: Loop,
    size: Size,
    curriculum: Curriculum,
    drop_caption: float,
    drop_background: float,
    start: Start,
    train_text_encoder: bool,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    torch.manual_seed(loop.seed)
    pools = load_encoded(simple), load_encoded(full)
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    model = nn.ModuleDict(
        {
            "denoiser": new_denoiser(size, *pools[0].latents.shape[1:3]).to(memory_format=torch.channels_last),
            "text_encoder": new_text_encoder(size, tokenizer),
        }
    )
    for name, known in (("denoiser", start.denoiser), ("text_encoder", start.text_encoder)):
        if known is not None:
            begin_as(model[name], known)
    plain_attention(model["denoiser"], loop.device)
    model["text_encoder"].requires_grad_(train_text_encoder)
    scheduler = new_scheduler()

    def draw(step: Step) -> tuple[Tensor, Tensor]:
        z_Bchw, scenes = draw_batch(step, pools, curriculum.share_of_full(step.number))
        captions = [caption_for(scene, step.rng, drop_caption, drop_background) for scene in scenes]
        return z_Bchw, tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids

    def loss_of(step: Step) -> Tensor:
        z_Bchw, tokens = step.drawn
        c_BTD = model["text_encoder"](tokens.to(step.device)).last_hidden_state
        return denoising_loss(model["denoiser"], scheduler, step, z_Bchw, c_BTD)

    fit(model, loss_of, loop, checkpoint, steps, log, draw)
    if is_main():
        save(model, tokenizer, out)


def draw_batch(step: Step, pools: tuple[Encoded, Encoded], share_of_full: float) -> tuple[Tensor, list[Scene]]:
    """Latents and scenes drawn from the two pools."""
    chosen = [pools[step.rng.random() < share_of_full] for _ in range(step.batch_size)]
    places = [step.rng.randrange(len(pool.scenes)) for pool in chosen]
    latents = torch.stack([pool.latents[place] for pool, place in zip(chosen, places, strict=True)])
    return latents, [pool.scenes[place] for pool, place in zip(chosen, places, strict=True)]


def caption_for(scene: Scene, rng: random.Random, drop_caption: float, drop_background: float) -> str:
    """A caption of the scene in any wording; sometimes without its place, sometimes none at all."""
    if rng.random() < drop_caption:
        return ""
    description = describe(scene)
    if scene.items and rng.random() < drop_background:
        description = replace(description, background=None)
    return phrase(description, any_wording(rng))


def save(model: nn.ModuleDict, tokenizer: CLIPTokenizer, out: Path) -> None:
    """Save both models in float16 with what belongs to them; files of at most 14 MB."""
    denoiser, text_encoder = model["denoiser"], model["text_encoder"]
    denoiser.half().save_pretrained(out / "denoiser", max_shard_size="14MB")
    new_scheduler().save_pretrained(out / "denoiser")
    save_half(text_encoder, out / "text_encoder")
    tokenizer.save_pretrained(out / "text_encoder")
