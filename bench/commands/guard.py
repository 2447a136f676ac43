"""Running a command: an expected error is one sentence and a remedy, never a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

import typer

from bench.commands.plain import refuse, refuse_file
from bench.core.errors import BenchError


def guard(action: Callable[[], int], debug: bool) -> None:
    """Run a command; an expected error is one sentence and a remedy, and exit code 2."""
    try:
        _import_openbackdoor()
        code = action()
    except BenchError as error:
        if debug:
            traceback.print_exc()
        code = refuse(error.problem, error.remedy)
    except KeyboardInterrupt:
        typer.echo("Interrupted. What is finished is kept; the same command goes on from there.", err=True)
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 1
    except OSError as error:
        if debug:
            traceback.print_exc()
        code = refuse_file(error)
    raise typer.Exit(code)


def _import_openbackdoor() -> None:
    """Import the real OpenBackdoor when BENCH_OPENBACKDOOR asks for it: our plug-ins are then its subclasses."""
    from bench.core.packages import openbackdoor_wanted

    if openbackdoor_wanted(os.environ):
        from bench.openbackdoor import load

        load()
