"""The standard loaders: from a preset's entry to a loaded model. Importing this package registers them all.

Local weights are read as safetensors only, from files that are here already, and no code that comes with a checkpoint
is run. These modules are imported to check presets, so they import torch only while they load.
"""

from graphflow.nodes.loaders import diffusion, encoders, instruct, language, measures

__all__ = ["diffusion", "encoders", "instruct", "language", "measures"]
