"""Training of the pocket models: plain functions over PyTorch, diffusers and transformers, without the engine."""
