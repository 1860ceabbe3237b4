"""Taps: looking into a denoiser while it runs, and changing what flows there.

Places carry canonical names, whatever the checkpoint calls its modules. In a UNet:

    up.1                    output of the second up block; so down.0 and mid
    up.1.res.0              output of its first resnet
    up.1.res.0.conv2        the same before the shortcut is added
    up.1.attn.2             output of its third transformer, skip connection included
    up.1.attn.2.self        output of that transformer's self-attention; .cross is its cross-attention
    up.1.attn.2.5.self      the same in the sixth block of a transformer of several (SDXL)

In a transformer: joint.3 and joint.3.attn, joint.3.self (SD3); double.3, single.3 and .attn of each (FLUX). What a
block of several streams gives is that of the picture; the text's projections are text_q, text_k, text_v.

Every attention has the further places

    .q .k .v    outputs of its projections, before heads are split: (B, P, D)
    .probs      attention probabilities in float32, (B, N, P, L), before dropout; each row of L sums to 1
    .heads      what its output projection is given, the heads side by side: (B, P, D)

Everything rests on PyTorch's hooks and never on another attention processor: whatever a model carries, IP-Adapter's
processors included, keeps working under a tap, and there is nothing to put back but the hooks.

Shapes: B batch, N heads, P queries (pixels of the layer), L keys, K channels of a head, D channels.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

See = Callable[[Tensor], Tensor | None]
"""Sees what flows at a place. What it returns flows on instead; None leaves it as it is."""

_UNET_BLOCK = re.compile(r"(?P<block>down_blocks\.\d+|mid_block|up_blocks\.\d+)(?P<rest>.*)")
_UNET_PARTS = (
    (re.compile(r""), ""),
    (re.compile(r"\.resnets\.(\d+)"), ".res.{0}"),
    (re.compile(r"\.resnets\.(\d+)\.conv2"), ".res.{0}.conv2"),
    (re.compile(r"\.attentions\.(\d+)"), ".attn.{0}"),
    (re.compile(r"\.attentions\.(\d+)\.transformer_blocks\.(\d+)\.attn1"), ".attn.{0}.{1}.self"),
    (re.compile(r"\.attentions\.(\d+)\.transformer_blocks\.(\d+)\.attn2"), ".attn.{0}.{1}.cross"),
)
_DIT_PARTS = (
    (re.compile(r"transformer_blocks\.(\d+)"), "{kind}.{0}"),
    (re.compile(r"transformer_blocks\.(\d+)\.attn"), "{kind}.{0}.attn"),
    (re.compile(r"transformer_blocks\.(\d+)\.attn2"), "{kind}.{0}.self"),
    (re.compile(r"single_transformer_blocks\.(\d+)"), "single.{0}"),
    (re.compile(r"single_transformer_blocks\.(\d+)\.attn"), "single.{0}.attn"),
)
_DIT_KINDS = {"JointTransformerBlock": "joint", "FluxTransformerBlock": "double"}
_PROJECTIONS = {
    "q": "to_q", "k": "to_k", "v": "to_v", "text_q": "add_q_proj", "text_k": "add_k_proj", "text_v": "add_v_proj",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a tap can be set.

    Attributes:
        module: the module that is watched.
        part: its output, its input, or the attention probabilities that it computes.
        owner: the attention that the place belongs to.
        position: which tensor it is, where the output is a tuple.
    """

    module: nn.Module
    part: Literal["output", "input", "probs"]
    owner: nn.Module | None = None
    position: int = 0


class Taps:
    """The places of a denoiser, found once.

    Between two blocks of `record` or `replace` the model is as if there were no taps, so that they cost nothing. Only
    one thread at a time may use a model that is tapped.

    Attributes:
        places: canonical name → place, in the order of the model's modules (a UNet lists its mid block last).
        attentions: canonical name → attention module, in that order, too.
    """

    def __init__(self, model: nn.Module) -> None:
        """Find the places.

        Raises:
            ValueError: the model has none: it is no UNet, SD3 or FLUX transformer of diffusers.
        """
        self.attentions: dict[str, nn.Module] = {}
        self.places: dict[str, Place] = {}
        self._blocks = [module for module in model.modules() if module._compiled_call_impl is not None]
        for name, module, position in _named_places(model):
            self.places[name] = Place(module, "output", None, position)
            if hasattr(module, "to_q"):
                self.attentions[name] = module
                self.places |= _attention_places(name, module)
        if not self.attentions:
            raise ValueError(
                f"{type(model).__name__} has no places to tap; expected a UNet2DConditionModel, an "
                "SD3Transformer2DModel or a FluxTransformer2DModel"
            )

    def cross_attention_maps(self) -> list[str]:
        """The places of a UNet's cross-attention probabilities."""
        return [f"{name}.probs" for name in self.attentions if name.endswith(".cross")]

    def find(self, name: str) -> Place:
        """The place of that name.

        Raises:
            ValueError: there is none; the message names the nearest.
        """
        if name not in self.places:
            near = difflib.get_close_matches(name, self.places, 1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"the denoiser has no place '{name}'{hint}")
        return self.places[name]

    @contextmanager
    def record(self, names: Iterable[str], rows: slice | None = None) -> Iterator[dict[str, Tensor]]:
        """Collect what flows at places, of the last call inside the block.

        Args:
            names: the places.
            rows: those of the batch that are wanted; None for all. Attention probabilities are computed for no others.

        Yields:
            An empty dict that fills as the layers run, in their order: name → tensor. Autograd flows through them if
            it is enabled.

        Raises:
            ValueError: a place does not exist, or its values can't be seen; see `replace`.
        """
        seen: dict[str, Tensor] = {}

        def recorder(name: str) -> See:
            def see(value: Tensor) -> None:
                seen.pop(name, None)
                seen[name] = value

            return see

        with self._set({name: recorder(name) for name in names}, rows):
            yield seen

    @contextmanager
    def replace(self, edits: Mapping[str, See]) -> Iterator[None]:
        """Let functions see and change what flows at places inside the block; see `See`.

        Raises:
            ValueError: a place does not exist; its projections are fused; a function returns another shape; or its
                attention computes no probabilities that can be seen, as sliced or memory-efficient processors do.
        """
        with self._set(edits, None):
            yield

    @contextmanager
    def _set(self, edits: Mapping[str, See], rows: slice | None) -> Iterator[None]:
        """Hooks, as `replace` has them; with rows what the functions return counts for nothing."""
        seen: set[str] = set()
        with ExitStack() as stack:
            if edits:
                stack.enter_context(_as_written(self._blocks))
            for name, see in edits.items():
                place = self.find(name)
                if getattr(place.owner, "fused_projections", False) and name.rpartition(".")[2] in _PROJECTIONS:
                    raise ValueError(f"'{name}' can't be tapped while the model's projections are fused")
                _attach(stack, place, _checked(name, see, seen), rows)
            yield
            # Some layers ran, so all of them should have: a processor that goes round its projections is no place.
            if seen and (unseen := sorted(edits.keys() - seen)):
                owner = self.places[unseen[0]].owner
                carries = f": its processor is {type(owner.processor).__name__}" if owner is not None else ""
                raise ValueError(f"nothing flowed at '{unseen[0]}'{carries}")


@contextmanager
def _as_written(compiled: Iterable[nn.Module]) -> Iterator[None]:
    """Run modules without what `torch.compile` made of them: it does not look again at hooks that were set later."""
    calls = [(module, module._compiled_call_impl) for module in compiled]
    for module, _ in calls:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in calls:
            module._compiled_call_impl = call


def _named_places(model: nn.Module) -> Iterator[tuple[str, nn.Module, int]]:
    """Name, module and position of the picture's tensor in its output, of every module that has a canonical name."""
    for path, module in model.named_modules():
        if match := _UNET_BLOCK.fullmatch(path):
            block = re.sub(r"_blocks?", "", match["block"])
            for pattern, name in _UNET_PARTS:
                if part := pattern.fullmatch(match["rest"]):
                    numbers = part.groups()
                    if len(numbers) == 2 and len(model.get_submodule(path.rsplit(".", 2)[0])) == 1:
                        name = name.replace(".{1}", "")
                    yield block + name.format(*numbers), module, 0
            continue
        for pattern, name in _DIT_PARTS:
            if part := pattern.fullmatch(path):
                block = model.get_submodule(".".join(path.split(".")[:2]))
                kind = _DIT_KINDS.get(type(block).__name__, "block")
                yield name.format(*part.groups(), kind=kind), module, 1 if module is block else 0


def _attention_places(name: str, attention: nn.Module) -> dict[str, Place]:
    places = {f"{name}.probs": Place(attention, "probs", attention)}
    for short, attribute in _PROJECTIONS.items():
        projection = getattr(attention, attribute, None)
        if projection is not None:
            places[f"{name}.{short}"] = Place(projection, "output", attention)
    out = getattr(attention, "to_out", None)
    if out is not None:  # single blocks of FLUX have one projection for attention and feed-forward together
        places[f"{name}.heads"] = Place(out[0], "input", attention)
    return places


def _checked(name: str, see: See, seen: set[str]) -> See:
    def checked(value: Tensor) -> Tensor | None:
        seen.add(name)
        new = see(value)
        if new is not None and new.shape != value.shape:
            raise ValueError(f"at '{name}' flows {tuple(value.shape)}; it can't be replaced by {tuple(new.shape)}")
        return new

    return checked


def _attach(stack: ExitStack, place: Place, see: See, rows: slice | None) -> None:
    """Hook a place until the stack closes."""
    if rows is not None and place.part != "probs":
        see = _of_rows(see, rows)
    if place.part == "output":
        stack.callback(place.module.register_forward_hook(_output_hook(see, place.position)).remove)
    elif place.part == "input":
        stack.callback(place.module.register_forward_pre_hook(_input_hook(see)).remove)
    else:
        running: list[_Probabilities] = []
        before, after = _probability_hooks(see, rows, running)
        stack.callback(place.module.register_forward_pre_hook(before).remove)
        stack.callback(place.module.register_forward_hook(after, always_call=True).remove)


def _of_rows(see: See, rows: slice) -> See:
    def of_rows(value: Tensor) -> None:
        see(value[rows])

    return of_rows


def _output_hook(see: See, position: int) -> Callable[..., Any]:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if not isinstance(output, tuple):
            return see(output)
        new = see(output[position])
        return None if new is None else (*output[:position], new, *output[position + 1 :])

    return hook


def _input_hook(see: See) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> Any:
        new = see(args[0])
        return None if new is None else (new, *args[1:])

    return hook


def _probability_hooks(
    see: See, rows: slice | None, running: list[_Probabilities]
) -> tuple[Callable[..., None], Callable[..., None]]:
    def before(module: nn.Module, args: Any) -> None:
        running.append(_Probabilities(see, rows))
        running[-1].__enter__()

    def after(module: nn.Module, args: Any, output: Any) -> None:
        running.pop().__exit__(None, None, None)

    return before, after


class _Probabilities(TorchFunctionMode):
    """Computes the first fused attention inside it with explicit probabilities, which fused attention keeps to itself.

    Only the first: IP-Adapter's processors call the text's attention first, then that of each image prompt. Where some
    rows are to be seen only, all stay fused and those are computed beside them.
    """

    def __init__(self, see: See, rows: slice | None) -> None:
        super().__init__()
        self.see, self.rows, self.done = see, rows, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention and not self.done:
            self.done = True
            if self.rows is None:
                return explicit_attention(self.see, *args, **(kwargs or {}))
            given = inspect.signature(explicit_attention).bind(self.see, *args, **(kwargs or {})).arguments
            rows = len(given["query"])
            alone = {name: x[self.rows] if isinstance(x, Tensor) and len(x) == rows else x for name, x in given.items()}
            explicit_attention(**alone)
        return func(*args, **(kwargs or {}))


def explicit_attention(
    see: See,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`F.scaled_dot_product_attention` with probabilities that `see` sees and may replace, (B, N, P, K).

    Raises:
        ValueError: it is asked for dropout, causality or grouped heads, which no denoiser's attention has.
    """
    if dropout_p or is_causal or enable_gqa:
        raise ValueError("attention with dropout, a causal mask or grouped heads has no probabilities to tap")
    # float32 whatever the model computes in: losses on the maps overflow in half precision.
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores_BNPL = (query.float() * factor) @ key.float().transpose(-1, -2)
    if attn_mask is not None:
        excluded = attn_mask.dtype == torch.bool
        scores_BNPL = scores_BNPL.masked_fill(~attn_mask, -torch.inf) if excluded else scores_BNPL + attn_mask
    probs_BNPL = scores_BNPL.softmax(-1)
    new_BNPL = see(probs_BNPL)
    return (probs_BNPL if new_BNPL is None else new_BNPL).to(value.dtype) @ value
