"""The Inception of FID against torch-fidelity's, and the ways to 299x299 against their own libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from measures import fid_inception, picture
from PIL import Image
from torchvision.transforms import v2 as tv

from graphflow.nodes.lib.metrics import inception

IMAGE = picture(120, 90)


@pytest.fixture(scope="module")
def network():
    return inception.Inception(fid_inception(), "tiny")


@pytest.fixture(scope="module")
def theirs(network):
    from torch_fidelity import feature_extractor_inceptionv3 as tf

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.torch, "load", lambda *a, **k: network.model.state_dict())
        return tf.FeatureExtractorInceptionV3("x", [str(n) for n in inception.FEATURES], "weights")


def test_features_of_every_layer_agree_with_torch_fidelity(network, theirs):
    raw = torch.from_numpy(np.asarray(IMAGE).copy()).permute(2, 0, 1)[None]
    for dimension, expected in zip(inception.FEATURES, theirs(raw), strict=True):
        found = network.features(IMAGE, dimension, "tensorflow")
        assert found.shape == (1, dimension)
        assert expected.std() > 1e-3
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_torchvisions_own_pooling_would_be_wrong(network):
    from torchvision.models import Inception3

    usual = Inception3(num_classes=1008, aux_logits=False, init_weights=False).eval()
    usual.load_state_dict(network.model.state_dict())
    kept = {}
    usual.avgpool.register_forward_hook(lambda m, args, out: kept.update(features=out.flatten(1)))
    with torch.no_grad():
        usual((inception.clean(IMAGE) - 128) / 128)
    assert (network.features(IMAGE, 2048, "clean") - kept["features"]).abs().max() > 1e-2


@pytest.mark.parametrize("size", [(120, 90), (299, 299), (512, 400)])
def test_clean_resizing_is_that_of_clean_fid(size):
    image = picture(*size)
    channels = []
    for c in range(3):  # clean-fid's resizer: float pictures of one channel, PIL's bicubic, cut to the range
        plane = Image.fromarray(np.asarray(image)[:, :, c].astype(np.float32), mode="F")
        channels.append(np.asarray(plane.resize((299, 299), resample=Image.Resampling.BICUBIC)).clip(0, 255))
    assert np.allclose(inception.clean(image)[0], np.stack(channels), atol=1e-4)


@pytest.mark.parametrize("size", [(120, 90), (299, 299), (512, 400)])
def test_tensorflows_resizing_is_that_of_torch_fidelity(size):
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    image = picture(*size)
    raw = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float()
    expected = interpolate_bilinear_2d_like_tensorflow1x(raw, size=(299, 299), align_corners=False)
    torch.testing.assert_close(inception.tensorflow(image), expected, atol=1e-3, rtol=0)


def test_reedits_resizing_is_that_of_its_script():
    transform = tv.Compose([tv.Resize((299, 299)), tv.PILToTensor()])
    assert torch.equal(inception.pil_bilinear(IMAGE)[0], transform(IMAGE).float())


def test_the_ways_differ(network):
    found = [network.features(IMAGE, 64, how) for how in inception.RESIZE]
    assert min((a - b).abs().max() for i, a in enumerate(found) for b in found[:i]) > 1e-3
