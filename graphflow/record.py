"""What a run did, as plain data: the content of ``run.json``, of the provenance in a picture, and of the report."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT: Literal[1] = 1


class _Record(BaseModel):
    # Provenance comes from pictures of unknown origin: it is parsed strictly and nothing in it is executed.
    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class ValueRecord(_Record):
    """A value that travelled along an edge.

    `digest` finds it in the store; `file` is its name in the out folder, with ``*`` for the position in a list;
    `failed` are the positions of a list that are missing because their instances failed.
    """

    type: str
    digest: str
    bytes: int = 0
    file: str | None = None
    failed: list[int] = Field(default_factory=list)


class InputRecord(_Record):
    """A graph input. Plain values stand under `value`; `source` is the name of the file the user gave, for a list of
    pictures the names of all (older records join them with commas).

    `items` are the digests of a list's elements; `default` says that nobody gave the value.
    """

    type: str
    digest: str | None = None
    items: list[str] | None = None
    value: Any = None
    source: str | list[str] | None = None
    default: bool = False

    @property
    def names(self) -> str:
        """The names of the user's files, as people read them."""
        return ", ".join(self.source) if isinstance(self.source, list) else self.source or ""


class ModelRecord(_Record):
    """A model as it was bound for the run."""

    loader: str
    source: str
    space: str
    fingerprint: str


class NodeRecord(_Record):
    """One node: what it is, where its inputs came from, and what became of it.

    `interrupted` was a node that had begun when the run ended; `skipped` one that could not begin.
    `seconds` is the computing time; for a cached node, that of the run that computed it. `started` is in seconds
    after the run's beginning. `batch` elements were computed in one call on `device`, the time of each being its share;
    `peak` is what the call needed there beside the weights, in bytes.
    """

    kind: str
    version: int
    status: Literal["cached", "ran", "failed", "skipped", "interrupted"]
    reason: str = ""
    key: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    inputs: dict[str, str | list[str]] = Field(default_factory=dict)
    outputs: dict[str, ValueRecord] = Field(default_factory=dict)
    started: float | None = None
    seconds: float = 0.0
    device: str = ""
    batch: int = 1
    peak: int | None = None


class LoadRecord(_Record):
    """A model's way through memory: into host memory, onto a device, or off it.

    `started` is in seconds after the run's beginning.
    """

    model: str
    device: str
    stage: Literal["host", "device", "released"]
    started: float
    seconds: float
    bytes: int


class RunRecord(_Record):
    """A whole run.

    `text` is the graph file and `files` are those of its sub-graphs; `overrides` are the ``--set`` values, keyed
    ``node.parameter``; `mapped` are the inputs over which the whole graph was run (``--map``); `memory` is what a
    device's weights and activations may take, in bytes, where that has a limit. `written` are the files in the out
    folder that graphflow may replace, beside those that every run writes. `command` is what the user typed after
    ``graphflow``; no picture carries it.
    """

    format: Literal[1] = FORMAT
    graphflow: str
    graph: str
    title: str
    text: str
    files: dict[str, str] = Field(default_factory=dict)
    mapped: list[str] = Field(default_factory=list)
    inputs: dict[str, InputRecord]
    overrides: dict[str, Any] = Field(default_factory=dict)
    preset: Any = None
    models: dict[str, ModelRecord] = Field(default_factory=dict)
    loads: list[LoadRecord] = Field(default_factory=list)
    memory: dict[str, int] = Field(default_factory=dict)
    device: str = "cpu"
    dtype: str = "float32"
    started: str = ""
    seconds: float = 0.0
    status: Literal["done", "failed", "cancelled"] = "done"
    nodes: dict[str, NodeRecord] = Field(default_factory=dict)
    outputs: dict[str, ValueRecord] = Field(default_factory=dict)
    written: list[str] = Field(default_factory=list)
    command: list[str] = Field(default_factory=list)
