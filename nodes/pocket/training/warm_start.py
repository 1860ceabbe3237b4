"""First weights from models for pictures half as large: the same latents and the same words from the first step on."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

RGB = 3
TAPS = 4  # of a level's first convolution: the row (and column) before, and the mean of the two that follow


def add_level(small: AutoencoderKL, width: int) -> AutoencoderKL:
    """An autoencoder for twice the side with one level more on the outside and latents of the same shape.

    Its encoder gives nearly the latents that `small` gives of the picture halved by averaging: the new level only
    averages, but for the one row and column before each patch, of which a 3×3 convolution sees the nearer half. Its
    decoder begins with what `small` draws, each pixel doubled.

    Raises:
        ValueError: `width` differs from the width of the outermost level, or is too narrow to carry the averages.
    """
    channels = tuple(small.config.block_out_channels)
    if width != channels[0] or width < RGB * TAPS:
        raise ValueError(
            f"the new level must be as wide as the outermost one, {channels[0]}, and at least {RGB * TAPS}"
        )
    config = dict(small.config) | {
        "block_out_channels": (width, *channels),
        "down_block_types": ("DownEncoderBlock2D", *small.config.down_block_types),
        "up_block_types": (*small.config.up_block_types, "UpDecoderBlock2D"),
        "sample_size": 2 * small.config.sample_size,
    }
    large = AutoencoderKL.from_config(config)
    inner = {_moved(name): value for name, value in small.state_dict().items()}
    found = large.load_state_dict(inner, strict=False)
    assert not found.unexpected_keys, found.unexpected_keys
    with torch.no_grad():
        _begin_encoder(large, small.encoder.conv_in)
        _begin_decoder(large)
    return large


def _moved(name: str) -> str:
    """The encoder's blocks move one place inwards; the decoder counts from the inside, so that its blocks stay."""
    start, sep, rest = name.partition("encoder.down_blocks.")
    if not sep or start:
        return name
    number, _, rest = rest.partition(".")
    return f"{sep}{int(number) + 1}.{rest}"


def _begin_encoder(large: AutoencoderKL, old: nn.Conv2d) -> None:
    """Split the old first convolution, on the halved picture, into the new first one and the new downsampling one.

    In each direction the new first convolution offers p(y), the pixel before, and m(y), the mean of y and y + 1. At
    the even places 2i of the downsampling these are half of the old pixel i - 1 and the old pixels i and i + 1.
    """
    taps = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])  # p and m over the offsets -1, 0, 1
    places = ((0, 0), (1, 0), (1, 2))  # for old pixels i - 1, i, i + 1: which of the two, and at which offset
    first, block = large.encoder.conv_in, large.encoder.down_blocks[0]
    down = block.downsamplers[0].conv
    for layer in (first, down):
        layer.weight.mul_(0.02)  # what the averages leave over begins small
        layer.bias.zero_()
    for v, h in ((v, h) for v in range(2) for h in range(2)):
        for colour in range(RGB):
            row = (2 * v + h) * RGB + colour
            first.weight[row] = 0
            first.weight[row, colour] = torch.outer(taps[v], taps[h])
    for i, (v, dy) in enumerate(places):
        for j, (h, dx) in enumerate(places):
            start = (2 * v + h) * RGB
            down.weight[:, start : start + RGB, dy, dx] = old.weight[:, :, i, j]
    down.bias.copy_(old.bias)
    _silence(block.resnets)


def _begin_decoder(large: AutoencoderKL) -> None:
    """The new level hands on what it gets: the old decoder's features, doubled."""
    blocks = large.decoder.up_blocks
    conv = blocks[-2].upsamplers[0].conv
    nn.init.dirac_(conv.weight)
    nn.init.zeros_(conv.bias)
    _silence(blocks[-1].resnets)


def _silence(resnets: nn.ModuleList) -> None:
    for resnet in resnets:
        nn.init.zeros_(resnet.conv2.weight)
        nn.init.zeros_(resnet.conv2.bias)


def widen(narrow: AutoencoderKL, channels: tuple[int, ...]) -> AutoencoderKL:
    """The same function with more channels (Net2WiderNet, Chen et al. 2016): each channel several times, side by side.

    What a layer takes from the copies is split unevenly at random, so that they learn different things.

    Raises:
        ValueError: a width is no multiple of the old one.
    """
    old = tuple(narrow.config.block_out_channels)
    if len(channels) != len(old) or any(new % width for new, width in zip(channels, old, strict=True)):
        raise ValueError(f"channels {list(channels)} are no multiples of {list(old)}, level by level")
    wide = AutoencoderKL.from_config(dict(narrow.config) | {"block_out_channels": channels})
    weights = narrow.state_dict()
    for name, value in wide.state_dict().items():
        value.copy_(_repeated(weights[name] if name in weights else _identity(name, weights), value.shape))
    return wide


def add_latents(narrow: AutoencoderKL, channels: int) -> AutoencoderKL:
    """The same function with more latent channels, which carry nothing yet: `wake_channels` begins them."""
    wide = AutoencoderKL.from_config(dict(narrow.config) | {"latent_channels": channels})
    old, weights = narrow.config.latent_channels, narrow.state_dict()
    for name, value in wide.state_dict().items():
        known = weights[name]
        if value.shape == known.shape:
            value.copy_(known)
        elif name.startswith("encoder.conv_out"):  # its outputs are mixed by quant_conv: the new ones as they are
            value[: 2 * old] = known
        elif name.startswith("decoder.conv_in"):
            value[:, :old] = known
        elif name == "quant_conv.weight":  # means, then logs of variances
            value.zero_()
            value[:old, : 2 * old], value[channels : channels + old, : 2 * old] = known.chunk(2)
        elif name == "quant_conv.bias":
            value.zero_()  # a deviation of 1 around nothing
            value[:old], value[channels : channels + old] = known.chunk(2)
        else:  # post_quant_conv
            is_bias = name.endswith("bias")
            value.copy_(torch.zeros(channels) if is_bias else torch.eye(channels)[:, :, None, None])
            value[(slice(old),) * min(2, value.dim())] = known
    return wide


def _repeated(value: Tensor, shape: torch.Size) -> Tensor:
    """Repeat along the outputs; repeat along the inputs and share their weights out."""
    value = value.repeat_interleave(shape[0] // value.shape[0], dim=0)
    if value.dim() < 2 or value.shape[1] == shape[1]:
        return value
    copies = shape[1] // value.shape[1]
    shares = torch.rand(*value.shape[:2], copies, *value.shape[2:], device=value.device) + 0.5
    shares /= shares.sum(dim=2, keepdim=True)
    return (value.unsqueeze(2) * shares).flatten(1, 2)


def _identity(name: str, weights: dict[str, Tensor]) -> Tensor:
    """What a shortcut does where there was none because input and output were equally wide."""
    width = weights[name.rpartition("conv_shortcut")[0] + "conv1.weight"].shape[1]
    return torch.eye(width)[:, :, None, None] if name.endswith("weight") else torch.zeros(width)


@torch.no_grad()
def wake_channels(model: AutoencoderKL, x_BCHW: Tensor) -> list[int]:
    """Begin latent channels anew that carry next to nothing, in place; returns which.

    A channel whose noise is more than half its deviation over the pictures was drowned by the Kullback-Leibler loss,
    and does not come back by itself: the decoder has unlearnt to look at it. It becomes a random mix of the encoder's
    outputs of deviation 1, almost without noise, of which the decoder sees a little.
    """
    posterior = model.encode(x_BCHW).latent_dist
    noise, signal = posterior.std.mean(dim=(0, 2, 3)), posterior.mean.std(dim=(0, 2, 3))
    idle = [int(channel) for channel in (noise > 0.5 * signal).nonzero()]
    into, out = model.quant_conv, model.post_quant_conv
    assert isinstance(into, nn.Conv2d)
    assert isinstance(out, nn.Conv2d)
    for channel in idle:
        nn.init.normal_(into.weight[channel])
        nn.init.zeros_(into.bias[channel])
        into.weight[len(noise) + channel] = 0
        into.bias[len(noise) + channel] = -7.0  # the log of the variance
        mean = model.encode(x_BCHW).latent_dist.mean[:, channel]
        into.weight[channel] /= mean.std()
        into.bias[channel] = -mean.mean() / mean.std()
        nn.init.normal_(out.weight[:, channel], std=0.1)
    return idle


def begin_as(model: nn.Module, known: nn.Module) -> None:
    """Give `model` the weights of `known`, in place.

    The patches of a picture may be several times as large in `model`: it then begins as `known` on the picture
    scaled down by averaging, to the same number of patches.

    Raises:
        ValueError: the two differ in more than that.
    """
    mine, theirs = model.state_dict(), known.state_dict()
    for name, value in theirs.items():
        if name.endswith("patch_embedding.weight") and name in mine:
            theirs[name] = _spread(value, mine[name].shape[-1])
    shapes, found = ({name: tuple(value.shape) for name, value in side.items()} for side in (mine, theirs))
    if shapes != found:
        differing = sorted(name for name in shapes | found if shapes.get(name) != found.get(name))
        listed = ", ".join(f"{name} {found.get(name)} for {shapes.get(name)}" for name in differing[:3])
        raise ValueError(f"a {type(model).__name__} of this size can't begin as the given one, which has {listed}")
    model.load_state_dict({name: value.detach().float().cpu() for name, value in theirs.items()})


def _spread(kernel: Tensor, side: int) -> Tensor:
    """A kernel whose sum with a picture is that of `kernel` with the picture's averages."""
    times = side // kernel.shape[-1]
    if times * kernel.shape[-1] != side:
        return kernel
    return kernel.float().repeat_interleave(times, dim=-2).repeat_interleave(times, dim=-1) / times**2
