"""LoRA + GA: MuScleLoRA without the multi-scale module (the paper's "w/o MSLR")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.core.knowledge import Knowledge
from bench.victim.recipes import AlignmentOptions, LoraOptions, filled
from defenders.base import Defender


@dataclass(frozen=True, kw_only=True)
class LoraGa(AlignmentOptions, LoraOptions, Defender):
    """Acts at training: low-rank attention, its gradients aligned with those of a few clean rows."""

    name = "lora+ga"
    parameter_efficient = True

    def for_model(self, model: Any, recipe: str) -> LoraGa:
        """Return a copy with open options taken from the model file and the recipe."""
        return filled(self, model, recipe)

    def wrap(self, victim: Any) -> None:
        """Insert LoRA into the victim in place."""
        from bench.victim.assembly import add_lora

        add_lora(victim, self, self.knowledge.seed)

    def hooks(self, knowledge: Knowledge) -> Sequence[Any]:
        """Return the aligning hook."""
        from bench.victim.alignment import GradientAlignment

        return (GradientAlignment(knowledge.clean, self, knowledge.seed),)
