"""The command ``graphflow``. Exit codes:

0 done · 1 a node failed · 2 wrong command line · 3 invalid graph, preset or input value · 4 `plan --check`, `run
--only`: something would run · 5 a model or an input file is missing · 130 interrupted
"""

from __future__ import annotations

import gc
import os
import sys
from copy import copy
from typing import Any

from graphflow.garbage import paused

INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit with its code."""
    code = run(sys.argv[1:])
    # A last look for garbage among the objects of all modules would take a quarter of a cached run.
    gc.freeze()
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run a command; returns the exit code. Errors that graphflow raises on purpose are printed without a traceback."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:  # while the command line itself is still being imported: nothing has begun
        return INTERRUPTED


def _run(arguments: list[str]) -> int:
    with paused():
        import typer

        from graphflow.errors import Cancelled, GraphflowError

        debug = "--debug" in arguments
        arguments = [a for a in arguments if a != "--debug"]
        command = _command(arguments[0] if arguments else "")
    try:
        result = command.main(arguments, prog_name="graphflow", standalone_mode=False, obj=tuple(arguments))
        # typer turns Ctrl-C, and an exit with a code, into a returned code
        return _interrupted() if result == INTERRUPTED else int(result or 0)
    except GraphflowError as error:
        if debug:
            import traceback

            traceback.print_exc()
        else:
            print(f"error: {error}" if error.exit_code != 3 else error, file=sys.stderr)
        return error.exit_code
    except _wrong_use() as error:
        error.show()  # type: ignore[attr-defined]
        return 2
    except (KeyboardInterrupt, Cancelled, typer.Abort):
        return _interrupted()
    except BrokenPipeError:
        # The reader (head, less) has gone; closing stdout quietly keeps Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _command(name: str) -> Any:
    """The command line; when `name` is a command, with that one alone: building all takes longer than a plan."""
    import typer

    from graphflow.cli.app import app

    named = [c for c in app.registered_commands if c.callback is not None and name in (c.name, c.callback.__name__)]
    if named:
        app = copy(app)
        app.registered_commands, app.registered_groups = named, []
        app.callback()(lambda: None)  # else a single command would do without its name
    return typer.main.get_command(app)


def _interrupted() -> int:
    print("interrupted; finished nodes are stored, the same command continues", file=sys.stderr)
    return INTERRUPTED


def _wrong_use() -> type[Exception]:
    """The base of what typer raises for a wrong command line; newer versions carry a click of their own."""
    import typer

    return next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
