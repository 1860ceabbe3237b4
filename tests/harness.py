"""Plan, explain and run graphs that tests write as text, on one store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import samples

from graphflow.check import check
from graphflow.events import Event
from graphflow.options import Options
from graphflow.plan import Plan
from graphflow.run import Run
from graphflow.session import Session
from graphflow.spec import parse_spec
from graphflow.store import Store

Settings = dict[str, Any]


class Harness:
    """A graph, a store, and the events of the latest run. `folder` is where the graph's sub-graphs lie."""

    def __init__(self, store: Store, text: str, folder: Path | None = None) -> None:
        self.store, self.text, self.folder = store, text, folder
        self.events: list[Event] = []

    def session(self, settings: Settings | None = None) -> Session:
        graph = check(parse_spec(self.text, "g.yaml", self.folder), settings=settings or {})
        return Session(graph, self.store)

    def plan(self, settings: Settings | None = None, options: Options | None = None, **given: Any) -> Plan:
        return self.session(settings).plan(options, **given)

    def why(self, node: str, settings: Settings | None = None, **given: Any) -> str:
        return "\n".join(self.session(settings).why(node, **given))

    def run(self, settings: Settings | None = None, options: Options | None = None, **given: Any) -> Run:
        samples.RUNS.clear()
        self.events.clear()
        return self.session(settings).runner(given, self.events.append, options).run()


def statuses(plan: Plan) -> list[str]:
    return [n.status for n in plan.nodes.values()]
