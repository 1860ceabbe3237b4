"""A language server client, as small as the tests need: JSON-RPC over stdio."""

from __future__ import annotations

import json
import subprocess
import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, Queue
from typing import Any


class LanguageServer:
    """yaml-language-server; texts carry a ``|`` where the cursor stands.

    Args:
        command: starts the server.
        schemas: the first word of a document's name → its schema; others have the one that they name themselves.
    """

    def __init__(self, command: list[str], schemas: Mapping[str, Path]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.answers: dict[int, Queue[Any]] = defaultdict(Queue)
        self.diagnostics: Queue[Any] = Queue()
        self.settings = {
            "schemas": {schema.as_uri(): f"{word}*.yaml" for word, schema in schemas.items()},
            "schemaStore": {"enable": False},  # it would ask the network
            "validate": True,
            "completion": True,
            "hover": True,
        }
        self.count = 0
        self.sending, self.configured = threading.Lock(), threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()
        self.info = self.ask("initialize", {"processId": None, "rootUri": None, "capabilities": CAPABILITIES})
        self.tell("initialized", {})
        self.tell("workspace/didChangeConfiguration", {"settings": {"yaml": self.settings}})
        self.configured.wait(10)

    def close(self) -> None:
        """Stop the server."""
        self.ask("shutdown", None)
        self.tell("exit", None)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def completions(self, text: str, document: str = "graph") -> dict[str, dict[str, Any]]:
        """What the server offers at the cursor, by label."""
        found = self.ask("textDocument/completion", self._at_cursor(text, document))
        items = found["items"] if isinstance(found, dict) else found or []
        return {item["label"]: item for item in items}

    def hover(self, text: str, document: str = "graph") -> str:
        """What the server shows for the word under the cursor."""
        found = self.ask("textDocument/hover", self._at_cursor(text, document))
        return str(found["contents"]["value"]) if found else ""

    def check(self, text: str, document: str | Path = "graph") -> list[tuple[int, str]]:
        """The diagnostics of a text: line and message, as an editor shows them; a document may be a file."""
        uri = self._open(text, document)
        while True:
            found = self.diagnostics.get(timeout=30)
            if found["uri"] == uri:
                return [(d["range"]["start"]["line"] + 1, d["message"]) for d in found["diagnostics"]]

    def _open(self, text: str, document: str | Path) -> str:
        self.count += 1
        uri = document.as_uri() if isinstance(document, Path) else f"file:///{document}{self.count}.yaml"
        opened = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self.tell("textDocument/didOpen", {"textDocument": opened})
        return uri

    def _at_cursor(self, text: str, document: str) -> dict[str, Any]:
        before, _, after = text.partition("|")
        position = {"line": before.count("\n"), "character": len(before.rpartition("\n")[2])}
        return {"textDocument": {"uri": self._open(before + after, document)}, "position": position}

    def ask(self, method: str, params: Any) -> Any:
        """Send a request; returns its result.

        Raises:
            RuntimeError: the server answers with an error, or not at all.
        """
        self.count += 1
        number = self.count
        self._send({"id": number, "method": method, "params": params})
        try:
            answer = self.answers[number].get(timeout=30)
        except Empty:
            raise RuntimeError(f"no answer to {method}") from None
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def tell(self, method: str, params: Any) -> None:
        """Send a notification."""
        self._send({"method": method, "params": params})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin is not None
        with self.sending:
            self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            self.process.stdin.flush()

    def _listen(self) -> None:
        while (message := self._receive()) is not None:
            if "method" not in message:
                self.answers[message["id"]].put(message)
            elif message["method"] == "textDocument/publishDiagnostics":
                self.diagnostics.put(message["params"])
            elif message["method"] == "workspace/configuration":
                sections = [item.get("section") for item in message["params"]["items"]]
                self._send({"id": message["id"], "result": [self.settings if s == "yaml" else None for s in sections]})
                self.configured.set()
            elif "id" in message:
                self._send({"id": message["id"], "result": None})

    def _receive(self) -> Any:
        assert self.process.stdout is not None
        length = 0
        while line := self.process.stdout.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = self.process.stdout.read(length)
        return json.loads(body) if body else None


CAPABILITIES = {
    "textDocument": {
        "completion": {"completionItem": {"snippetSupport": True, "documentationFormat": ["markdown", "plaintext"]}},
        "hover": {"contentFormat": ["markdown"]},
        "publishDiagnostics": {},
    },
    "workspace": {"configuration": True, "didChangeConfiguration": {"dynamicRegistration": True}},
}
