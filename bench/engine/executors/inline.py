"""Stages one after the other in this process: for tests and for a debugger."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.engine.executors import Outcome
from bench.engine.records import error_of
from bench.engine.work import Machine, execute


def attempt(payload: dict[str, Any], root: Path, machine: Machine) -> Outcome:
    """Build a stage; an exception becomes an outcome, so that its siblings go on."""
    try:
        return Outcome(payload["key"], execute(payload, root, machine))
    except Exception as error:
        return Outcome(payload["key"], None, error_of(error, payload["kind"], traceback.format_exc()))


class InlineExecutor:
    """Runs each stage at once."""

    slots = 1

    def __init__(self, root: Path, machine: Machine) -> None:
        self.root, self.machine = root, machine
        self._done: list[Outcome] = []

    def submit(self, payload: dict[str, Any]) -> None:
        """Build the stage now."""
        self._done.append(attempt(payload, self.root, self.machine))

    def finished(self) -> Iterator[Outcome]:
        """Return what was built since the last call."""
        done, self._done = self._done, []
        return iter(done)

    def close(self) -> None:
        """Nothing to stop."""
