"""Where an edit reads of its source picture: its latents, and what was captured of it, by timestep.

Shapes: B pictures, C latent channels, h w latent height and width, S levels of a trajectory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from .denoiser import moved

LATENTS = "latents"
"""The key of the source's latents beside the captured places."""

Source = Mapping[int, Mapping[str, Tensor]]
"""Timestep → the source's `LATENTS` there and, where they were captured, the tensors of each place."""


def source_latents(timesteps: Sequence[int], latents_SBChw: Tensor, wanted: Sequence[int]) -> dict[int, Tensor]:
    """The latents of an inversion at the sampling timesteps, each (B, C, h, w).

    Raises:
        ValueError: the inversion did not stop at one of them.
    """
    levels = {timestep: level for level, timestep in enumerate(timesteps)}
    if missing := [t for t in wanted if t not in levels]:
        raise ValueError(
            f"the inversion has no latents at timestep {missing[0]}, where sampling with {len(wanted)} steps needs "
            "them; invert with convention diffusers (pix2pix_zero's stops elsewhere) and with 999 steps, or with the "
            "same number as sampling"
        )
    return {t: latents_SBChw[levels[t]] for t in wanted}


class Together(Mapping[int, Mapping[str, Tensor]]):
    """The sources of several pictures as one, their rows one after the other.

    Attributes:
        counts: how many rows each has.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        """Look at the first timestep of each; the timesteps and places are those of the first."""
        self._sources = sources
        self.counts = [len(source[next(iter(source))][LATENTS]) for source in sources]

    def __getitem__(self, timestep: int) -> dict[str, Tensor]:
        each = [source[timestep] for source in self._sources]
        if len(each) == 1:
            return dict(each[0])
        return {name: torch.cat([tensors[name] for tensors in each]) for name in each[0]}

    def __iter__(self) -> Iterator[int]:
        return iter(self._sources[0])

    def __len__(self) -> int:
        return len(self._sources[0])


def lockstep(source: Source, timesteps: Sequence[int], device: torch.device) -> Iterator[dict[str, Tensor]]:
    """The source's latents alone, moved all at once."""
    latents = torch.stack([source[t][LATENTS] for t in timesteps]).to(device)
    yield from ({LATENTS: z_BChw} for z_BChw in latents)


def read_ahead(source: Source, timesteps: Sequence[int], device: torch.device) -> Iterator[Mapping[str, Tensor]]:
    """The source's tensors at each timestep on the device, the next ones being read while these are used."""

    def read(timestep: int) -> dict[str, Tensor]:
        return {name: moved(tensor, device) for name, tensor in source[timestep].items()}

    with ThreadPoolExecutor(1, "read-ahead") as reader:
        coming = reader.submit(read, timesteps[0])
        for timestep in timesteps[1:]:
            here, coming = coming.result(), reader.submit(read, timestep)
            yield here
        yield coming.result()
