"""The command that looks at this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from graphflow.cli.app import Json, StoreFolder, app


@app.command()
def doctor(
    store: StoreFolder = None,
    online: Annotated[bool, typer.Option("--online", help="ask the hub how large missing models are")] = False,
    json_: Json = False,
) -> None:
    """Check this machine: versions, devices, store, models. Exits with 1 when runs can't work."""
    import dataclasses
    import json

    from graphflow.cli.findings import findings
    from graphflow.cli.tables import checks

    found = list(findings(store, online))
    works = not any(finding.state == "bad" for finding in found)
    if json_:
        print(json.dumps({"works": works, "checks": [dataclasses.asdict(finding) for finding in found]}, indent=1))
    else:
        checks((f.state, f.name, f.found, f.todo) for f in found)
    if not works:
        raise typer.Exit(1)
