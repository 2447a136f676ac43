"""What the command line asks for: a request becomes a plan, a run, tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.commands.display import Display
from bench.commands.memory_plan import budgets_of, show_memory
from bench.core.errors import RequestError, unknown
from bench.engine import preflight
from bench.engine.environment import describe
from bench.engine.executors import Executor
from bench.engine.expand import expand
from bench.engine.grid import load_grid, narrowed
from bench.engine.plan import Plan, make_plan
from bench.engine.runner import Report, Runner
from bench.engine.work import Machine

ENGINES = ("local", "inline")


@dataclass(frozen=True)
class Request:
    """One call of `bench run` or `bench plan`."""

    grid: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    out: Path | None = None
    data: str | None = None
    device: str = "auto"
    engine: str = "local"
    workers: int | None = None
    keep_weights: bool = False
    retry_failed: bool = False
    memory: str | None = None  # of `bench plan`: sizes to fit, 24GB,80GB
    length: int | None = None  # of `bench plan`: tokens of a padded batch


def folder_of(grid: str | None, out: Path | None) -> Path:
    """Return the output folder: the one given, or runs/GRID."""
    if out is None and grid is None:
        raise RequestError("Neither --out nor --grid is given.", "Name the folder of a run with --out.")
    return out if out is not None else Path("runs") / Path(grid or "").stem


def plan_of(request: Request) -> Plan:
    """Return the plan of a request; nothing is run."""
    blocks = narrowed(load_grid(request.grid).blocks(), request.changes)
    plan = make_plan(expand(blocks, preflight.data_folder(request.data)))
    if not plan.cells:
        raise RequestError(f"Grid {request.grid!r} has no cell.", "Give each axis at least one entry.")
    return plan


def show_plan(request: Request, console: Console) -> int:
    """Print what a grid holds, what sharing saves and what memory its trainings take."""
    budgets = budgets_of(request.memory, request.length)
    plan = plan_of(request)
    counts = plan.summary()
    console.print(f"grid {request.grid}: {counts['cells']} cells, {counts['stages']} unique stages", highlight=False)
    console.print(
        f"trainings: {counts['trainings']} instead of {counts['trainings_alone']}, "
        f"{counts['trainings_saved']} saved by sharing",
        highlight=False,
    )
    for name, count in counts.items():
        if name.startswith("stages_"):
            console.print(f"  {name.removeprefix('stages_'):9} {count}", highlight=False)
    if plan.impossible:
        console.print(f"{len(plan.impossible)} cells cannot be:", highlight=False)
        for reason in sorted({str(error) for error in plan.impossible.values()}):
            console.print(f"  {reason}", markup=False, highlight=False)
    show_memory(plan, budgets, request.length, console)
    return 0


def run_grid(request: Request, console: Console) -> int:
    """Run a grid and write its tables; return the exit code."""
    if request.engine not in ENGINES:
        raise unknown("engine", request.engine, ENGINES)
    if request.workers is not None and request.workers < 1:
        raise RequestError(f"--workers is {request.workers}: at least 1 is needed.", "Leave it out for the default.")
    out = folder_of(request.grid, request.out)
    data_dir = preflight.data_folder(request.data)
    plan = plan_of(request)
    devices = preflight.choose_device(request.device)
    report = _run(request, plan, out, data_dir, devices, console)
    return _close(report, out, console)


def _run(
    request: Request, plan: Plan, out: Path, data_dir: Path | None, devices: list[str], console: Console
) -> Report:
    with Display(console) as display:
        settings = {"keep_weights": request.keep_weights, "retry_failed": request.retry_failed, "listener": display}
        environment = describe()
        runner = Runner(plan, out, environment, **settings)
        todo = runner.todo()
        away = preflight.unreachable(plan, todo.stages, data_dir)
        hopeless = preflight.all_fail(plan, away)
        if hopeless is not None:
            raise RequestError(hopeless.problem, hopeless.remedy)
        preflight.check_folder(out)
        if away:
            plan = Plan(plan.cells, _without(plan.stages, away), {**plan.impossible, **away})
            runner = Runner(plan, out, environment, **settings)
            todo = runner.todo()
        executor = _executor(request, out, Machine(data_dir, devices[0]), devices, len(todo.stages))
        try:
            return runner.run(executor, todo)
        finally:
            executor.close()


def _without(stages: Mapping[str, Any], away: Mapping[str, Any]) -> dict[str, Any]:
    return {key: chain for key, chain in stages.items() if key not in away}


def _executor(request: Request, out: Path, machine: Machine, devices: list[str], stages: int) -> Executor:
    from bench.engine.executors.inline import InlineExecutor
    from bench.engine.executors.local import LocalExecutor

    if request.engine == "inline" or stages == 0:
        return InlineExecutor(out / "store", machine)
    workers = request.workers or preflight.default_workers(devices)
    return LocalExecutor(out / "store", machine, workers, devices if devices != ["cpu"] else ())


def _close(report: Report, out: Path, console: Console) -> int:
    from bench.commands.publish import write_tables

    plain = {"markup": False, "highlight": False}
    console.print(f"{report.executed} stages executed", **plain)
    console.print(f"{report.done} of {report.cells} cells done, {len(report.failed)} failed", **plain)
    for reason in sorted(set(report.failed.values())):
        count = sum(text == reason for text in report.failed.values())
        console.print(f"  {count} x {reason}", **plain)
    for path in write_tables(out, out / "tables"):
        console.print(f"table: {path}", **plain)
    return 1 if report.failed else 0
