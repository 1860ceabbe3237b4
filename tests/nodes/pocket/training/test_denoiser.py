import random

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from graphflow.nodes.pocket.captions import read
from graphflow.nodes.pocket.catalogue import POCKET_64
from graphflow.nodes.pocket.training import chunks, latents
from graphflow.nodes.pocket.training.autoencoder import new_autoencoder
from graphflow.nodes.pocket.training.denoiser import (
    Curriculum,
    Size,
    Start,
    caption_for,
    train_denoiser,
)
from graphflow.nodes.pocket.training.loop import Loop, all_steps
from graphflow.nodes.pocket.training.noise import min_snr_weights, stratified_timesteps
from graphflow.nodes.pocket.world import SINGLES, Mixture, Split, held_out, sample_scene

TINY = Size(channels=(8, 16), layers=1, heads=2, text_width=32, text_layers=1)
LOOP = Loop(count=3, batch_size=2, learning_rate=1e-3, warmup=1, ema=0.5, bfloat16=False)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """Latents of four scenes, simple and full, of an untrained autoencoder."""
    folder = tmp_path_factory.mktemp("encoded")
    torch.manual_seed(0)
    vae = new_autoencoder((8, 8, 8), 1, 64).eval()
    patch = pytest.MonkeyPatch()
    patch.setattr(chunks, "CHUNK", 4)
    for name, mixture in (("simple", SINGLES), ("full", Mixture())):
        latents.encode_scenes(
            folder / name,
            vae,
            POCKET_64,
            mixture,
            count=4,
            seed=1,
            workers=1,
            steps=all_steps,
            log=print,
        )
    patch.undo()
    return folder


def train(encoded, out, loop=LOOP, **how):
    train_denoiser(
        out,
        encoded / "simple",
        encoded / "full",
        loop,
        size=TINY,
        curriculum=Curriculum(1, 2),
        drop_caption=0.1,
        drop_background=0.1,
        checkpoint=None,
        steps=all_steps,
        log=print,
        **how,
    )


def test_latents_come_back_with_their_scenes(encoded):
    loaded = latents.load_encoded(encoded / "full")
    assert loaded.latents.shape == (4, 4, 16, 16)
    assert len(loaded.scenes) == 4
    assert not any(held_out(item, scene.background) for scene in loaded.scenes for item in scene.items)


def test_the_result_loads_as_a_small_stable_diffusion(encoded, tmp_path):
    train(encoded, tmp_path)
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "denoiser", torch_dtype=torch.float32)
    scheduler = DDIMScheduler.from_pretrained(tmp_path / "denoiser")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "text_encoder")
    encoder = CLIPTextModel.from_pretrained(tmp_path / "text_encoder")
    tokens = tokenizer(["a cat on the beach"], padding="max_length", return_tensors="pt").input_ids
    embeds = encoder(tokens).last_hidden_state
    assert embeds.dtype == torch.float32
    assert embeds.shape == (1, 32, 32)
    assert unet(torch.zeros(1, 4, 16, 16), 10, embeds).sample.shape == (1, 4, 16, 16)
    assert (scheduler.config.steps_offset, scheduler.config.set_alpha_to_one) == (1, False)


def test_the_same_seed_gives_the_same_denoiser(encoded, tmp_path):
    for name in ("a", "b"):
        train(encoded, tmp_path / name)
    a, b = (
        UNet2DConditionModel.from_pretrained(tmp_path / name / "denoiser", torch_dtype=torch.float32).state_dict()
        for name in ("a", "b")
    )
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_given_text_encoder_may_stay_as_it_is(encoded, tmp_path):
    with pytest.raises(ValueError, match="a text encoder that is not trained must be given: connect 'text_encoder'"):
        train(encoded, tmp_path / "none", train_text_encoder=False)
    train(encoded, tmp_path / "a")
    first = UNet2DConditionModel.from_pretrained(tmp_path / "a" / "denoiser", torch_dtype=torch.float32)
    text = CLIPTextModel.from_pretrained(tmp_path / "a" / "text_encoder", dtype=torch.float32)
    train(encoded, tmp_path / "b", start=Start(first, text), train_text_encoder=False)
    [a, b] = (load_file(tmp_path / name / "text_encoder" / "model.safetensors") for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)
    [a, b] = (load_file(tmp_path / n / "denoiser" / "diffusion_pytorch_model.safetensors") for n in "ab")
    assert not any(torch.equal(a[name], b[name]) for name in a if name.endswith("conv1.weight"))


def test_captions_drop_out_at_the_given_rates():
    rng = random.Random(0)
    scenes = [sample_scene(rng, POCKET_64, Split.TRAIN, Mixture(empty=0)) for _ in range(400)]
    captions = [caption_for(scene, rng, drop_caption=0.25, drop_background=0.5) for scene in scenes]
    said = [read(caption) for caption in captions if caption]
    assert 0.2 < captions.count("") / len(captions) < 0.3
    assert 0.42 < sum(description.background is None for description in said) / len(said) < 0.58


def test_each_part_of_the_schedule_gets_one_timestep():
    timesteps = stratified_timesteps(10, 1000, torch.Generator().manual_seed(0))
    assert sorted((timesteps // 100).tolist()) == list(range(10))
    assert timesteps.tolist() != sorted(timesteps.tolist())


def test_min_snr_weights_clip_the_signal_to_noise_ratio_at_five():
    snr = torch.tensor([50.0, 5.0, 0.5])
    torch.testing.assert_close(min_snr_weights(snr / (1 + snr)), torch.tensor([0.1, 1.0, 1.0]))


def test_the_curriculum_rises_from_simple_to_full():
    curriculum = Curriculum(simple_until=10, full_from=20)
    assert [curriculum.share_of_full(n) for n in (0, 10, 15, 20, 99)] == [0, 0, 0.5, 1, 1]
