"""What a bench leaves in its out folder: tables, scores, plots, a page, and what the numbers depend on."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from graphflow.bench import plots
from graphflow.bench.compiled import Compiled
from graphflow.bench.page import PAGE, PICTURES, write_page
from graphflow.bench.results import Results
from graphflow.bench.table import Table
from graphflow.bench.text import FORMATS, differences_csv, scores_csv
from graphflow.claim import Claim
from graphflow.errors import GraphflowError
from graphflow.outputs import replace_file
from graphflow.run import Run
from graphflow.version import __version__

FACTS, SCORES, DIFFERENCES = "bench.json", "scores.csv", "differences.csv"
TABLES = {f"table.{suffix}": write for suffix, write in FORMATS.items()}
NAMES = (
    FACTS,
    SCORES,
    DIFFERENCES,
    *TABLES,
    *(name + s for name in plots.NAMES for s in plots.SUFFIXES),
    PAGE,
    PICTURES,
)
NO_PLOTS = "no plots: they need matplotlib, pip install 'graphflow-diffusion[bench]'"


def claim_folder(folder: Path) -> None:
    """See that a bench may write there: over what an earlier one left, told by its ``bench.json``, and nothing else.

    Raises:
        UsageError: something would be replaced that no bench wrote.
    """
    Claim(folder, frozenset(NAMES) if _is_bench(folder) else frozenset()).check(NAMES)


def _is_bench(folder: Path) -> bool:
    try:
        found = json.loads((folder / FACTS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"graphflow", "bench"} <= found.keys()


def write_bench(
    results: Results, table: Table, compiled: Compiled, run: Run, folder: Path
) -> tuple[list[Path], list[str]]:
    """Write everything; returns the files, and what could not be made.

    Raises:
        GraphflowError: a file could not be written.
    """
    # The facts go first: they tell the next bench, should this one be killed here, that the rest may be replaced.
    texts = {FACTS: json.dumps(_facts(results, table, run), indent=1, ensure_ascii=False) + "\n"}
    texts |= {name: write(table) for name, write in TABLES.items()}
    texts |= {SCORES: scores_csv(results), DIFFERENCES: differences_csv(results, table)}
    warnings: list[str] = []
    try:
        for name, text in texts.items():
            replace_file(folder / name, partial(Path.write_text, data=text, encoding="utf-8"))
        drawn = _plots(results, table, folder, warnings)
        page = write_page(results, table, compiled, run, drawn, folder)
    except OSError as error:
        raise GraphflowError(f"{folder}: can't be written: {error.strerror or error}") from error
    return [*(folder / name for name in (*TABLES, SCORES, DIFFERENCES, FACTS)), *drawn, page], warnings


def _plots(results: Results, table: Table, folder: Path, warnings: list[str]) -> list[Path]:
    try:
        return plots.draw_plots(results, table, folder)
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
