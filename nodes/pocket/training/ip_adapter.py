"""Training of the pocket IP-Adapter (Ye et al. 2023) on a frozen denoiser: pictures as prompts.

Shapes: B batch, T text tokens, D text width, E width of the image embeddings, P pictures, chw latents.
"""

import copy
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from graphflow.nodes.lib.clip import CLIP
from graphflow.nodes.lib.denoiser import Denoiser
from graphflow.nodes.lib.text_encoder import TextEncoder

from ..descriptions import request
from ..edits import Edit
from .denoiser import caption_for, plain_attention
from .edit_latents import EncodedEdits, load_edits
from .loop import Log, Loop, Step, Steps, fit, in_processes, is_main
from .noise import Teacher, denoising_loss, new_scheduler
from .pictures import pixels_of

TOKENS = 4
FILE = "ip_adapter.safetensors"


@dataclass(frozen=True)
class Samples:
    """What the samples of a batch are conditioned on."""

    drop_text: float  # share with an empty caption, so that the image tokens must carry everything
    drop_picture: float  # share with the zero embedding, which the negative branch has
    mixed: float  # share with λ(E(x') - E(x)) + (1 - λ)E(y): the edit x → x' of another pair, as ReEdit mixes it
    weights: tuple[float, float]  # λ is drawn between them
    taught: float = 0.0  # share of the target that the denoiser without an adapter predicts from the whole caption


class Batch(NamedTuple):
    """Latents (B, c, h, w) of pictures after edits, and what they are predicted from."""

    z_Bchw: Tensor
    image_BE: Tensor
    texts: list[str]
    captions: list[str]  # the teacher's: whole, unless there are no image tokens that could say the same


def train_ip_adapter(
    out: Path,
    edits: Path,
    denoiser: Denoiser,
    text_encoder: TextEncoder,
    clip: CLIP,
    loop: Loop,
    *,
    samples: Samples,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    """Train image projection and image attention; denoiser, text encoder and CLIP stay as they are.

    With `samples.taught` the denoiser itself is the teacher: what it predicts from the caption is what the image tokens
    are to bring about without one. That shows sooner than the noise alone what the picture holds.

    Saves one file of float16 tensors, named as in the published adapters, to `out`.
    """
    arguments = {"out": out, "edits": edits, "unet": denoiser.unet, "text_encoder": text_encoder, "clip": clip}
    in_processes(_train, loop.workers, steps, log, loop=loop, samples=samples, checkpoint=checkpoint, **arguments)


def _train(
    out: Path,
    edits: Path,
    unet: UNet2DConditionModel,
    text_encoder: TextEncoder,
    clip: CLIP,
    loop: Loop,
    samples: Samples,
    checkpoint: Path | None,
    steps: Steps,
    log: Log,
) -> None:
    torch.manual_seed(loop.seed)
    text_encoder.model.to(loop.device)
    pool = load_edits(edits)
    embeddings_2PE = embeddings(clip, pool.edits)
    conditions, scheduler = Conditions(pool, embeddings_2PE, samples), new_scheduler()
    model = adapted(unet, embeddings_2PE.shape[-1]).to(memory_format=torch.channels_last)
    plain = plain_attention(copy.deepcopy(unet).float(), loop.device) if samples.taught else None
    if plain is not None:
        plain.to(loop.device, memory_format=torch.channels_last)

    def encode(texts: list[str]) -> Tensor:
        with torch.autocast(loop.device.split(":")[0], enabled=False):
            return text_encoder.encode(texts)

    def loss_of(step: Step) -> Tensor:
        batch, teacher = conditions.draw(step), None
        if plain is not None:
            told_BTD = encode(batch.captions)
            teacher = Teacher(lambda z_Bchw, t_B: plain(z_Bchw, t_B, told_BTD).sample, samples.taught)
        # diffusers passes text and image embeddings on together
        prompted = _WithImage(model, batch.image_BE.to(step.device))
        return denoising_loss(prompted, scheduler, step, batch.z_Bchw, encode(batch.texts), teacher=teacher)

    fit(model, loss_of, loop, checkpoint, steps, log)
    if is_main():
        out.mkdir(parents=True, exist_ok=True)
        save_file({name: value.half().contiguous() for name, value in published(model).items()}, out / FILE)


class Conditions:
    """What each sample is conditioned on."""

    def __init__(self, pool: EncodedEdits, embeddings_2PE: Tensor, samples: Samples) -> None:
        self.pool, self.samples = pool, samples
        self.before_PE, self.after_PE = embeddings_2PE
        self._same = alike(pool.edits)

    def draw(self, step: Step) -> Batch:
        """Pictures after some edits, drawn at random."""
        latents, images, texts, captions = [], [], [], []
        for _ in range(step.batch_size):
            place = step.rng.randrange(len(self.pool.edits))
            image_E = self._image(place, step)
            caption = caption_for(self.pool.edits[place].after, step.rng, drop_caption=0.0, drop_background=0.1)
            text = "" if step.rng.random() < self.samples.drop_text else caption
            latents.append(self.pool.after[place].float())
            images.append(image_E)
            texts.append(text)
            captions.append(caption if image_E.any() else text)
        return Batch(torch.stack(latents), torch.stack(images), texts, captions)

    def _image(self, place: int, step: Step) -> Tensor:
        chance = step.rng.random()
        if chance < self.samples.drop_picture:
            return torch.zeros_like(self.after_PE[place])
        if chance < self.samples.drop_picture + self.samples.mixed:
            pair, weight = step.rng.choice(self._same[place]), step.rng.uniform(*self.samples.weights)
            edit_E = self.after_PE[pair] - self.before_PE[pair]
            return weight * edit_E + (1 - weight) * self.before_PE[place]
        return self.after_PE[place]


def alike(edits: list[Edit]) -> list[list[int]]:
    """For each edit the places of all that do the same to pictures of the same style, itself among them."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    keys = [(request(edit), edit.before.style) for edit in edits]
    for place, key in enumerate(keys):
        found[key].append(place)
    return [found[key] for key in keys]


def embeddings(clip: CLIP, edits: list[Edit]) -> Tensor:
    """CLIP's projected embeddings of all pictures before and after, not normalised, (2, P, E), on the CPU."""
    size, parts = clip.size, [edits[start : start + 128] for start in range(0, len(edits), 128)]
    before_PE = torch.cat([clip.embed(pixels_of([edit.before for edit in part], size)).cpu() for part in parts])
    after_PE = torch.cat([clip.embed(pixels_of([edit.after for edit in part], size)).cpu() for part in parts])
    return torch.stack([before_PE, after_PE])


def adapted(unet: UNet2DConditionModel, embedding_width: int) -> UNet2DConditionModel:
    """A copy with an adapter, alone to be trained; its keys and values begin as those of the text."""
    model = copy.deepcopy(unet).float()
    width = model.config.cross_attention_dim
    projection = nn.Linear(embedding_width, TOKENS * width)
    state = {"image_proj": {"proj.weight": projection.weight.data, "proj.bias": projection.bias.data}}
    state["image_proj"] |= {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
    state["ip_adapter"] = {}
    for number, (_, attention) in enumerate(cross_attentions(model)):
        for name in ("k", "v"):
            weight = getattr(attention, f"to_{name}").weight
            state["ip_adapter"][f"{2 * number + 1}.to_{name}_ip.weight"] = weight.detach().clone()
    model._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("encoder_hid_proj.") or ".to_k_ip." in name or ".to_v_ip." in name)
    return model


def cross_attentions(model: UNet2DConditionModel) -> list[tuple[str, nn.Module]]:
    """Those modules with their names, in the order in which published adapters number them."""
    names = [name.removesuffix(".processor") for name in model.attn_processors if "attn2" in name]
    return [(name, model.get_submodule(name)) for name in names]


def published(model: UNet2DConditionModel) -> dict[str, Tensor]:
    """The adapter's tensors under the names of the published files, which diffusers' `load_ip_adapter` reads."""
    [projection] = model.encoder_hid_proj.image_projection_layers
    tensors = {
        "image_proj.proj.weight": projection.image_embeds.weight,
        "image_proj.proj.bias": projection.image_embeds.bias,
        "image_proj.norm.weight": projection.norm.weight,
        "image_proj.norm.bias": projection.norm.bias,
    }
    for number, (_, attention) in enumerate(cross_attentions(model)):
        for name in ("to_k_ip", "to_v_ip"):
            tensors[f"ip_adapter.{2 * number + 1}.{name}.weight"] = getattr(attention.processor, name)[0].weight
    return {name: value.detach() for name, value in tensors.items()}


class _WithImage:
    """The denoiser for one batch of image embeddings, called as one without an adapter."""

    def __init__(self, model: UNet2DConditionModel, image_BE: Tensor) -> None:
        self._model, self._added = model, {"image_embeds": [image_BE[:, None]]}

    def __call__(self, z_Bchw: Tensor, t_B: Tensor, c_BTD: Tensor) -> object:
        return self._model(z_Bchw, t_B, c_BTD, added_cond_kwargs=self._added)
