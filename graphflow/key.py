"""Keys: when two computations are the same.

A key is a digest over its *parts*, and the parts are stored beside every result: that is what lets `why` say which
one changed. Nothing of the machine, the process or the file's place is in a key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from graphflow.codecs import CODECS, digest_bytes
from graphflow.node import Node
from graphflow.ports import PortType

Parts = dict[str, Any]


def static_parts(cls: type[Node], parameters: Mapping[str, Any], numerics: str) -> Parts:
    """The parts of a key that don't depend on what is fed to the node.

    Args:
        cls: the node's class: kind, version and the codecs of its outputs count.
        parameters: parameters that count, as JSON values (`Node.key_parameters`).
        numerics: device kind and dtype, such as ``cpu float32``; ignored by nodes that don't use the accelerator.
    """
    return {
        "kind": cls.kind,
        "version": cls.version,
        "codecs": _codecs(cls),
        "parameters": dict(parameters),
        "numerics": numerics if cls.accelerated() else "",
    }


def key_of(static: str, inputs: Mapping[str, str], models: Mapping[str, str]) -> str:
    """The key.

    Args:
        static: digest of the static parts (`digest_json`), computed once a node.
        inputs: port → content digest.
        models: model port → fingerprint.
    """
    # Port names hold no '=' and digests no line end; fingerprints may hold anything and come last, quoted.
    lines = [static, *(f"{name}={digest}" for name, digest in sorted(inputs.items()))]
    if models:
        lines.append(repr(sorted(models.items())))
    return digest_bytes(b"key", "\n".join(lines).encode())


def differences(old: Parts, new: Parts) -> list[str]:
    """What differs between two computations, a phrase for each part: ``num_inference_steps 50 → 20``."""
    out = []
    if old["kind"] != new["kind"]:
        out.append(f"kind {old['kind']} → {new['kind']}")
    if old["version"] != new["version"]:
        out.append(f"version {old['version']} → {new['version']}")
    for name, before, after in _changed(old["parameters"], new["parameters"]):
        out.append(f"parameter {name} {_short(before)} → {_short(after)}")
    out += [f"input {name}" for name, _, _ in _changed(old["inputs"], new["inputs"])]
    for name, before, after in _changed(old["models"], new["models"]):
        out.append(f"{'model' if name == 'model' else f'model {name}'} {_brief(before)} → {_brief(after)}")
    if old["numerics"] != new["numerics"]:
        out.append(f"numerics {old['numerics']} → {new['numerics']}")
    if old["codecs"] != new["codecs"]:
        out.append("storage format")
    return out


def _codecs(cls: type[Node]) -> dict[str, str]:
    found = {}
    for port in cls.outputs().values():
        assert isinstance(port.type, PortType)
        found[port.name] = f"{port.type.codec}/{CODECS[port.type.codec].version}"
    return found


_ABSENT = "absent"


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    names = [*old, *(n for n in new if n not in old)]
    pairs = [(n, old.get(n, _ABSENT), new.get(n, _ABSENT)) for n in names]
    return [(n, a, b) for n, a, b in pairs if a != b]


def _brief(fingerprint: str) -> str:
    """A fingerprint with digests and commits cut to eight digits."""
    return re.sub(r"[0-9a-f]{16,}", lambda match: match[0][:8], fingerprint)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"
