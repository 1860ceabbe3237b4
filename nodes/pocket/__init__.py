"""The pocket world: a small captioned world with exact ground truth for every edit, and models trained on it."""
