"""What the outputs and nodes of a bench's graph are called."""

from __future__ import annotations

from graphflow.bench.spec import IMAGE

DATA = "data"


def image_of(method: str) -> str:
    """The graph output that holds a method's pictures."""
    return f"{method}__{IMAGE}"


def scores_of(method: str, metric: str) -> str:
    """The graph output that holds what a metric says of a method."""
    return f"{method}__{metric}"


def how_of(method: str, metric: str) -> str:
    """The graph output that holds how these scores were made."""
    return f"{method}__{metric}__how"


def column_of(column: str) -> str:
    """The graph output that holds a column of the data set."""
    return f"{DATA}__{column}"


def owner_of(node: str) -> tuple[str, str]:
    """Which method or metric a node of the graph belongs to: ``("method", name)``, ``("metric", name)`` or neither."""
    top, *inner = node.split("/")
    if "__" in top:  # a set metric of a method, or what it wants of the data set's own pictures
        return "metric", top.partition("__")[2]
    if not inner:
        return "", top
    return ("method", top) if inner[0] == "edit" else ("metric", inner[1])
