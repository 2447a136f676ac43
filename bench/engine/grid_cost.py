"""Seconds for a grid by this suite and by the plain way: every cell trained alone, nothing shared. Both sides run."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.core.errors import BenchError, CellError
from bench.core.processes import settle
from bench.core.spec import Cell
from bench.engine.executors.local import LocalExecutor
from bench.engine.grid import Grid
from bench.engine.plan import Plan
from bench.engine.records import done_record
from bench.engine.runner import Runner
from bench.engine.stages import CellStages, with_ancestors
from bench.engine.store import Store
from bench.engine.work import Machine, execute

DEFENDERS = (
    *("vanilla", "lora", "adapter", "prefix", "musclelora", "ga", "mslr", "lora+ga"),
    *({"name": "onion", "lm": "local"}, "strip", "rap", "bki", "cube"),
)
ATTACKS = ("badnets", "addsent", "hiddenkiller", "stylebkd")
Tell = Callable[[str], None]


def small_grid(model: str, dataset: str, rows: int = 320) -> Grid:
    """Return 4 attacks x the paper's 13 defenders on the first `rows` training rows for 1 epoch."""
    return Grid(
        name="speed",
        datasets=(dataset,),
        attacks=ATTACKS,
        models=(model,),
        defenders=DEFENDERS,
        limit=rows,
        set={"model.epochs": 1},
    )


def grid_cost(
    plan: Plan, machine: Machine, *, workers: int, published: bool = False, tell: Tell = lambda text: None
) -> list[dict[str, Any]]:
    """Run the plan in both ways, in folders that are thrown away, and return a row for each.

    `ours` shares stages as `bench run` does. `alone` gives every cell a chain of its own: the plain loop (batches
    padded to their longest, two passes for gradient alignment), predictions of 32 texts in their own order, nothing
    reused. With `published` a third side evaluates the whole training set after each epoch besides. What a defense does
    by itself, ONION's language model for one, is our code on every side. All have the same workers, one thread each on
    a CPU.

    Raises:
        CellError: a cell failed, so that the sides did not do the same work.
    """
    rows = [_ours(plan, machine, workers, tell)]
    for name, loop in (("alone", "reference"), *((("published", "published"),) if published else ())):
        rows.append({"name": name, **_alone(plan, replace(machine, loop=loop), workers, tell)})
    for row in rows:
        row |= {"cells": len(plan.stages), "workers": workers, "against_alone": rows[1]["seconds"] / row["seconds"]}
    return rows


def _ours(plan: Plan, machine: Machine, workers: int, tell: Tell) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:

        def listen(event: str, value: Any) -> None:
            if event == "record":
                tell(f"ours: {value['cell']['attack']['name']} {value['cell']['defense']['name']}")

        began = time.perf_counter()
        runner = Runner(plan, Path(folder), {}, listener=listen)
        devices = () if machine.device == "cpu" else (machine.device,)
        executor = LocalExecutor(Path(folder) / "store", machine, workers, devices)
        try:
            report = runner.run(executor, runner.todo())
        finally:
            executor.close()
        seconds = time.perf_counter() - began
        if report.failed:
            raise CellError(*_why(next(iter(report.failed.values()))))
        store = Store(Path(folder) / "store")
        records = [done_record(cell, plan.stages[key], store, {}) for key, cell in plan.cells.items()]
    return {"name": "ours", "seconds": seconds, "trainings": plan.summary()["trainings"], **_means(records)}


def _why(reason: str) -> tuple[str, str]:
    return f"A cell failed, so nothing was measured: {reason}", "Measure on a grid whose cells all run."


def _alone(plan: Plan, machine: Machine, workers: int, tell: Tell) -> dict[str, Any]:
    records = []
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        pool = ProcessPoolExecutor(workers, get_context("spawn"), settle)
        try:
            futures = {
                pool.submit(run_alone, plan.cells[key], stages, Path(folder) / key, machine): plan.cells[key]
                for key, stages in plan.stages.items()
            }
            for future in as_completed(futures):
                records.append(_record_of(future))
                tell(f"{machine.loop}: {futures[future].attack.name} {futures[future].defense.name}")
        finally:
            pool.shutdown(cancel_futures=True)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "trainings": plan.summary()["trainings_alone"], **_means(records)}


def _record_of(future: Future) -> dict[str, Any]:
    try:
        return future.result()
    except BenchError as error:
        raise CellError(*_why(str(error))) from error


def run_alone(cell: Cell, stages: CellStages, folder: Path, machine: Machine) -> dict[str, Any]:
    """Build the whole chain of one cell in an own folder, which is removed, and return its record."""
    try:
        for stage in with_ancestors(stages.last()):
            execute(stage.payload(), folder, machine)
        return done_record(cell, stages, Store(folder), {})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _means(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return mean CACC and ASR over the cells: both sides measure the same thing, to the noise of training."""
    return {
        f"mean_{name}": statistics.fmean(record["metrics"][name]["value"] for record in records)
        for name in ("cacc", "asr")
    }
