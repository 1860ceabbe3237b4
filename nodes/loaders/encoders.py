"""Loaders of encoders of pictures and texts: CLIP, preference models, self-supervised vision transformers."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.errors import GraphflowError
from graphflow.models.refs import LoadFunction, ModelRef, loader
from graphflow.nodes.loaders.files import (
    PREPROCESSING,
    TEXT_FILES,
    TOWERS,
    TRANSFORMERS_WEIGHTS,
    fill,
    from_transformers,
    need,
    part_folder,
    preprocessing_of,
    read_json,
    shared_tower,
    tokenizer_of,
    weights_name,
)

if TYPE_CHECKING:
    import torch

CLIP_FILES = ("{part}config.json", PREPROCESSING, TRANSFORMERS_WEIGHTS, TEXT_FILES)
OPEN_CLIP_FILES = ("{part}open_clip_config.json", "{part}open_clip_model.safetensors")
VIT_FILES = ("{part}config.json", TRANSFORMERS_WEIGHTS)


@loader("transformers.clip", role="clip", files=CLIP_FILES)
def load_clip(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A CLIP of two towers, as `nodes.lib.clip.CLIP`."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    from graphflow.nodes.lib.clip import CLIP

    part = part_folder(ref, folder)
    model = from_transformers(CLIPModel, part, dtype)
    for name in TOWERS:
        setattr(model, name, shared_tower(part, dtype, name, partial(getattr, model, name)))
    model = model.to(device)
    processor = preprocessing_of(CLIPImageProcessorPil, part)
    return CLIP(model, processor, tokenizer_of(CLIPTokenizer, part), weights_name(ref))


@loader("transformers.hps", role="hps", files=("{part}config.json", TRANSFORMERS_WEIGHTS, TEXT_FILES), dtype="float32")
def load_hps(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A preference model of CLIP's architecture, as `nodes.lib.clip.CLIP`; HPSv2 has a preprocessing of its own."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    from graphflow.nodes.lib.clip import CLIP

    part = part_folder(ref, folder)
    model = from_transformers(CLIPModel, part, scoring_dtype(ref, dtype)).to(device)
    return CLIP(model, CLIPImageProcessorPil(), tokenizer_of(CLIPTokenizer, part), weights_name(ref))


@loader(
    "transformers.clip_vision",
    role="image_encoder",
    files=("{part}*config.json", TRANSFORMERS_WEIGHTS),
    keeps=("vision_model.", "visual_projection."),
)
def load_clip_vision(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """The image tower of a CLIP, alone or inside a whole one, as `nodes.lib.clip.ImageEncoder`.

    The encoder beside IP-Adapter's weights comes without a preprocessor_config.json: it gets CLIP's own preprocessing.
    """
    import torch
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPVisionModelWithProjection

    from graphflow.nodes.lib.clip import ImageEncoder

    part = part_folder(ref, folder)
    if read_json(part / "config.json").get("model_type") == "clip":
        whole = cache(partial(from_transformers, CLIPModel, part, dtype))
        tower, projection = (
            shared_tower(part, dtype, name, lambda name=name: getattr(whole(), name)) for name in TOWERS[:2]
        )
        with torch.device("meta"):
            model = CLIPVisionModelWithProjection(tower.config)
        model.vision_model, model.visual_projection = tower, projection
    else:
        model = from_transformers(CLIPVisionModelWithProjection, part, dtype)
    model = model.to(device)
    side = model.config.image_size
    if any((part / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        return ImageEncoder(model, preprocessing_of(CLIPImageProcessorPil, part), weights_name(ref))
    sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    return ImageEncoder(model, CLIPImageProcessorPil(**sizes), weights_name(ref))


@loader("open_clip", role="clip", files=OPEN_CLIP_FILES)
def load_open_clip(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A CLIP in open_clip's layout (open_clip_config.json), with CLIP's own tokenizer, as `nodes.lib.clip.OpenCLIP`."""
    from graphflow.nodes.lib.clip import OpenCLIP

    part = part_folder(ref, folder)
    data = read_json(part / "open_clip_config.json")
    config = dict(data.get("model_cfg") or {})
    towers = [config.get(tower) or {} for tower in ("vision_cfg", "text_cfg")]
    if any(key.startswith(("hf_", "timm_")) for tower in towers for key in tower):
        raise GraphflowError(f"{part}: towers of other libraries (hf_model_name, timm_model_name) are not supported")
    open_clip, transform = need("open_clip", ref), need("open_clip.transform", ref)
    # Built here and not by open_clip's factory, which would look for weights in other formats.
    cls = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    try:
        model = cls(**config)
        known = transform.merge_preprocess_dict({"size": model.visual.image_size}, data.get("preprocess_cfg") or {})
        preprocess = transform.image_transform_v2(transform.PreprocessCfg(**known), is_train=False)
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise GraphflowError(f"{part} describes no model of open_clip: {error}") from error
    fill(model, part, "open_clip_model")
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    return OpenCLIP(model.to(device, dtype), preprocess, tokenizer, weights_name(ref))


def load_vit(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A DINO or DINOv2 of transformers, as `nodes.lib.metrics.vit.ViT`."""
    from transformers import Dinov2Model, ViTModel

    from graphflow.nodes.lib.metrics.vit import ViT

    part = part_folder(ref, folder)
    kind = read_json(part / "config.json").get("model_type")
    if kind not in ("vit", "dinov2"):
        raise GraphflowError(f"{part}/config.json describes a {kind}, expected a vit or a dinov2")
    cls, how = (ViTModel, {"add_pooling_layer": False}) if kind == "vit" else (Dinov2Model, {})
    model = from_transformers(cls, part, scoring_dtype(ref, dtype), **how).to(device)
    return ViT(model, model.config.patch_size, weights_name(ref))


def load_timm_vit(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """A vision transformer in timm's layout, as `nodes.lib.metrics.vit.ViT`."""
    from graphflow.nodes.lib.metrics.vit import ViT

    part = part_folder(ref, folder)
    config = read_json(part / "config.json")
    architecture, arguments = str(config.get("architecture")), dict(config.get("model_args") or {})
    timm = need("timm", ref)
    if not timm.is_model(architecture) or "vit" not in architecture:
        raise GraphflowError(f"{part}/config.json: architecture is {architecture!r}, expected a vit of timm")
    model = timm.create_model(architecture, pretrained=False, dynamic_img_size=True, **arguments | {"num_classes": 0})
    fill(model, part, "model", ignore=("head.", "fc_norm."))
    model = model.to(device, scoring_dtype(ref, dtype))
    return ViT(model, model.patch_embed.patch_size[0], weights_name(ref))


def scoring_dtype(ref: ModelRef, dtype: torch.dtype) -> torch.dtype:
    """float32 unless the preset says otherwise: a score must not depend on the type that the edit was computed in."""
    import torch

    return dtype if ref.dtype else torch.float32


def _register() -> None:
    """The same files serve several roles, which a preset binds to different weights."""
    again: list[tuple[str, str, tuple[str, ...], LoadFunction]] = [
        ("open_clip.hps", "hps", OPEN_CLIP_FILES, load_open_clip),
        ("transformers.dino", "dino", VIT_FILES, load_vit),
        ("transformers.structure", "structure", VIT_FILES, load_vit),
        ("timm.dino", "dino", VIT_FILES, load_timm_vit),
        ("timm.structure", "structure", VIT_FILES, load_timm_vit),
    ]
    for name, role, files, load in again:
        loader(name, role=role, files=files, dtype="float32")(load)


_register()
