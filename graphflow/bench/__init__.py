"""Benchmarks: methods × metrics on a data set, from a bench file to tables, plots and a page of pictures."""
