"""Stages one after the other in this process: for tests and for a debugger."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.engine.executors import Outcome, Task
from bench.engine.records import error_of
from bench.engine.work import Machine, execute, execute_gang


def attempt(task: Task, root: Path, machine: Machine) -> list[Outcome]:
    """Build the stages of a task; an exception becomes an outcome, so that its siblings go on."""
    if len(task) == 1:
        return [_alone(task[0], root, machine)]
    try:
        built = execute_gang(task, root, machine)
    except Exception as error:
        return [_failed(payload, error) for payload in task]
    return [
        _failed(payload, result) if isinstance(result, Exception) else Outcome(payload["key"], result)
        for payload, result in zip(task, built, strict=True)
    ]


def _alone(payload: Mapping[str, Any], root: Path, machine: Machine) -> Outcome:
    try:
        return Outcome(payload["key"], execute(payload, root, machine))
    except Exception as error:
        return _failed(payload, error)


def _failed(payload: Mapping[str, Any], error: Exception) -> Outcome:
    trace = "".join(traceback.format_exception(error))
    return Outcome(payload["key"], None, error_of(error, payload["kind"], trace))


class InlineExecutor:
    """Runs each task at once."""

    slots = 1

    def __init__(self, root: Path, machine: Machine) -> None:
        self.root, self.machine = root, machine
        self._done: list[Outcome] = []

    def submit(self, task: Task) -> None:
        """Build the stages now."""
        self._done += attempt(task, self.root, self.machine)

    def finished(self) -> Iterator[Outcome]:
        """Return what was built since the last call."""
        done, self._done = self._done, []
        return iter(done)

    def close(self) -> None:
        """Nothing to stop."""
