"""graphflow: a node-graph workflow engine for diffusion image editing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphflow.version import __version__

if TYPE_CHECKING:
    from graphflow.session import Session


__all__ = ["__version__", "load"]


def load(graph: str, **options: Any) -> Session:
    """Open a graph: ``graphflow.load("pix2pix_on_the_fly").run(image="cat.png")["image"]`` is a PIL picture.

    Args:
        graph: a shipped graph's name, a YAML file, or a PNG or ``run.json`` that an earlier run wrote.
        options: models, settings, store, device, dtype, nodes; see `graphflow.session.open_session`.
    """
    from graphflow.session import open_session

    return open_session(graph, **options)
