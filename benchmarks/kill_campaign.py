"""Kill processes at random moments while they run graphs on one store; nothing may be lost, wrong or blocked.

    python benchmarks/kill_campaign.py --kills 200 --processes 4

Some processes run one graph with ever new seeds, all the same seeds, so that they contend for every node; one collects
the store with small budgets. Each is killed (SIGKILL) at a random moment and begun anew. Afterwards

- `store.verify()` must find nothing, and collecting must leave no file, lease or owner of a dead process;
- running everything again must give, node by node, what an undisturbed run on a fresh store gives;
- that must not wait for anybody.

Prints figures, and ends with exit code 1 if anything of this does not hold. Needs fork (Linux, macOS).
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graphflow
from graphflow.errors import GraphflowError
from graphflow.events import Event, Logged
from graphflow.session import Session
from graphflow.store import Store, leftovers

NODES = '''
"""Tiny nodes for the campaign: pictures, long and short JSON, a folder, work in steps with a checkpoint."""

import random
import time

import PIL.Image

from graphflow.node import Context, Field, Node, Ports
from graphflow.ports import Image, Table, Text, Weights


class Noise(Node, kind="kill.noise", version=1):
    """A picture of noise, in a few steps."""

    cache = "always"

    salt: int = Field(0, description="tells pictures of a seed apart")

    class In(Ports):
        seed: int

    class Out(Ports):
        image: Image

    def run(self, x: In, ctx: Context) -> Out:
        source = random.Random(f"{x.seed} {self.salt}")
        for _ in ctx.steps(range(3)):
            time.sleep(0.001)
        return self.Out(image=PIL.Image.frombytes("RGB", (48, 48), source.randbytes(48 * 48 * 3)))


class Blend(Node, kind="kill.blend", version=1):
    """Two pictures in one."""

    cache = "always"

    class In(Ports):
        one: Image
        two: Image

    class Out(Ports):
        image: Image
        mean: float

    def run(self, x: In, ctx: Context) -> Out:
        image = PIL.Image.blend(x.one, x.two, 0.5)
        return self.Out(image=image, mean=sum(image.tobytes()) / len(image.tobytes()))


class Rows(Node, kind="kill.rows", version=1):
    """JSON that is too long for the index."""

    class In(Ports):
        image: Image

    class Out(Ports):
        rows: list[Text]
        table: Table

    def run(self, x: In, ctx: Context) -> Out:
        data = x.image.tobytes()
        rows = [data[i : i + 48].hex() for i in range(0, len(data), 48)]
        return self.Out(rows=rows, table=[{"row": i, "hex": row * 8} for i, row in enumerate(rows)])


class Fold(Node, kind="kill.fold", version=1):
    """A folder of files, made with a checkpoint."""

    class In(Ports):
        rows: list[Text]

    class Out(Ports):
        weights: Weights["unet"]

    def run(self, x: In, ctx: Context) -> Out:
        done = ctx.checkpoint / "done"
        folder = ctx.folder() / "weights"
        folder.mkdir()
        for i, row in enumerate(x.rows[:4]):
            (folder / f"{i}.txt").write_text(row)
            done.write_text(str(i))
            time.sleep(0.001)
        return self.Out(weights=folder)


class Sum(Node, kind="kill.sum", version=1):
    """Numbers in one text."""

    class In(Ports):
        numbers: list[float]

    class Out(Ports):
        text: Text

    def run(self, x: In, ctx: Context) -> Out:
        return self.Out(text=" ".join(f"{n:.6f}" for n in x.numbers))
'''

WIDTH = 6


def graph_text() -> str:
    """`WIDTH` branches from one seed, joined at the end."""
    lines = ["graphflow: 1", "inputs: {seed: int}", "nodes:"]
    for i in range(WIDTH):
        lines.append(f"  n{i}: {{uses: kill.noise, in: {{seed: inputs.seed}}, with: {{salt: {i}}}}}")
        lines.append(f"  b{i}: {{uses: kill.blend, in: {{one: n{i}.image, two: n{(i + 1) % WIDTH}.image}}}}")
        lines.append(f"  r{i}: {{uses: kill.rows, in: {{image: b{i}.image}}}}")
        lines.append(f"  f{i}: {{uses: kill.fold, in: {{rows: r{i}.rows}}}}")
    lines.append(f"  sum: {{uses: kill.sum, in: {{numbers: [{', '.join(f'b{i}.mean' for i in range(WIDTH))}]}}}}")
    weights = ", ".join(f"f{i}: f{i}.weights, r{i}: r{i}.table" for i in range(WIDTH))
    lines.append(f"outputs: {{image: b0.image, text: sum.text, {weights}}}")
    return "\n".join(lines) + "\n"


class Campaign:
    """The processes and what they report: one line each in `log`, appended at once."""

    def __init__(self, folder: Path, processes: int, seed: int) -> None:
        self.folder, self.store, self.log = folder, folder / "store", folder / "log"
        self.chance = random.Random(seed)
        (folder / "nodes.py").write_text(NODES)
        (folder / "graph.yaml").write_text(graph_text())
        self.log.write_text("")
        self.jobs: list[Callable[[], None]] = [self.run_graphs] * (processes - 1) + [self.collect]
        self.kills = 0

    def session(self, store: Path) -> Session:
        """The graph, ready to run."""
        return graphflow.load(
            str(self.folder / "graph.yaml"), store=store, nodes=[self.folder / "nodes.py"], device="cpu"
        )

    def report(self, what: str) -> None:
        """Append a line; lines this short are written whole or not at all."""
        with self.log.open("a") as file:
            file.write(what + "\n")

    def reported(self, what: str) -> list[str]:
        """What was reported under a name."""
        lines = [line.partition(" ") for line in self.log.read_text().splitlines()]
        return [rest for name, _, rest in lines if name == what]

    # --- the processes ------------------------------------------------------------------------------------------

    def run_graphs(self) -> None:
        """Run the graph with seed after seed, beginning with the first that nobody has finished."""
        session = self.session(self.store)
        self._report_takeovers(session.store)
        while True:
            seed = max(map(int, self.reported("finished")), default=-1) + 1
            session.runner({"seed": seed}, self._report_waits).run()
            self.report(f"finished {seed}")

    def collect(self) -> None:
        """Collect again and again, with budgets that are too small for what is there.

        This collector does not spare what live runs use, as if they had stalled for an hour: they lose values all the
        time, and must compute them again.
        """
        leftovers.GRAIN = -3600
        store = Store(self.store)
        chance = random.Random(os.getpid())
        while True:
            done = store.collect(chance.choice([None, 0, 200_000, 1_000_000]))
            self.report(f"collected {done.blobs}")
            time.sleep(chance.uniform(0, 0.5))

    def _report_takeovers(self, store: Store) -> None:
        lease = store.lease

        def reporting(*arguments: Any) -> Any:
            found = lease(*arguments)
            if found.taken_over:
                self.report(f"taken-over {found.key}")
            return found

        store.lease = reporting  # type: ignore[method-assign]

    def _report_waits(self, event: Event) -> None:
        if isinstance(event, Logged) and event.message.startswith(("waits", "warning")):
            self.report(f"{event.message}")

    # --- the campaign -------------------------------------------------------------------------------------------

    def fork(self, job: Callable[[], None]) -> int:
        """Begin a process."""
        pid = os.fork()
        if pid:
            return pid
        try:
            job()
        except BaseException as error:
            self.report(f"error {type(error).__name__}: {error}")
        os._exit(1)

    def kill(self, kills: int) -> None:
        """Kill as many processes, each followed by another, and at last all of them."""
        running = {self.fork(job): job for job in self.jobs}
        while self.kills < kills and not self.reported("error"):
            time.sleep(self.chance.uniform(0, 0.25))
            pid = self.chance.choice(list(running))
            job = running.pop(pid)
            self._end(pid)
            running[self.fork(job)] = job
        for pid in running:
            self._end(pid)

    def _end(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self.kills += os.WIFSIGNALED(status)

    def check(self) -> list[str]:
        """What is wrong with the store after all."""
        problems = [f"a process failed: {line}" for line in self.reported("error")]
        store = Store(self.store)
        problems += [f"verify: {line}" for line in [*store.warnings, *store.verify()]]
        store.collect()
        for table, expected in (("leases", 0), ("runs", 0), ("owners", 1)):
            rows = store.index.rows(f"SELECT * FROM {table}")
            if len(rows) != expected:
                problems.append(f"{len(rows)} {table} of dead processes are left")
        problems += [f"left in tmp: {p.name}" for p in (self.store / "tmp").iterdir()]
        store.close()
        return problems

    def compare(self) -> list[str]:
        """Where the store's results differ from those of undisturbed runs on a fresh store."""
        waits: list[str] = []

        def emit(event: Event) -> None:
            if isinstance(event, Logged) and event.message.startswith("waits"):
                waits.append(event.message)

        problems = []
        for seed in range(max(map(int, self.reported("finished")), default=-1) + 2):
            found = [outcome(self.session(store), seed, emit) for store in (self.store, self.folder / "fresh")]
            problems += [f"seed {seed}: {name} differs" for name in found[0] if found[0][name] != found[1][name]]
        return problems + waits


def outcome(session: Session, seed: int, emit: Callable[[Event], None]) -> dict[str, Any]:
    """The digests of all values of a run, and the outputs themselves."""
    run = session.runner({"seed": seed}, emit).run()
    found: dict[str, Any] = {
        f"{node}.{port}": value.digest
        for node, entry in run.record.nodes.items()
        for port, value in entry.outputs.items()
    }
    for name in run.record.outputs:
        value = run[name]
        if isinstance(value, Path):
            value = {p.name: p.read_bytes() for p in value.iterdir()}
        found[name] = value.tobytes() if hasattr(value, "tobytes") else value
    session.store.close()
    return found


def main() -> int:
    """Run the campaign; print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the moments; what they hit is up to the machine")
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), arguments.processes, arguments.seed)
        campaign.kill(arguments.kills)
        seconds = time.perf_counter() - began
        problems = campaign.check()
        try:
            problems += campaign.compare()
        except GraphflowError as error:
            problems.append(f"the rerun failed: {error}")
        removed = sum(map(int, campaign.reported("collected")))
        print(
            f"{campaign.kills} kills in {seconds:.1f} s among {arguments.processes} processes: "
            f"{len(campaign.reported('finished'))} graphs of {4 * WIDTH + 1} nodes finished, "
            f"{len(campaign.reported('taken-over'))} leases taken over, {len(campaign.reported('waits'))} waits, "
            f"{removed} values collected beside them"
        )
    print("\n".join(problems) or "verify clean; a rerun is bit-equal to undisturbed runs and waits for nobody")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
