"""A sweep on the command line: a folder a combination, a table, and a labelled contact sheet."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflow import outputs
from graphflow.check import check
from graphflow.claim import Claim, known_in
from graphflow.cli.running import file_at, run_into, with_file
from graphflow.errors import Diagnostic, GraphflowError, InvalidError, Mark, UsageError, did_you_mean
from graphflow.mapped import EACH
from graphflow.sheet import contact_sheet
from graphflow.sweep import Axis, Point, Row, as_csv, as_table, columns_of, parse_axis, product, results_of
from graphflow.units import plural
from graphflow.yamlfile import typed_value

if TYPE_CHECKING:
    import PIL.Image

    from graphflow.options import Options
    from graphflow.run import Run, Runner
    from graphflow.session import Session

TABLE, SHEET = "sweep.csv", "sheet.png"
HEADING, HEADING_LENGTH = ",status,seconds", 10_000  # what the table's first line holds, and how far it is read
MOST = 8  # pictures of a list that the sheet shows


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
        graph: what the user named as the graph.
        typed: the command line.

    Raises:
        UsageError: a target is neither a parameter nor an input, or something in the out folder would be replaced that
            graphflow did not write.
        InvalidError: values are not allowed; each is told as what stands after ``--sweep``.
    """

    def __init__(
        self, session: Session, given: Mapping[str, str], options: Options, texts: Sequence[str], out: Path | None,
        metadata: bool, quiet: bool, graph: str,
        typed: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.session, self.given, self.options = session, dict(given), options
        self.metadata, self.quiet, self.typed = metadata, quiet, typed
        self.axes = [parse_axis(text) for text in texts]
        for axis in self.axes:
            self.check_target(axis)
        self.points = product(self.axes)
        self.runners = self.ready()
        self.folder = out or outputs.next_folder(Path("runs"), f"{session.graph.name}-sweep")
        width = max(3, len(str(len(self.points))))
        folders = [self.folder / f"{number:0{width}d}" for number in range(1, len(self.points) + 1)]
        self.places = [outputs.claimed(f, r, graph) for f, r in zip(folders, self.runners, strict=True)]
        self.earlier = 0  # combinations of the sweep that was here before
        self.check_table()
        self.rows: list[Row] = []
        # Of each row, with the files that a map made them from; several where the output is a list.
        self.pictures: list[list[tuple[str, PIL.Image.Image | None]]] = []

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

    def ready(self) -> list[Runner]:
        """A runner for each combination; all values that are wrong are told at once, as parts of the sweep."""
        runners: list[Runner] = []
        problems: list[Diagnostic] = []
        for point in self.points:
            try:
                runner = self.session_at(point).runner({**self.given, **point.inputs}, options=self.options)
                runner.plan()  # a value that an edge brings to a parameter is checked there
                runners.append(runner)
            except InvalidError as error:
                typed = {f"-i {name}": f"--sweep {name}" for name in point.inputs}
                problems += [
                    replace(d, mark=replace(d.mark, file=typed.get(d.mark.file, d.mark.file)))
                    for d in error.diagnostics
                ]
        if problems:
            raise InvalidError(dict.fromkeys(problems))
        return runners

    def check_table(self) -> None:
        """See that table and sheet replace nothing but those of an earlier sweep, which the table's heading tells."""
        table = self.folder / TABLE
        known = frozenset({TABLE, SHEET}) if table.is_file() and HEADING in _first_line(table) else frozenset()
        if known:
            with table.open(encoding="utf-8", errors="replace", newline="") as file, suppress(csv.Error):
                self.earlier = sum(1 for _ in csv.reader(file)) - 1
        Claim(self.folder, known, self.needed()).check((TABLE, SHEET))

    def needed(self) -> dict[Path, str]:
        """The user's own files that the inputs of any combination lie in."""
        return {path: name for place in self.places for path, name in place.needed.items()}

    def session_at(self, point: Point) -> Session:
        """The session with a combination's parameters."""
        if not point.settings:
            return self.session
        old = self.session
        prefix = f"{EACH}/" if old.graph.spec.mapped else ""
        swept = {f"{prefix}{target}": value for target, value in point.settings.items()}
        marks = {f"{prefix}{target}": Mark(f"--sweep {target}") for target in point.settings}
        graph = check(old.graph.spec, old.models, old.models_folder, {**old.graph.overrides, **swept}, marks)
        return replace(old, graph=graph, wirings={})

    def run(self) -> None:
        """Run all combinations, write table and sheet, and print the table.

        Raises:
            GraphflowError: a combination failed; with ``--keep-going`` after the others have run.
        """
        failed: list[str] = []
        try:
            for number, (point, runner, place) in enumerate(
                zip(self.points, self.runners, self.places, strict=True), 1
            ):
                failed += self.run_one(number, point, runner, place)
        finally:
            self.write()
        if failed:
            count = plural(len(failed), "failure")
            raise GraphflowError("\n".join([f"{count}, the others are done:", *failed]))

    def run_one(self, number: int, point: Point, runner: Runner, place: Claim) -> list[str]:
        """Run a combination; returns a line for each failure, which ``--keep-going`` outlives."""
        if not self.quiet:
            print(f"[{number}/{len(self.points)}] {point.label}")
        try:
            with outputs.out_folder(place.folder):
                done, _ = run_into(runner, place, self.metadata, self.quiet, alone(self.typed, point))
        except GraphflowError as error:
            self.rows.append(Row(point, "failed", 0.0))
            self.pictures.append([])
            if not self.options.keep_going:
                raise
            return [f"  {point.label}: {error}"]
        self.enter(point, done)
        return [f"  {point.label}: {with_file(runner, name)}: {text}" for name, text in done.failures.items()]

    def enter(self, point: Point, done: Run) -> None:
        """Take a finished run into table and sheet."""
        record = done.record
        self.rows.append(Row(point, record.status, record.seconds, results_of(record, done.__getitem__)))
        self.pictures.append(_pictures_of(done))

    def write(self) -> None:
        """Write what there is of table and sheet."""
        from graphflow.cli.tables import rows_table

        if not self.rows or not self.folder.is_dir():  # a folder that nothing was written into is gone again
            return
        self.clear()
        outputs.replace_file(self.folder / TABLE, lambda p: p.write_text(as_csv(self.axes, self.rows), "utf-8"))
        header, body = as_table(self.axes, self.rows)
        rows_table(header, body)
        print(self.folder / TABLE)
        if any(self.pictures):
            sheet: Any = self.sheet()
            outputs.replace_file(self.folder / SHEET, lambda p: sheet.save(p, format="PNG"))
            print(self.folder / SHEET)
        else:
            (self.folder / SHEET).unlink(missing_ok=True)  # of an earlier sweep

    def clear(self) -> None:
        """Remove what an earlier sweep of more combinations left."""
        here = {place.folder for place in self.places}
        for folder in self.folder.iterdir():
            of_sweep = re.fullmatch(r"\d{3,}", folder.name) and 1 <= int(folder.name) <= self.earlier
            if of_sweep and folder.is_dir() and folder not in here:
                Claim(folder, known_in(folder), self.needed()).clear()

    def sheet(self) -> PIL.Image.Image:
        """The contact sheet; where the output is a list, a row for each combination."""
        several = max(map(len, self.pictures))
        cells: list[tuple[str, PIL.Image.Image | None]] = []
        for row, pictures in zip(self.rows, self.pictures, strict=True):
            for position in range(several):
                file, picture = pictures[position] if position < len(pictures) else ("", None)
                words = [row.point.label, *[f"[{position}]"] * (several > 1), *[file] * bool(file)]
                cells.append((" ".join(words), picture))
        return contact_sheet(cells, several if several > 1 else columns_of(self.axes))


def alone(typed: Sequence[str], point: Point) -> list[str]:
    """The command line that runs one combination of a sweep, without the sweep and its folder."""
    out: list[str] = []
    rest = iter(typed)
    for word in rest:
        if word in ("--sweep", "--out"):
            next(rest, None)
        elif not word.startswith(("--sweep=", "--out=")):
            out.append(word)
    for name, value in point.settings.items():
        out += ["--set", f"{name}={typed_value(value)}"]
    for name, value in point.inputs.items():  # which are read by their type: text stands as it is
        out += ["-i", f"{name}={value if isinstance(value, str) else typed_value(value)}"]
    return out


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(HEADING_LENGTH)


def _pictures_of(done: Run) -> list[tuple[str, PIL.Image.Image | None]]:
    """The first output that is a picture, or the first few of a list of pictures; None for one that failed.

    Of a mapped graph the file that it was made from stands before each.
    """
    for name, entry in done.record.outputs.items():
        if entry.type.removesuffix("?") == "Image":
            return [("", done[name])]
        if entry.type == "list[Image]":
            found = dict(itertools.islice(done.elements(name), MOST))
            positions = range(max(found, default=-1) + 1)
            return [(file_at(done.runner, EACH, p) if done.record.mapped else "", found.get(p)) for p in positions]
    return []
