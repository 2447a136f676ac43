"""Running a plan: only what is missing, each stage once, a record for every cell."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.core.errors import BenchError, reason_of
from bench.engine import gangs
from bench.engine.executors import Executor, Outcome
from bench.engine.plan import Plan
from bench.engine.record_files import read_record, record_path, set_aside_record, write_record
from bench.engine.records import done_record, error_of, failed_record
from bench.engine.schedule import Schedule
from bench.engine.stages import WEIGHTS, CellStages, Stage, with_ancestors
from bench.engine.store import LostError, Store, StoreError, UnwritableError
from bench.engine.todo import Report, Todo
from bench.engine.work import writing

REBUILDS = 3  # how often a stage or cell may find the same stage lost before it fails
SHORT, LONG = 0.1, 5.0  # seconds between looks at a stage that another run is building: doubled from one to the other


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
        read_only: bool = False,
        gang: int = 1,
        listener: Listener = lambda event, value: None,
    ) -> None:
        """Take a plan.

        Args:
            read_only: leave what is damaged where it is: for a look at what there is to do.
            gang: how many trainings of one kind, or readings of what they train, go to one worker together at most.
        """
        self.gang = gang
        self.plan, self.out, self.environment = plan, out, environment
        self.keep_weights, self.retry_failed, self.listen = keep_weights, retry_failed, listener
        self.store = Store(out / "store", read_only)
        self.report = Report(cells=len(plan.cells))
        self._schedule = Schedule({}, ())
        self._written: set[str] = set()
        self._cells: dict[str, list[str]] = {}  # stage -> cells that may be finished once it is settled
        self._uses: Counter[str] = Counter()  # stage -> stages still to come that read it
        self._lost: Counter[tuple[str, str]] = Counter()  # stage or cell, what it found lost -> how often
        self._looks: Counter[str] = Counter()  # stage -> how often another run was found building it
        self._stuck: str | None = None

    def stop(self) -> None:
        """Hand out nothing more: `run` returns once the tasks that are running are finished."""
        self.report.stopped = True

    def todo(self) -> Todo:
        """Return what is missing: walked back from the records, so that a finished cell needs nothing."""
        todo = Todo()
        for key, stages in self.plan.stages.items():
            if key in self.plan.impossible:
                continue
            record = self.read(key)
            if record is not None and self._stands(record, stages):
                self.count(key, record)
                continue
            todo.cells[key] = stages
            for stage in stages.last():
                self._need(stage, todo)
        return todo

    def read(self, key: str) -> dict[str, Any] | None:
        """Return the record of a cell, None where there is none; a damaged one is set aside."""
        path = record_path(self.out, self.plan.cells[key])
        try:
            return read_record(path)
        except StoreError:
            if not self.store.read_only:
                set_aside_record(path, self.store)
            return None

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
        """Build what is missing and write the records; one failure leaves its siblings alone.

        Raises:
            UnwritableError: the disk is full or read-only; what was running has been finished.
        """
        self.report.to_execute = len(todo.stages)
        self.listen("plan", self.report)
        self._record_impossible()
        self._schedule = Schedule(todo.stages, gangs.tasks(self.plan.unique(), self.gang) if todo.stages else ())
        self._uses.update(parent.key for stage in todo.stages.values() for parent in stage.parents.values())
        for key, stages in todo.cells.items():
            for stage in stages.last():
                self._cells.setdefault(stage.key, []).append(key)
        for key in todo.cells:
            self._try_cell(key)
        running: dict[str, int] = {}  # stage -> number of its task
        while self._next(executor, running):
            pass
        if self._stuck is not None:
            raise UnwritableError(self._stuck, "Free disk space or name another --out, and run again.")
        return self.report

    def _next(self, executor: Executor, running: dict[str, int]) -> bool:
        """Hand out what can start and take what has ended; tell whether the run goes on."""
        try:
            if not self._start(executor, running):
                return False
            free = len(set(running.values())) < executor.slots
            outcomes = list(executor.finished(self._schedule.pause() if free else None))
            for outcome in outcomes:
                running.pop(outcome.key)
            for outcome in outcomes:
                for settled in self._take(outcome):
                    self._settle(settled)
        except UnwritableError as error:  # of a record or a release: what is running may end all the same
            self._stuck = error.problem
        return True

    def _start(self, executor: Executor, running: dict[str, int]) -> bool:
        """Hand out tasks while there are slots; tell whether the run goes on."""
        schedule = self._schedule
        while not self.report.stopped and self._stuck is None and len(set(running.values())) < executor.slots:
            stages = schedule.take()
            if stages is not None:
                stages = [stage for stage in stages if not self._is_done_by_now(stage)]
                if not stages:
                    continue
                number = max(running.values(), default=0) + 1
                for stage in stages:
                    self.listen("start", stage)
                    running[stage.key] = number
                executor.submit(tuple({**stage.payload(), "again": self._is_released(stage)} for stage in stages))
            elif running or not schedule.break_up():
                pause = schedule.pause()
                if running or pause is None:
                    break
                time.sleep(min(pause, SHORT))  # all that is left is in the hands of another run
        return bool(running)

    def _is_done_by_now(self, stage: Stage) -> bool:
        """Settle a stage that another run has built since this one began; tell whether it was so."""
        if self._is_needed(stage):
            return False
        self.listen("found", stage)
        self._schedule.done(stage.key)
        self._settle(stage.key)
        return True

    def _is_needed(self, stage: Stage) -> bool:
        """Tell whether a stage has to be built: released weights only for what is made from them and is not there."""
        if stage.kind not in WEIGHTS or not self.store.has(stage.key):
            return not self.store.has(stage.key)
        if self.store.has(stage.key, weights=True):
            return False
        return any(self._is_needed(child) for child in self._schedule.children(stage.key))

    def _is_released(self, stage: Stage) -> bool:
        """Tell whether a stage is there but for its weights."""
        return stage.kind in WEIGHTS and self.store.has(stage.key) and not self.store.has(stage.key, weights=True)

    def _settle(self, key: str) -> None:
        """Release what only this stage still needed, and write the records that waited for it."""
        self._release_parents(self._schedule.stages[key])
        for cell in self._cells.get(key, ()):
            self._try_cell(cell)

    def _take(self, outcome: Outcome) -> list[str]:
        """Return the stages that an outcome settles: itself, and all that can no longer be built."""
        schedule = self._schedule
        stage = schedule.stages[outcome.key]
        if outcome.stuck is not None:
            self._stuck = outcome.stuck
            return []
        if outcome.busy:
            self._looks[stage.key] += 1
            schedule.later(stage.key, min(LONG, SHORT * 2 ** min(self._looks[stage.key], 10)))
            return []
        if outcome.lost is not None and self._rebuild(outcome.lost, stage.key, [stage]):
            return []
        if outcome.error is not None:
            error = schedule.failed.get(outcome.lost or "", outcome.error)
            self.listen("failed", (stage, error))
            return schedule.fail(stage.key, error)
        self.report.executed += not outcome.found
        self.listen("found" if outcome.found else "done", stage)
        schedule.done(stage.key)
        return [stage.key]

    def _rebuild(self, lost: str, finder: str, below: list[Stage]) -> bool:
        """Schedule a lost stage again before its finder, a stage or a cell; tell whether there is a point in it."""
        self._lost[finder, lost] += 1
        if self._lost[finder, lost] > REBUILDS or lost in self._schedule.failed:
            return False
        again = Todo()
        self._need(next(stage for stage in with_ancestors(below) if stage.key == lost), again)
        missing = {key: stage for key, stage in again.stages.items() if not self._schedule.is_due(key)}
        self._uses.update(parent.key for stage in missing.values() for parent in stage.parents.values())
        self.report.to_execute += len(missing)
        self.listen("again", list(missing.values()))
        self._schedule.again(finder if finder in self._schedule.stages else None, missing)
        return True

    def _try_cell(self, key: str) -> None:
        """Write the record of a cell if all its stages are settled."""
        stages, failed = self.plan.stages[key], self._schedule.failed
        if key in self._written:
            return
        broken = next((failed[stage.key] for stage in stages.last() if stage.key in failed), None)
        if broken is not None:
            self._write(key, failed_record(self.plan.cells[key], stages, self.environment, broken))
        elif not any(self._schedule.is_due(stage.key) for stage in stages.last()):
            self._finish_cell(key, stages)

    def _finish_cell(self, key: str, stages: CellStages) -> None:
        cell = self.plan.cells[key]
        try:
            record = done_record(cell, stages, self.store, self.environment)
        except LostError as error:
            if self._rebuild(error.key, key, list(stages.last())):
                self._cells.setdefault(error.key, []).append(key)
                return
            reason = self._schedule.failed.get(error.key, error_of(error, "record"))
            record = failed_record(cell, stages, self.environment, reason)
        except BenchError as error:
            record = failed_record(cell, stages, self.environment, error_of(error, "record"))
        self._write(key, record)

    def _record_impossible(self) -> None:
        for key, error in self.plan.impossible.items():
            reason, known = error_of(error, "plan"), self.read(key)
            if known is not None and (self._is_standing(key, known) or known["error"] == reason):
                self.count(key, known)
            else:
                self._write(key, failed_record(self.plan.cells[key], None, self.environment, reason))

    def _is_standing(self, key: str, record: Mapping[str, Any]) -> bool:
        """Tell whether the record of an impossible cell stands: another run may have finished it since `todo`."""
        stages = self.plan.stages.get(key)
        return stages is not None and self._stands(record, stages)

    def _write(self, key: str, record: Mapping[str, Any]) -> None:
        write_record(self.out, record)
        self._written.add(key)
        self.report.written += 1
        self.count(key, record)
        self.listen("record", record)

    def count(self, key: str, record: Mapping[str, Any]) -> None:
        """Count a cell as done or failed."""
        if record["status"] == "ok":
            self.report.done += 1
        else:
            self.report.failed[key] = reason_of(record["error"])

    def _release_parents(self, stage: Stage) -> None:
        for parent in stage.parents.values():
            self._uses[parent.key] -= 1
            if self._uses[parent.key] == 0 and parent.kind in WEIGHTS and not self.keep_weights:
                with writing(self.store):
                    self.store.release(parent.key)
