"""What a bench leaves in its out folder: tables, scores, plots, a page, and what the numbers depend on."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from graphflow.bench.compiled import Compiled
from graphflow.bench.page import write_page
from graphflow.bench.results import Results
from graphflow.bench.table import Table
from graphflow.bench.text import FORMATS, differences_csv, scores_csv
from graphflow.errors import GraphflowError
from graphflow.outputs import replace_file
from graphflow.run import Run
from graphflow.version import __version__

NO_PLOTS = "no plots: they need matplotlib, pip install 'graphflow-diffusion[bench]'"


def write_bench(
    results: Results, table: Table, compiled: Compiled, run: Run, folder: Path
) -> tuple[list[Path], list[str]]:
    """Write everything; returns the files, and what could not be made.

    Raises:
        GraphflowError: a file could not be written.
    """
    texts = {f"table.{suffix}": write(table) for suffix, write in FORMATS.items()}
    texts["scores.csv"] = scores_csv(results)
    texts["differences.csv"] = differences_csv(results, table)
    texts["bench.json"] = json.dumps(_facts(results, table, run), indent=1, ensure_ascii=False) + "\n"
    warnings: list[str] = []
    try:
        for name, text in texts.items():
            replace_file(folder / name, partial(Path.write_text, data=text, encoding="utf-8"))
        plots = _plots(results, table, folder, warnings)
        page = write_page(results, table, compiled, run, plots, folder)
    except OSError as error:
        raise GraphflowError(f"{folder}: can't be written: {error.strerror or error}") from error
    return [*(folder / name for name in texts), *plots, page], warnings


def _plots(results: Results, table: Table, folder: Path, warnings: list[str]) -> list[Path]:
    try:
        from graphflow.bench.plots import draw_plots

        return draw_plots(results, table, folder)
    except ImportError:
        warnings.append(NO_PLOTS)
        return []


def _facts(results: Results, table: Table, run: Run) -> dict[str, Any]:
    """What was run: the bench file, the models, and the exact definition of each column."""
    record = run.runner.record
    return {
        "graphflow": __version__,
        "title": table.title,
        "pictures": table.count,
        "started": record.started,
        "device": results.device,
        "inputs": {name: entry.source or entry.value for name, entry in record.inputs.items()},
        "models": {name: {"source": m.source, "fingerprint": m.fingerprint} for name, m in record.models.items()},
        "columns": {
            h.key: {"title": h.title, "unit": h.unit, "scale": h.scale, "best": h.best, "definition": h.definition}
            for h in table.heads
        },
        "notes": list(table.notes),
        "bench": results.spec.text,
    }
