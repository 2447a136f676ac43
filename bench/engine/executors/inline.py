"""Stages one after the other in this process: for tests and for a debugger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.engine.executors import Outcome, Task
from bench.engine.executors.attempt import Attempt, attempt
from bench.engine.work import Machine


class InlineExecutor:
    """Runs each task at once."""

    slots = 1

    def __init__(self, root: Path, machine: Machine, build: Attempt = attempt) -> None:
        self.root, self.machine, self.build = root, machine, build
        self._done: list[Outcome] = []

    def submit(self, task: Task) -> None:
        """Build the stages now."""
        self._done += self.build(task, self.root, self.machine)

    def finished(self, seconds: float | None = None) -> Iterator[Outcome]:
        """Return what was built since the last call."""
        done, self._done = self._done, []
        return iter(done)

    def close(self) -> None:
        """Nothing to stop."""
