import pytest
import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from diffusers.models.attention_processor import SlicedAttnProcessor
from tiny import SD_SCHEDULER, TOKENS, WIDTH, random_tensor, tiny_unet

from graphflow.nodes.lib.denoiser import Denoiser
from graphflow.nodes.lib.taps import Taps

CROSS = "up.1.attn.2.cross"


@pytest.fixture(scope="module")
def denoiser():
    return Denoiser(tiny_unet(), SD_SCHEDULER)


@pytest.fixture(scope="module")
def taps(denoiser):
    return Taps(denoiser.unet)


def call(denoiser, batch=2, height=8, width=8, seed=0):
    z = random_tensor(batch, 4, height, width, seed=seed)
    return denoiser.predict(z, 401, random_tensor(batch, TOKENS, WIDTH, seed=1))


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def close(a, b, tolerance=1e-6):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def changed(value):
    """A replacement that no layer can undo."""
    return value.roll(1, -1) + random_tensor(*value.shape[1:], seed=5).to(value.dtype)


# --- names ----------------------------------------------------------------------------------------------------------


def test_stable_diffusions_places_have_their_canonical_names(denoiser, taps):
    unet = denoiser.unet
    attentions = {f"down.{i}.attn.{j}" for i in (0, 1, 2) for j in (0, 1)} | {"mid.attn.0"}
    attentions |= {f"up.{i}.attn.{j}" for i in (1, 2, 3) for j in (0, 1, 2)}
    assert taps.attentions.keys() == {f"{name}.{kind}" for name in attentions for kind in ("self", "cross")}
    assert taps.find("up.1.res.1.conv2").module is unet.up_blocks[1].resnets[1].conv2
    assert taps.find("up.2.attn.0.self.q").module is unet.up_blocks[2].attentions[0].transformer_blocks[0].attn1.to_q
    assert taps.find("mid.attn.0.cross").module is unet.mid_block.attentions[0].transformer_blocks[0].attn2
    assert taps.find("up.3").module is unet.up_blocks[3]
    assert taps.find("mid.res.1").module is unet.mid_block.resnets[1]


def test_a_wrong_name_is_answered_with_the_nearest(taps):
    with pytest.raises(ValueError, match=r"no place 'up\.1\.res\.1\.conv3'; did you mean 'up\.1\.res\.[01]\.conv2'"):
        taps.find("up.1.res.1.conv3")


def test_a_model_without_places_is_refused():
    with pytest.raises(ValueError, match="Linear has no places to tap; expected a UNet2DConditionModel"):
        Taps(torch.nn.Linear(1, 1))


# --- recording ------------------------------------------------------------------------------------------------------


def test_every_place_is_recorded_in_running_order_and_the_result_stays(denoiser, taps):
    plain = call(denoiser, width=16)
    with taps.record(taps.places) as seen:
        recorded = call(denoiser, width=16)
    close(recorded, plain, 1e-5)
    assert seen.keys() == taps.places.keys()
    order = list(seen)
    assert order.index("down.2.attn.1.self.q") < order.index("mid.attn.0.cross.probs") < order.index("up.1.res.0")
    assert seen["down.0.attn.1.cross.probs"].shape == (2, 4, 8 * 16, TOKENS)
    assert seen["up.3.attn.2.self.probs"].shape == (2, 4, 8 * 16, 8 * 16)
    assert seen["up.3.attn.2.self.q"].shape == (2, 8 * 16, 16)
    for name, value in seen.items():
        if name.endswith(".probs"):
            assert value.min() >= 0
            close(value.sum(-1), torch.ones(value.shape[:3]), 1e-5)


def test_what_is_recorded_is_what_the_layers_computed(denoiser, taps):
    names = [f"{CROSS}.{part}" for part in ("q", "k", "v", "probs", "heads")]
    with taps.record([*names, CROSS, "up.1.res.2.conv2", "up.1.res.2", "up.1.attn.1"]) as seen:
        call(denoiser)
    q, k, v = (seen[n].unflatten(-1, (4, -1)).transpose(1, 2) for n in names[:3])
    probs = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1)
    close(seen[names[3]], probs)
    close(seen[names[4]], (probs @ v).transpose(1, 2).flatten(2))
    out = taps.attentions[CROSS].to_out[0]
    close(seen[CROSS], seen[names[4]] @ out.weight.T + out.bias)
    resnet = denoiser.unet.up_blocks[1].resnets[2]
    assert (seen["up.1.res.2"] - seen["up.1.res.2.conv2"]).abs().max() > 0.01, "the shortcut comes on top"
    assert resnet.conv_shortcut is not None


def test_some_rows_are_recorded_as_they_are_and_the_call_stays_as_it_was(denoiser, taps):
    names = [CROSS + ".probs", CROSS + ".q", "up.1.res.1.conv2"]
    with taps.record(names) as every:
        call(denoiser, batch=3)
    with taps.record(names, slice(1, None)) as some:
        recorded = call(denoiser, batch=3)
    assert torch.equal(recorded, call(denoiser, batch=3)), "fused attention, bit for bit"
    assert list(some) == list(every)
    for name in names:
        assert len(some[name]) == 2
        close(some[name], every[name][1:])


def test_the_second_of_two_calls_is_what_stays(denoiser, taps):
    with taps.record(["mid.attn.0.self.q"]) as alone:
        call(denoiser, seed=7)
    with taps.record(["mid.attn.0.self.q"]) as seen:
        call(denoiser, seed=0)
        call(denoiser, seed=7)
    assert torch.equal(seen["mid.attn.0.self.q"], alone["mid.attn.0.self.q"])


def test_maps_follow_the_text(denoiser, taps):
    embeds, z = random_tensor(1, TOKENS, WIDTH, seed=1), random_tensor(1, 4, 8, 8, seed=0)
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(0))
    with taps.record(taps.cross_attention_maps()) as maps:
        denoiser.predict(z, 401, embeds)
    with taps.record(taps.cross_attention_maps()) as permuted:
        denoiser.predict(z, 401, embeds[:, order])
    assert len(maps) == 16
    for name in maps:
        torch.testing.assert_close(maps[name][..., order], permuted[name], atol=1e-5, rtol=1e-4)


def test_maps_stay_in_float32_under_half_precision():
    half = Denoiser(tiny_unet().to(torch.bfloat16), SD_SCHEDULER)
    with Taps(half.unet).record(["mid.attn.0.cross.probs", "mid.attn.0.cross.q"]) as seen:
        call(half)
    assert seen["mid.attn.0.cross.probs"].dtype == torch.float32
    assert seen["mid.attn.0.cross.q"].dtype == torch.bfloat16
    close(seen["mid.attn.0.cross.probs"].sum(-1), torch.ones(2, 4, 1))


@pytest.mark.parametrize("name", ["up.3.attn.2.cross.probs", "up.3.attn.2.self.k", "up.1.res.1.conv2"])
def test_gradients_flow_through_what_is_recorded(denoiser, taps, name):
    z = random_tensor(1, 4, 8, 8, seed=0).requires_grad_()
    with taps.record([name]) as seen:
        denoiser.predict(z, 401, random_tensor(1, TOKENS, WIDTH, seed=1))
    (gradient,) = torch.autograd.grad(seen[name].square().sum(), z)
    assert gradient.abs().sum() > 0


# --- replacing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["up.1.res.1.conv2", "up.1.res.1", "up.2.attn.0", "up.2", "mid", "down.1", "up.2.attn.0.self", "up.2.attn.0.cross"]
    + [f"up.2.attn.0.{kind}.{part}" for kind in ("self", "cross") for part in ("q", "k", "v", "probs", "heads")],
)
def test_a_replacement_flows_on_and_the_same_value_changes_nothing(denoiser, taps, name):
    plain = call(denoiser)
    with taps.record([name]) as seen:
        call(denoiser)
    with taps.replace({name: lambda value: seen[name]}):
        close(call(denoiser), plain, 1e-5)
    with taps.replace({name: changed}):
        assert (call(denoiser) - plain).abs().max() > 1e-4
    assert torch.equal(call(denoiser), plain)


def test_replaced_queries_are_what_the_map_is_made_of(denoiser, taps):
    """Edits compose: what one replaces, another place further on sees."""
    with taps.replace({f"{CROSS}.q": torch.zeros_like}), taps.record([f"{CROSS}.probs"]) as seen:
        call(denoiser)
    close(seen[f"{CROSS}.probs"], torch.full((2, 4, 4, TOKENS), 1 / TOKENS))


def test_a_replacement_of_another_shape_is_refused(denoiser, taps):
    with (
        pytest.raises(ValueError, match=r"at 'mid' flows \(2, 32, 1, 1\); it can't be replaced by \(1, 32, 1, 1\)"),
        taps.replace({"mid": lambda value: value[:1]}),
    ):
        call(denoiser)


# --- nothing is left behind -----------------------------------------------------------------------------------------


def test_nothing_is_left_after_the_block_even_after_an_error(denoiser, taps):
    before = {name: id(processor) for name, processor in denoiser.unet.attn_processors.items()}
    expected = call(denoiser)
    with taps.record(taps.places):
        assert hooks(denoiser.unet) > 0
    assert hooks(denoiser.unet) == 0
    with pytest.raises(RuntimeError), taps.record(taps.places):
        denoiser.predict(random_tensor(1, 4, 8, 8, seed=0), 401, random_tensor(1, TOKENS, WIDTH + 1, seed=1))
    with pytest.raises(ZeroDivisionError), taps.replace({f"{CROSS}.probs": lambda value: 1 / 0}):
        call(denoiser)
    with pytest.raises(ValueError, match="no place 'down'"), taps.record(["mid.attn.0.cross.probs", "down"]):
        pass
    assert hooks(denoiser.unet) == 0
    assert {name: id(processor) for name, processor in denoiser.unet.attn_processors.items()} == before
    assert torch.equal(call(denoiser), expected), "a mode that is still on would compute attention another way"


# --- foreign processors ---------------------------------------------------------------------------------------------


def test_a_processor_without_visible_probabilities_is_refused(denoiser):
    other = Denoiser(tiny_unet(), SD_SCHEDULER)
    other.unet.mid_block.attentions[0].transformer_blocks[0].attn2.set_processor(SlicedAttnProcessor(1))
    taps = Taps(other.unet)
    with (
        pytest.raises(ValueError, match=r"nothing flowed at 'mid\.attn\.0\.cross\.probs': .* is SlicedAttnProcessor"),
        taps.record(taps.cross_attention_maps()),
    ):
        call(other)
    with taps.record(["mid.attn.0.cross.q"]) as seen:  # its projections can be seen
        close(call(other), call(denoiser), 1e-5)
    assert seen["mid.attn.0.cross.q"].shape == (2, 1, 32)


def test_fused_projections_are_refused():
    unet = tiny_unet()
    unet.fuse_qkv_projections()
    with pytest.raises(ValueError, match=r"'mid\.attn\.0\.self\.q' can't be tapped while"):
        Taps(unet).record(["mid.attn.0.self.q"]).__enter__()
    assert hooks(unet) == 0


# --- other families -------------------------------------------------------------------------------------------------


def test_sdxl_with_several_blocks_in_a_transformer():
    unet = tiny_unet(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 4),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
        use_linear_projection=True,
    )
    taps = Taps(unet)
    assert taps.find("up.0.attn.1.3.self.k").module is unet.up_blocks[0].attentions[1].transformer_blocks[3].attn1.to_k
    assert taps.find("up.1.attn.0.1.cross").module is unet.up_blocks[1].attentions[0].transformer_blocks[1].attn2
    added = {"text_embeds": random_tensor(1, 16, seed=2), "time_ids": torch.zeros(1, 6)}
    arguments = random_tensor(1, 4, 8, 8, seed=0), torch.tensor([401]), random_tensor(1, TOKENS, WIDTH, seed=1)

    def predict():
        with torch.no_grad():
            return unet(*arguments, added_cond_kwargs=added).sample

    with taps.record(taps.places) as seen:
        close(predict(), (plain := predict()), 1e-5)
    assert seen.keys() == taps.places.keys()
    with taps.replace({"up.0.attn.1.3.self.v": changed}):
        assert (predict() - plain).abs().max() > 1e-4


def tiny_sd3():
    torch.manual_seed(0)
    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    ).eval()


def predict_sd3(model):
    with torch.no_grad():
        return model(
            random_tensor(1, 4, 8, 8, seed=0),
            random_tensor(1, 5, 32, seed=1),
            random_tensor(1, 16, seed=2),
            torch.tensor([401]),
        ).sample


def tiny_flux():
    torch.manual_seed(0)
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
    ).eval()


def predict_flux(model):
    with torch.no_grad():
        return model(
            random_tensor(1, 16, 4, seed=0),
            encoder_hidden_states=random_tensor(1, 5, 32, seed=1),
            pooled_projections=random_tensor(1, 16, seed=2),
            timestep=torch.tensor([0.4]),
            img_ids=torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(4.0)),
            txt_ids=torch.zeros(5, 3),
        ).sample


SD3_SHAPES = {
    "joint.0": (1, 16, 32),
    "joint.0.attn.q": (1, 16, 32),
    "joint.0.attn.text_k": (1, 5, 32),
    "joint.0.attn.probs": (1, 4, 21, 21),
    "joint.0.self.probs": (1, 4, 16, 16),
    "joint.1.attn.heads": (1, 16, 32),
}
FLUX_SHAPES = {
    "double.0": (1, 16, 32),
    "double.1.attn.v": (1, 16, 32),
    "double.1.attn.text_v": (1, 5, 32),
    "double.1.attn.probs": (1, 2, 21, 21),
    "single.0": (1, 16, 32),
    "single.1.attn.k": (1, 21, 32),
    "single.1.attn.probs": (1, 2, 21, 21),
}


@pytest.mark.parametrize(
    ("make", "predict", "shapes"),
    [(tiny_sd3, predict_sd3, SD3_SHAPES), (tiny_flux, predict_flux, FLUX_SHAPES)],
    ids=["sd3", "flux"],
)
def test_diffusion_transformers_record_and_replace(make, predict, shapes):
    model = make()
    taps = Taps(model)
    plain = predict(model)
    with taps.record(taps.places) as seen:
        close(predict(model), plain, 1e-5)
    assert seen.keys() == taps.places.keys()
    for name, shape in shapes.items():
        assert seen[name].shape == shape, name
        with taps.replace({name: lambda value, name=name: seen[name]}):
            close(predict(model), plain, 1e-5)
        with taps.replace({name: changed}):
            assert (predict(model) - plain).abs().max() > 1e-5, name
    assert torch.equal(predict(model), plain)
