"""Reading pictures as people have them: any mode, any rotation, damaged ones refused with a clear reason."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import PIL.Image

MAX_PIXELS = 120_000_000
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"})


def read_image(path: Path) -> PIL.Image.Image:
    """The picture as 8-bit RGB, upright (EXIF rotation applied), transparency composited on white.

    Raises:
        ValueError: the file is empty, truncated, no picture, or too large; the message says which.
        OSError: it can't be opened.
    """
    import PIL.Image

    if path.is_dir():
        raise ValueError("is a folder, expected a picture")
    if path.stat().st_size == 0:
        raise ValueError("is empty (0 bytes), expected a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise _too_large(image.width, image.height)
                image.load()
                return to_rgb(image)
    except PIL.UnidentifiedImageError as error:
        raise ValueError("is no picture that Pillow can read") from error
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise ValueError(f"has too many pixels: {error}") from error
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"is a damaged or truncated picture: {error}") from error


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Any PIL picture as upright 8-bit RGB; 16-bit values are scaled, transparency is composited on white."""
    import numpy as np
    import PIL.Image
    import PIL.ImageOps

    image = PIL.ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        # 16-bit grey: PIL's own convert() clips at 255 instead of scaling.
        levels = np.asarray(image, dtype=np.float64)
        scale = 257.0 if image.mode.startswith("I") else 1.0
        image = PIL.Image.fromarray(np.clip(np.round(levels / scale), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = PIL.Image.new("RGBA", layer.size, "white")
        return PIL.Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _too_large(width: int, height: int) -> ValueError:
    return ValueError(f"has {width} × {height} pixels; at most {MAX_PIXELS:,} are read")
