"""How the gates of the models for editing by example judge; the recipe's test runs them whole."""

from __future__ import annotations

from graphflow.nodes.pocket.descriptions import description
from graphflow.nodes.pocket.exemplar_gates import same_words
from graphflow.nodes.pocket.exemplars import entries


def test_answers_are_compared_by_their_words() -> None:
    told = description(entries()[0].exemplar)
    assert same_words(f"  {told.lower().rstrip('.')} ", told)
    assert not same_words(told.replace("replaced", "placed"), told)
