"""One task in one worker: whatever happens to a stage becomes its outcome, so that its siblings go on."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.engine.executors import Outcome, Task
from bench.engine.records import error_of
from bench.engine.store import BusyError, LostError, UnwritableError
from bench.engine.work import Built, Machine, execute
from bench.engine.work_gang import execute_gang

Attempt = Callable[[Task, Path, Machine], list[Outcome]]

ATTEMPTS = 3  # how often a task may cost a worker its life before its stages fail


def attempt(task: Task, root: Path, machine: Machine) -> list[Outcome]:
    """Build the stages of a task; return an outcome for each, in order."""
    if len(task) == 1:
        return [outcome(task[0], lambda: execute(task[0], root, machine))]
    try:
        results = execute_gang(task, root, machine)
    except Exception as error:
        results = [error] * len(task)
    return [outcome(payload, lambda it=result: it) for payload, result in zip(task, results, strict=True)]


def outcome(payload: Mapping[str, Any], build: Callable[[], Built | Exception]) -> Outcome:
    """Return what became of a stage that `build` builds, or whose error it raises or returns."""
    key = payload["key"]
    try:
        result = build()
        if isinstance(result, Exception):
            raise result
        return Outcome(key, result.manifest, found=not result.now)
    except BusyError:
        return Outcome(key, busy=True)
    except LostError as error:
        return Outcome(key, error=error_of(error, payload["kind"]), lost=error.key)
    except UnwritableError as error:
        return Outcome(key, error=error_of(error, payload["kind"]), stuck=error.problem)
    except Exception as error:
        return Outcome(key, error=error_of(error, payload["kind"], traceback.format_exc()))


def died(task: Task, reason: str) -> list[Outcome]:
    """Return the outcomes of a task that has cost ATTEMPTS workers their lives; `reason` is that of the last."""
    error = {
        "type": "WorkerDied",
        "message": f"The worker process died while it built this stage, {ATTEMPTS} times: {reason.rstrip('.')}.",
        "remedy": "It may have run out of memory: run with fewer --workers and --retry-failed.",
        "traceback": None,
    }
    return [Outcome(payload["key"], error={**error, "stage": payload["kind"]}) for payload in task]
