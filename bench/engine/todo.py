"""What a run has to do, and what it did."""

from __future__ import annotations

from dataclasses import dataclass, field

from bench.engine.stages import CellStages, Stage


@dataclass
class Report:
    """What a run did: stages executed and reused, cells done and failed."""

    executed: int = 0
    to_execute: int = 0
    cells: int = 0
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    written: int = 0  # records
    stopped: bool = False  # on request, before everything was done

    @property
    def left(self) -> int:
        """Return the number of cells without a record."""
        return self.cells - self.done - len(self.failed)


@dataclass
class Todo:
    """The stages that have to be built, parents first, and who waits for them."""

    stages: dict[str, Stage] = field(default_factory=dict)
    cells: dict[str, CellStages] = field(default_factory=dict)
