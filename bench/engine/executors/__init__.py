"""Where stages run: in this process, in worker processes on this machine, on a Ray cluster, or as Slurm jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

# One or more stages for one worker: one is built alone, several are built as a gang.
Task = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one stage: its manifest, or the error as it stands in a record."""

    key: str
    manifest: dict[str, Any] | None
    error: dict[str, Any] | None = None


class Executor(Protocol):
    """Runs tasks whose stages have all their parents done."""

    slots: int

    def submit(self, task: Task) -> None:
        """Take a task; at most `slots` are given at a time."""

    def finished(self) -> Iterator[Outcome]:
        """Wait until at least one task is finished; return an outcome for every stage of those that are."""

    def close(self) -> None:
        """Stop the workers; running tasks are given up and leave nothing behind."""
