"""The threat model made explicit: all that a defense is given besides the data it acts on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.core.errors import CellError
from bench.core.example import Example
from bench.core.seeding import derived_seed


@dataclass(frozen=True)
class Knowledge:
    """What a defense may know: never a poison flag, never the test split.

    Rows of `clean` (the method's own), `calibration` (thresholds) and the rows that select a
    checkpoint are disjoint parts of the clean dev split.
    """

    classes: int
    clean: tuple[Example, ...] = ()
    calibration: tuple[Example, ...] = ()
    seed: int = 0
    recipe: str = "released"
    device: str = "cpu"  # where a defense may run a model of its own
    model: Any = None  # the ModelSpec of the victim
    pretrained: Callable[[], Any] | None = None  # makes a fresh, pre-trained, untrained victim
    victim: Any = None  # the shared backdoored victim, for cleansers that ask for it

    def generator(self, name: str) -> np.random.Generator:
        """Return a generator for one named use, a function of this stage's seed alone."""
        return np.random.default_rng(derived_seed(self.seed, name))

    def fresh_victim(self) -> Any:
        """Return a new pre-trained victim.

        Raises:
            CellError: this run has no pre-trained weights to give.
        """
        if self.pretrained is None:
            raise CellError(
                "No pre-trained weights were given to this defense.", "Bind it to a Knowledge that has them."
            )
        return self.pretrained()
