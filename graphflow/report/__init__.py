"""The report of a run: one HTML file that loads nothing and tells what was done, with every picture in it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from graphflow.record import RunRecord, ValueRecord
from graphflow.report.memory import Memory


def write_report(
    record: RunRecord, load: Callable[[ValueRecord], Any], path: Path, memory: Memory | None = None
) -> None:
    """Write the report of a run, finished or not.

    Args:
        record: what was done.
        load: the value behind an entry of the record; None, or a GraphflowError, when it is gone. Tensors may be torch
            tensors or numpy arrays.
        path: the HTML file.
        memory: keeps drawings from run to run.

    Raises:
        OSError: the file can't be written.
    """
    path.write_text(render(record, load, memory), encoding="utf-8")


def render(record: RunRecord, load: Callable[[ValueRecord], Any], memory: Memory | None = None) -> str:
    """The report as HTML; see `write_report`."""
    from graphflow.report.document import document
    from graphflow.report.page import build

    files = resources.files(__name__)
    style, script = (files.joinpath(f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return document(build(record, load, memory), style, script)
