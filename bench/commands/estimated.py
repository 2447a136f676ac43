"""What `bench plan` says of the time that a grid takes, and `bench run` of how far that was off."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.core.errors import RequestError
from bench.engine import preflight
from bench.engine.calibration import cached, calibrate
from bench.engine.estimate import Estimate, Sized, estimate, rates_of_runs
from bench.engine.plan import Plan
from bench.engine.runner import Report, Runner
from bench.engine.sharding import most_shards
from bench.engine.stages import Stage

PLAIN = {"markup": False, "highlight": False}
LEAST_SECONDS = 5.0  # a run below this says nothing of its estimate


def folder_of(grid: str, out: Path | None) -> Path:
    """Return the output folder of a grid: the one given, or runs/GRID."""
    return out if out is not None else Path("runs") / Path(grid).stem


def missing(plan: Plan, out: Path) -> list[Stage]:
    """Return the stages that a run into this folder would build; nothing is written."""
    if not (out / "records").is_dir() and not (out / "store").is_dir():
        return plan.unique()  # no key is needed
    return list(Runner(plan, out, {}, read_only=True).todo().stages.values())


def place_of(request: Any, plan: Plan) -> tuple[list[str], int]:
    """Return the devices and the number of workers that an estimate is for.

    Raises:
        RequestError: there is no such device, or no worker.
    """
    device = preflight.choose_device(request.device)
    shards = most_shards(plan.unique())
    workers = preflight.default_workers(device, shards) if request.workers is None else request.workers
    if workers < 1:
        raise RequestError(f"--workers is {workers}: at least 1 is needed.", "Leave it out for the default.")
    return device, workers


def show_estimate(request: Any, plan: Plan, console: Console) -> None:
    """Print how long the missing stages take on this machine, by kind; calibrate first what was never measured."""
    device, workers = place_of(request, plan)
    out, data_dir = folder_of(request.grid, request.out), preflight.data_folder(request.data)
    stages = missing(plan, out)
    if not stages:
        console.print("time: nothing is left to run", **PLAIN)
        return
    rates, sized = {**cached(), **rates_of_runs(out, device[0])}, Sized(data_dir)
    if request.calibrate:
        rates |= calibrate(stages, rates, sized, device[0], lambda text: console.print(text, **PLAIN))
    found = estimate(stages, rates, sized, device[0])
    for line in lines(found, workers, device[0]):
        console.print(line, **PLAIN)


def lines(found: Estimate, workers: int, device: str) -> list[str]:
    """Return an estimate in words."""
    unknown = sum(found.unknown.values())
    if found.stages["train"] and found.unknown["train"] == found.stages["train"]:
        reason = "no training of it was measured here, or its data or weights are not on this machine"
        return [f"time: unknown on {device}: {reason}"]
    wall = words(found.wall(workers))
    about = f"at least {wall} ({unknown} stages left out)" if unknown else f"about {wall}"
    told = [f"time: {about} by {workers} worker(s) on {device}"]
    for kind, seconds in sorted(found.seconds.items()):
        left = f", {found.unknown[kind]} without an estimate" if found.unknown[kind] else ""
        count = found.stages[kind] - found.unknown[kind]
        told.append(f"  {kind:9} {words(seconds):>8} of work in {count} stages{left}")
    for kind in sorted(set(found.unknown) - set(found.seconds)):
        told.append(f"  {kind:9} {'—':>8} {found.unknown[kind]} without an estimate")
    if found.assumed > found.total / 100:
        share = 100 * found.assumed / found.total
        told.append(f"  {share:.0f} % of it is assumed: no such stage of these defenses was run into this folder yet")
    return told


def words(seconds: float) -> str:
    """Return a time in hours, minutes or seconds."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Estimated:
    """The estimate of a run, made before it from what is known already, and held against the clock."""

    def __init__(self, request: Any, plan: Plan, out: Path, data_dir: Path | None, devices: Sequence[str]) -> None:
        here = request.engine in ("local", "inline")  # elsewhere are other machines, of which nothing is known
        stages = missing(plan, out) if here else []
        default = preflight.default_workers(list(devices), most_shards(plan.unique()))
        self.workers = 1 if request.engine == "inline" else request.workers or default
        rates = {**cached(), **rates_of_runs(out, devices[0])} if stages else {}
        self.found = estimate(stages, rates, Sized(data_dir), devices[0]) if rates else Estimate()
        self.began = time.monotonic()

    def means(self) -> dict[str, float]:
        """Return the mean seconds by kind of stage, of the kinds with an estimate."""
        counts = {kind: self.found.stages[kind] - self.found.unknown[kind] for kind in self.found.seconds}
        return {kind: self.found.seconds[kind] / count for kind, count in counts.items() if count}

    def tell(self, report: Report, console: Console) -> None:
        """Print how far the estimate was off, where one could be made and the run was long enough to tell."""
        took, expected = time.monotonic() - self.began, self.found.wall(self.workers)
        whole = sum(self.found.stages.values()) == report.executed and not self.found.unknown
        if took < LEAST_SECONDS or not expected or not whole:
            return
        off, side = 100 * (took - expected) / expected, "more" if took > expected else "less"
        console.print(f"time: {words(took)}, estimated {words(expected)}: {abs(off):.0f} % {side}", **PLAIN)
