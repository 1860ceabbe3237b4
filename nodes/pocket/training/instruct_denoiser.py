"""Training of the InstructPix2Pix denoiser: a text-to-image denoiser that also sees the picture to edit.

Shapes: B batch, T tokens, D text width, chw latents.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from graphflow.nodes.lib.denoiser import Denoiser
from graphflow.nodes.lib.text_encoder import TextEncoder

from .denoiser import plain_attention
from .edit_latents import EncodedEdits, load_edits
from .loop import Log, Loop, Step, Steps, fit, in_processes, is_main
from .noise import denoising_loss, new_scheduler


@dataclass(frozen=True)
class Dropout:
    """Shares of the samples whose conditions are left out, for both guidances (Brooks et al. 2023, section 3.2.1)."""

    text: float = 0.05
    picture: float = 0.05
    both: float = 0.05


def train_instruct_denoiser(
    out: Path,
    edits: Path,
    denoiser: Denoiser,
    text_encoder: TextEncoder,
    loop: Loop,
    *,
    dropout: Dropout,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    """Train on the edits in `edits`, from the weights of `denoiser`; the text encoder stays as it is.

    Saves the UNet (twice the latents' channels as input, float16) and its noise schedule to `out`.
    """
    arguments = {"out": out, "edits": edits, "unet": denoiser.unet, "text_encoder": text_encoder, "loop": loop}
    in_processes(_train, loop.workers, steps, log, dropout=dropout, checkpoint=checkpoint, **arguments)


def _train(
    out: Path,
    edits: Path,
    unet: UNet2DConditionModel,
    text_encoder: TextEncoder,
    loop: Loop,
    dropout: Dropout,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    torch.manual_seed(loop.seed)
    pool = load_edits(edits)
    model = plain_attention(widened(unet), loop.device).to(memory_format=torch.channels_last)
    scheduler = new_scheduler()
    text_encoder.model.to(loop.device)

    def loss_of(step: Step) -> Tensor:
        z_Bchw, source_Bchw, texts = draw_batch(step, pool, dropout)
        with torch.autocast(loop.device.split(":")[0], enabled=False):
            c_BTD = text_encoder.encode(texts)
        return denoising_loss(model, scheduler, step, z_Bchw, c_BTD, source_Bchw)

    fit(model, loss_of, loop, checkpoint, steps, log)
    if is_main():
        model.half().save_pretrained(out, max_shard_size="14MB")
        scheduler.save_pretrained(out)


def widened(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy with twice the input channels; the weights of the new ones are zero, so that nothing changes at first."""
    channels = unet.config.in_channels
    config = {**unet.config, "in_channels": 2 * channels}
    config.pop("_name_or_path", None)  # the folder that the other came from
    model = UNet2DConditionModel.from_config(config)
    weights = {name: value.detach().float() for name, value in unet.state_dict().items()}
    known = weights["conv_in.weight"]
    weights["conv_in.weight"] = torch.cat([known, torch.zeros_like(known)], dim=1)
    model.load_state_dict(weights)
    return model.requires_grad_(True)


def draw_batch(step: Step, pool: EncodedEdits, dropout: Dropout) -> tuple[Tensor, Tensor, list[str]]:
    """Latents after the edit, latents before it (zero where the picture is left out), and the requests."""
    places = [step.rng.randrange(len(pool.edits)) for _ in range(step.batch_size)]
    source_Bchw, texts = pool.before[places].float(), [pool.edits[place].instruction for place in places]
    for number in range(step.batch_size):
        chance = step.rng.random()
        without_text = chance < dropout.text + dropout.both
        without_picture = dropout.text <= chance < dropout.text + dropout.both + dropout.picture
        if without_text:
            texts[number] = ""
        if without_picture:
            source_Bchw[number] = 0
    return pool.after[places].float(), source_Bchw, texts
