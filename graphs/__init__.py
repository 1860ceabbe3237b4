"""The shipped graphs, their presets and their pictures (package data)."""
