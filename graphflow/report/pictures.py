"""Pictures for a page that may load nothing: data URIs, and false-colour previews of latents."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image

SMALL = 160  # pictures up to this side are enlarged with hard pixel edges and kept lossless


@dataclass(frozen=True)
class Picture:
    """An `<img>`: `width` and `height` are those of the original, `crisp` asks for hard pixel edges."""

    uri: str
    width: int
    height: int
    crisp: bool = False
    caption: str = ""


def picture(image: PIL.Image.Image, limit: int, caption: str = "") -> Picture:
    """The image as a picture whose longer side has at most `limit` pixels: PNG when small, else WebP."""
    width, height = image.size
    small = max(width, height) <= SMALL
    shown = image if image.mode in ("RGB", "L") else image.convert("RGB")
    if max(width, height) > limit:
        import PIL.Image

        shown = shown.copy()
        shown.thumbnail((limit, limit), PIL.Image.Resampling.LANCZOS)
    return Picture(_data_uri(shown, lossless=max(shown.size) <= 2 * SMALL), width, height, small, caption)


def _data_uri(image: PIL.Image.Image, lossless: bool) -> str:
    from PIL import features

    webp = not lossless and features.check("webp")
    buffer = io.BytesIO()
    if webp:
        image.save(buffer, format="WEBP", quality=90)
    else:
        image.save(buffer, format="PNG", optimize=True)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{'webp' if webp else 'png'};base64,{text}"


def latents_picture(latents: Any, caption: str = "") -> Picture | None:
    """The first three channels of the first element of (b c h w) latents as red, green and blue, each stretched to
    its own range; None when the shape is another."""
    import PIL.Image

    channels = first_channels(latents)
    if channels is None:
        return None
    shown = PIL.Image.fromarray(false_colour(channels))
    return Picture(_data_uri(shown, lossless=True), shown.width, shown.height, True, caption)


def first_channels(latents: Any) -> np.ndarray | None:
    """Up to three channels (c h w) of the first element of (b c h w); copies no more than these."""
    shape = tuple(latents.shape)
    if len(shape) != 4 or 0 in shape:
        return None
    return array_of(latents[0][:3])


def false_colour(channels: np.ndarray) -> np.ndarray:
    """8-bit (h w 3) from (c h w), 1 ≤ c ≤ 3: each channel runs from its 1st to its 99th percentile."""
    import numpy as np

    clean = np.nan_to_num(channels.astype(np.float32))
    low = np.percentile(clean, 1, axis=(1, 2), keepdims=True)
    high = np.percentile(clean, 99, axis=(1, 2), keepdims=True)
    scaled = np.clip((clean - low) / np.maximum(high - low, 1e-6), 0, 1)
    rgb = scaled if len(scaled) == 3 else np.repeat(scaled[:1], 3, axis=0)
    return np.round(rgb * 255).astype(np.uint8).transpose(1, 2, 0)


def array_of(tensor: Any) -> np.ndarray:
    """A numpy array of a torch tensor or of anything that numpy reads; numpy knows no bfloat16, so it is widened."""
    import numpy as np

    return np.asarray(tensor.detach().cpu().float().numpy() if hasattr(tensor, "detach") else tensor)
