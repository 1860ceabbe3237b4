"""The command ``graphflow``. Exit codes:

0 done · 1 a node failed · 2 wrong command line · 3 invalid graph, preset or input value · 4 `plan --check`: something
would run · 5 a model or an input file is missing · 130 interrupted
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command; returns the exit code. Errors that graphflow raises on purpose are printed without a traceback."""
    import click

    from graphflow.cli.app import app
    from graphflow.errors import Cancelled, GraphflowError

    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        import typer

        command = typer.main.get_command(app)
        result = command.main(arguments, prog_name="graphflow", standalone_mode=False)
        return int(result) if isinstance(result, int) else 0
    except GraphflowError as error:
        if debug:
            raise
        print(f"error: {error}" if error.exit_code != 3 else error, file=sys.stderr)
        return error.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, Cancelled, click.Abort):
        print("interrupted; finished nodes are stored, the same command continues", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; closing stdout quietly keeps Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
