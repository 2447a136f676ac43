"""Running a plan: only what is missing, each stage once, a record for every cell."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.core.errors import BenchError
from bench.engine.executors import Executor, Outcome
from bench.engine.plan import Plan
from bench.engine.records import done_record, error_of, failed_record, read_record, record_path, write_record
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
        self._failed: dict[str, Mapping[str, Any]] = {}
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
        waiting = {key: {p.key for p in s.parents.values() if p.key in todo.stages} for key, s in todo.stages.items()}
        children: dict[str, list[str]] = {}
        for key, stage in todo.stages.items():
            for parent in stage.parents.values():
                children.setdefault(parent.key, []).append(key)
        uses = {key: len(children.get(key, [])) for key in children}
        ready = deque(key for key, parents in waiting.items() if not parents)
        running: set[str] = set()
        cells = self._cells_by_stage(todo)
        for key in [key for key, stages in todo.cells.items() if all(s.key not in todo.stages for s in stages.last())]:
            self._finish_cell(key, todo.cells[key])
        while ready or running:
            while ready and len(running) < executor.slots:
                key = ready.popleft()
                self.listen("start", todo.stages[key])
                running.add(key)
                executor.submit(todo.stages[key].payload())
            for outcome in executor.finished():
                running.discard(outcome.key)
                for settled in self._take(outcome, todo, waiting, children, ready):
                    self._release_parents(todo.stages[settled], uses)
                    for cell in cells.get(settled, ()):
                        self._try_cell(cell, todo.cells[cell])
        return self.report

    def _cells_by_stage(self, todo: Todo) -> dict[str, list[str]]:
        cells: dict[str, list[str]] = {}
        for key, stages in todo.cells.items():
            for stage in stages.last():
                cells.setdefault(stage.key, []).append(key)
        return cells

    def _take(self, outcome: Outcome, todo: Todo, waiting: dict, children: dict, ready: deque) -> list[str]:
        """Return the stages that an outcome settles: itself, and all that can no longer be built."""
        stage = todo.stages[outcome.key]
        if outcome.error is not None:
            self.listen("failed", (stage, outcome.error))
            return self._fail(stage.key, outcome.error, children)
        self.report.executed += 1
        self.listen("done", stage)
        for child in children.get(stage.key, ()):
            waiting[child].discard(stage.key)
            if not waiting[child] and child not in self._failed:
                # Children first: the weights that they read can then be released early.
                ready.appendleft(child)
        return [stage.key]

    def _fail(self, key: str, error: Mapping[str, Any], children: dict) -> list[str]:
        if key in self._failed:
            return []
        self._failed[key] = error
        return [key, *(lost for child in children.get(key, ()) for lost in self._fail(child, error, children))]

    def _try_cell(self, key: str, stages: CellStages) -> None:
        if key in self._written:
            return
        broken = next((self._failed[s.key] for s in stages.last() if s.key in self._failed), None)
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

    def _release_parents(self, stage: Stage, uses: dict[str, int]) -> None:
        for parent in stage.parents.values():
            uses[parent.key] -= 1
            if uses[parent.key] == 0 and parent.kind in WEIGHTS and not self.keep_weights:
                self.store.release(parent.key)
