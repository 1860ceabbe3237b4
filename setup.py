"""Packages: nodes/ and graphs/ lie at the root and are imported as graphflow.nodes and graphflow.graphs."""

from setuptools import find_packages, setup

packages = find_packages(include=["graphflow", "graphflow.*"])
for name in ("nodes", "graphs"):
    packages += [f"graphflow.{name}", *(f"graphflow.{name}.{sub}" for sub in find_packages(name))]
setup(packages=packages)
