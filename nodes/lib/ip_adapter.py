"""IP-Adapter (Ye et al. 2023): a picture as a prompt, beside the text, through a cross-attention of its own.

Shapes: B pictures, E width of the image embedding, T tokens of an image prompt (4), D width of the text embeddings,
C channels of a layer, N heads, P pixels of a layer, K channels of a head, R rows of a network call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .taps import See, Taps

_LAYER = re.compile(r"ip_adapter\.(\d+)\.to_([kv])_ip\.weight")
_PROJECTION = ("image_proj.proj.weight", "image_proj.proj.bias", "image_proj.norm.weight", "image_proj.norm.bias")


class IPAdapter(nn.Module):
    """An IP-Adapter of the base kind: H, which makes tokens of an embedding, and keys and values for each layer.

    Attributes:
        num_tokens: T.
        layers: how many cross-attentions it serves.
    """

    def __init__(self, embed_width: int, width: int, channels: list[int], num_tokens: int = 4) -> None:
        """An adapter of random weights.

        Args:
            embed_width: E.
            width: D.
            channels: C of each cross-attention, in the order of the UNet's modules.
            num_tokens: T.
        """
        super().__init__()
        self.num_tokens, self.layers = num_tokens, len(channels)
        self.proj = nn.Linear(embed_width, num_tokens * width)
        self.norm = nn.LayerNorm(width)
        self.to_k = nn.ModuleList(nn.Linear(width, c, bias=False) for c in channels)
        self.to_v = nn.ModuleList(nn.Linear(width, c, bias=False) for c in channels)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> IPAdapter:
        """An adapter from the published format: ``image_proj.*`` and ``ip_adapter.<n>.to_k_ip.weight``, n = 1, 3, 5 …

        n counts the attentions of the UNet's modules: down, up, mid; those with even numbers are self-attentions.

        Raises:
            ValueError: the tensors are of another kind of adapter (plus, full face, FaceID), or not all there.
        """
        layers = {(int(m[1]), m[2]): tensor for name, tensor in tensors.items() if (m := _LAYER.fullmatch(name))}
        numbers = sorted({number for number, _ in layers})
        expected = {(2 * i + 1, part) for i in range(len(numbers)) for part in "kv"}
        foreign = [name for name in tensors if not _LAYER.fullmatch(name) and name not in _PROJECTION]
        lacking = [name for name in _PROJECTION if name not in tensors]
        if foreign or lacking or layers.keys() != expected or not layers:
            found = f"it has {foreign[0]}" if foreign else f"it lacks {lacking[0] if lacking else 'layers'}"
            raise ValueError(f"no IP-Adapter of the base kind, which makes tokens of one embedding: {found}")
        weight, width = tensors[_PROJECTION[0]], len(tensors[_PROJECTION[2]])
        adapter = cls(weight.shape[1], width, [len(layers[n, "k"]) for n in numbers], len(weight) // width)
        named = {"proj.weight": weight, "proj.bias": tensors[_PROJECTION[1]]}
        named |= {"norm.weight": tensors[_PROJECTION[2]], "norm.bias": tensors[_PROJECTION[3]]}
        named |= {f"to_{part}.{n // 2}.weight": tensor for (n, part), tensor in layers.items()}
        adapter.load_state_dict(named)
        return adapter.eval().requires_grad_(False)

    def to_tensors(self) -> dict[str, Tensor]:
        """The published format; see `from_tensors`."""
        tensors = {
            "image_proj.proj.weight": self.proj.weight, "image_proj.proj.bias": self.proj.bias,
            "image_proj.norm.weight": self.norm.weight, "image_proj.norm.bias": self.norm.bias,
        }  # fmt: skip
        for i in range(self.layers):
            tensors[f"ip_adapter.{2 * i + 1}.to_k_ip.weight"] = self.to_k[i].weight
            tensors[f"ip_adapter.{2 * i + 1}.to_v_ip.weight"] = self.to_v[i].weight
        return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}

    def tokens(self, embeds_BE: Tensor) -> Tensor:
        """H: tokens of an image prompt, (B, T, D). H is no linear map, and H(0) is not 0.

        Raises:
            ValueError: the embedding has another width.
        """
        if embeds_BE.shape[-1] != self.proj.in_features:
            found, wanted = embeds_BE.shape[-1], self.proj.in_features
            raise ValueError(f"the image embedding has width {found}, this IP-Adapter was trained on {wanted}")
        return self.norm(self.proj(embeds_BE.to(self.proj.weight)).unflatten(-1, (self.num_tokens, -1)))

    def keys_values(self, tokens_RTD: Tensor) -> list[tuple[Tensor, Tensor]]:
        """k and v of every layer, each (R, T, C). They don't depend on the timestep: once a sampling is enough."""
        return [(k(tokens_RTD), v(tokens_RTD)) for k, v in zip(self.to_k, self.to_v, strict=True)]


@dataclass(frozen=True)
class ImagePrompt:
    """An image prompt for the rows of guided sampling.

    Conditional rows see H(embedding), rows of a negative or empty prompt H(0), as in the authors' code. Rows of a
    source picture see raw zero tokens: their values are zero, so that the source runs as without an adapter.

    Attributes:
        adapter: the adapter.
        embeds_BE: the picture, or a mixture of pictures, as the image encoder's embedding; of B rows or one.
        scale: weight of the image's cross-attention.
    """

    adapter: IPAdapter
    embeds_BE: Tensor
    scale: float = 1.0
    _made: dict[tuple[int, int, int], list[tuple[Tensor, Tensor]]] = field(default_factory=dict, compare=False)

    def tokens(self, batch: int, sources: int, prompts: int) -> Tensor:
        """Tokens of `sources` blocks of source rows and `prompts` blocks of prompts, the conditional one last."""
        if len(self.embeds_BE) not in (1, batch):
            raise ValueError(f"the image prompt has {len(self.embeds_BE)} rows for {batch} latents; give 1 or {batch}")
        cond_BTD = self.adapter.tokens(self.embeds_BE).expand(batch, -1, -1)
        none_BTD = self.adapter.tokens(torch.zeros_like(self.embeds_BE)).expand(batch, -1, -1)
        return torch.cat([torch.zeros_like(cond_BTD)] * sources + [none_BTD] * (prompts - 1) + [cond_BTD])

    def edits(self, taps: Taps, batch: int, sources: int, prompts: int) -> dict[str, See]:
        """What to replace while the denoiser runs on those rows: what each cross-attention hands to its projection.

        Raises:
            ValueError: the adapter was made for another denoiser.
        """
        layers = [name for name in taps.attentions if name.endswith(".cross")]
        found = [taps.attentions[name].to_q.out_features for name in layers]
        if found != [k.out_features for k in self.adapter.to_k]:
            raise ValueError(
                f"this IP-Adapter has {self.adapter.layers} layers of other widths than the {len(layers)} "
                "cross-attentions of the denoiser; it was trained for another model"
            )
        if self.scale == 0:
            return {}
        key = batch, sources, prompts
        if key not in self._made:
            self._made[key] = self.adapter.keys_values(self.tokens(*key))
        edits: dict[str, See] = {}
        for name, (k_RTC, v_RTC) in zip(layers, self._made[key], strict=True):
            attention = _ImageAttention(k_RTC, v_RTC, taps.attentions[name].heads, self.scale)
            edits |= {f"{name}.q": attention.see_query, f"{name}.heads": attention.add}
        return edits


class _ImageAttention:
    """The image's cross-attention of one layer: the text's queries over the image prompt's keys and values."""

    def __init__(self, k_RTC: Tensor, v_RTC: Tensor, heads: int, scale: float) -> None:
        self.k_RNTK, self.v_RNTK = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (k_RTC, v_RTC))
        self.scale, self.heads = scale, heads
        self.q_RNPK: Tensor | None = None

    def see_query(self, q_RPC: Tensor) -> None:
        self.q_RNPK = q_RPC.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def add(self, text_RPC: Tensor) -> Tensor:
        q_RNPK, self.q_RNPK = self.q_RNPK, None
        image_RNPK = F.scaled_dot_product_attention(q_RNPK, self.k_RNTK.to(text_RPC), self.v_RNTK.to(text_RPC))
        return text_RPC + self.scale * image_RNPK.transpose(1, 2).flatten(2)
