"""A sweep on the command line: a folder a combination, a table, and a labelled contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow import outputs
from graphflow.check import check
from graphflow.cli.running import run_into
from graphflow.errors import GraphflowError, UsageError, did_you_mean
from graphflow.sheet import contact_sheet
from graphflow.sweep import Axis, Point, Row, as_csv, as_table, columns_of, parse_axis, product, results_of

if TYPE_CHECKING:
    import PIL.Image

    from graphflow.run import Options, Run
    from graphflow.session import Session

TABLE, SHEET = "sweep.csv", "sheet.png"


class Sweeper:
    """Runs every combination. All of them are checked before the first one runs.

    Args:
        session: the graph without the sweep's values.
        given: the inputs that stay the same.
        options: how to run each.
        texts: what stands after ``--sweep``.
        out: the out folder.
        metadata: embed provenance in PNG outputs.
        quiet: no progress.

    Raises:
        UsageError: a target is neither a parameter nor an input.
        InvalidError: a value is not allowed; the message names the combination's value.
    """

    def __init__(
        self, session: Session, given: Mapping[str, str], options: Options, texts: Sequence[str], out: Path | None,
        metadata: bool, quiet: bool,
    ) -> None:  # fmt: skip
        self.session, self.given, self.options = session, dict(given), options
        self.metadata, self.quiet = metadata, quiet
        self.axes = [parse_axis(text) for text in texts]
        for axis in self.axes:
            self.check_target(axis)
        self.points = product(self.axes)
        self.runners = [self.session_at(p).runner({**self.given, **p.inputs}, options=options) for p in self.points]
        self.folder = out or outputs.next_folder(Path("runs"), f"{session.graph.name}-sweep")
        outputs.prepare(self.folder)
        self.rows: list[Row] = []
        self.pictures: list[PIL.Image.Image | None] = []

    def check_target(self, axis: Axis) -> None:
        """See that an axis without a node is an input that is not given otherwise."""
        if not axis.is_input:
            return
        known = self.session.graph.inputs
        if axis.target not in known:
            hint = did_you_mean(axis.target, known)
            raise UsageError(
                f"--sweep {axis.target}: neither NODE.PARAM nor an input; inputs: {', '.join(known)}"
                + (f"; {hint}" if hint else "")
            )
        if axis.target in self.given:
            raise UsageError(f"--sweep {axis.target}: the input is given with -i too")

    def session_at(self, point: Point) -> Session:
        """The session with a combination's parameters."""
        from graphflow.session import Session

        if not point.settings:
            return self.session
        old = self.session
        settings = {**old.graph.overrides, **point.settings}
        graph = check(old.graph.spec, old.models, old.models_folder, settings)
        return Session(graph, old.store, old.device, old.dtype, old.remembered)

    def run(self) -> None:
        """Run all combinations, write table and sheet, and print the table.

        Raises:
            GraphflowError: a combination failed; with ``--keep-going`` after the others have run.
        """
        width = len(str(len(self.points)))
        failed: list[str] = []
        try:
            for number, (point, runner) in enumerate(zip(self.points, self.runners, strict=True), 1):
                if not self.quiet:
                    print(f"[{number}/{len(self.points)}] {point.label}")
                folder = self.folder / f"{number:0{max(3, width)}d}"
                outputs.prepare(folder)
                try:
                    done, _ = run_into(runner, folder, self.metadata, self.quiet)
                    self.enter(point, done)
                    failed += [f"  {point.label}: {name}: {text}" for name, text in done.failures.items()]
                except GraphflowError as error:
                    if not self.options.keep_going:
                        raise
                    failed.append(f"  {point.label}: {error}")
                    self.rows.append(Row(point, "failed", 0.0))
                    self.pictures.append(None)
        finally:
            self.write()
        if failed:
            raise GraphflowError("\n".join([f"{len(failed)} failures, the others are done:", *failed]))

    def enter(self, point: Point, done: Run) -> None:
        """Take a finished run into table and sheet."""
        record = done.record
        self.rows.append(Row(point, record.status, record.seconds, results_of(record, done.__getitem__)))
        name = next((n for n, v in record.outputs.items() if v.type.removesuffix("?") == "Image"), None)
        self.pictures.append(done[name] if name is not None else None)

    def write(self) -> None:
        """Write what there is of table and sheet."""
        from graphflow.cli.tables import rows_table

        if not self.rows:
            return
        outputs.replace_file(self.folder / TABLE, lambda p: p.write_text(as_csv(self.axes, self.rows), "utf-8"))
        header, body = as_table(self.axes, self.rows)
        rows_table(header, body)
        print(self.folder / TABLE)
        if any(self.pictures):
            cells = [(row.point.label, picture) for row, picture in zip(self.rows, self.pictures, strict=True)]
            sheet: Any = contact_sheet(cells, columns_of(self.axes))
            outputs.replace_file(self.folder / SHEET, lambda p: sheet.save(p, format="PNG"))
            print(self.folder / SHEET)
