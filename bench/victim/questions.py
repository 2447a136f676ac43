"""What a stage asks of a victim that it only reads: one question at a time, so that a gang can answer in one pass.

A reading is a generator: it yields questions, is sent their answers, and returns what it found.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from torch import Tensor

from bench.victim.batching import Batch, Encoded

if TYPE_CHECKING:
    from bench.victim.soft_trigger import SoftTrigger
    from bench.victim.victim import Victim

Found = TypeVar("Found")


@dataclass(frozen=True)
class Likely:
    """Asks for the class probabilities, float32 [n, classes], of texts in their order; no dropout, no gradients."""

    texts: Sequence[str]

    def alone(self, victim: Victim) -> np.ndarray:
        """Return what the victim answers by itself."""
        return victim.predict(self.texts)


@dataclass(frozen=True)
class LikelyUnder:
    """Asks for `Likely` of texts that a trigger has encoded, which is read with its own vectors."""

    trigger: SoftTrigger
    texts: Encoded

    def alone(self, victim: Victim) -> np.ndarray:
        """Return what the trigger's victim answers by itself."""
        return self.trigger.probabilities(self.texts)


@dataclass(frozen=True)
class Slope:
    """Asks for the gradient [pieces, width] of `loss(probabilities [batch, classes])` by the vectors of a trigger."""

    trigger: SoftTrigger
    batch: Batch  # of distinct rows that the trigger has encoded
    loss: Callable[[Tensor], Tensor]  # a scalar

    def alone(self, victim: Victim) -> Tensor:
        """Return what the trigger's victim answers by itself."""
        return self.trigger.gradient(self.batch, self.loss)


Question = Likely | LikelyUnder | Slope
Asking = Generator[Question, Any, Found]


@dataclass(frozen=True)
class Reading:
    """A victim, which is left as it is, and how to begin asking it: from the beginning each time it is called."""

    victim: Victim
    ask: Callable[[], Asking[Any]]


def answered(victim: Any, asking: Asking[Found]) -> Found:
    """Return what a generator of questions returns once the victim has answered each of them by itself."""
    answer = None
    try:
        while True:
            try:
                question = asking.send(answer)
            except StopIteration as end:
                return end.value
            answer = question.alone(victim)
    finally:
        asking.close()
