"""Commands about what is there: graphs."""

from __future__ import annotations

from graphflow.cli.app import app


@app.command()
def graphs() -> None:
    """List the shipped graphs."""
    from graphflow.spec import load_spec, shipped_graphs

    found = shipped_graphs()
    width = max(map(len, found), default=0)
    for name, path in found.items():
        print(f"{name:<{width}}  {load_spec(path).title}")
