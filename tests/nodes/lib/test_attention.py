import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, SlicedAttnProcessor
from tiny import SD_SCHEDULER, TOKENS, WIDTH, random_tensor, tiny_unet

from graphflow.nodes.lib.attention import AttentionTap, cross_attention_layers
from graphflow.nodes.lib.denoiser import Denoiser


@pytest.fixture
def denoiser():
    return Denoiser(tiny_unet(), SD_SCHEDULER)


def call(denoiser, batch=2, height=8, width=8):
    z = random_tensor(batch, 4, height, width, seed=0)
    return denoiser.predict(z, 401, random_tensor(batch, TOKENS, WIDTH, seed=1))


def processors(denoiser):
    return {name: id(processor) for name, processor in denoiser.unet.attn_processors.items()}


def test_every_cross_attention_has_its_canonical_name(denoiser):
    expected = {f"down.{i}.attn.{j}.cross" for i in (0, 1, 2) for j in (0, 1)} | {"mid.attn.0.cross"}
    expected |= {f"up.{i}.attn.{j}.cross" for i in (1, 2, 3) for j in (0, 1, 2)}
    layers = cross_attention_layers(denoiser.unet)
    assert layers.keys() == expected
    unet = denoiser.unet
    assert layers["up.1.attn.2.cross"] is unet.up_blocks[1].attentions[2].transformer_blocks[0].attn2
    assert layers["mid.attn.0.cross"] is unet.mid_block.attentions[0].transformer_blocks[0].attn2


def test_names_are_refused_where_they_would_collide():
    with pytest.raises(ValueError, match=r"transformer_blocks\.1\.attn2"):
        AttentionTap(tiny_unet(transformer_layers_per_block=2))


def test_records_probabilities_in_running_order_without_changing_the_result(denoiser):
    plain = call(denoiser, height=8, width=16)
    tap = AttentionTap(denoiser.unet)
    with tap.record() as maps:
        recorded = call(denoiser, height=8, width=16)
    torch.testing.assert_close(recorded, plain, atol=1e-5, rtol=1e-5)
    order = list(maps)
    assert order.index("down.2.attn.1.cross") < order.index("mid.attn.0.cross") < order.index("up.1.attn.0.cross")
    assert len(maps) == 16
    assert maps["down.0.attn.1.cross"].shape == (2, 4, 8 * 16, TOKENS)
    assert maps["mid.attn.0.cross"].shape == (2, 4, 1 * 2, TOKENS)
    for probs in maps.values():
        assert probs.min() >= 0
        torch.testing.assert_close(probs.sum(-1), torch.ones(probs.shape[:3]))


def test_maps_follow_the_text(denoiser):
    tap = AttentionTap(denoiser.unet)
    embeds = random_tensor(1, TOKENS, WIDTH, seed=1)
    z = random_tensor(1, 4, 8, 8, seed=0)
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(0))
    with tap.record() as maps:
        denoiser.predict(z, 401, embeds)
    with tap.record() as permuted:
        denoiser.predict(z, 401, embeds[:, order])
    for name in maps:
        torch.testing.assert_close(maps[name][..., order], permuted[name], atol=1e-5, rtol=1e-4)


def test_maps_stay_in_float32_under_half_precision():
    half = Denoiser(tiny_unet().to(torch.bfloat16), SD_SCHEDULER)
    with AttentionTap(half.unet).record() as maps:
        call(half)
    assert {probs.dtype for probs in maps.values()} == {torch.float32}
    torch.testing.assert_close(maps["mid.attn.0.cross"].sum(-1), torch.ones(2, 4, 1))


def test_gradients_flow_through_the_maps(denoiser):
    z = random_tensor(1, 4, 8, 8, seed=0).requires_grad_()
    with AttentionTap(denoiser.unet).record() as maps:
        denoiser.predict(z, 401, random_tensor(1, TOKENS, WIDTH, seed=1))
    (gradient,) = torch.autograd.grad(maps["up.3.attn.2.cross"].square().sum(), z)
    assert gradient.abs().sum() > 0


def test_processors_come_back_even_after_an_error(denoiser):
    before = processors(denoiser)
    tap = AttentionTap(denoiser.unet)
    with tap.record():
        assert processors(denoiser) != before
    assert processors(denoiser) == before
    with pytest.raises(RuntimeError), tap.record():
        denoiser.predict(random_tensor(1, 4, 8, 8, seed=0), 401, random_tensor(1, TOKENS, WIDTH + 1, seed=1))
    assert processors(denoiser) == before


def test_the_unfused_processor_of_diffusers_is_replaced_too(denoiser):
    expected = call(denoiser)
    denoiser.unet.set_attn_processor(AttnProcessor())
    with AttentionTap(denoiser.unet).record() as maps:
        torch.testing.assert_close(call(denoiser), expected, atol=1e-5, rtol=1e-5)
    assert len(maps) == 16


def test_another_processor_is_not_silently_replaced(denoiser):
    denoiser.unet.mid_block.attentions[0].transformer_blocks[0].attn2.set_processor(SlicedAttnProcessor(1))
    before = processors(denoiser)
    with (
        pytest.raises(ValueError, match=r"mid\.attn\.0\.cross carries a SlicedAttnProcessor"),
        AttentionTap(denoiser.unet).record(),
    ):
        pass
    assert processors(denoiser) == before
