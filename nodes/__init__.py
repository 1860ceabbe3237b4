"""The standard node library: one family of nodes a file."""

if __name__ != "graphflow.nodes":
    # The checkout also offers this folder as the top-level module `nodes`. Two imports would mean two registries.
    raise ImportError("import this package as graphflow.nodes, not as a top-level module")

from graphflow.nodes import cpu_torchvision

cpu_torchvision.install()  # before anything here imports transformers or diffusers, which import torchvision
