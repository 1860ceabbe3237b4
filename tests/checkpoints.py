"""Tiny random checkpoints in the hub's own layouts, written by `save_pretrained`."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
)
from safetensors.torch import load_file, save_file
from tiny import SD_SCHEDULER, TOKENS, tiny_text_encoder, tiny_tokenizer, tiny_unet, tiny_vae
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertTokenizerFast,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    T5TokenizerFast,
)

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {**TOWER, "image_size": 32, "patch_size": 8}
CHAT_TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
PICTURE_CHAT_TEMPLATE = (
    "USER: {% for part in messages[0].content %}{{ '<image>' if part.type == 'image' else part.text }}{% endfor %} "
    "ASSISTANT:"
)


def save_sd(folder: Path) -> Path:
    """A Stable Diffusion 1.x repository, with the tokenizer and the key names of the original one."""
    tiny_vae().save_pretrained(folder / "vae")
    tiny_unet().save_pretrained(folder / "unet")
    DDIMScheduler(**SD_SCHEDULER).save_pretrained(folder / "scheduler")
    tiny_text_encoder().save_pretrained(folder / "text_encoder")
    weights = folder / "text_encoder" / "model.safetensors"
    named = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in load_file(weights).items()}
    save_file(named, weights, {"format": "pt"})
    save_clip_tokenizer_files(folder / "tokenizer")
    return folder


def save_instruct(folder: Path) -> Path:
    """An InstructPix2Pix repository: Stable Diffusion's, with a UNet of 8 channels and the published sampler."""
    save_sd(folder)
    tiny_unet(in_channels=8).save_pretrained(folder / "unet")
    EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
    ).save_pretrained(folder / "scheduler")
    return folder


def tiny_sd3_transformer(in_channels: int) -> SD3Transformer2DModel:
    """A transformer of Stable Diffusion 3 for latents of 4 channels, with room for others."""
    torch.manual_seed(0)
    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=in_channels,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=32,
        pos_embed_max_size=24,
    ).eval()


def save_ultra_edit(folder: Path) -> Path:
    """A repository of UltraEdit: Stable Diffusion 3 with room for a picture and a mask."""
    tiny_sd3_transformer(12).save_pretrained(folder / "transformer")
    tiny_vae().save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    tokenizer = tiny_tokenizer()
    ids = {f"{k}_token_id": getattr(tokenizer, f"{k}_token_id") for k in ("bos", "eos", "pad")}
    for number in ("", "_2"):
        torch.manual_seed(len(number))
        # Half as wide as the joint attention: the two stand side by side.
        config = CLIPTextConfig(
            **TOWER | {"hidden_size": 16}, vocab_size=len(tokenizer), max_position_embeddings=TOKENS, **ids,
            projection_dim=16,
        )  # fmt: skip
        CLIPTextModelWithProjection(config).save_pretrained(folder / f"text_encoder{number}")
        tokenizer.save_pretrained(folder / f"tokenizer{number}")
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((c, -1.0) for c in "▁abcdefghijklmnopqrstuvwxyz")]
    T5TokenizerFast(vocab=words, extra_ids=0).save_pretrained(folder / "tokenizer_3")
    torch.manual_seed(0)
    config = T5Config(vocab_size=len(words), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    T5EncoderModel(config).save_pretrained(folder / "text_encoder_3")
    classes = {
        "transformer": ("diffusers", "SD3Transformer2DModel"),
        "vae": ("diffusers", "AutoencoderKL"),
        "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
        "text_encoder": ("transformers", "CLIPTextModelWithProjection"),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
        "text_encoder_3": ("transformers", "T5EncoderModel"),
        "tokenizer": ("transformers", "CLIPTokenizer"),
        "tokenizer_2": ("transformers", "CLIPTokenizer"),
        "tokenizer_3": ("transformers", "T5TokenizerFast"),
    }
    index = {"_class_name": "StableDiffusion3Pipeline", "_diffusers_version": "0.42.1", **classes}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def save_clip_tokenizer_files(folder: Path) -> None:
    """vocab.json and merges.txt, as the hub's older repositories have them, without tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny_tokenizer()
    (folder / "vocab.json").write_text(json.dumps(tokenizer.get_vocab()))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    config = {"model_max_length": TOKENS, "pad_token": "<|endoftext|>", "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def save_clip(folder: Path) -> Path:
    """A whole CLIP with its preprocessing."""
    tokenizer = tiny_tokenizer()
    ids = {f"{k}_token_id": getattr(tokenizer, f"{k}_token_id") for k in ("bos", "eos", "pad")}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": TOKENS, **ids},
        vision_config=VISION,
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_blip(folder: Path) -> Path:
    """A BLIP captioner with its preprocessing."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "photo", "of", "cat", "dog"]
    vocab = {word: i for i, word in enumerate(words)}
    ids = {"bos_token_id": vocab["[DEC]"], "eos_token_id": vocab["[SEP]"], "sep_token_id": vocab["[SEP]"]}
    torch.manual_seed(0)
    text = {**TOWER, "vocab_size": len(words), "encoder_hidden_size": 32, "pad_token_id": 0, "is_decoder": True, **ids}
    config = BlipConfig(text_config=text, vision_config=VISION, projection_dim=32, image_text_hidden_size=32)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    BertTokenizerFast(vocab=vocab, do_lower_case=True).save_pretrained(folder)
    return folder


def byte_tokenizer(chat: bool = False) -> PreTrainedTokenizerFast:
    """A token for each byte, so that every text survives."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({c: i for i, c in enumerate(["<|endoftext|>", *alphabet])}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>")
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save_phi(folder: Path, chat: bool = False, shard_size: str = "50GB") -> Path:
    """A causal language model of Phi-2's architecture."""
    tokenizer = byte_tokenizer(chat)
    torch.manual_seed(0)
    config = PhiConfig(
        vocab_size=len(tokenizer), **TOWER, max_position_embeddings=512, bos_token_id=0, eos_token_id=0
    )  # fmt: skip
    PhiForCausalLM(config).save_pretrained(folder, max_shard_size=shard_size)
    tokenizer.save_pretrained(folder)
    return folder


def save_llava(folder: Path, chat: bool = True) -> Path:
    """A vision-language model of LLaVA's architecture."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.pad_token = tokenizer.eos_token
    torch.manual_seed(0)
    text = {**TOWER, "vocab_size": len(tokenizer), "eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=LlamaConfig(**text),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=PICTURE_CHAT_TEMPLATE if chat else None,
    ).save_pretrained(folder)
    return folder


def save_t5(folder: Path) -> Path:
    """A T5 with a token for each letter."""
    letters = "▁abcdefghijklmnopqrstuvwxyz:,."
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -1.0) for letter in letters)]
    inner = Tokenizer(models.Unigram(pieces, unk_id=2))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=128
    )
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
