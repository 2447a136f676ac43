"""GA: full fine-tuning with gradient alignment (the paper's "w/o MSLR and LoRA", OnlyGA in its code)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.core.knowledge import Knowledge
from bench.victim.recipes import AlignmentOptions, filled
from defenders.base import Defender


@dataclass(frozen=True, kw_only=True)
class Ga(AlignmentOptions, Defender):
    """Acts at training: every gradient is aligned with that of a few clean rows."""

    name = "ga"

    def for_model(self, model: Any, recipe: str) -> Ga:
        """Return a copy with open options taken from the model file and the recipe."""
        return filled(self, model, recipe)

    def hooks(self, knowledge: Knowledge) -> Sequence[Any]:
        """Return the aligning hook."""
        from bench.victim.alignment import GradientAlignment

        return (GradientAlignment(knowledge.clean, self, knowledge.seed),)
