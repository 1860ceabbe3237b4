"""A value is let go of when its last consumer has run: not before, and not later."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphflow.check import check
from graphflow.engine.lifetimes import Lifetimes
from graphflow.graph import Place
from graphflow.spec import parse_spec

CHAIN = """
graphflow: 1
inputs: {text: Text, texts: 'list[Text]'}
nodes:
  a: {uses: sample.repeat, in: {text: inputs.text}}
  b: {uses: sample.shout, map: {text: a.texts}}
  c: {uses: sample.shout, map: {text: inputs.texts}}
  d: {uses: sample.count, map: {text: c.text}}
  e: {uses: sample.join, in: {texts: c.text}}
outputs: {text: e.text, texts: b.text}
"""


@pytest.fixture(scope="module")
def graph():  # type: ignore[no-untyped-def]
    return check(parse_spec(CHAIN, "g.yaml"))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6))
def test_a_value_goes_with_its_last_consumer(graph, seed: int) -> None:  # type: ignore[no-untyped-def]
    """Against a table of who has still to run; instances come and go in any order."""
    chance = random.Random(seed)
    lifetimes = Lifetimes(graph, graph.outputs.values())
    places = [Place("c", "text", (i,)) for i in range(4)] + [Place("e", "text", ()), Place("b", "text", (0,))]
    takes = {n: chance.sample(places, chance.randint(0, 4)) for n in range(8)}
    to_come, waiting = list(takes), []
    expected: Counter[Place] = Counter()
    freed: set[Place] = set()
    while to_come or waiting:
        if to_come and (not waiting or chance.random() < 0.5):
            number = to_come.pop()
            lifetimes.expect(takes[number])
            expected.update(takes[number])
            waiting.append(number)
        else:
            number = waiting.pop(chance.randrange(len(waiting)))
            expected.subtract(takes[number])
            free = lifetimes.over(takes[number])
            assert set(free) == {p for p in takes[number] if expected[p] == 0}
            freed.update(free)
        for place in places:
            assert lifetimes.awaited(place) == (expected[place] > 0)
            kept = place.node in ("e", "b")
            assert lifetimes.needed(place) == (expected[place] > 0 or kept)
    assert freed == {p for found in takes.values() for p in found}


def test_what_unknown_instances_may_take_stays(graph) -> None:  # type: ignore[no-untyped-def]
    lifetimes = Lifetimes(graph, ())
    places = [Place("c", "text", (i,)) for i in range(3)]
    lifetimes.postpone(graph.nodes["d"], (1,))
    assert lifetimes.awaited(places[1])
    lifetimes.postpone(graph.nodes["e"], ())
    assert all(lifetimes.awaited(place) for place in places), "a list is taken whole"
    lifetimes.resume(graph.nodes["e"], ())
    lifetimes.expect([places[1]])
    lifetimes.resume(graph.nodes["d"], (1,))
    assert lifetimes.awaited(places[1])
    assert lifetimes.over([places[1]]) == [places[1]]
    assert not any(map(lifetimes.awaited, places))
