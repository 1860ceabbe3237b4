"""pix2pix-zero: Zero-shot Image-to-Image Translation (Parmar et al., SIGGRAPH 2023).

Symbols of the paper: η predicted noise under regularisation (`eta`), L_pair and L_KL its losses, M cross-attention
maps, λ loss weights. Where paper and the authors' code differ, the code counts.
Shapes: B batch, C latent channels, h w latent height and width, N heads, P pixels, L text tokens, D width of the text
embeddings, n sentences; G = 2·B rows under guidance (negative rows first).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from .ddim import OnStep, Steps, classifier_free_guidance, ddim_step, guidance_rows
from .denoiser import Denoiser, moved
from .taps import Taps


def edit_direction(source_nLD: Tensor, target_nLD: Tensor) -> Tensor:
    """Mean text embedding of the target sentences minus that of the source sentences, (L, D) (section 3.1).

    The two sides may have different numbers of sentences.
    """
    return target_nLD.mean(0) - source_nLD.mean(0)


def pyramid_heights(height: int) -> list[int]:
    """Heights of the noise pyramid: halved until at most 8 (section 3.2: 64, 32, 16, 8)."""
    heights = [height]
    while heights[-1] > 8:
        heights.append(heights[-1] // 2)
    return heights


def draw_shifts(channels: int, height: int, generator: torch.Generator | None, smallest: int = 1) -> list[list[int]]:
    """Random shifts r for `auto_correlation_gradient`: for each channel, one for each level of the pyramid.

    Args:
        channels: C.
        height: h.
        generator: a CPU generator; None gives r = 1 everywhere (the authors' ``random_shift=False``).
        smallest: r is uniform in [smallest, height/2). The authors draw from 1; diffusers draws from 0, where a shift
            compares the noise with itself.

    Raises:
        ValueError: the latents are so small that the range is empty.
    """
    heights = pyramid_heights(height)
    if generator is None:
        return [[1] * len(heights) for _ in range(channels)]
    if height // 2 <= smallest:
        raise ValueError(f"latents of height {height} are too small to draw a shift from [{smallest}, {height // 2})")
    return [
        [int(torch.randint(smallest, side // 2, (1,), generator=generator)) for side in heights]
        for _ in range(channels)
    ]


Rolls = Sequence[tuple[Tensor, Tensor]]
"""Where `torch.roll` by r and by -r takes its values, by level of the pyramid: rows (2, C, h) and columns (2, C, w)."""


def roll_indices(drawn: Sequence[Sequence[Sequence[int]]], eta_BChw: Tensor) -> list[Rolls]:
    """What each of n draws of `draw_shifts` means for noise of this shape, on its device.

    The shifts go there all at once: a copy for each of them would stop it every time.
    """
    r_Ln2C1 = torch.tensor([[draw, [[-r for r in c] for c in draw]] for draw in drawn]).permute(3, 0, 1, 2)[..., None]
    r_Ln2C1 = moved(r_Ln2C1, eta_BChw.device)

    def by_level(side: int) -> list[Tensor]:
        sides = [side >> level for level in range(len(r_Ln2C1))]
        aranges = (torch.arange(side, device=eta_BChw.device) for side in sides)
        return [(i - r_n2C1) % side for i, r_n2C1, side in zip(aranges, r_Ln2C1, sides, strict=True)]

    rows, columns = by_level(eta_BChw.shape[2]), by_level(eta_BChw.shape[3])
    return [
        [(rows_n[n], columns_n[n]) for rows_n, columns_n in zip(rows, columns, strict=True)] for n in range(len(drawn))
    ]


def auto_correlation_gradient(eta_BChw: Tensor, rolls: Rolls) -> Tensor:
    """∇L_pair, of the squared auto-correlation of noise at the given shifts over a pyramid (eq. 2), (B, C, h, w).

    L_pair is for each channel and level m_h² + m_w² with m = mean η·roll(η, r) along that side, summed over levels,
    channels and batch; a side's part of the gradient is 2·m/P·(roll(η, r) + roll(η, -r)) for a level of P pixels.
    Written out it takes a fifth of the kernels that autograd launches. Images of a batch share the shifts, so that a
    batch gives each image what it would get alone.

    Args:
        eta_BChw: predicted noise.
        rolls: from `roll_indices`.
    """
    (rows_2Ch, columns_2Cw), *coarser = rolls
    gradient_BChw = torch.zeros_like(eta_BChw)
    for dim, index_2Chw in ((2, rows_2Ch[..., None]), (3, columns_2Cw[:, :, None])):
        there_BChw, back_BChw = (eta_BChw.gather(dim, index.expand_as(eta_BChw)) for index in index_2Chw)
        mean_BC11 = (eta_BChw * there_BChw).mean((2, 3), keepdim=True)
        gradient_BChw.addcmul_(mean_BC11, there_BChw + back_BChw, value=2 / eta_BChw[0, 0].numel())
    if coarser:
        inner_BChw = F.interpolate(auto_correlation_gradient(F.avg_pool2d(eta_BChw, 2), coarser), scale_factor=2)
        height, width = inner_BChw.shape[2:]  # without the last row and column of odd sides, which pooling drops
        gradient_BChw[:, :, :height, :width].add_(inner_BChw, alpha=1 / 4)
    return gradient_BChw


def kl_divergence_gradient(eta_BChw: Tensor) -> Tensor:
    """∇L_KL, of twice the divergence of the noise's mean and variance from N(0, 1), (B, C, h, w).

    L_KL is v + μ² - 1 - log(v + 1e-7) with μ and v of all values of one image, as in the authors' code (section 3.2).
    """
    count = eta_BChw[0].numel()
    var_B111, mean_B111 = torch.var_mean(eta_BChw, (1, 2, 3), keepdim=True)
    by_var_B111 = (1 - 1 / (var_B111 + 1e-7)) * (2 / (count - 1))
    return by_var_B111 * (eta_BChw - mean_B111) + mean_B111 * (2 / count)


def regularise_noise(
    eta_BChw: Tensor,
    generator: torch.Generator | None,
    *,
    lambda_ac: float = 20.0,
    lambda_kl: float = 20.0,
    num_reg_steps: int = 5,
    num_ac_rolls: int = 5,
    smallest_shift: int = 1,
) -> Tensor:
    """Push predicted noise towards uncorrelated N(0, 1) by gradient steps (section 3.2), (B, C, h, w).

    Each of `num_reg_steps` rounds takes `num_ac_rolls` steps of size λ_ac/num_ac_rolls down the auto-correlation
    loss, each with fresh shifts, then one of size λ_kl down the divergence. Defaults are those of the authors' code.

    Args:
        eta_BChw: predicted noise in float32; not modified.
        generator: for the shifts, see `draw_shifts`; advanced unless λ_ac is 0.
        lambda_ac: λ_ac; 0 leaves the auto-correlation out.
        lambda_kl: λ_kl; 0 leaves the divergence out.
        num_reg_steps: rounds.
        num_ac_rolls: auto-correlation steps a round.
        smallest_shift: see `draw_shifts`.
    """
    _, channels, height, _ = eta_BChw.shape
    rolls = num_ac_rolls if lambda_ac > 0 else 0
    drawn = [draw_shifts(channels, height, generator, smallest_shift) for _ in range(num_reg_steps * rolls)]
    coming = iter(roll_indices(drawn, eta_BChw) if drawn else ())
    for _ in range(num_reg_steps):
        for indices in islice(coming, rolls):
            eta_BChw = eta_BChw - lambda_ac / rolls * auto_correlation_gradient(eta_BChw, indices)
        if lambda_kl > 0:
            eta_BChw = eta_BChw - lambda_kl * kl_divergence_gradient(eta_BChw)
    return eta_BChw


def cross_attention_loss(maps: Mapping[str, Tensor], maps_ref: Mapping[str, Tensor]) -> Tensor:
    """L_xa, the distance between cross-attention maps, a scalar (eq. 3).

    Σ over layers, pixels and tokens of (M - M_ref)², averaged over heads and the two halves of guidance as in the
    authors' code, summed over images so that a batch gives each image the gradient that it would get alone.

    Args:
        maps: M by layer, (G, N, P, L).
        maps_ref: M_ref by layer, of G rows, or of B rows that serve both halves.
    """
    loss = torch.zeros(())
    for name, M_GNPL in maps.items():
        M_2BNPL = M_GNPL.unflatten(0, (2, -1))
        M_ref_2BNPL = maps_ref[name].unflatten(0, (-1, M_2BNPL.shape[1]))
        loss = loss + (M_2BNPL - M_ref_2BNPL).square().sum((-2, -1)).mean((0, 2)).sum()
    return loss


@torch.inference_mode(False)
def cross_attention_guidance_step(
    denoiser: Denoiser,
    taps: Taps,
    z_BChw: Tensor,
    timestep: int,
    embeds_GLD: Tensor,
    maps_ref: Mapping[str, Tensor],
    cross_attention_guidance: float,
) -> Tensor:
    """Duplicate the latents and move them one gradient step towards the reference maps (section 3.3), (G, C, h, w)."""
    x_GChw = torch.cat([z_BChw, z_BChw]).requires_grad_()
    with torch.enable_grad(), taps.record(taps.cross_attention_maps()) as maps:
        denoiser.predict(x_GChw, timestep, embeds_GLD)
        loss = cross_attention_loss(maps, maps_ref)
    (gradient_GChw,) = torch.autograd.grad(loss, x_GChw)
    return x_GChw.detach() - cross_attention_guidance * gradient_GChw


@torch.no_grad()
def pix2pix_zero_sample(
    denoiser: Denoiser,
    noise_BChw: Tensor,
    cond_BLD: Tensor,
    direction_BLD: Tensor,
    num_inference_steps: int = 50,
    *,
    guidance_scale: float = 5.0,
    cross_attention_guidance: float = 0.15,
    negative_BLD: Tensor | None = None,
    steps: Steps = iter,
    on_step: OnStep | None = None,
) -> Tensor:
    """Edit by an edit direction while cross-attention keeps to the maps of the source (Algorithm 1), (B, C, h, w).

    The authors sample twice: a reference pass stores the maps of every step, then a guided pass reads them. Here both
    passes advance in lock-step: the reference's rows of the next step run in one call with the edit's last prediction
    of this one, and its maps are dropped after their use. The passes don't depend on each other otherwise, so the
    numbers are those of the two-pass algorithm, a step takes one call less, and memory holds the maps of one step
    instead of N.

    At every step: duplicate the latents, take one gradient step of size `cross_attention_guidance` on both halves,
    predict again, go on from the first (negative) half with the guided noise. Where the negative prompt is the source
    caption, both halves of the reference pass are one and the same, so that it runs one row an image.

    Args:
        denoiser: the model.
        noise_BChw: inverted noise of the source, from `ddim_inversion`.
        cond_BLD: conditioning of the source caption, of B rows or one.
        direction_BLD: from `edit_direction`, one for each latent or (L, D) for all.
        num_inference_steps: N, as in the inversion.
        guidance_scale: s of classifier-free guidance.
        cross_attention_guidance: λ_xa; 0 gives plain sampling along the direction.
        negative_BLD: negative prompt; None for the source caption, as the authors do.
        steps: see `Steps`.
        on_step: see `OnStep`; receives the guided latents.

    Raises:
        ValueError: the number of steps is out of range, or the UNet's attention can't be recorded.
    """
    batch = len(noise_BChw)
    embeds_ref_RLD = guidance_rows(batch, cond_BLD, negative_BLD).to(denoiser.dtype)
    negative_edit_BLD = cond_BLD if negative_BLD is None else negative_BLD
    embeds_edit_GLD = guidance_rows(batch, cond_BLD, negative_edit_BLD, direction_BLD).to(denoiser.dtype)
    both_embeds = torch.cat([embeds_edit_GLD, embeds_ref_RLD])
    taps = Taps(denoiser.unet)
    maps, ref_rows = taps.cross_attention_maps(), slice(2 * batch, None)
    timesteps = denoiser.timesteps(num_inference_steps).tolist()
    delta = denoiser.step_size(num_inference_steps)
    z_BChw = z_ref_BChw = noise_BChw
    with torch.inference_mode(), taps.record(maps) as maps_ref:
        ref_RChw = denoiser.predict(_repeated(noise_BChw, embeds_ref_RLD), timesteps[0], embeds_ref_RLD)
    for timestep, following in zip(steps(timesteps), [*timesteps[1:], None], strict=True):
        alpha_from, alpha_to = denoiser.alpha_cumprod(timestep), denoiser.alpha_cumprod(timestep - delta)
        eps_ref_BChw = _epsilon(denoiser, ref_RChw, z_ref_BChw, timestep, guidance_scale)
        z_ref_BChw = ddim_step(z_ref_BChw, eps_ref_BChw, alpha_from, alpha_to)
        x_GChw = cross_attention_guidance_step(
            denoiser, taps, z_BChw, timestep, embeds_edit_GLD, maps_ref, cross_attention_guidance
        )
        z_BChw = x_GChw[:batch]
        with torch.inference_mode():
            if following is None:
                output_GChw = denoiser.predict(x_GChw, timestep, embeds_edit_GLD)
            else:
                next_RChw = _repeated(z_ref_BChw, embeds_ref_RLD)
                t = torch.cat([denoiser.rows_at(x_GChw, timestep), denoiser.rows_at(next_RChw, following)])
                with taps.record(maps, ref_rows) as maps_ref:
                    outputs = denoiser.predict(torch.cat([x_GChw, next_RChw]), t, both_embeds)
                output_GChw, ref_RChw = outputs[: 2 * batch], outputs[ref_rows]
        z_BChw = ddim_step(
            z_BChw, _epsilon(denoiser, output_GChw, z_BChw, timestep, guidance_scale), alpha_from, alpha_to
        )
        if on_step is not None:
            on_step(z_BChw)
    return z_BChw


def _repeated(z_BChw: Tensor, embeds_RLD: Tensor) -> Tensor:
    """The latents for each block of conditioning."""
    return torch.cat([z_BChw] * (len(embeds_RLD) // len(z_BChw)))


def _epsilon(denoiser: Denoiser, output_RChw: Tensor, z_BChw: Tensor, timestep: int, guidance_scale: float) -> Tensor:
    """The noise that one or two rows for each image say, the second one under guidance."""
    if len(output_RChw) > len(z_BChw):
        output_RChw = classifier_free_guidance(output_RChw, guidance_scale)
    return denoiser.to_epsilon(output_RChw, z_BChw, timestep)
