"""The pocket models together, and how to load them without the engine."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertTokenizerFast,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextModel,
    CLIPTokenizer,
)

from graphflow.nodes.lib import int8
from graphflow.nodes.lib.captioner import Captioner
from graphflow.nodes.lib.clip import CLIP
from graphflow.nodes.lib.denoiser import Denoiser
from graphflow.nodes.lib.llm import Seq2SeqLM
from graphflow.nodes.lib.text_encoder import TextEncoder
from graphflow.nodes.lib.vae import VAE

WEIGHTS = Path(__file__).with_name("weights")


@dataclass(frozen=True)
class PocketModels:
    """One model of each role."""

    vae: VAE
    denoiser: Denoiser
    text_encoder: TextEncoder
    clip: CLIP
    captioner: Captioner
    caption_writer: Seq2SeqLM


def load_models(folder: Path = WEIGHTS) -> PocketModels:
    """The models in the sub-folders of `folder`, in float32 on the CPU."""
    vae, unet, text, clip, captioner, writer = (
        folder / name for name in ("vae", "denoiser", "text_encoder", "clip", "captioner", "caption_writer")
    )
    diffusers, transformers = {"torch_dtype": torch.float32}, {"dtype": torch.float32}
    return PocketModels(
        VAE(int8.from_pretrained(AutoencoderKL, vae, **diffusers)),
        Denoiser(int8.from_pretrained(UNet2DConditionModel, unet, **diffusers), DDIMScheduler.load_config(unet)),
        TextEncoder(CLIPTokenizer.from_pretrained(text), int8.from_pretrained(CLIPTextModel, text, **transformers)),
        CLIP(
            int8.from_pretrained(CLIPModel, clip, **transformers),
            CLIPImageProcessorPil.from_pretrained(clip),
            CLIPTokenizer.from_pretrained(clip),
        ),
        Captioner(
            int8.from_pretrained(BlipForConditionalGeneration, captioner, **transformers),
            BlipImageProcessorPil.from_pretrained(captioner),
            BertTokenizerFast.from_pretrained(captioner),
        ),
        Seq2SeqLM(
            AutoTokenizer.from_pretrained(writer),
            int8.from_pretrained(AutoModelForSeq2SeqLM, writer, **transformers),
            "edit_pair",
        ),
    )
