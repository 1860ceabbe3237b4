"""Every seed of the shipped nodes is one that a generator takes, so that a graph's check tells of others."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from graphflow.check import check
from graphflow.errors import InvalidError
from graphflow.node import Seed
from graphflow.registry import all_kinds
from graphflow.spec import parse_spec

GRAPH = """graphflow: 1
models: pocket
inputs: {image: {type: Image}}
nodes:
  encode: {uses: vae.encode, in: {image: inputs.image}, with: {posterior: sample, seed: %d}}
outputs: {latents: encode.latents}
"""
SEEDED = [cls for cls in all_kinds().values() if "seed" in cls.model_fields and cls.__module__.startswith("graphflow.")]


def test_the_largest_seed_is_one_that_generators_take() -> None:
    adapter = TypeAdapter(Seed)
    assert torch.Generator().manual_seed(adapter.validate_python(2**64 - 1))
    with pytest.raises(ValidationError):
        adapter.validate_python(2**64)


@pytest.mark.parametrize("cls", SEEDED, ids=lambda cls: cls.kind)
def test_every_node_says_so(cls: type) -> None:
    limits = [getattr(limit, "le", None) for limit in cls.model_fields["seed"].metadata]  # type: ignore[attr-defined]
    assert 2**64 - 1 in limits


def test_a_larger_one_is_found_by_the_check() -> None:
    check(parse_spec(GRAPH % (2**64 - 1), "g.yaml"))
    with pytest.raises(InvalidError) as caught:
        check(parse_spec(GRAPH % 2**64, "g.yaml"))
    assert [d.code for d in caught.value.diagnostics] == ["GF108"]
