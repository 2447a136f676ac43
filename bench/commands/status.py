"""How far a run is: `bench status`."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from bench.commands.titles import told
from bench.core.errors import BenchError, RequestError
from bench.core.paths import is_folder
from bench.engine import preflight
from bench.engine.expand import Expanded, expand
from bench.engine.grid import load_grid, narrowed
from bench.engine.plan import Plan, make_plan
from bench.engine.progress import Progress, look, read_requests

SHOWN = 16  # running stages named one by one


def show_status(out: Path, grid: str | None, data: str | None, console: Console) -> int:
    """Print what is done, running, failed and left of everything that was asked for into a folder, else of a grid."""
    _print(look(plan_into(out, data, grid), out), console)
    return 0


def plan_into(out: Path, data: str | None, grid: str | None = None) -> Plan:
    """Return the plan of everything that was asked for into a folder, of `grid` where that is not known.

    Raises:
        RequestError: nothing has been run into the folder, or a grid file is not there any more.
    """
    requests = read_requests(out) or ([{"grid": grid, "changes": {}}] if grid is not None else [])
    if not requests:
        raise RequestError(f"Nothing has been run into {out}.", "Run a grid first, or name its folder with --out.")
    cells, given = Expanded(), preflight.data_folder(data)
    for request in requests:
        changes = {name: tuple(v) if isinstance(v, list) else v for name, v in request["changes"].items()}
        noted = request.get("data")
        data_dir = Path(noted) if noted and data is None and is_folder(noted) else given and given.resolve()
        with _where_it_was_asked(request.get("folder")):
            found = expand(narrowed(load_grid(request["grid"]).blocks(), changes), data_dir)
        for key, cell in found.cells.items():
            cells.add(cell, found.impossible.get(key))
    return make_plan(cells)


@contextlib.contextmanager
def _where_it_was_asked(folder: str | None) -> Iterator[None]:
    """Work in the folder that a run was started from: its relative paths are meant from there."""
    here = os.getcwd()
    if folder is None or folder == here or not is_folder(folder):
        yield
        return
    try:
        with contextlib.chdir(folder):
            yield
    except BenchError as error:
        remedy = f"{error.remedy} The run was started in {folder}."
        raise RequestError(error.problem, remedy) from error


def _print(progress: Progress, console: Console) -> None:
    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    left = progress.cells - progress.done - len(progress.failed)
    say(f"{progress.done} of {progress.cells} cells done, {len(progress.failed)} failed, {left} left")
    for reason, count in sorted(Counter(progress.failed.values()).items()):
        say(f"  failed: {count} x {reason}")
    kinds = Counter(stage.kind for stage in progress.left)
    if progress.left:
        say(f"{len(progress.left)} stages left: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()))
    for stage, owner in progress.running[:SHOWN]:
        since = max(0.0, time.time() - float(owner.get("since", time.time())))
        say(f"  running: {told(stage)} ({owner.get('host', '?')}, process {owner.get('pid', '?')}, {since:.0f} s)")
    if len(progress.running) > SHOWN:
        say(f"  and {len(progress.running) - SHOWN} more")
    if not left:
        return
    if not progress.at_work:
        say("Nobody is at work on it: give the same command again to go on.")
    elif progress.seconds is None:
        say("estimated end: not yet known")
    else:
        end = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + progress.seconds))
        workers = f"{progress.workers} workers" if progress.workers > 1 else "one worker"
        say(f"estimated end: {end}, in {_duration(progress.seconds)}, with {workers} at work now")


def _duration(seconds: float) -> str:
    hours, minutes = int(seconds // 3600), int(seconds % 3600 // 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {int(seconds % 60)} s"
