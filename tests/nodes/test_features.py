import pytest
import torch
from tiny import SD_SCHEDULER, TOKENS, WIDTH, random_tensor, tiny_unet
from watcher import Watcher

from graphflow.cli import run as command
from graphflow.codecs import CODECS
from graphflow.node import Context
from graphflow.nodes.denoise import DenoiseInjected
from graphflow.nodes.features import Capture
from graphflow.nodes.invert import InvertDDIM
from graphflow.nodes.lib.denoiser import Denoiser
from graphflow.ports import TextCond


def cond(seed):
    return TextCond(random_tensor(1, TOKENS, WIDTH, seed=seed))


@pytest.fixture(scope="module")
def denoiser():
    return Denoiser(tiny_unet(), SD_SCHEDULER)


@pytest.fixture(scope="module")
def trajectory(denoiser):
    x = InvertDDIM.In(latents=random_tensor(1, 4, 8, 8, seed=0), cond=cond(1), model=denoiser)
    return InvertDDIM(num_inference_steps=10).run(x, Context()).trajectory


def captured(denoiser, trajectory, tmp_path, **parameters):
    x = Capture.In(trajectory=trajectory, cond=cond(1), model=denoiser)
    watcher = Watcher()
    watcher._out = tmp_path
    return Capture(num_inference_steps=5, **parameters).run(x, watcher).features, watcher


def test_what_is_stored_is_what_the_steps_will_take(denoiser, trajectory, tmp_path):
    features, watcher = captured(denoiser, trajectory, tmp_path, storage="stored")
    assert features.timesteps == [801, 601, 401, 201], "0.8 of the sampling timesteps"
    assert watcher.loops == [(4, "capturing")]
    assert len(features[801]) == 1 + 1 + 2 * 8, "latents, a resnet, queries and keys of eight layers"
    assert features[401].keys() == {"latents", "up.1.res.1.conv2"}
    assert torch.equal(features[801]["latents"], trajectory.latents[trajectory.timesteps.index(801)])
    assert torch.equal(features.shared["cond"], cond(1).embeds)
    assert features.folder.is_relative_to(tmp_path)


def test_lockstep_stores_latents_only_and_calls_no_network(denoiser, trajectory, tmp_path):
    features, watcher = captured(denoiser, trajectory, tmp_path, storage="lockstep")
    assert features.timesteps == [801, 601, 401, 201]
    assert {name for named in features.values() for name in named} == {"latents"}
    assert watcher.loops == []


@pytest.mark.parametrize("thresholds", ["half_open", "inclusive"])
def test_stored_and_lockstep_give_the_same_picture(denoiser, trajectory, tmp_path, thresholds):
    node, results = DenoiseInjected(guidance_scale=1.0), []
    for storage in ("stored", "lockstep"):
        features, _ = captured(denoiser, trajectory, tmp_path, storage=storage, thresholds=thresholds)
        x = node.In(features=features, cond=cond(2), negative=cond(3), model=denoiser)
        watcher = Watcher()
        results.append(node.run(x, watcher).latents)
        assert watcher.loops == [(5, "editing")]
        assert torch.equal(watcher.previews[-1], results[-1])
    assert (results[0] - results[1]).norm() < 5 * 1e-6 * results[1].norm(), "1e-6 for each of five steps"


def test_nothing_injected_leaves_the_start(denoiser, trajectory, tmp_path):
    features, _ = captured(denoiser, trajectory, tmp_path, attention_threshold=0, feature_threshold=0)
    assert features.timesteps == [801]
    x = DenoiseInjected.In(features=features, cond=cond(2), model=denoiser)
    assert DenoiseInjected(guidance_scale=1).run(x, Context()).latents.isfinite().all()


def test_the_empty_prompt_beside_the_negative_one_counts(denoiser, trajectory, tmp_path):
    features, _ = captured(denoiser, trajectory, tmp_path, storage="lockstep")
    ports = {"features": features, "cond": cond(2), "negative": cond(3), "unconditional": cond(1), "model": denoiser}
    latents = [
        DenoiseInjected(negative_prompt_alpha=alpha, negative_prompt_schedule=schedule)
        .run(DenoiseInjected.In(**ports), Context())
        .latents
        for alpha, schedule in ((0.0, "constant"), (1.0, "constant"), (1.0, "linear"))
    ]
    assert len({float(z.sum()) for z in latents}) == 3


def test_an_inversion_that_stops_elsewhere_is_refused(denoiser, trajectory):
    x = Capture.In(trajectory=trajectory, cond=cond(1), model=denoiser)
    with pytest.raises(ValueError, match="convention diffusers .* 999 steps, or with the same number as sampling"):
        Capture(num_inference_steps=4).run(x, Context())


# --- stored or lock-step --------------------------------------------------------------------------------------------


def test_what_costs_less_is_decided_from_the_config(denoiser):
    size = {"block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768, "sample_size": 64}
    config = {"model": {**denoiser.unet.config, **size, "_class_name": "UNet2DConditionModel"}}
    decided, why = Capture().decide(config, "cpu", "float32")
    assert (decided.storage, why.partition(":")[0]) == ("stored", "stored")
    decided, why = Capture().decide(config, "cuda", "bfloat16")
    assert (decided.storage, why.partition(":")[0]) == ("lockstep", "lock-step")
    assert Capture(storage="stored").decide(config, "cuda", "bfloat16") == (Capture(storage="stored"), "")
    decided, why = Capture().decide({"model": {}}, "cpu", "float32")
    assert (decided.storage, why) == ("lockstep", "lock-step: the denoiser's size is not known")
    decided, why = Capture(features=["mid.res.0"]).decide(config, "cpu", "float32")
    assert (decided.storage, why) == ("lockstep", "lock-step: the size of these layers is not known")


def test_auto_runs_as_decided(denoiser, trajectory, tmp_path):
    config = {**denoiser.unet.config, "_class_name": "UNet2DConditionModel"}
    storage = Capture(num_inference_steps=5).decide({"model": config}, "cpu", "float32")[0].storage
    auto, _ = captured(denoiser, trajectory, tmp_path)
    same, _ = captured(denoiser, trajectory, tmp_path, storage=storage)
    assert auto.notes["storage"] == storage
    assert CODECS["series"].digest(auto) == CODECS["series"].digest(same)


def test_the_plan_shows_the_choice_and_its_reason(tmp_path, capsys):
    assert command(["plan", "plug_and_play", "--store", str(tmp_path), "--device", "cpu"]) == 0
    assert "capture: stored: " in " ".join(capsys.readouterr().out.split())
    assert command(["plan", "plug_and_play", "--store", str(tmp_path), "--set", "capture.storage=lockstep"]) == 0
    assert "capture: " not in capsys.readouterr().out
