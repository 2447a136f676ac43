"""Seconds for a grid by this suite and by the plain way: every cell trained alone, nothing shared. All sides run."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import Any, Literal

from bench.core.errors import BenchError, CellError
from bench.core.processes import settle
from bench.core.spec import Cell, Precision
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


@dataclass(frozen=True)
class Side:
    """One way to run the grid: what it does, by which loop it trains, at which precision, in how many processes."""

    does: str
    loop: Literal["ours", "reference", "published"] = "ours"
    precision: str = "fp32"
    fresh: bool = False  # whether each cell has a process of its own


SIDES = {
    "ours": Side("`bench run` as it is: shared stages, unpadded passes, one pass for gradient alignment."),
    "ours-bf16": Side(
        "`ours` with cells of precision bf16: autocast in training, in defenses and in evaluation.", precision="bf16"
    ),
    "alone": Side(
        "each cell a chain of its own, nothing reused; random batches padded to their longest text, a second pass "
        "for gradient alignment, predictions of 32 texts in their own order; BKI reads one row with its variants at a "
        "time and looks at a model that it trains for itself.",
        loop="reference",
    ),
    "published": Side(
        "`alone`, and the whole training set evaluated after each epoch; each cell is a process that imports and loads "
        "for itself.",
        loop="published",
        fresh=True,
    ),
}
PLAIN = ("alone", "published")  # what the others are held against
Tell = Callable[[str], None]


def small_grid(model: str, dataset: str, rows: int = 320, precision: Precision = "fp32") -> Grid:
    """Return 4 attacks x the paper's 13 defenders on the first `rows` training rows for 1 epoch."""
    return Grid(
        name="speed",
        datasets=(dataset,),
        attacks=ATTACKS,
        models=(model,),
        defenders=DEFENDERS,
        precisions=(precision,),
        limit=rows,
        set={"model.epochs": 1},
    )


def grid_cost(
    plan_at: Callable[[str], Plan],
    machine: Machine,
    *,
    workers: int,
    sides: Sequence[str] = ("ours", "alone"),
    tell: Tell = lambda text: None,
) -> list[dict[str, Any]]:
    """Run the grid in the ways named, in folders that are thrown away, and return a row for each.

    SIDES says what each does. What else a defense does by itself, ONION's language model for one, is our code on every
    side. All have the same workers, one thread each on a CPU. `stage_seconds` of a row are those of its stages by kind,
    summed over the workers.

    Args:
        plan_at: the plan of the grid at a precision; a new one for each side, since a run changes it.

    Raises:
        CellError: every cell of a side failed. One that fails, as a detector can whose victim learnt nothing in so
            few steps, is counted in its row.
    """
    rows = []
    for name in sides:
        side, plan = SIDES[name], plan_at(SIDES[name].precision)
        run = _ours if side.loop == "ours" else _alone
        row = run(name, plan, replace(machine, loop=side.loop), workers, tell)
        rows.append(row | {"cells": len(plan.stages), "workers": workers, "does": side.does})
    for row in rows:
        row |= {
            f"against_{other['name']}": other["seconds"] / row["seconds"] for other in rows if other["name"] in PLAIN
        }
    return rows


def _ours(name: str, plan: Plan, machine: Machine, workers: int, tell: Tell) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:

        def listen(event: str, value: Any) -> None:
            if event == "record":
                tell(f"{name}: {value['cell']['attack']['name']} {value['cell']['defense']['name']}")

        _cold()
        began = time.perf_counter()
        runner = Runner(plan, Path(folder), {}, listener=listen)
        devices = () if machine.device == "cpu" else (machine.device,)
        executor = LocalExecutor(Path(folder) / "store", machine, workers, devices)
        try:
            report = runner.run(executor, runner.todo())
        finally:
            executor.close()
        seconds = time.perf_counter() - began
        store = Store(Path(folder) / "store")
        there = [key for key in plan.stages if key not in report.failed]
        records = [done_record(plan.cells[key], plan.stages[key], store, {}) for key in there]
        built = [(stage.kind, store.manifest(stage.key)) for stage in plan.unique()]
        spent = _summed((kind, manifest["seconds"]) for kind, manifest in built if manifest is not None)
    return _side(name, seconds, plan.summary()["trainings"], records, list(report.failed.values()), spent)


def _cold() -> None:
    """End the process from which workers are forked, if one is left of another side: each side pays for its imports."""
    if hasattr(forkserver, "_forkserver"):  # multiprocessing itself has no public way to stop it
        forkserver._forkserver._stop()


def _alone(name: str, plan: Plan, machine: Machine, workers: int, tell: Tell) -> dict[str, Any]:
    records, failed = [], []
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        pool = ProcessPoolExecutor(
            workers, get_context("spawn"), settle, max_tasks_per_child=1 if SIDES[name].fresh else None
        )
        try:
            futures = {
                pool.submit(run_alone, plan.cells[key], stages, Path(folder) / key, machine): plan.cells[key]
                for key, stages in plan.stages.items()
            }
            for future in as_completed(futures):
                tell(f"{name}: {futures[future].attack.name} {futures[future].defense.name}")
                try:
                    records.append(future.result())
                except BenchError as error:
                    failed.append(str(error))
        finally:
            pool.shutdown(cancel_futures=True)
        seconds = time.perf_counter() - began
    spent = _summed(item for record in records for item in record["cost"]["seconds"].items())
    return _side(name, seconds, plan.summary()["trainings_alone"], records, failed, spent)


def run_alone(cell: Cell, stages: CellStages, folder: Path, machine: Machine) -> dict[str, Any]:
    """Build the whole chain of one cell in an own folder, which is removed, and return its record.

    Raises:
        BenchError: what a stage reports.
    """
    try:
        for stage in with_ancestors(stages.last()):
            execute(stage.payload(), folder, machine)
        return done_record(cell, stages, Store(folder), {})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _summed(spent: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return seconds by kind of stage, most first."""
    total: Counter[str] = Counter()
    for kind, seconds in spent:
        total[kind] += seconds
    return dict(total.most_common())


def _side(
    name: str,
    seconds: float,
    trainings: int,
    records: Sequence[Mapping[str, Any]],
    failed: Sequence[str],
    spent: Mapping[str, float],
) -> dict[str, Any]:
    """Return the row of a side; the means are over the cells that did not fail.

    Raises:
        CellError: all of them failed.
    """
    if not records:
        raise CellError(f"Every cell failed, so nothing was measured: {failed[0]}", "Measure on other data.")
    means = {
        f"mean_{metric}": statistics.fmean(record["metrics"][metric]["value"] for record in records)
        for metric in ("cacc", "asr")
    }
    counts = {"trainings": trainings, "failed": len(failed), "reasons": failed}
    return {"name": name, "seconds": seconds, **counts, **means, "stage_seconds": dict(spent)}
