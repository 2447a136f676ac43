"""What the command line asks for: a request becomes a plan, a run, tables."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.commands.display import Display
from bench.commands.estimated import Estimated, place_of, show_estimate
from bench.commands.memory_plan import budgets_of, show_memory
from bench.commands.shard_plan import show_shards
from bench.core.errors import RequestError, unknown
from bench.engine import preflight, progress, upkeep
from bench.engine.environment import describe
from bench.engine.executors import Executor
from bench.engine.expand import expand
from bench.engine.grid import load_grid, narrowed
from bench.engine.plan import Plan, make_plan
from bench.engine.plugins import value_of
from bench.engine.runner import Report, Runner
from bench.engine.sharding import groups_of, most_shards
from bench.engine.store import UnwritableError
from bench.engine.work import Machine

ENGINES = ("local", "inline", "ray", "slurm")
GPU_GANG = 16  # trainings that share their passes over one backbone; a CPU core is busy with one
INTERRUPTED = 130  # the exit code of a run that was stopped from the keyboard


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
    deterministic: bool = False
    address: str | None = None
    gpus_per_worker: float = 1.0
    slurm: tuple[str, ...] = ()
    gang: int | None = None
    memory: str | None = None  # of `bench plan`: sizes to fit, 24GB,80GB; of `bench run`: one, of a GPU
    length: int | None = None  # of `bench plan`: tokens of a padded batch
    calibrate: bool = True


def folder_of(grid: str | None, out: Path | None) -> Path:
    """Return the output folder: the one given, or runs/GRID.

    Raises:
        RequestError: neither is given, or the grid's file has a name that is none of a folder.
    """
    if out is None and grid is None:
        raise RequestError("Neither --out nor --grid is given.", "Name the folder of a run with --out.")
    name = Path(grid or "").stem
    if out is None and name in ("", ".", ".."):
        raise RequestError(f"Grid {grid!r} gives no name to a folder.", "Name the folder of the run with --out.")
    return out if out is not None else Path("runs") / name


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
    place_of(request, plan)  # a wrong one is refused before anything is said
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
    show_shards(plan, budgets, request.length, console)
    show_estimate(request, plan, console)
    return 0


def run_grid(request: Request, console: Console) -> int:
    """Run a grid and write its tables; return the exit code, after a word on a disk that is full or read-only."""
    try:
        return carry_out(request, console)
    except UnwritableError as error:
        console.print(f"Error: {error.problem} Nothing that was finished is lost.", markup=False, highlight=False)
        console.print(f"Remedy: {error.remedy}", markup=False, highlight=False)
        return 1


def carry_out(request: Request, console: Console) -> int:
    """Run a grid, write its tables and return the exit code; raise UnwritableError on a full or read-only disk."""
    _check(request)
    out = folder_of(request.grid, request.out)
    data_dir = preflight.data_folder(request.data)
    plan = plan_of(request)
    devices = ["cuda:0"] if _elsewhere(request) else preflight.choose_device(request.device)
    estimated = Estimated(request, plan, out, data_dir, devices)
    report = _run(request, plan, out, data_dir, devices, console, estimated)
    estimated.tell(report, console)
    return _close(report, out, console)


def _elsewhere(request: Request) -> bool:
    """Tell whether the workers are on machines with GPUs that this one may lack."""
    return request.engine in ("ray", "slurm") and request.device.startswith("cuda")


def _check(request: Request) -> None:
    if request.engine not in ENGINES:
        raise unknown("engine", request.engine, ENGINES)
    if request.workers is not None and request.workers < 1:
        raise RequestError(f"--workers is {request.workers}: at least 1 is needed.", "Leave it out for the default.")
    if request.gang is not None and request.gang < 1:
        raise RequestError(f"--gang is {request.gang}: at least 1 is needed.", "Leave it out for the default.")
    if not 0 < request.gpus_per_worker <= 64:
        raise RequestError(f"--gpus-per-worker is {request.gpus_per_worker:g}: it is above 0.", "Give 0.25 or 1, say.")
    for given, option, engine in (
        (request.address, "--address", "ray"),
        (request.gpus_per_worker != 1.0, "--gpus-per-worker", "ray"),
        (request.slurm, "--slurm", "slurm"),
    ):
        if given and request.engine != engine:
            raise RequestError(f"{option} belongs to --engine {engine}.", f"Add --engine {engine}, or leave it out.")


def _run(
    request: Request,
    plan: Plan,
    out: Path,
    data_dir: Path | None,
    devices: list[str],
    console: Console,
    estimated: Estimated,
) -> Report:
    with Display(console, plan.cells.values()) as display:
        settings = {"keep_weights": request.keep_weights, "retry_failed": request.retry_failed, "listener": display}
        settings["gang"] = request.gang or (1 if devices[0] == "cpu" else GPU_GANG)
        environment = {**describe(), **({"deterministic": "yes"} if request.deterministic else {})}
        runner = Runner(plan, out, environment, **settings)
        todo = runner.todo()
        away = preflight.unreachable(todo, data_dir, None if _elsewhere(request) else devices)
        hopeless = preflight.all_fail(plan, away)
        if hopeless is not None:
            raise RequestError(hopeless.problem, hopeless.remedy)
        if away:
            plan = Plan(plan.cells, plan.stages, {**plan.impossible, **away})
            runner = Runner(plan, out, environment, **settings)
            todo = runner.todo()
        shards = most_shards(todo.stages.values())
        memory, own = memory_of_a_worker(request, devices, shards), groups_of(devices, shards)[0]
        machine = Machine(data_dir, devices[0], request.deterministic, memory, devices=own)
        with preflight.made(out), upkeep.run_claim(out, shared=True) as free:
            if not free:
                raise RequestError(f"`bench clean` is at work in {out}.", "Wait until it is done.")
            executor = _executor(request, out, machine, devices, len(todo.stages), shards)
            display.expect(todo.stages.values(), estimated.means(), executor.slots)
            try:
                progress.write_request(out, request.grid, request.changes, data_dir)
                with stopping(runner, console):
                    return runner.run(executor, todo)
            finally:
                executor.close()


def memory_of_a_worker(request: Request, devices: list[str], shards: int = 1) -> float | None:
    """Return the bytes of each of its GPUs that one worker may take: its part of --memory, else of 80 % of the GPU.

    On the machines of Ray and Slurm nothing is known of the GPUs from here: only what --memory says is a bound there.

    Raises:
        RequestError: --memory is not one size, or there is no GPU whose memory it could bound.
    """
    if devices[0] == "cpu":
        if request.memory is not None:
            raise RequestError("--memory bounds a GPU, and this run is on a CPU.", "Leave it out, or lower --workers.")
        return None
    if _elsewhere(request) and request.memory is None:
        return None
    budgets = budgets_of(request.memory, None)
    if len(budgets) > 1:
        raise RequestError(f"--memory {request.memory!r} has {len(budgets)} sizes.", "Name one: 40GB, say.")
    if _elsewhere(request):
        return budgets[0].size
    groups = len(groups_of(devices, shards))
    return budgets[0].size / max(1, -(-(request.workers or groups) // groups))


@contextmanager
def stopping(runner: Runner, console: Console) -> Iterator[None]:
    """Let the first interrupt finish what is running, and the second end everything at once."""

    def interrupted(number: int, frame: object) -> None:
        if runner.report.stopped:
            raise KeyboardInterrupt
        runner.stop()
        console.print("Stopping once the running stages are finished; interrupt again to stop now.", highlight=False)

    try:
        before = signal.signal(signal.SIGINT, interrupted)
    except ValueError:  # not the main thread: nobody can interrupt it
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _executor(request: Request, out: Path, machine: Machine, devices: list[str], stages: int, shards: int) -> Executor:
    from bench.engine.executors.inline import InlineExecutor

    if request.engine == "inline" or stages == 0:
        return InlineExecutor(out / "store", machine)
    if request.engine == "ray":
        from bench.engine.executors.ray import RayExecutor

        more = {"address": request.address, "gpus_per_worker": request.gpus_per_worker}
        return RayExecutor(out / "store", machine, request.workers, **more, shards=shards)
    if request.engine == "slurm":
        from bench.engine.executors.slurm import SlurmExecutor

        settings = dict(_setting(item) for item in request.slurm)
        return SlurmExecutor(out / "store", machine, request.workers, settings=settings, shards=shards)
    from bench.engine.executors.local import LocalExecutor

    workers = request.workers or preflight.default_workers(devices, shards)
    return LocalExecutor(out / "store", machine, workers, devices, shards=shards)


def _setting(item: str) -> tuple[str, Any]:
    name, equals, value = item.partition("=")
    if not equals or not name.strip().isidentifier():
        raise RequestError(f"--slurm {item!r} is no setting.", "Write name=value, as slurm_partition=gpu.")
    return name.strip(), value_of(value)


def _close(report: Report, out: Path, console: Console) -> int:
    from bench.commands.publish import write_tables

    plain = {"markup": False, "highlight": False}
    console.print(f"{report.executed} stages executed", **plain)
    console.print(f"{report.done} of {report.cells} cells done, {len(report.failed)} failed", **plain)
    kinds: dict[str, list[str]] = {}
    for key, reason in report.failed.items():
        kinds.setdefault(reason, []).append(key)
    for reason, keys in sorted(kinds.items()):
        console.print(f"  {len(keys)} x {reason}", **plain)
        console.print(f"      in full: python -m bench explain {shlex.quote(f'{out}#{keys[0][:12]}')}", **plain)
    if report.failed and not report.written:
        console.print("Failed cells are left as they are; --retry-failed runs them again.", **plain)
    if report.stopped and report.left:
        console.print(f"Stopped with {report.left} cells left. Go on with: {command_line()}", **plain)
        return INTERRUPTED
    if not report.written and _newest(out / "tables" / "README.md") > _newest(out / "records"):
        console.print(f"tables as before: {out / 'tables' / 'README.md'}  (`bench table` writes them again)", **plain)
    else:
        for path in write_tables(out, out / "tables"):
            console.print(f"table: {path}", **plain)
    return 1 if report.failed else 0


def _newest(path: Path) -> float:
    """Return when a file was written or an entry of a folder last came or went; 0 where there is none."""
    return path.stat().st_mtime if path.exists() else 0.0


def command_line() -> str:
    """Return the command that started this process, to be given again."""
    return shlex.join(["python", "-m", "bench", *sys.argv[1:]])
