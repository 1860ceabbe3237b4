"""Pictures and tiny random networks for the tests of measures; checkpoints in the layouts that the loaders read."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoints import TOWER, VISION, byte_tokenizer
from PIL import Image
from safetensors.torch import save_file
from torch import nn


def picture(width: int = 64, height: int = 64, seed: int = 0) -> Image.Image:
    """Coloured noise with sharp edges and smooth parts: a wrong range, filter or crop changes every number of it."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)[:height, :width]
    ramp = np.linspace(0, 60, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
    noise = rng.normal(0, 12, (height, width, 3))
    return Image.fromarray((blocks * 0.6 + ramp + noise).clip(0, 255).astype(np.uint8))


def half_mask(width: int = 64, height: int = 64) -> Image.Image:
    """White on the left third, black elsewhere."""
    mask = Image.new("L", (width, height))
    mask.paste(255, (0, 0, width // 3, height))
    return mask


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights under which a deep network neither fades nor explodes, statistics of its norms included."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.ndim > 1:
            fan_in = tensor[0].numel()
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / fan_in) ** 0.5)
        else:
            centre = 1.0 if name.endswith("weight") else 0.0
            tensor.copy_(centre + 0.1 * torch.randn(tensor.shape, generator=generator))
    return module.eval()


def lpips_network(net: str) -> Any:
    """The lpips package's network with random weights; its heads are positive, as the trained ones are."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    shift, scale = model.scaling_layer.shift.clone(), model.scaling_layer.scale.clone()
    shaken(model)
    model.scaling_layer.shift.copy_(shift)
    model.scaling_layer.scale.copy_(scale)
    for head in model.lins:
        head.model[-1].weight.data.abs_()
    return model


def save_lpips(folder: Path, net: str = "squeeze") -> Path:
    """A folder for loader lpips."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.contiguous() for k, v in lpips_network(net).state_dict().items() if not k.startswith("lins.")}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def fid_inception(seed: int = 0) -> Any:
    """The network of FID with random weights."""
    from graphflow.nodes.lib.metrics.inception import FIDInception

    return shaken(FIDInception(), seed)


def save_inception(folder: Path) -> Path:
    """A folder for loader inception.fid."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(fid_inception().state_dict(), folder / "model.safetensors", {"format": "pt"})
    return folder


OPEN_CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def save_open_clip(folder: Path, **config: Any) -> Path:
    """A repository in open_clip's layout."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    preprocess = {"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": OPEN_CLIP | config, "preprocess_cfg": preprocess})
    )
    torch.manual_seed(0)
    model = open_clip.CLIP(**OPEN_CLIP)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def save_vit(folder: Path, pooler: bool = False) -> Path:
    """A ViT as the hub has DINO: without a pooler."""
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    ViTModel(ViTConfig(**VISION), add_pooling_layer=pooler).save_pretrained(folder)
    return folder


def save_dinov2(folder: Path) -> Path:
    """A DINOv2."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = {k: v for k, v in TOWER.items() if k != "intermediate_size"}
    Dinov2Model(Dinov2Config(**config, image_size=32, patch_size=8)).save_pretrained(folder)
    return folder


TIMM_ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4}


def save_timm_vit(folder: Path) -> Path:
    """A ViT in timm's layout."""
    import timm

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", pretrained=False, num_classes=0, **TIMM_ARGS)
    config = {"architecture": "vit_small_patch16_224", "num_classes": 0, "model_args": TIMM_ARGS}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    return folder


QWEN_TOKENS = [f"<|{t}|>" for t in ("im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")]
QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for p in m.content %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' if p.type == 'image' else p.text }}"
    "{% endfor %}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)


def save_qwen_vl(folder: Path) -> Path:
    """A Qwen2.5-VL as the hub has it: a preprocessor for pictures, none for videos, the template with the tokenizer."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": QWEN_TOKENS})
    tokenizer.pad_token, tokenizer.chat_template = tokenizer.eos_token, QWEN_TEMPLATE
    end, *vision = tokenizer.convert_tokens_to_ids(QWEN_TOKENS[1:])
    names = ("vision_start", "vision_end", "image", "video")
    torch.manual_seed(0)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
    ids = {"bos_token_id": 0, "eos_token_id": end, "pad_token_id": 0}
    config = Qwen2_5_VLConfig(
        text_config={**TOWER, "vocab_size": len(tokenizer), "num_key_value_heads": 2, "rope_parameters": rope, **ids},
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "out_hidden_size": 32,
            "fullatt_block_indexes": [1], "window_size": 112,
        },
        **{f"{name}_token_id": i for name, i in zip(names, vision, strict=True)},
    )  # fmt: skip
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(size={"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 16}).save_pretrained(folder)
    settings = folder / "preprocessor_config.json"
    data = json.loads(settings.read_text()) | {"processor_class": "Qwen2_5_VLProcessor"}
    settings.write_text(json.dumps(data))
    return folder
