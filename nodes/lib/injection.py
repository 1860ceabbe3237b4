"""What Plug-and-Play injects, and when; and what it costs to store that, or to compute it again. Imports no torch."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Injection:
    """Where an edit keeps to its source, and for how long.

    Attributes:
        steps: canonical name of a place (see `taps`) → in how many of the first sampling steps it is injected.
    """

    steps: Mapping[str, int]

    def at(self, step: int) -> list[str]:
        """The places that are injected at a step, counted from 0."""
        return [place for place, count in self.steps.items() if step < count]

    @property
    def last(self) -> int:
        """How many steps inject anything."""
        return max(self.steps.values(), default=0)


def decoder_places(places: Iterable[str]) -> tuple[list[str], list[str]]:
    """Resnet and attention layers that the paper taps: resnet 4, and the self-attention of layers 4 to 11 of 12.

    A decoder of another depth is tapped in proportion: from a third of its layers on.

    Args:
        places: canonical names of a denoiser's places.

    Returns:
        Names such as ``up.1.res.1``, and such as ``up.1.attn.1.self``.

    Raises:
        ValueError: the denoiser has no decoder of up blocks.
    """
    names = [name.split(".") for name in places if name.startswith("up.")]
    layers = [(name[1], name[3]) for name in names if name[2:3] == ["res"] and name[4:] == ["conv2"]]
    if not layers:
        raise ValueError("the denoiser has no decoder of up blocks; name the layers to inject")
    tapped = layers[len(layers) // 3 :]
    attention = [name for name in names if name[2:3] == ["attn"] and name[-2:] == ["self", "q"]]
    block, index = tapped[0]
    return [f"up.{block}.res.{index}"], [".".join(n[:-1]) for n in attention if (n[1], n[3]) in tapped]


def plug_and_play_injection(
    places: Iterable[str],
    num_inference_steps: int,
    *,
    attention_threshold: float = 0.5,
    feature_threshold: float = 0.8,
    inclusive: bool = False,
    attention: Sequence[str] = (),
    features: Sequence[str] = (),
) -> Injection:
    """What Plug-and-Play injects, and when.

    With N steps counted from 0, step i is injected while i < ⌊N·τ⌋ in pnp-diffusers, and while i ≤ ⌊N·τ⌋ in the
    original code, which is one step more. τ = 0 injects nothing in either.

    Args:
        places: canonical names of the denoiser's places.
        num_inference_steps: N.
        attention_threshold: τ_A, for queries and keys.
        feature_threshold: τ_f, for features.
        inclusive: as the original code counts.
        attention: self-attention layers, ``up.1.attn.1.self``; empty for those of `decoder_places`.
        features: resnets, ``up.1.res.1``; empty for that of `decoder_places`.

    Raises:
        ValueError: a layer does not exist; the message names the nearest.
    """
    places = list(places)
    if not (features and attention):
        resnets, layers = decoder_places(places)
        features, attention = features or resnets, attention or layers
    steps = {f"{name}.conv2": _count(num_inference_steps, feature_threshold, inclusive) for name in features}
    count = _count(num_inference_steps, attention_threshold, inclusive)
    steps |= {f"{name}.{part}": count for name in attention for part in ("q", "k")}
    for place in steps:
        if place not in places:
            near = difflib.get_close_matches(place, places, 1)
            raise ValueError(f"the denoiser has no place '{place}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    return Injection({place: count for place, count in steps.items() if count})


def _count(steps: int, threshold: float, inclusive: bool) -> int:
    if threshold == 0:
        return 0
    # 0.29 · 100 is 28.999…: a threshold that names a whole number of steps means that number.
    return min(steps, math.floor(round(steps * threshold, 9)) + inclusive)


# --- costs ----------------------------------------------------------------------------------------------------------

TOKENS = 77  # of a text
FLOPS = {"cpu": 5e10, "mps": 2e12, "cuda": 2e13}  # a second, as denoisers reach them
READ_BYTES = 4e8  # a second, with the check of what was read
CLEAR = 4.0  # computing must cost clearly more than reading back; the store's own rule


@dataclass(frozen=True)
class Costs:
    """What one row of a UNet's decoder gives and takes.

    Attributes:
        places: canonical name of a place of the decoder → numbers that flow there.
        macs: multiplications of the whole network.
    """

    places: Mapping[str, int]
    macs: float


def unet_costs(config: Mapping[str, Any]) -> Costs:
    """Costs of one row through a UNet of diffusers at its native size, from its ``config.json``.

    Raises:
        KeyError: the config is that of another model.
    """
    channels: list[int] = list(config["block_out_channels"])
    depth, width = len(channels), config["cross_attention_dim"]
    layers = _each(config["layers_per_block"], depth)
    blocks = _each(config.get("transformer_layers_per_block", 1), depth)
    side, macs, places = int(config["sample_size"]), 0.0, {}

    for level, kind in enumerate(config["down_block_types"]):
        out, area = channels[level], (side >> level) ** 2
        before = channels[max(level - 1, 0)]
        for layer in range(layers[level]):
            macs += _resnet(before if layer == 0 else out, out, area)
            macs += _transformer(out, area, blocks[level], width) if "Attn" in kind else 0
        macs += 9 * out * out * area / 4 if level < depth - 1 else 0
    area = (side >> (depth - 1)) ** 2
    macs += 2 * _resnet(channels[-1], channels[-1], area) + _transformer(channels[-1], area, blocks[-1], width)

    for index, kind in enumerate(config["up_block_types"]):
        level = depth - 1 - index
        out, area = channels[level], (side >> level) ** 2
        before, skip = channels[min(level + 1, depth - 1)], channels[max(level - 1, 0)]
        for layer in range(layers[level] + 1):
            joined = (before if layer == 0 else out) + (skip if layer == layers[level] else out)
            macs += _resnet(joined, out, area)
            if "Attn" in kind:
                macs += _transformer(out, area, blocks[level], width)
                inner = [""] if blocks[level] == 1 else [f".{k}" for k in range(blocks[level])]
                names = [f"up.{index}.attn.{layer}{k}.self.{part}" for k in inner for part in ("q", "k")]
                places |= dict.fromkeys(names, out * area)
            places[f"up.{index}.res.{layer}.conv2"] = out * area
        macs += 9 * out * out * area * 4 if level > 0 else 0
    return Costs(places, macs)


def cheaper_to_store(
    config: Mapping[str, Any], injection: Injection, device: str, number_bytes: int
) -> tuple[bool, str]:
    """Whether captured features are worth their bytes, and the reason in words.

    Storing pays when computing them again takes clearly longer than reading them back.

    Args:
        config: of the UNet, ``config.json``.
        injection: what would be captured.
        device: cpu, cuda or mps.
        number_bytes: of the type that it computes in.
    """
    costs = unet_costs(config)
    size = sum(costs.places[place] * count for place, count in injection.steps.items()) * number_bytes
    seconds = 2 * costs.macs * injection.last / FLOPS.get(device, FLOPS["cuda"])
    store = seconds >= CLEAR * size / READ_BYTES
    figures = (
        f"{_size(size)} to read in about {size / READ_BYTES:.2g} s, or {seconds:.2g} s to compute beside every edit"
    )
    return store, f"{'stored' if store else 'lock-step'}: {figures}"


def _each(value: Any, count: int) -> list[int]:
    return [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)] * count


def _resnet(before: int, out: int, area: int) -> float:
    return area * (9 * before * out + 9 * out * out + (before * out if before != out else 0))


def _transformer(channels: int, area: int, blocks: int, width: int) -> float:
    attention = 4 * channels * channels * area + 2 * area * area * channels
    cross = 2 * channels * channels * area + 2 * TOKENS * channels * (width + area)
    return 2 * channels * channels * area + blocks * (attention + cross + 12 * channels * channels * area)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.1f} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1024
    return f"{count:.1f} GiB"
