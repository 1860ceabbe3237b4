"""Model roles and what is bound to them: presets, loaders, fingerprints, and the pool of loaded models."""
