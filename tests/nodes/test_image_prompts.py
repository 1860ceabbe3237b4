"""Image prompts from the picture to the latents: the image encoder and the adapter as they load, and their nodes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from checkpoints import TOWER, VISION, save_clip
from PIL import Image
from safetensors.torch import save_file
from tiny import SD_SCHEDULER, TOKENS, WIDTH, random_tensor, tiny_unet
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from graphflow.errors import GraphflowError, MissingError
from graphflow.models.refs import ModelRef, loaders
from graphflow.node import Context
from graphflow.nodes.denoise import DenoiseInjected, DenoiseReEdit
from graphflow.nodes.embedding import EmbedImage, Exemplar
from graphflow.nodes.features import Capture
from graphflow.nodes.invert import InvertDDIM
from graphflow.nodes.lib.denoiser import Denoiser
from graphflow.nodes.lib.ip_adapter import IPAdapter
from graphflow.nodes.lib.taps import Taps
from graphflow.ports import TextCond

PICTURES = [Image.effect_noise((48, 40), 60).convert("RGB"), Image.new("RGB", (30, 30), "red")]
CPU = torch.device("cpu")


def load(name: str, folder: Path, **ref):
    role = loaders()[name].role
    return loaders()[name].load(ModelRef(role, name, "tiny", path=folder, **ref), folder, CPU, torch.float32)


def save_published(folder: Path) -> Path:
    """Adapter and encoder in the layout of h94/IP-Adapter: several adapters side by side, no preprocessing file."""
    models = folder / "models"
    models.mkdir(parents=True)
    torch.manual_seed(0)
    unet = tiny_unet()
    channels = [layer.to_q.out_features for name, layer in Taps(unet).attentions.items() if name.endswith("cross")]
    for name, width in (("ip-adapter_sd15", 16), ("ip-adapter_sd15_vit-G", 24)):
        save_file(IPAdapter(width, WIDTH, channels).to_tensors(), models / f"{name}.safetensors")
    config = CLIPVisionConfig(**VISION, projection_dim=16)
    CLIPVisionModelWithProjection(config).save_pretrained(models / "image_encoder")
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return save_published(tmp_path_factory.mktemp("published") / "ip")


@pytest.fixture(scope="module")
def encoder(published):
    return load("transformers.clip_vision", published, part="models/image_encoder")


@pytest.fixture(scope="module")
def adapter(published):
    return load("ip_adapter", published, part="models", options={"file": "ip-adapter_sd15.safetensors"})


# --- loading --------------------------------------------------------------------------------------------------------


def test_the_encoder_loads_with_clips_own_preprocessing(published, encoder):
    again = CLIPVisionModelWithProjection.from_pretrained(published / "models" / "image_encoder")
    pixels = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})(
        images=PICTURES, return_tensors="pt"
    ).pixel_values
    with torch.no_grad():
        expected = again(pixels).image_embeds
    assert torch.equal(encoder.image(PICTURES), expected)
    assert (expected.norm(dim=-1) - 1).abs().min() > 1e-3, "not normalised"


def test_the_image_tower_of_a_whole_clip_loads(tmp_path):
    folder = save_clip(tmp_path / "clip")
    whole = CLIPModel.from_pretrained(folder)
    encoder = load("transformers.clip_vision", folder)
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(images=PICTURES, return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = whole.visual_projection(whole.vision_model(pixels).pooler_output)
    torch.testing.assert_close(encoder.image(PICTURES), expected)
    assert TOWER["hidden_size"] == 32


def test_the_adapter_of_that_name_loads(published, adapter):
    ref = ModelRef("ip_adapter", "ip_adapter", "x", part="models", options={"file": "ip-adapter_sd15.safetensors"})
    assert loaders()["ip_adapter"].patterns(ref) == ["models/*ip-adapter_sd15.safetensors"]
    assert (adapter.num_tokens, adapter.layers, adapter.proj.in_features) == (4, 16, 16)
    with pytest.raises(MissingError, match=r"found ip-adapter_sd15\.safetensors, ip-adapter_sd15_vit-G\.safetensors"):
        load("ip_adapter", published, part="models")
    with pytest.raises(MissingError, match="found none"):
        load("ip_adapter", published, part="models", options={"file": "no.safetensors"})


def test_a_folder_with_one_adapter_needs_no_name(published, tmp_path):
    shutil.copy(published / "models" / "ip-adapter_sd15.safetensors", tmp_path / "ip_adapter.safetensors")
    assert load("ip_adapter", tmp_path).layers == 16


def test_a_file_of_something_else_is_refused(tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(GraphflowError, match="no IP-Adapter of the base kind, .* it has weight"):
        load("ip_adapter", tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(GraphflowError, match=r"a\.safetensors"):
        load("ip_adapter", tmp_path)


# --- nodes ----------------------------------------------------------------------------------------------------------


def test_pictures_become_the_exemplars_mixture(encoder):
    before, after, image = (
        EmbedImage().run(EmbedImage.In(image=p, model=encoder), Context()).embedding for p in (*PICTURES, PICTURES[0])
    )
    assert before.shape == (1, 16)
    x = Exemplar.In(before=before, after=after, image=image)
    mixed = Exemplar(edit_weight=0.7).run(x, Context()).embedding
    torch.testing.assert_close(mixed, 0.7 * (after - before) + 0.3 * image)


def test_reedit_passes_every_port_on(adapter):
    denoiser = Denoiser(tiny_unet(), SD_SCHEDULER)
    empty, target = (TextCond(random_tensor(1, TOKENS, WIDTH, seed=s)) for s in (1, 2))
    x = InvertDDIM.In(latents=random_tensor(1, 4, 8, 8, seed=0), cond=empty, model=denoiser)
    trajectory = InvertDDIM(num_inference_steps=3).run(x, Context()).trajectory
    latents = {}
    for storage in ("stored", "lockstep"):
        features = (
            Capture(num_inference_steps=3, storage=storage)
            .run(Capture.In(trajectory=trajectory, cond=empty, model=denoiser), Context())
            .features
        )
        ports = {"features": features, "cond": target, "negative": empty, "model": denoiser}
        image = {"image_prompt": random_tensor(1, 16, seed=3), "ip_adapter": adapter}
        for prompts in ("both", "text", "image"):
            node = DenoiseReEdit(guidance_scale=2.0, prompts=prompts)
            latents[storage, prompts] = node.run(node.In(**ports, **image), Context()).latents
        plain = DenoiseInjected(guidance_scale=2.0).run(DenoiseInjected.In(**ports), Context()).latents
        assert torch.equal(latents[storage, "text"], plain)
        assert (latents[storage, "both"] - plain).norm() > 1e-3 * plain.norm()
        same = node.run(node.In(**ports | {"cond": empty}, **image), Context()).latents
        assert torch.equal(latents[storage, "image"], same)
    assert (latents["stored", "both"] - latents["lockstep", "both"]).norm() < 1e-5 * plain.norm()


def test_the_image_alone_needs_a_text_to_stand_beside(adapter):
    ports = {"features": None, "cond": None, "image_prompt": torch.zeros(1, 16), "ip_adapter": adapter, "model": None}
    with pytest.raises(ValueError, match="prompts=image needs the port negative"):
        DenoiseReEdit(prompts="image").run(DenoiseReEdit.In(**ports), Context())
