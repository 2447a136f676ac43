"""Fine-tuning: the backdoored victim is trained further on a small clean set, a baseline of the Fine-mixing paper."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from bench.core.knowledge import Knowledge
from bench.core.options import Positive
from bench.victim.repair_options import CleanTuning
from bench.victim.spec import ModelSpec
from defenders.base import Defender


@dataclass(frozen=True, kw_only=True)
class FineTuning(CleanTuning, Defender):
    """Acts on trained weights; needs clean rows. It is fine-mixing at rho = 1.

    `learning_rate_pet`: the rate for a victim of which only inserted modules train; the model file's, as for others.
    """

    name = "fine-tuning"

    learning_rate_pet: Positive | None = None  # None: the model file's

    def for_model(self, model: ModelSpec, recipe: str) -> FineTuning:
        """Return a copy with both learning rates taken from the model file where they were left open."""
        return dataclasses.replace(
            self,
            learning_rate=self.learning_rate or model.learning_rate,
            learning_rate_pet=self.learning_rate_pet or model.learning_rate_pet,
        )

    def repair(self, victim: Any, knowledge: Knowledge) -> Any:
        """Train the victim in place on the clean rows, and return it; what was frozen in it stays so."""
        from bench.victim.clean_tuning import fine_tuned

        return fine_tuned(victim, knowledge.clean, self, knowledge.seed, inserted_rate=self.learning_rate_pet)
