"""Where stages run: in this process, in worker processes on this machine, on a Ray cluster, or as Slurm jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

# One or more stages for one worker: one is built alone, several are built as a gang.
Task = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one stage: its manifest, or the error as it stands in a record, or why neither is there yet."""

    key: str
    manifest: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    found: bool = False  # the stage was in the store already: another worker has built it
    busy: bool = False  # another worker is building it
    lost: str | None = None  # the parent that has to be built again first
    stuck: str | None = None  # why nothing can be written: the run has to stop


class Executor(Protocol):
    """Runs tasks whose stages have all their parents done."""

    slots: int

    def submit(self, task: Task) -> None:
        """Take a task; at most `slots` are given at a time."""

    def finished(self, seconds: float | None = None) -> Iterator[Outcome]:
        """Wait for a task to finish, at most so many seconds; return an outcome for every stage of those that have."""

    def close(self) -> None:
        """Stop the workers; running tasks are given up and leave nothing behind."""
