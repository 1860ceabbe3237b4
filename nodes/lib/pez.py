"""Hard prompts made easy (Wen et al., NeurIPS 2023; PEZ): words whose CLIP embedding is that of given pictures.

Symbols of the paper: P the learned embeddings, P' their projection onto the vocabulary E.
Shapes: N pictures, D width of the joint space, L words, W width of the text tower, V size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from .checkpoints import load_state, save_state

Steps = Callable[[range], Iterable[int]]
SAVE_EVERY = 200  # steps


class Reader(Protocol):
    """A CLIP, as `nodes.lib.clip` has them."""

    def vocabulary(self) -> tuple[Tensor, list[int]]: ...
    def text_of(self, embeds_BLW: Tensor) -> Tensor: ...
    def words(self, ids: list[int]) -> str: ...


def nearest_words(embeds_LW: Tensor, unit_VW: Tensor, left_out_V: Tensor) -> Tensor:
    """Ids of the tokens that are nearest by cosine, (L,).

    Args:
        embeds_LW: P.
        unit_VW: E, each row of length 1.
        left_out_V: True for tokens that are never chosen.
    """
    similarity_LV = normalize(embeds_LW, dim=-1) @ unit_VW.T
    return similarity_LV.masked_fill(left_out_V, -torch.inf).argmax(dim=-1)


def no_words(clip: Reader) -> list[int]:
    """Ids of tokens that are no text of their own: begin, end, padding, and parts of a character."""
    vocabulary_VW, special = clip.vocabulary()
    known = set(special)
    return [i for i in range(len(vocabulary_VW)) if i in known or "\ufffd" in clip.words([i])]


def optimise_prompt(
    clip: Reader,
    targets_ND: Tensor,
    generator: torch.Generator,
    num_tokens: int = 10,
    num_steps: int = 3000,
    *,
    learning_rate: float = 0.1,
    weight_decay: float = 0.1,
    checkpoint: Path | None = None,
    steps: Steps = iter,
) -> tuple[str, float]:
    """The best prompt that was met, and its mean cosine to the pictures (Algorithm 1).

    P begins as random tokens. At every step P' = the nearest tokens of P; the gradient of 1 - mean cos(P', pictures)
    is taken at P' and applied to P by AdamW (straight-through). Tokens that are no text of their own are never chosen,
    which the authors' code does not prevent: decoded and read again, such a prompt would be another one.

    Args:
        clip: the model; gradients reach its inputs, never its weights.
        targets_ND: projected embeddings of the pictures.
        generator: a CPU generator for the first tokens.
        num_tokens: L.
        num_steps: optimiser steps.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        checkpoint: a folder to resume from and to save to.
        steps: wraps the numbers of the steps: progress, or to stop by raising.
    """
    vocabulary_VW, left_out = clip.vocabulary()[0].float(), no_words(clip)
    words = torch.tensor(sorted(set(range(len(vocabulary_VW))) - set(left_out)))
    first_L = words[torch.randint(len(words), (num_tokens,), generator=generator)]
    embeds_LW = vocabulary_VW[first_L.to(vocabulary_VW.device)].clone().requires_grad_()
    optimiser = torch.optim.AdamW([embeds_LW], lr=learning_rate, weight_decay=weight_decay)
    # Everything that a step compares stays on the device: to look at a number would stop it every time.
    device = embeds_LW.device
    unit_VW, left_out_V = normalize(vocabulary_VW, dim=-1), torch.zeros(len(vocabulary_VW), dtype=torch.bool)
    left_out_V[left_out] = True
    left_out_V = left_out_V.to(device)
    best_L, best, begin = first_L.to(device), torch.full((), -torch.inf, device=device), 0
    if found := load_state(checkpoint):
        tensors, numbers = found
        embeds_LW.data.copy_(tensors["embeds"])
        optimiser.state[embeds_LW] = adam_state(tensors, embeds_LW)
        best_L, begin = tensors["best"].to(device), int(numbers["done"])
        best = torch.full_like(best, numbers["best"])
    for number in steps(range(begin, num_steps)):
        ids_L = nearest_words(embeds_LW.detach(), unit_VW, left_out_V)
        projected_LW = vocabulary_VW[ids_L].clone().requires_grad_()
        with torch.enable_grad():
            similarity = cosine_similarity(clip.text_of(projected_LW[None]), targets_ND).mean()
            (embeds_LW.grad,) = torch.autograd.grad(1 - similarity, projected_LW)
        optimiser.step()
        better = similarity.detach() > best
        best_L, best = torch.where(better, ids_L, best_L), torch.where(better, similarity.detach(), best)
        if checkpoint is not None and (number + 1) % SAVE_EVERY == 0:
            state = {"embeds": embeds_LW, "best": best_L.cpu(), **adam_tensors(optimiser.state[embeds_LW])}
            save_state(checkpoint, state, {"best": best.item(), "done": number + 1})
    return clip.words(best_L.tolist()), best.item()


def adam_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What AdamW keeps of one parameter, under names for a file."""
    return {f"adam/{name}": state[name] for name in ("step", "exp_avg", "exp_avg_sq")}


def adam_state(tensors: dict[str, Tensor], parameter: Tensor) -> dict[str, Tensor]:
    """The opposite of `adam_tensors`."""
    moments = {name: tensors[f"adam/{name}"].to(parameter) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": tensors["adam/step"].clone(), **moments}
