"""ReEdit (Srivastava et al. 2024, arXiv 2411.03982): an edit that is shown by a pair of pictures.

What the pair shows is said in words by a vision-language model and, beside them, as a difference of image embeddings.
The edit is Plug-and-Play (`plug_and_play`) under both prompts; the image's comes in through an IP-Adapter.

Shapes: B pictures, E width of the image embedding.
"""

from __future__ import annotations

from torch import Tensor


def exemplar_embedding(before_BE: Tensor, after_BE: Tensor, image_BE: Tensor, edit_weight: float) -> Tensor:
    """λ·(E(x_edit) - E(x)) + (1 - λ)·E(y): the shown change beside the picture to be edited, (B, E).

    Mixed before the adapter's projection H, which is no linear map. (The authors' code has 1 - λ as its parameter.)

    Args:
        before_BE: E(x).
        after_BE: E(x_edit).
        image_BE: E(y).
        edit_weight: λ; 0 is the picture itself, 1 the change alone.
    """
    return edit_weight * (after_BE - before_BE) + (1 - edit_weight) * image_BE
