"""VISII: an instruction learned from a pair of pictures (Nguyen et al., NeurIPS 2023, "Visual Instruction Inversion").

Symbols of the paper: c_T the instruction's embedding, which is learned; ε noise, z_t noisy latents.
Where paper and the authors' code differ, the code counts.
Shapes: B batch (1 here), C latent channels, h w latent height and width, L text tokens, D width of the text embeddings,
J width of CLIP's joint space, T training timesteps, S steps of the optimisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, mse_loss, normalize

from .checkpoints import load_state, save_state
from .instruct_pix2pix import InstructDenoiser, dual_guidance, picture_rows, text_rows
from .pez import adam_state, adam_tensors

Steps = Callable[[range], Iterable[int]]
SAVE_EVERY = 25  # steps


@dataclass(frozen=True)
class Pair:
    """A picture before the edit, as unscaled latents, and after it, as scaled latents, each (1, C, h, w)."""

    before: Tensor
    after: Tensor


@dataclass(frozen=True)
class Direction:
    """The edit as CLIP sees it, and how a text embedding gets there.

    Attributes:
        image_J: the normalised change of the pictures.
        project: text hidden states (1, D) → the joint space (1, J).
        weight: of the loss.
    """

    image_J: Tensor
    project: Callable[[Tensor], Tensor]
    weight: float = 0.1

    def similarity(self, cond_1LD: Tensor) -> Tensor:
        """cos(d_img, d_txt), d_txt being the projected mean over all positions, a scalar."""
        return cosine_similarity(self.image_J[None], self.project(cond_1LD.mean(dim=1)))[0]


@dataclass(frozen=True)
class Learned:
    """What an optimisation gives.

    Attributes:
        cond: the instruction's embedding, (1, L, D).
        mse: noise error and (0 without a direction) similarity of each step, (S, 2).
        timesteps: at which each step was, (S,).
        best: the step with the lowest error.
    """

    cond: Tensor
    mse: Tensor
    timesteps: Tensor
    best: int


def edit_direction(before_NJ: Tensor, after_NJ: Tensor) -> Tensor:
    """The normalised change of the mean CLIP embedding, which are not normalised before, (J,) (section 3.3)."""
    return normalize(after_NJ.mean(dim=0) - before_NJ.mean(dim=0), dim=-1)


def noise_error(
    denoiser: InstructDenoiser,
    pair: Pair,
    cond_1LD: Tensor,
    negative_1LD: Tensor,
    noise_1Chw: Tensor,
    timestep: int,
    guidance_scale: float = 7.5,
    image_guidance_scale: float = 1.5,
) -> Tensor:
    """Mean squared error of the noise that is predicted under both guidances, a scalar.

    z_t = √ᾱ_t·z_0 + √(1-ᾱ_t)·ε with z_0 the picture after the edit; the denoiser sees the one before it.
    """
    alpha = denoiser.alphas_cumprod[timestep]
    z_1Chw = alpha**0.5 * pair.after + (1 - alpha) ** 0.5 * noise_1Chw
    images_3Chw, embeds_3LD = picture_rows(pair.before), text_rows(1, cond_1LD, negative_1LD)
    with torch.no_grad():  # neither of these two rows depends on the instruction
        without_2Chw = denoiser.predict_edit(torch.cat([z_1Chw] * 2), images_3Chw[1:], timestep, embeds_3LD[1:])
    with_1Chw = denoiser.predict_edit(z_1Chw, pair.before, timestep, cond_1LD)
    output_1Chw = dual_guidance(torch.cat([with_1Chw, without_2Chw]), guidance_scale, image_guidance_scale)
    return mse_loss(denoiser.to_epsilon(output_1Chw, z_1Chw, timestep), noise_1Chw)


def instruction_loss(mse: Tensor, similarity: Tensor | None, mse_weight: float, direction_weight: float) -> Tensor:
    """λ_mse·MSE - λ_clip·clamp(cos, -1, 0.5), a scalar (eq. 6): more than half-way the direction pulls no longer."""
    loss = mse_weight * mse
    return loss if similarity is None else loss - direction_weight * similarity.clamp(-1, 0.5)


def fixed_noises(shape: Sequence[int], timesteps: int, generator: torch.Generator) -> Tensor:
    """One noise for each training timestep, (T, C, h, w): the same timestep always gets the same noise."""
    return torch.randn(timesteps, *shape[1:], generator=generator)


def shuffled_timesteps(timesteps: int, num_steps: int, generator: torch.Generator) -> Tensor:
    """Every timestep once in random order, and again in another one, until there are as many as steps, (S,)."""
    rounds = -(-num_steps // timesteps)
    return torch.cat([torch.randperm(timesteps, generator=generator) for _ in range(rounds)])[:num_steps]


def optimise_instruction(
    denoiser: InstructDenoiser,
    pairs: Sequence[Pair],
    cond_1LD: Tensor,
    negative_1LD: Tensor,
    end: int,
    generator: torch.Generator,
    num_steps: int = 1000,
    *,
    direction: Direction | None = None,
    guidance_scale: float = 7.5,
    image_guidance_scale: float = 1.5,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.01,
    mse_weight: float = 4.0,
    keep_last: bool = False,
    checkpoint: Path | None = None,
    steps: Steps = iter,
) -> Learned:
    """Learn the embedding of the instruction that turns the pictures before into those after (section 3.2).

    Only the words between begin and end token are learned. Gradients are clipped to the largest value of the initial
    embeddings. What comes back is the embedding after the step with the lowest noise error, whatever its timestep, as
    in the authors' code. They take AdamW with 8-bit moments and half precision; here both are full, so that a result
    does not depend on blocks of quantisation.

    Args:
        denoiser: the model; its weights stay as they are.
        pairs: timestep t is learned from pair t modulo their number.
        cond_1LD: embedding of the first instruction.
        negative_1LD: that of the empty prompt.
        end: position of the first instruction's end token.
        generator: a CPU generator for the noises and the order of the timesteps.
        num_steps: S; 1000 take every timestep once.
        direction: the direction loss; None for none.
        guidance_scale: s_T inside the loss.
        image_guidance_scale: s_I inside the loss.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        mse_weight: λ_mse.
        keep_last: give the last embedding instead of that with the lowest error.
        checkpoint: a folder to resume from and to save to; the result is bit-equal to that of an uninterrupted run.
        steps: wraps the numbers of the steps: progress, or to stop by raising.

    Raises:
        ValueError: there is no pair, or no word to learn.
    """
    if not pairs or end < 2:
        raise ValueError("there is no pair to learn from" if not pairs else "the first instruction has no words")
    words_1lD = cond_1LD[:, 1:end].detach().float().clone().requires_grad_()
    largest = max(cond_1LD.max().item(), negative_1LD.max().item())
    optimiser = torch.optim.AdamW([words_1lD], lr=learning_rate, weight_decay=weight_decay)
    # Noises, history and the best so far lie on the device: a copy at each step would stop it every time.
    noises_TChw = fixed_noises(pairs[0].after.shape, len(denoiser.alphas_cumprod), generator).to(words_1lD)
    timesteps_S = shuffled_timesteps(len(noises_TChw), num_steps, generator)
    history_S2, best_1lD, begin = words_1lD.new_zeros(num_steps, 2), words_1lD.detach().clone(), 0
    best = torch.zeros((), dtype=torch.long, device=words_1lD.device)
    if found := load_state(checkpoint):
        tensors, numbers = found
        words_1lD.data.copy_(tensors["words"])
        optimiser.state[words_1lD] = adam_state(tensors, words_1lD)
        history_S2, best_1lD = tensors["history"].to(history_S2), tensors["best"].to(best_1lD)
        best, begin = torch.full_like(best, int(numbers["best"])), int(numbers["done"])

    def assembled(words: Tensor) -> Tensor:
        return torch.cat([cond_1LD[:, :1], words, cond_1LD[:, end:]], dim=1)

    for number in steps(range(begin, num_steps)):
        timestep = int(timesteps_S[number])
        with torch.enable_grad():
            embeds_1LD = assembled(words_1lD)
            noise_1Chw = noises_TChw[timestep, None]
            scales = (guidance_scale, image_guidance_scale)
            pair = pairs[timestep % len(pairs)]
            mse = noise_error(denoiser, pair, embeds_1LD, negative_1LD, noise_1Chw, timestep, *scales)
            similarity = None if direction is None else direction.similarity(embeds_1LD)
            loss = instruction_loss(mse, similarity, mse_weight, direction.weight if direction else 0.0)
        (words_1lD.grad,) = torch.autograd.grad(loss, words_1lD)
        torch.nn.utils.clip_grad_value_([words_1lD], largest)
        optimiser.step()
        history_S2[number, 0] = mse.detach()
        if similarity is not None:
            history_S2[number, 1] = similarity.detach()
        better = history_S2[number, 0] <= history_S2[:, 0].gather(0, best[None])[0]
        if keep_last:
            better = torch.ones_like(better)
        best_1lD = torch.where(better, words_1lD.detach(), best_1lD)
        best = torch.where(better, torch.full_like(best, number), best)
        if checkpoint is not None and (number + 1) % SAVE_EVERY == 0:
            state = {"words": words_1lD, "best": best_1lD, "history": history_S2}
            state |= adam_tensors(optimiser.state[words_1lD])
            save_state(checkpoint, state, {"best": int(best), "done": number + 1})
    return Learned(assembled(best_1lD), history_S2.cpu(), timesteps_S, int(best))


def hybrid_instruction(learned_1LD: Tensor, end: int, text_1LD: Tensor, text_end: int) -> tuple[Tensor, int]:
    """A learned instruction followed by one in words, and how many of the words' embeddings found no room.

    The words' embeddings, from their begin token up to before their end token, replace those from `end` + 2 on.

    Args:
        learned_1LD: from `optimise_instruction`.
        end: position of its end token.
        text_1LD: embedding of the words.
        text_end: position of their end token.
    """
    start = end + 2
    count = max(0, min(text_end, learned_1LD.shape[1] - start))
    joined_1LD = learned_1LD.clone()
    joined_1LD[:, start : start + count] = text_1LD[:, :count]
    return joined_1LD, text_end - count
