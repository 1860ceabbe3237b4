"""What the report has drawn, kept in the store: a fully cached run draws nothing, and imports no numpy."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from graphflow.codecs import digest_json
from graphflow.errors import DamagedBlobError, StoreError
from graphflow.store import Result, Store

KIND = "report.view"
VERSION = 1  # raise it when something is drawn otherwise
DAY = 86400.0  # the time of last use is not kept more exactly


class Memory:
    """Drawings by what they show: results of the store like those of nodes, so that they are checked and collected."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, what: str, digest: str) -> Any:
        """The drawing of a value, as JSON; None when there is none."""
        result = self._store.result(_key(what, digest))
        try:
            if result is None:
                return None
            if result.used < time.time() - DAY:
                self._store.touch([result.key])
            return self._store.peek(result.outputs["drawn"])
        except (DamagedBlobError, StoreError):
            return None

    def put(self, what: str, digest: str, drawn: Any, seconds: float) -> None:
        """Keep a drawing that took this long; a store that can't be written does without."""
        with suppress(StoreError):
            prepared = self._store.prepare(drawn, "json")
            parts = {"what": what, "of": digest}
            outputs = {"drawn": prepared.stored}
            result = Result(_key(what, digest), KIND, "report", what, parts, outputs, seconds, time.time())
            self._store.record(result, [prepared])


def _key(what: str, digest: str) -> str:
    return digest_json([KIND, VERSION, what, digest])
