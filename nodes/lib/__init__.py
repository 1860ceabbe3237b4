"""Pure PyTorch functions: the mathematics of the methods, named after their papers. Imports nothing of graphflow."""
