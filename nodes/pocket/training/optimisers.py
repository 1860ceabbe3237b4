"""The optimisers that the training loop may follow, behind one small surface that a checkpoint can hold."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

NAMES = ("adamw", "muon")
SMALLEST = 16  # side of a matrix below which orthogonalising gains nothing


class Optimiser:
    """AdamW, or Muon for the hidden layers' matrices with AdamW for all the rest.

    Muon (Jordan et al. 2024) makes each update of a matrix orthogonal, so that all its directions are learnt equally
    fast; updates are scaled to AdamW's (Liu et al. 2025, section 2.2), so that both share one learning rate. A
    convolution counts as the matrix from all its inputs, taps included, to its outputs. First and last layers,
    embeddings, biases and norms are AdamW's, as in the paper.

    Raises:
        ValueError: `name` is not one of `NAMES`.
    """

    def __init__(self, name: str, parameters: Mapping[str, nn.Parameter], rate: float, weight_decay: float) -> None:
        if name not in NAMES:
            raise ValueError(f"optimiser {name!r}; expected one of {', '.join(NAMES)}")
        self._parameters = dict(parameters)
        hidden = [key for key, p in parameters.items() if name == "muon" and _is_hidden(key, p)]
        # Muon takes matrices only: it gets views of the same storage.
        self._matrices = {key: nn.Parameter(_matrix(parameters[key].detach(), parameters[key])) for key in hidden}
        others = [p for key, p in parameters.items() if key not in self._matrices]
        self._all: list[torch.optim.Optimizer] = []
        if others:
            self._all.append(torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.99), weight_decay=weight_decay))
        if hidden:
            views = self._matrices.values()
            shared = {"lr": rate, "weight_decay": weight_decay}
            self._all.append(torch.optim.Muon(views, **shared, adjust_lr_fn="match_rms_adamw"))

    def set_rate(self, rate: float) -> None:
        """The learning rate of the next step."""
        for optimiser in self._all:
            for group in optimiser.param_groups:
                group["lr"] = rate

    def step(self) -> None:
        """Change the parameters by their gradients, and forget these."""
        for key, matrix in self._matrices.items():
            p = self._parameters[key]
            matrix.grad = None if p.grad is None else _matrix(p.grad, p)
        for optimiser in self._all:
            optimiser.step()
        for p in self._parameters.values():
            p.grad = None

    def state(self) -> dict[str, Tensor]:
        """What it remembers, as `<what>/<parameter>`; empty before the first step."""
        tensors = {}
        for key in self._parameters:
            optimiser, p = self._of(key)
            for what, value in optimiser.state[p].items():
                tensors[f"{what}/{key}"] = value.contiguous()
        return tensors

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Remember what another one of the same parameters did."""
        for name, value in state.items():
            what, _, key = name.partition("/")
            optimiser, p = self._of(key)
            on = "cpu" if what == "step" else p.device
            optimiser.state[p][what] = value.to(on).clone()

    def _of(self, key: str) -> tuple[torch.optim.Optimizer, nn.Parameter]:
        if key in self._matrices:
            return self._all[-1], self._matrices[key]
        return self._all[0], self._parameters[key]


def _is_hidden(key: str, p: Tensor) -> bool:
    if p.ndim not in (2, 4) or min(p.shape[0], p[0].numel()) < SMALLEST:
        return False
    return not any(part in key for part in ("embedding", "conv_in", "conv_out", "quant_conv"))


def _matrix(value: Tensor, p: Tensor) -> Tensor:
    """(outputs, inputs), in the order in which `p` lies in memory, so that a matrix of `p` itself is a view of it."""
    if p.ndim == 2:
        return value
    order = (0, 2, 3, 1) if p.is_contiguous(memory_format=torch.channels_last) else (0, 1, 2, 3)
    return value.permute(*order).flatten(1)
