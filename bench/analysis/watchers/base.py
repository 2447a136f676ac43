"""The contract of an analysis that looks on at a training: a frozen dataclass whose fields are its options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bench.core.example import Example
from bench.core.options import Options


class Watcher(Protocol):
    """One analysis of one training; it changes nothing that it looks at."""

    def on_step(self, run: Any) -> None:
        """Look at `run.victim` before the first step (`run.step` is 0) and after each step."""

    def found(self) -> dict[str, Any]:
        """Return what stands in the record under `analysis`, as JSON values; called once, after the training."""


@dataclass(frozen=True)
class Analysis(Options):
    """Base of every analysis; `version` is raised when its numbers change."""

    name = "analysis"
    version = 1

    def watcher(self, clean: Sequence[Example], poisoned: Sequence[Example], classes: int) -> Watcher:
        """Return what looks on at one training.

        Args:
            clean: the clean test split, with its labels.
            poisoned: the poisoned versions of its non-target rows, labelled with the target.
            classes: how many classes the data set has.
        """
        raise NotImplementedError
