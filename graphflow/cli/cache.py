"""Commands about the store: what is in it, how large it may be, and what must stay."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from graphflow.cli.app import Json, StoreFolder, app
from graphflow.errors import UsageError
from graphflow.units import duration, parse_duration, parse_size, plural, size

if TYPE_CHECKING:
    from graphflow.store import Collected, Result, Store

T = TypeVar("T")
cache_app = typer.Typer(no_args_is_help=True, help="The store of results.", rich_markup_mode=None)
app.add_typer(cache_app, name="cache")
_SHOWN = 20
DRAWINGS = "report.view"  # what reports remember; listed only when it is asked for


def _open(folder: Path | None) -> Store:
    from graphflow.store import Store, default_folder

    store = Store(folder or default_folder())
    _warn(store)
    return store


def _warn(store: Store) -> None:
    for warning in store.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    store.warnings.clear()


@cache_app.command("ls")
def cache_ls(
    store: StoreFolder = None,
    kind: Annotated[str | None, typer.Option("--kind", help="only results of this kind")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="only the latest")] = None,
    json_: Json = False,
) -> None:
    """List stored results, latest first."""
    from graphflow.cli.tables import rows_table

    opened = _open(store)
    results = [r for r in opened.all_results(kind) if kind is not None or r.kind != DRAWINGS][:limit]
    pinned = _pins_by_key(opened)
    if json_:
        print(json.dumps([_result_json(r, pinned.get(r.key, [])) for r in results], indent=1))
        return
    rows = []
    for r in results:
        when = datetime.datetime.fromtimestamp(r.created).isoformat(" ", "seconds")
        state = ", ".join([*(f"pinned: {name}" for name in pinned.get(r.key, [])), *(["evicted"] if r.evicted else [])])
        rows.append((r.key[:12], when, duration(r.seconds), size(r.bytes), f"{r.graph}.{r.node}", r.kind, state))
    rows_table(("key", "computed", ">took", ">size", "node", "kind", ""), rows)


@cache_app.command("du")
def cache_du(store: StoreFolder = None) -> None:
    """Say how much the store holds, by kind of value, and how much it may."""
    from graphflow.cli.tables import rows_table
    from graphflow.store import default_budget

    opened = _open(store)
    print(opened.folder)
    rows_table(("codec", ">values", ">size"), [(codec, str(n), size(total)) for codec, n, total in opened.usage()])
    total, budget = opened.total_bytes(), default_budget(opened.folder)
    print(f"{size(total)} with the index, {total / max(budget, 1):.0%} of the budget of {size(budget)}")


@cache_app.command("gc")
def cache_gc(
    store: StoreFolder = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="SIZE", help="bytes to keep, such as 10GiB; default: the budget")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="remove results unused for so long, such as 30d")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
) -> None:
    """Remove what nobody needs, and the results that are cheapest to compute again until the budget is kept."""
    from graphflow.store import default_budget

    opened = _open(store)
    limit = default_budget(opened.folder) if budget is None else _parsed("--budget", parse_size, budget)
    age = None if older_than is None else _parsed("--older-than", parse_duration, older_than)
    results = {r.key: r for r in opened.all_results()}
    done = opened.collect(limit, age, dry_run)
    if done.busy:
        print("another process is collecting this store")
        raise typer.Exit(1)
    _print_collected(done, results, dry_run)


@cache_app.command("verify")
def cache_verify(store: StoreFolder = None) -> None:
    """Read everything that is stored; what is damaged is dropped and will be computed again."""
    opened = _open(store)
    found = list(opened.verify())
    print("\n".join(found) or "all stored values are whole")
    _warn(opened)
    if found:
        raise typer.Exit(1)


@cache_app.command("pin")
def cache_pin(
    what: Annotated[str, typer.Argument(metavar="RUN-OR-KEY", help="an out folder, a run.json, a PNG, or a key")],
    store: StoreFolder = None,
    name: Annotated[str | None, typer.Option("--name", help="what the pin is called; default: that of the run")] = None,
) -> None:
    """Keep all results of a run, or one by the beginning of its key, whatever the budget."""
    opened = _open(store)
    if Path(what).exists():
        keys, inputs = _run_values(Path(what))
        chosen = name or Path(what).resolve().stem
    else:
        keys, inputs = [opened.find_key(what)], []
        chosen = name or keys[0][:12]
    opened.pin([*keys, *inputs], chosen)
    gone = [key for key in keys if (found := opened.result(key)) is None or found.evicted]
    print(f"pinned as '{chosen}': {plural(len(keys), 'result')}, {plural(len(inputs), 'input')}")
    if gone:
        print(f"{plural(len(gone), 'result')} of them not in the store (any more): run the graph again to have all")


@cache_app.command("unpin")
def cache_unpin(
    name: Annotated[str, typer.Argument(help="what the pin is called; cache pins lists them")],
    store: StoreFolder = None,
) -> None:
    """Remove a pin; what it held stays until the budget asks for its room."""
    print(f"unpinned '{name}': {plural(_open(store).unpin(name), 'entry').replace('entrys', 'entries')}")


@cache_app.command("pins")
def cache_pins(store: StoreFolder = None) -> None:
    """List the pins."""
    from graphflow.cli.tables import rows_table

    pins = _open(store).pins()
    rows_table(("pin", ">entries"), [(name, str(len(keys))) for name, keys in pins.items()])


@cache_app.command("clear")
def cache_clear(
    store: StoreFolder = None, yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False
) -> None:
    """Remove all stored results, pins included."""
    opened = _open(store)
    if yes or _confirmed(f"remove everything in {opened.folder}?"):
        print(f"{size(opened.clear())} freed")
    else:
        print("not removed")


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question)
    except typer.Abort as error:  # Ctrl-C and the end of the input look the same from outside
        if isinstance(error.__context__, KeyboardInterrupt):
            raise
        raise UsageError("not removed; use --yes") from error


def _run_values(path: Path) -> tuple[list[str], list[str]]:
    """The keys of a run's nodes, and the digests of its inputs."""
    from graphflow.provenance import read

    record = read(path)
    if record is None:
        raise UsageError(f"{path} was not made by graphflow: it holds no record")
    keys = [node.key for node in record.nodes.values() if node.key is not None]
    if not keys:
        raise UsageError(f"{path}: the run has no results")
    digests = [digest for i in record.inputs.values() for digest in (i.items or (i.digest,))]
    return keys, [digest for digest in digests if digest is not None]


def _pins_by_key(store: Store) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, keys in store.pins().items():
        for key in keys:
            found.setdefault(key, []).append(name)
    return found


def _result_json(result: Result, pins: list[str]) -> dict[str, object]:
    fields = ("key", "kind", "graph", "node", "seconds", "bytes", "created", "used", "evicted")
    return {**{f: getattr(result, f) for f in fields}, "pins": pins}


def _parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def _print_collected(done: Collected, results: dict[str, Result], dry_run: bool) -> None:
    for keys, past, future in ((done.results, "removed", "would remove"), (done.evicted, "evicted", "would evict")):
        for key in keys[:_SHOWN]:
            r = results.get(key)
            print(
                f"{future if dry_run else past}  {key[:12]}"
                + (f"  {size(r.bytes):>10}  {r.graph}.{r.node}" if r else "")
            )
        if len(keys) > _SHOWN:
            print(f"… and {len(keys) - _SHOWN} more")
    for path in done.leftovers[:_SHOWN]:
        print(f"{'would remove' if dry_run else 'removed'}  {path}")
    counts = f"{plural(len(done.results), 'result')} removed, {len(done.evicted)} evicted, "
    counts += f"{plural(done.blobs, 'value')} and {plural(len(done.leftovers), 'leftover')} gone"
    print(f"{'dry run: ' if dry_run else ''}{counts}; {size(done.freed)} freed, {size(done.left)} left")
