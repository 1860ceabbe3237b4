"""IP-Adapter through taps against diffusers' own processors, and ReEdit's image prompt against its formula."""

import copy

import pytest
import torch
from tiny import SD_SCHEDULER, TOKENS, WIDTH, random_tensor, tiny_unet

from graphflow.nodes.lib.denoiser import Denoiser
from graphflow.nodes.lib.injection import plug_and_play_injection
from graphflow.nodes.lib.ip_adapter import ImagePrompt, IPAdapter
from graphflow.nodes.lib.plug_and_play import Prompts, capture_features, injected_epsilon, injected_sample
from graphflow.nodes.lib.reedit import exemplar_embedding
from graphflow.nodes.lib.sources import LATENTS
from graphflow.nodes.lib.taps import Taps

EMBED = 16


@pytest.fixture(scope="module")
def denoiser():
    return Denoiser(tiny_unet(), SD_SCHEDULER)


@pytest.fixture(scope="module")
def taps(denoiser):
    return Taps(denoiser.unet)


def adapter_for(unet, seed=0):
    torch.manual_seed(seed)
    channels = [layer.to_q.out_features for name, layer in Taps(unet).attentions.items() if name.endswith("cross")]
    adapter = IPAdapter(EMBED, WIDTH, channels).eval().requires_grad_(False)
    for weight in adapter.parameters():  # so that the image counts
        weight.add_(0.1 * torch.randn_like(weight))
    return adapter


@pytest.fixture(scope="module")
def adapter(denoiser):
    return adapter_for(denoiser.unet)


def in_diffusers(unet, adapter, scale=1.0):
    """A copy of the UNet with the adapter in diffusers' own processors, loaded from the published format."""
    parts = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in adapter.to_tensors().items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor.clone()
    unet = copy.deepcopy(unet)
    unet._load_ip_adapter_weights([parts], low_cpu_mem_usage=False)
    for processor in unet.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [scale]
    return unet.eval()


def embeds(rows=1, seed=1):
    return random_tensor(rows, TOKENS, WIDTH, seed=seed)


def image(seed=9):
    return random_tensor(1, EMBED, seed=seed)


EMPTY, TARGET = embeds(seed=1), embeds(seed=2)
Z, T = random_tensor(1, 4, 8, 8, seed=0), 481


def close(a, b, tolerance=1e-6):
    assert (a - b).norm() < tolerance * b.norm()


def theirs(unet, rows, images):
    """Predictions of diffusers for rows of text, each with its picture's embedding."""
    with torch.no_grad():
        return unet(
            Z.expand(len(rows), -1, -1, -1), T, rows, added_cond_kwargs={"image_embeds": [images[:, None]]}
        ).sample


@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_predictions_equal_diffusers(denoiser, taps, adapter, scale):
    unet, plain = in_diffusers(denoiser.unet, adapter, scale), denoiser.predict(Z, T, TARGET)
    for embedding in (image(), 0 * image()):
        with taps.replace(ImagePrompt(adapter, embedding, scale).edits(taps, 1, 0, 1)):
            ours = denoiser.predict(Z, T, TARGET)
        close(ours, theirs(unet, TARGET, embedding))
        assert (ours - plain).norm() > 0.01


def test_negative_rows_see_the_projection_of_nothing(denoiser, taps, adapter):
    expected = theirs(
        in_diffusers(denoiser.unet, adapter), torch.cat([EMPTY, TARGET]), torch.cat([0 * image(), image()])
    )
    with taps.replace(ImagePrompt(adapter, image()).edits(taps, batch=1, sources=0, prompts=2)):
        ours = denoiser.predict(Z.expand(2, -1, -1, -1), T, torch.cat([EMPTY, TARGET]))
    close(ours, expected, 2e-6)


def test_a_mixture_goes_through_the_projection_as_one_embedding(denoiser, taps, adapter):
    """In diffusers, too, the UNet projects: the mixture can be passed as `ip_adapter_image_embeds`."""
    mix = exemplar_embedding(image(1), image(2), image(3), 0.65)
    expected = theirs(in_diffusers(denoiser.unet, adapter), TARGET, mix)
    with taps.replace(ImagePrompt(adapter, mix).edits(taps, 1, 0, 1)):
        close(denoiser.predict(Z, T, TARGET), expected)


def test_the_mixture_is_the_papers():
    before, after, y = image(1), image(2), image(3)
    torch.testing.assert_close(exemplar_embedding(before, after, y, 0.65), 0.65 * (after - before) + 0.35 * y)
    assert torch.equal(exemplar_embedding(before, after, y, 0.0), y)
    assert torch.equal(exemplar_embedding(before, after, y, 1.0), after - before)


def test_the_projection_of_a_mixture_is_no_mixture_of_projections(adapter):
    before, after, y = image(1), image(2), image(3)
    mixed_first = adapter.tokens(exemplar_embedding(before, after, y, 0.65))
    mixed_last = exemplar_embedding(adapter.tokens(before), adapter.tokens(after), adapter.tokens(y), 0.65)
    assert (mixed_first - mixed_last).abs().max() > 0.1
    assert adapter.tokens(torch.zeros(1, EMBED)).abs().max() > 0.1, "H(0) is not 0"
    assert mixed_first.shape == (1, 4, WIDTH)


def test_tokens_by_row_source_zeros_negative_of_nothing_conditional_of_the_picture(adapter):
    tokens = ImagePrompt(adapter, image()).tokens(batch=2, sources=1, prompts=3)
    assert tokens.shape == (8, 4, WIDTH)
    assert torch.equal(tokens[:2], torch.zeros(2, 4, WIDTH))
    none, cond = adapter.tokens(torch.zeros(1, EMBED)), adapter.tokens(image())
    for row in (2, 3, 4, 5):
        torch.testing.assert_close(tokens[row], none[0])
    for row in (6, 7):
        torch.testing.assert_close(tokens[row], cond[0])


def test_zero_tokens_add_nothing_to_the_source(denoiser, taps, adapter):
    edits = ImagePrompt(adapter, image()).edits(taps, batch=1, sources=1, prompts=1)
    with taps.replace(edits):
        with_adapter = denoiser.predict(Z.expand(2, -1, -1, -1), T, torch.cat([EMPTY, TARGET]))
    without = denoiser.predict(Z.expand(2, -1, -1, -1), T, torch.cat([EMPTY, TARGET]))
    close(with_adapter[:1], without[:1])
    assert (with_adapter[1:] - without[1:]).norm() > 0.01 * without[1:].norm()


def test_reedits_step_equals_its_two_passes(denoiser, taps, adapter):
    """Pass one: the plain UNet at the source's latents, watched. Pass two: diffusers' IP-Adapter UNet, injected."""
    injection, z_source = plug_and_play_injection(taps.places, 50), random_tensor(1, 4, 8, 8, seed=7)
    prompt, rows = ImagePrompt(adapter, image()), Prompts(TARGET, EMPTY, 7.5).rows(0, 50)
    unet, seen = in_diffusers(denoiser.unet, adapter), {}
    capture_features(denoiser, {T: z_source}, EMPTY, injection, seen.__setitem__)
    for step, count in ((0, 17), (24, 17), (25, 1), (39, 1), (40, 0)):
        places = injection.at(step)
        assert len(places) == count
        edits = {p: lambda v, p=p: seen[T][p].expand_as(v) for p in places}
        with Taps(unet).replace(edits):
            pair = theirs(unet, torch.cat([EMPTY, TARGET]), torch.cat([0 * image(), image()]))
        expected = pair[:1] + 7.5 * (pair[1:] - pair[:1])
        arguments = denoiser, taps, Z, T, rows
        for how in ({"source_BLD": EMPTY}, {}):
            captured = {LATENTS: z_source} if how else seen[T]
            ours = injected_epsilon(*arguments, captured, places, image=prompt, **how)
            close(ours, expected, 7.5e-6)  # guidance multiplies the differences


def test_the_whole_edit_with_an_image_prompt_stored_and_lockstep(denoiser, taps, adapter):
    timesteps = denoiser.timesteps(5).tolist()
    source = {t: {LATENTS: random_tensor(1, 4, 8, 8, seed=t)} for t in timesteps}
    injection, captured = plug_and_play_injection(taps.places, 5), {}
    latents = {t: source[t][LATENTS] for t in timesteps}
    capture_features(denoiser, latents, EMPTY, injection, captured.__setitem__)
    results = {}
    for scale in (1.0, 0.0):
        prompts = Prompts(TARGET, EMPTY, 2.0, image=ImagePrompt(adapter, image(), scale))
        stored = injected_sample(denoiser, captured, injection, prompts, 5)
        results[scale] = injected_sample(denoiser, source, injection, prompts, 5, source_BLD=EMPTY)
        close(stored, results[scale], 1e-5)
    plain = injected_sample(denoiser, source, injection, Prompts(TARGET, EMPTY, 2.0), 5, source_BLD=EMPTY)
    assert torch.equal(results[0.0], plain)
    assert (results[1.0] - plain).norm() > 0.01 * plain.norm()


# --- taps beside diffusers' own IP-Adapter processors ---------------------------------------------------------------


def test_taps_work_on_a_unet_that_carries_ip_adapters_processors(denoiser, adapter):
    unet = in_diffusers(denoiser.unet, adapter)
    taps, before = Taps(unet), {n: id(p) for n, p in unet.attn_processors.items()}
    expected = theirs(unet, TARGET, image())
    with taps.record(taps.places) as seen:
        close(theirs(unet, TARGET, image()), expected, 1e-5)
    assert seen.keys() == taps.places.keys()
    assert seen["up.1.attn.0.cross.probs"].shape == (1, 4, 4, TOKENS), "the text's attention, not the image's"
    with taps.replace({"up.1.attn.0.cross.probs": lambda probs: probs.roll(1, -1)}):
        assert (theirs(unet, TARGET, image()) - expected).norm() > 1e-5
    assert {n: id(p) for n, p in unet.attn_processors.items()} == before
    assert torch.equal(theirs(unet, TARGET, image()), expected)


# --- the published format -------------------------------------------------------------------------------------------


def test_the_published_format_comes_and_goes(denoiser, adapter):
    tensors = adapter.to_tensors()
    assert len(tensors) == 4 + 2 * 16
    assert {"ip_adapter.1.to_k_ip.weight", "ip_adapter.31.to_v_ip.weight", "image_proj.norm.bias"} <= tensors.keys()
    again = IPAdapter.from_tensors(tensors).to_tensors()
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
    assert again.keys() == tensors.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_proj.latents": torch.zeros(1)}, "it has image_proj.latents"),
        ({"ip_adapter.3.to_v_ip.weight": None}, "it lacks layers"),
        ({"image_proj.norm.bias": None}, "it lacks image_proj.norm.bias"),
    ],
)
def test_another_kind_of_adapter_is_refused(adapter, change, message):
    tensors = {n: t for n, t in (adapter.to_tensors() | change).items() if t is not None}
    with pytest.raises(ValueError, match=message):
        IPAdapter.from_tensors(tensors)


def test_an_adapter_of_another_model_is_refused(taps, adapter):
    other = adapter_for(tiny_unet(block_out_channels=(8, 16, 16, 16)))
    with pytest.raises(ValueError, match="16 layers of other widths than the 16 cross-attentions of the denoiser"):
        ImagePrompt(other, image()).edits(taps, 1, 0, 1)
    with pytest.raises(ValueError, match="embedding has width 5, this IP-Adapter was trained on 16"):
        adapter.tokens(torch.zeros(1, 5))
    with pytest.raises(ValueError, match="image prompt has 3 rows for 2 latents"):
        ImagePrompt(adapter, image().expand(3, -1)).tokens(2, 0, 1)
