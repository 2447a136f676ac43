"""What the engine itself costs: `python -m tests.engine.scale [CELLS]` prints the figures that the suite promises.

A plan of 15,000 cells in under 20 s and 1 GB; under 20 ms of scheduling for a stage; a finished run of 15,000 cells
gone through again in under 10 s.
"""

from __future__ import annotations

import cProfile
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from bench.engine.executors import Executor, Outcome, Task
from bench.engine.executors.inline import InlineExecutor
from bench.engine.executors.local import LocalExecutor
from bench.engine.expand import Expanded, expand
from bench.engine.grid import load_grid
from bench.engine.plan import Plan, make_plan
from bench.engine.record_files import record_path
from bench.engine.runner import Runner
from bench.engine.stages import with_ancestors
from bench.engine.work import Machine
from tests.engine.cheap import build_at_once, cheap_plan


class Cost(NamedTuple):
    """Seconds on the clock and of this process's CPU, which neighbours do not change."""

    wall: float
    cpu: float


class Stopwatch:
    """Measures from its making on."""

    def __init__(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def read(self) -> Cost:
        """Return what has passed."""
        return Cost(time.perf_counter() - self.began[0], time.process_time() - self.began[1])


def large_plan(cells: int) -> tuple[Plan, Cost]:
    """Return the plan of the first cells of the grid `full`, with every key made, and what it cost."""
    watch = Stopwatch()
    found = expand(load_grid("full").blocks())
    kept = list(found.cells)[:cells]
    impossible = {key: found.impossible[key] for key in kept if key in found.impossible}
    plan = make_plan(Expanded({key: found.cells[key] for key in kept}, impossible))
    assert len(plan.cells) == cells
    for stage in plan.unique():
        assert stage.key and stage.identity
    return plan, watch.read()


def finished(plan: Plan, out: Path, template: dict[str, Any]) -> None:
    """Write a record for every cell, as a finished run leaves them: `template` is one of a real run."""
    (out / "records").mkdir(parents=True)
    for key, chain in plan.stages.items():
        stages = [[stage.kind, stage.key] for stage in with_ancestors(chain.last())]
        record = {**template, "key": key, "cell": plan.cells[key].json(), "stages": stages}
        record_path(out, plan.cells[key]).write_text(json.dumps(record, indent=1))


def resumed(plan: Plan, out: Path) -> Cost:
    """Return what it costs to see that nothing is left to do."""
    watch = Stopwatch()
    runner = Runner(plan, out, {})
    todo = runner.todo()
    assert not todo.stages and not todo.cells
    return watch.read()


def overhead(folder: Path, workers: int, seeds: int = 6) -> tuple[Cost, int, dict[str, Any]]:
    """Return what a plan of stages that do nothing costs, how many they are, and a record."""
    plan = cheap_plan(folder / "model", seeds)
    out = folder / f"out{workers}"
    runner, machine = Runner(plan, out, {}), Machine(None)
    executor: Executor = InlineExecutor(out / "store", machine, build_at_once)
    if workers:
        executor = LocalExecutor(out / "store", machine, workers, build=build_at_once, preload="tests.engine.cheap")
    todo = runner.todo()
    watch = Stopwatch()
    try:
        runner.run(executor, todo)
        cost = watch.read()
    finally:
        executor.close()
    return cost, len(todo.stages), json.loads(next((out / "records").iterdir()).read_text())


class Saying:
    """Builds nothing: says of every stage that it is done, and of each evaluation that it failed."""

    slots = 16

    def __init__(self) -> None:
        self._said: list[Outcome] = []

    def submit(self, task: Task) -> None:
        """Say what became of a task."""
        error = {"type": "Said", "message": "said", "remedy": "", "stage": "evaluate", "traceback": None}
        for payload in task:
            self._said.append(Outcome(payload["key"], {}, error if payload["kind"] == "evaluate" else None))

    def finished(self, seconds: float | None = None) -> Iterator[Outcome]:
        """Return the oldest of what was said."""
        said, self._said = self._said[:1], self._said[1:]
        return iter(said)

    def close(self) -> None:
        """Nothing to stop."""


def scheduling(folder: Path, seeds: int, gang: int) -> float:
    """Return how many calls the engine makes for a stage while it schedules 10 cells for each seed."""
    plan = cheap_plan(folder / "model", seeds)
    runner = Runner(plan, folder / f"said{seeds}-{gang}", {}, gang=gang)
    todo = runner.todo()
    profile = cProfile.Profile()
    report = profile.runcall(runner.run, Saying(), todo)
    assert len(report.failed) == 10 * seeds
    return sum(entry.callcount for entry in profile.getstats()) / len(todo.stages)


def main(cells: int) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for workers in (0, 2):
            cost, stages, template = overhead(folder, workers)
            where = f"{workers} workers" if workers else "inline"
            _say(f"{stages} stages, {where}, for each: {1000 * cost.wall / stages:.1f} ms", cost)
        plan, cost = large_plan(cells)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        _say(f"plan of {len(plan.cells)} cells, {len(plan.unique())} stages: {cost.wall:.1f} s, {peak:.0f} MB", cost)
        finished(plan, folder / "full", template)
        cost = resumed(plan, folder / "full")
        _say(f"finished run of {len(plan.cells)} cells gone through again: {cost.wall:.1f} s", cost)


def _say(text: str, cost: Cost) -> None:
    sys.stdout.write(f"{text} ({cost.cpu:.2f} s of CPU)\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15_000)
