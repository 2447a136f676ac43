"""Running a plan: only what is missing, each stage once, a record for every cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.core.errors import BenchError
from bench.engine import gangs
from bench.engine.executors import Executor, Outcome
from bench.engine.plan import Plan
from bench.engine.records import done_record, error_of, failed_record, read_record, record_path, write_record
from bench.engine.schedule import Schedule
from bench.engine.stages import WEIGHTS, CellStages, Stage, with_ancestors
from bench.engine.store import Store


@dataclass
class Report:
    """What a run did: stages executed and reused, cells done and failed."""

    executed: int = 0
    to_execute: int = 0
    cells: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)


@dataclass
class Todo:
    """The stages that have to be built, parents first, and who waits for them."""

    stages: dict[str, Stage] = field(default_factory=dict)
    cells: dict[str, CellStages] = field(default_factory=dict)


Listener = Callable[[str, Any], None]


class Runner:
    """Runs one plan into one output folder."""

    def __init__(
        self,
        plan: Plan,
        out: Path,
        environment: Mapping[str, Any],
        *,
        keep_weights: bool = False,
        retry_failed: bool = False,
        listener: Listener = lambda event, value: None,
    ) -> None:
        self.plan, self.out, self.environment = plan, out, environment
        self.keep_weights, self.retry_failed, self.listen = keep_weights, retry_failed, listener
        self.store = Store(out / "store")
        self.report = Report(cells=len(plan.cells))
        self._schedule = Schedule({}, ())
        self._written: set[str] = set()

    def todo(self) -> Todo:
        """Return what is missing: walked back from the records, so that a finished cell needs nothing."""
        todo = Todo()
        for key, stages in self.plan.stages.items():
            record = read_record(record_path(self.out, self.plan.cells[key]))
            if record is not None and self._stands(record, stages):
                self._count(key, record)
                continue
            todo.cells[key] = stages
            for stage in stages.last():
                self._need(stage, todo)
        return todo

    def _stands(self, record: Mapping[str, Any], stages: CellStages) -> bool:
        # A record stands while it was made by the very stages that would make it now.
        current = [[stage.kind, stage.key] for stage in with_ancestors(stages.last())]
        if record["stages"] != current:
            return False
        return record["status"] == "ok" or not self.retry_failed

    def _need(self, stage: Stage, todo: Todo) -> None:
        if stage.key in todo.stages or self.store.has(stage.key, weights=stage.kind in WEIGHTS):
            return
        for parent in stage.parents.values():
            self._need(parent, todo)
        todo.stages[stage.key] = stage

    def run(self, executor: Executor, todo: Todo) -> Report:
        """Build what is missing and write the records; one failure leaves its siblings alone."""
        self.report.to_execute = len(todo.stages)
        self.listen("plan", self.report)
        self._record_impossible()
        self._schedule = schedule = Schedule(todo.stages, gangs.tasks(self.plan.unique()) if todo.stages else ())
        uses = Counter(parent.key for stage in todo.stages.values() for parent in stage.parents.values())
        cells = self._cells_by_stage(todo)
        for key in [key for key, stages in todo.cells.items() if all(s.key not in todo.stages for s in stages.last())]:
            self._finish_cell(key, todo.cells[key])
        running: dict[str, int] = {}  # stage -> number of its task
        while self._start(executor, schedule, running) or running:
            for outcome in executor.finished():
                running.pop(outcome.key)
                for settled in self._take(outcome, schedule):
                    self._release_parents(todo.stages[settled], uses)
                    for cell in cells.get(settled, ()):
                        self._try_cell(cell, todo.cells[cell])
        return self.report

    def _start(self, executor: Executor, schedule: Schedule, running: dict[str, int]) -> bool:
        """Hand out tasks while there are slots; tell whether there is anything to wait for or to hand out."""
        started = False
        while len(set(running.values())) < executor.slots:
            stages = schedule.take()
            if stages is None:
                if running or not schedule.break_up():
                    break
                continue
            number = max(running.values(), default=0) + 1
            for stage in stages:
                self.listen("start", stage)
                running[stage.key] = number
            executor.submit(tuple(stage.payload() for stage in stages))
            started = True
        return started

    def _cells_by_stage(self, todo: Todo) -> dict[str, list[str]]:
        cells: dict[str, list[str]] = {}
        for key, stages in todo.cells.items():
            for stage in stages.last():
                cells.setdefault(stage.key, []).append(key)
        return cells

    def _take(self, outcome: Outcome, schedule: Schedule) -> list[str]:
        """Return the stages that an outcome settles: itself, and all that can no longer be built."""
        stage = schedule.stages[outcome.key]
        if outcome.error is not None:
            self.listen("failed", (stage, outcome.error))
            return schedule.fail(stage.key, outcome.error)
        self.report.executed += 1
        self.listen("done", stage)
        schedule.done(stage.key)
        return [stage.key]

    def _try_cell(self, key: str, stages: CellStages) -> None:
        if key in self._written:
            return
        failed = self._schedule.failed
        broken = next((failed[stage.key] for stage in stages.last() if stage.key in failed), None)
        if broken is not None:
            self._write(key, failed_record(self.plan.cells[key], stages, self.environment, broken))
        elif all(self.store.has(stage.key) for stage in stages.last()):
            self._finish_cell(key, stages)

    def _finish_cell(self, key: str, stages: CellStages) -> None:
        cell = self.plan.cells[key]
        try:
            record = done_record(cell, stages, self.store, self.environment)
        except BenchError as error:
            record = failed_record(cell, stages, self.environment, error_of(error, "record"))
        self._write(key, record)

    def _record_impossible(self) -> None:
        for key, error in self.plan.impossible.items():
            self._write(key, failed_record(self.plan.cells[key], None, self.environment, error_of(error, "plan")))

    def _write(self, key: str, record: Mapping[str, Any]) -> None:
        write_record(self.out, record)
        self._written.add(key)
        self._count(key, record)
        self.listen("record", record)

    def _count(self, key: str, record: Mapping[str, Any]) -> None:
        if record["status"] == "ok":
            self.report.done += 1
        else:
            self.report.failed[key] = f"{record['error']['message']} {record['error']['remedy']}".strip()

    def _release_parents(self, stage: Stage, uses: Counter[str]) -> None:
        for parent in stage.parents.values():
            uses[parent.key] -= 1
            if uses[parent.key] == 0 and parent.kind in WEIGHTS and not self.keep_weights:
                self.store.release(parent.key)
