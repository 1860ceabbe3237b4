"""A self-supervised vision transformer: the similarity of pictures (DINO-I) and of their structure.

Shapes: B pictures, C 3, H and W pixels, T tokens with the class token first, D width.
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn


class ViT:
    """A ViT of transformers (DINO, DINOv2) or timm.

    Attributes:
        model: in evaluation mode and frozen, in float32.
        name: which weights these are, for the record of a score.
        patch: side of a patch in pixels.
    """

    def __init__(self, model: nn.Module, patch: int, name: str = "") -> None:
        self.model = model.eval().requires_grad_(False)
        self.patch, self.name = patch, name
        takes = inspect.signature(model.forward).parameters
        # transformers' ViT refuses other sizes than that of its training unless it is told to interpolate.
        self._how = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}
        self._keys, self._fused = _key_projections(model)

    def tokens(self, pixels_BCHW: Tensor) -> Tensor:
        """Output tokens after the last norm, (B, T, D)."""
        with torch.no_grad():
            pixels = pixels_BCHW.to(next(self.model.parameters()))
            if hasattr(self.model, "forward_features"):
                # timm refuses what is no whole number of patches; transformers' strided convolution leaves it out.
                height, width = (length - length % self.patch for length in pixels.shape[-2:])
                pixels = pixels[..., :height, :width]
                return self.model.forward_features(pixels).float()
            return self.model(pixels, **self._how).last_hidden_state.float()

    def embed(self, pixels_BCHW: Tensor) -> Tensor:
        """The class token, (B, D): what ``torch.hub``'s DINO models return."""
        return self.tokens(pixels_BCHW)[:, 0]

    def keys(self, pixels_BCHW: Tensor, layer: int = -1) -> Tensor:
        """Keys of a self-attention, heads concatenated, class token included, (B, T, D).

        Raises:
            ValueError: there is no such layer.
        """
        if not -len(self._keys) <= layer < len(self._keys):
            raise ValueError(f"layer {layer} does not exist: the ViT has {len(self._keys)} layers, counted from 0")
        seen: list[Tensor] = []
        hook = self._keys[layer].register_forward_hook(lambda module, args, out: seen.append(out))
        try:
            self.tokens(pixels_BCHW)
        finally:
            hook.remove()
        return (seen[0].chunk(3, dim=-1)[1] if self._fused else seen[0]).float()


def self_similarity(keys_BTD: Tensor) -> Tensor:
    """Cosine of each pair of tokens, (B, T, T) (Splice, Tumanyan et al. 2022)."""
    norms_BT1 = keys_BTD.norm(dim=-1, keepdim=True)
    return keys_BTD @ keys_BTD.mT / (norms_BT1 @ norms_BT1.mT).clamp(min=1e-8)


def structure_distance(keys_BTD: Tensor, reference_BTD: Tensor) -> Tensor:
    """Mean squared difference of the self-similarities, (B,), in [0, 4]; tables print it times 1000.

    PIE-Bench's name for the structure loss of Splice (Tumanyan et al. 2022), as a mean of squares without a root.
    """
    return (self_similarity(keys_BTD) - self_similarity(reference_BTD)).square().mean((1, 2))


def _key_projections(model: nn.Module) -> tuple[list[nn.Module], bool]:
    """The modules that make keys, one a layer, and whether each makes queries, keys and values at once (timm)."""
    named = list(model.named_modules())
    for endings, fused in (((".k_proj", ".key"), False), ((".qkv",), True)):
        found = [module for name, module in named if name.endswith(endings)]
        if found:
            return found, fused
    raise ValueError(f"{type(model).__name__} has no key projections that this program knows")
