"""Loaders of the networks of LPIPS and FID.

Their authors publish pickles, which are never loaded here. docs/metrics.md says how to turn them into the folders
that these loaders read, once, with the authors' own packages.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow.errors import UsageError
from graphflow.models.refs import ModelRef, loader
from graphflow.nodes.loaders.encoders import scoring_dtype
from graphflow.nodes.loaders.files import TRANSFORMERS_WEIGHTS, fill, need, part_folder, weights_name

if TYPE_CHECKING:
    import torch

NETS = ("squeeze", "alex", "vgg")


@loader(
    "lpips",
    role="lpips",
    files=(TRANSFORMERS_WEIGHTS,),
    options={"net": "backbone: squeeze (ReEdit, PIE-Bench), alex (usual elsewhere) or vgg"},
    dtype="float32",
)
def load_lpips(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """LPIPS with its linear heads, version 0.1, as `nodes.lib.metrics.perceptual.LPIPS`."""
    from graphflow.nodes.lib.metrics.perceptual import LPIPS

    net = ref.options.get("net")
    if net not in NETS:
        raise UsageError(f"{ref.mark}: loader lpips needs the option 'net': {', '.join(NETS)}; found {net!r}")
    part = part_folder(ref, folder)
    lpips = need("lpips", ref)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package calls torchvision in a way that is deprecated
        model = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
    # The package lists each head twice, and its scaling is a constant that checkpoints leave out.
    fill(model, part, "model", ignore=("lins.", "scaling_layer."))
    return LPIPS(model.to(device, scoring_dtype(ref, dtype)), net, weights_name(ref))


@loader("inception.fid", role="inception", files=(TRANSFORMERS_WEIGHTS,), dtype="float32")
def load_inception(ref: ModelRef, folder: Path | None, device: torch.device, dtype: torch.dtype) -> Any:
    """The Inception of FID with the keys of pytorch-fid, as `nodes.lib.metrics.inception.Inception`."""
    need("torchvision", ref)
    from graphflow.nodes.lib.metrics.inception import FIDInception, Inception

    part = part_folder(ref, folder)
    model = FIDInception()
    fill(model, part, "model", ignore=("fc.", "AuxLogits."))
    return Inception(model.to(device, scoring_dtype(ref, dtype)), weights_name(ref))
