"""``--set`` on a bench: parameters of methods, metrics and the data set without touching the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from graphflow.bench.names import DATA
from graphflow.bench.spec import BenchSpec, Use
from graphflow.errors import Mark, UsageError, did_you_mean


def with_settings(bench: BenchSpec, settings: Mapping[str, Any]) -> BenchSpec:
    """The same bench with other parameters.

    Args:
        bench: the bench file.
        settings: by ``method.parameter``, ``metric.parameter``, ``data.parameter``, ``method/node.parameter``.

    Raises:
        UsageError: a setting names no method that is computed, no metric, and not the data set.
    """
    methods, metrics, data = dict(bench.methods), dict(bench.metrics), bench.data
    for target, value in settings.items():
        path, _, parameter = target.rpartition(".")
        name, _, inner = path.partition("/")
        use = methods[name].use if name in methods else None
        if not parameter or name not in {*methods, *metrics, DATA} or (name in methods and use is None):
            known = [n for n, m in methods.items() if m.use is not None] + [*metrics, DATA]
            hint = did_you_mean(name, known) or f"they are {', '.join(known)}"
            raise UsageError(
                f"--set {target}: expected METHOD.PARAM, METHOD/NODE.PARAM, METRIC.PARAM or data.PARAM; {hint}"
            )
        mark = Mark(f"--set {target}")
        if use is not None:
            methods[name] = replace(methods[name], use=_set(use, inner, parameter, value, mark))
        elif name in metrics:
            metrics[name] = replace(metrics[name], use=_set(metrics[name].use, inner, parameter, value, mark))
        else:
            data = _set(data, inner, parameter, value, mark)
    return replace(bench, methods=methods, metrics=metrics, data=data)


def _set(use: Use, inner: str, parameter: str, value: Any, mark: Mark) -> Use:
    if inner:
        name = f"{inner}.{parameter}"
        return replace(use, inside={**use.inside, name: value}, inside_marks={**use.inside_marks, name: mark})
    return replace(
        use,
        inputs={port: column for port, column in use.inputs.items() if port != parameter},
        parameters={**use.parameters, parameter: value},
        parameter_marks={**use.parameter_marks, parameter: mark},
    )
