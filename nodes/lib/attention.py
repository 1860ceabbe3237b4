"""Looking into a UNet's attention while it runs.

Layers carry canonical names, whatever the checkpoint calls its modules: ``down.0.attn.1.cross`` is the cross-attention
of the second transformer in the first down block; ``mid.attn.0.cross`` and ``up.1.attn.2.cross`` follow suit.

Shapes: B batch, N heads, P latent pixels (h·w of the layer), L text tokens, K channels of a head.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor

_MODULE_NAME = re.compile(r"(down|mid|up)_blocks?(\.\d+)?\.attentions\.(\d+)\.transformer_blocks\.0\.attn2")


def cross_attention_layers(unet: UNet2DConditionModel) -> dict[str, Attention]:
    """The cross-attention modules of a UNet by canonical name.

    Raises:
        ValueError: a module lies where no canonical name reaches, such as in a second transformer block.
    """
    layers = {}
    for module_name, module in unet.named_modules():
        if isinstance(module, Attention) and module.is_cross_attention:
            match = _MODULE_NAME.fullmatch(module_name)
            if match is None:
                raise ValueError(
                    f"cross-attention '{module_name}' has no canonical name: not a Stable Diffusion 1/2 UNet"
                )
            block, index, transformer = match.groups(default="")
            layers[f"{block}{index}.attn.{transformer}.cross"] = module
    return layers


class AttentionTap:
    """Records attention probabilities of one UNet.

    It finds the layers once. Between two `record` blocks the UNet runs with its own processors, so that a tap that is
    not recording costs nothing. Only one thread at a time may use a UNet that is being recorded.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.cross_layers = cross_attention_layers(unet)

    @contextmanager
    def record(self) -> Iterator[dict[str, Tensor]]:
        """Collect the cross-attention probabilities of the last call inside the block.

        Yields:
            An empty dict that fills as layers run, in their order: canonical name → probabilities in float32,
            (B, N, P, L), each row of L summing to 1. Autograd flows through them if it is enabled.

        Raises:
            ValueError: a layer carries a processor other than diffusers' plain ones, whose work would be lost.
        """
        before = {name: layer.processor for name, layer in self.cross_layers.items()}
        for name, processor in before.items():
            if type(processor) not in (AttnProcessor, AttnProcessor2_0):
                raise ValueError(
                    f"layer {name} carries a {type(processor).__name__}; the tap replaces plain attention only"
                )
        probs_by_layer: dict[str, Tensor] = {}
        try:
            for name, layer in self.cross_layers.items():
                layer.set_processor(_CrossAttentionRecorder(name, probs_by_layer))
            yield probs_by_layer
        finally:
            for name, layer in self.cross_layers.items():
                layer.set_processor(before[name])


class _CrossAttentionRecorder:
    """Attention with explicit probabilities, written out because fused attention keeps them to itself."""

    def __init__(self, name: str, probs_by_layer: dict[str, Tensor]) -> None:
        self.name, self.probs_by_layer = name, probs_by_layer

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: Tensor | None
    ) -> Tensor:
        if attention_mask is not None:
            raise ValueError("cross-attention is recorded without attention masks")

        def split_heads(x: Tensor) -> Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        q_BNPK = split_heads(attn.to_q(hidden_states))
        k_BNLK = split_heads(attn.to_k(encoder_hidden_states))
        v_BNLK = split_heads(attn.to_v(encoder_hidden_states))
        # float32 whatever the model computes in: losses on the maps overflow in half precision.
        scores_BNPL = (q_BNPK.float() * attn.scale) @ k_BNLK.float().transpose(-1, -2)
        probs_BNPL = scores_BNPL.softmax(-1)
        self.probs_by_layer[self.name] = probs_BNPL
        out_BNPK = probs_BNPL.to(v_BNLK.dtype) @ v_BNLK
        return attn.to_out[1](attn.to_out[0](out_BNPK.transpose(1, 2).flatten(2)))
