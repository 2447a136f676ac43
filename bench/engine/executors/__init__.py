"""Where stages run: in this process, or in worker processes on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Outcome:
    """What became of one stage: its manifest, or the error as it stands in a record."""

    key: str
    manifest: dict[str, Any] | None
    error: dict[str, Any] | None = None


class Executor(Protocol):
    """Runs stages whose parents are done."""

    slots: int

    def submit(self, payload: dict[str, Any]) -> None:
        """Take a stage; at most `slots` are given at a time."""

    def finished(self) -> Iterator[Outcome]:
        """Wait until at least one stage is finished and return what is."""

    def close(self) -> None:
        """Stop the workers; running stages are given up and leave nothing behind."""
