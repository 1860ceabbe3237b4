"""What nodes give for several elements at once is what they give for each alone, within 1e-5 in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import save_blip, save_clip, save_llava, tiny_sd3_transformer
from measures import picture, save_lpips, save_open_clip, save_vit
from PIL import Image, ImageChops
from tiny import SD_SCHEDULER, TOKENS, WIDTH, random_tensor, tiny_text_encoder, tiny_tokenizer, tiny_unet, tiny_vae
from watcher import Watcher

from graphflow.models.refs import ModelRef, loaders
from graphflow.node import BatchNode
from graphflow.nodes.caption import Caption
from graphflow.nodes.denoise import DenoiseDDIM, DenoiseInjected, DenoisePix2PixZero, DenoiseReEdit
from graphflow.nodes.embedding import EmbedImage
from graphflow.nodes.features import Capture
from graphflow.nodes.instruct import Denoise
from graphflow.nodes.invert import InvertDDIM
from graphflow.nodes.lib.denoiser import Denoiser
from graphflow.nodes.lib.instruct_pix2pix import InstructDenoiser
from graphflow.nodes.lib.ip_adapter import IPAdapter
from graphflow.nodes.lib.taps import Taps
from graphflow.nodes.lib.text_encoder import TextEncoder
from graphflow.nodes.lib.ultra_edit import InstructTransformer
from graphflow.nodes.lib.vae import VAE
from graphflow.nodes.score import ClipScore, ClipTextScore, Dino, Hps, Lpips, Structure, SVisual
from graphflow.nodes.text import Encode as EncodeText
from graphflow.nodes.vae import Decode, Encode
from graphflow.ports import Ports, TextCond, Trajectory
from graphflow.testing.examples import batch_problems

STEPS = 3


def cond(seed: int, pooled: bool = False) -> TextCond:
    return TextCond(random_tensor(1, TOKENS, WIDTH, seed=seed), random_tensor(1, WIDTH, seed=seed) if pooled else None)


def latents(seed: int, rows: int = 1) -> torch.Tensor:
    return random_tensor(rows, 4, 8, 8, seed=seed)


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return Denoiser(tiny_unet(), SD_SCHEDULER)


@pytest.fixture(scope="module")
def vae() -> VAE:
    return VAE(tiny_vae())


def assert_together(node: BatchNode, xs: list[Ports], loops: int | None = None) -> list[Any]:
    """Batches give what elements give alone; a loop over timesteps reports once for the batch."""
    assert batch_problems(node, xs) == []
    watcher = Watcher()
    found = node.run_many(xs, watcher)
    if loops is not None:
        assert len(watcher.loops) == loops
    return found


def test_sampling(denoiser: Denoiser) -> None:
    def x(n: int, **more: Any) -> Ports:
        return DenoiseDDIM.In(noise=latents(n), cond=cond(n), model=denoiser, **more)

    node = DenoiseDDIM(num_inference_steps=STEPS)
    direction = random_tensor(TOKENS, WIDTH, seed=9)
    assert_together(node, [x(n, negative=cond(n + 5)) for n in range(3)], loops=1)
    assert_together(node, [x(n, negative=cond(7), direction=(n + 1) * direction) for n in range(2)], loops=1)
    mixed = [x(0, negative=cond(7)), x(1, negative=cond(7), direction=direction), x(2, negative=cond(8))]
    assert_together(node, mixed, loops=2)


def test_latents_of_several_rows_keep_their_own_text(denoiser: Denoiser) -> None:
    ins = [DenoiseDDIM.In(noise=latents(n, 1 + n), cond=cond(n), model=denoiser) for n in range(3)]
    found = assert_together(DenoiseDDIM(num_inference_steps=STEPS, guidance_scale=1.0), ins, loops=1)
    assert [len(out.latents) for out in found] == [1, 2, 3]


@pytest.mark.parametrize("regularise", [False, True])
def test_inversion(denoiser: Denoiser, regularise: bool) -> None:
    xs = [InvertDDIM.In(latents=latents(n), cond=cond(n), model=denoiser) for n in range(3)]
    assert_together(InvertDDIM(num_inference_steps=STEPS, regularise=regularise, seed=4), xs, loops=1)


def test_pix2pix_zero(denoiser: Denoiser) -> None:
    def x(n: int, **more: Any) -> Ports:
        direction = 0.3 * random_tensor(TOKENS, WIDTH, seed=n + 20)
        return DenoisePix2PixZero.In(noise=latents(n), cond=cond(n), direction=direction, model=denoiser, **more)

    node = DenoisePix2PixZero(num_inference_steps=STEPS)
    assert_together(node, [x(0), x(1)], loops=1)
    assert_together(node, [x(0, negative=cond(5)), x(1, negative=cond(6))], loops=1)


@pytest.fixture(params=["stored", "lockstep"])
def features(request: Any, denoiser: Denoiser) -> list[Any]:
    """Of two pictures; a third has other notes."""
    timesteps = denoiser.timesteps(4).tolist()[::-1]

    def captured(n: int, **how: Any) -> Any:
        trajectory = Trajectory([-1, *timesteps], torch.stack([latents(n + t) for t in (-1, *timesteps)]))
        node = Capture(num_inference_steps=4, storage=request.param, **how)
        return node.run(Capture.In(trajectory=trajectory, cond=cond(n), model=denoiser), Watcher()).features

    return [captured(0), captured(10_000), captured(20_000, attention_threshold=0.25)]


@pytest.mark.parametrize("storage", ["stored", "lockstep"])
def test_capturing_features(denoiser: Denoiser, storage: Any) -> None:
    timesteps = denoiser.timesteps(3).tolist()[::-1]

    def x(n: int) -> Ports:
        trajectory = Trajectory([-1, *timesteps], torch.stack([latents(n + t) for t in (-1, *timesteps)]))
        return Capture.In(trajectory=trajectory, cond=cond(n), model=denoiser)

    assert_together(Capture(num_inference_steps=3, storage=storage), [x(0), x(10_000)], loops=storage == "stored")


def test_plug_and_play(denoiser: Denoiser, features: list[Any]) -> None:
    xs = [
        DenoiseInjected.In(features=f, cond=cond(n), negative=cond(7), unconditional=cond(8), model=denoiser)
        for n, f in enumerate(features)
    ]
    assert_together(DenoiseInjected(guidance_scale=2.0), xs, loops=2)
    assert_together(DenoiseInjected(guidance_scale=2.0, negative_prompt_alpha=0.5), xs[:2], loops=1)


@pytest.mark.parametrize("prompts", ["both", "text", "image"])
def test_reedit(denoiser: Denoiser, features: list[Any], prompts: Any) -> None:
    torch.manual_seed(0)
    layers = [a.to_q.out_features for name, a in Taps(denoiser.unet).attentions.items() if name.endswith("cross")]
    adapter = IPAdapter(16, WIDTH, layers).eval().requires_grad_(False)
    xs = [
        DenoiseReEdit.In(
            features=f,
            cond=cond(n),
            negative=cond(7),
            image_prompt=random_tensor(1, 16, seed=n),
            ip_adapter=adapter,
            model=denoiser,
        )
        for n, f in enumerate(features[:2])
    ]
    assert_together(DenoiseReEdit(guidance_scale=2.0, prompts=prompts), xs, loops=1)


@pytest.mark.parametrize("sampler", ["euler_ancestral", "ddim"])
def test_instruct_pix2pix(vae: VAE, sampler: Any) -> None:
    model = InstructDenoiser(tiny_unet(in_channels=8), SD_SCHEDULER)
    pictures = [picture(64, 64, seed=1), picture(64, 64, seed=2), picture(96, 64, seed=3)]
    xs = [
        Denoise.In(image=image, cond=cond(n), negative=cond(7), vae=vae, model=model)
        for n, image in enumerate(pictures)
    ]
    assert_together(Denoise(num_inference_steps=STEPS, sampler=sampler, seed=5), xs, loops=2)


def test_ultra_edit(vae: VAE) -> None:
    model = InstructTransformer(tiny_sd3_transformer(8), {"num_train_timesteps": 1000, "shift": 3.0})

    def text(seed: int) -> TextCond:
        return TextCond(random_tensor(1, 20, 32, seed=seed), random_tensor(1, 32, seed=seed))

    xs = [
        Denoise.In(image=picture(64, 64, seed=n), cond=text(n), negative=text(7), vae=vae, model=model)
        for n in range(2)
    ]
    assert_together(Denoise(num_inference_steps=STEPS, seed=5), xs, loops=1)


@pytest.mark.parametrize("posterior", ["mode", "sample"])
def test_encoding_pictures(vae: VAE, posterior: Any) -> None:
    pictures = [picture(64, 64, seed=1), picture(48, 64, seed=2), picture(64, 64, seed=3)]
    assert_together(Encode(posterior=posterior, seed=2), [Encode.In(image=image, model=vae) for image in pictures])


def test_decoding_pictures(vae: VAE) -> None:
    shapes = [(8, 8), (8, 8), (4, 8)]
    zs = [random_tensor(1, 4, *shape, seed=n) for n, shape in enumerate(shapes)]
    found = assert_together(Decode(), [Decode.In(latents=z, model=vae) for z in zs])
    assert [out.image.size for out in found] == [(64, 64), (64, 64), (64, 32)]
    assert ImageChops.difference(found[0].image, found[1].image).getbbox()


def test_texts_of_different_lengths() -> None:
    encoder = TextEncoder(tiny_tokenizer(), tiny_text_encoder())
    texts = ["", "a cat", "a much longer description of a cat that sits on a sofa"]
    assert_together(EncodeText(), [EncodeText.In(text=text, model=encoder) for text in texts])


def loaded(name: str, role: str, folder: Path, **options: str) -> Any:
    ref = ModelRef(role, name, "tiny", path=folder, options=options)
    return loaders()[name].load(ref, folder, torch.device("cpu"), torch.float32)


PICTURES = [picture(48, 40, seed=1), picture(30, 60, seed=2), picture(48, 40, seed=3)]


@pytest.mark.parametrize("prompt", ["", "a photo of"])
def test_captions(tmp_path: Path, prompt: str) -> None:
    model = loaded("transformers.blip", "captioner", save_blip(tmp_path))
    xs = [Caption.In(image=image, model=model) for image in PICTURES]
    assert_together(Caption(prompt=prompt, max_new_tokens=6), xs)


def test_captions_of_a_vision_language_model(tmp_path: Path) -> None:
    model = loaded("transformers.image_to_text", "captioner", save_llava(tmp_path))
    xs = [Caption.In(image=image, model=model) for image in PICTURES]
    assert_together(Caption(max_new_tokens=6, num_beams=1), xs)


def test_embeddings_of_pictures(tmp_path: Path) -> None:
    model = loaded("transformers.clip", "clip", save_clip(tmp_path))
    assert_together(EmbedImage(), [EmbedImage.In(image=image, model=model) for image in PICTURES])


# --- scores ---------------------------------------------------------------------------------------------------------

OTHERS = [picture(image.width, image.height, seed=n + 7) for n, image in enumerate(PICTURES)]
MASKS = [Image.new("L", image.size, white) for image, white in zip(PICTURES, (0, 255, 255), strict=True)]
MASKS[2].paste(0, (0, 0, PICTURES[2].width // 2, PICTURES[2].height))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loaded("transformers.clip", "clip", save_clip(tmp_path_factory.mktemp("clip")))


def test_clip_scores_of_edits_of_which_not_all_is_known(clip: Any) -> None:
    known = [{"text": "a cat"}, {"text": "a dog that runs", "source": OTHERS[1], "source_text": "a dog"}]
    known += [{"source": OTHERS[2], "target": OTHERS[0], "instruction": "make it blue"}]
    xs = [ClipScore.In(image=image, model=clip, **more) for image, more in zip(PICTURES, known, strict=True)]
    assert_together(ClipScore(), xs)
    assert_together(ClipScore(), [ClipScore.In(image=image, text="a", model=None) for image in PICTURES])
    assert_together(ClipScore(compat="openai"), xs)


@pytest.mark.parametrize("region", ["whole", "inside"])
def test_clip_score_of_regions_of_which_one_is_empty(clip: Any, region: Any) -> None:
    texts = ["a cat", "a dog that runs", "a house"]
    xs = [
        ClipTextScore.In(image=image, text=text, mask=mask, model=clip)
        for image, text, mask in zip(PICTURES, texts, MASKS, strict=True)
    ]
    found = assert_together(ClipTextScore(region=region), xs)
    name = "clip_score" if region == "whole" else "clip_score_inside"
    assert [out.scores[name] is None for out in found] == [region == "inside", False, False]


def test_s_visual(clip: Any) -> None:
    xs = [
        SVisual.In(before=OTHERS[0], after=OTHERS[n], source=PICTURES[n], image=PICTURES[0], model=clip) for n in (1, 2)
    ]
    assert_together(SVisual(), xs)


def test_hps(tmp_path: Path) -> None:
    model = loaded("open_clip.hps", "hps", save_open_clip(tmp_path))
    xs = [Hps.In(image=image, text=text, model=model) for image, text in zip(PICTURES, ["a", "bb", "ccc"], strict=True)]
    assert_together(Hps(), xs)


@pytest.mark.parametrize("region", ["whole", "inside"])
def test_structure_of_pictures_of_different_sizes(tmp_path: Path, region: Any) -> None:
    model = loaded("transformers.structure", "structure", save_vit(tmp_path))
    pairs = zip(PICTURES, OTHERS, MASKS, strict=True)
    xs = [Structure.In(image=image, reference=other, mask=mask, model=model) for image, other, mask in pairs]
    assert_together(Structure(size=32, region=region), xs)


def test_dino(tmp_path: Path) -> None:
    model = loaded("transformers.dino", "dino", save_vit(tmp_path))
    xs = [Dino.In(image=image, reference=other, model=model) for image, other in zip(PICTURES, OTHERS, strict=True)]
    assert_together(Dino(resize=40, crop=32), xs)


@pytest.mark.parametrize("region", ["whole", "outside"])
def test_lpips_of_pictures_of_different_sizes(tmp_path: Path, region: Any) -> None:
    model = loaded("lpips", "lpips", save_lpips(tmp_path), net="squeeze")
    pairs = zip(PICTURES, OTHERS, MASKS, strict=True)
    xs = [Lpips.In(image=image, reference=other, mask=mask, model=model) for image, other, mask in pairs]
    assert_together(Lpips(region=region), xs)


def test_a_batch_that_gives_something_else_is_found() -> None:
    class Mixed(EncodeText):
        def run_many(self, xs: Any, ctx: Any) -> Any:
            found = super().run_many(xs, ctx)
            return found if len(xs) == 1 else [found[0]] * len(xs)

    encoder = TextEncoder(tiny_tokenizer(), tiny_text_encoder())
    xs = [EncodeText.In(text=text, model=encoder) for text in ("a cat", "a dog")]
    assert batch_problems(Mixed(), xs) == [
        "run_many gives other results for 2 inputs than run, one by one: 'cond' of input 2"
    ]
