"""MSLR: MuScleLoRA without gradient alignment (the paper's "w/o GA"): LoRA, and the multi-scale module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.victim.recipes import LoraOptions, MultiScaleOptions, filled
from defenders.base import Defender


@dataclass(frozen=True, kw_only=True)
class Mslr(MultiScaleOptions, LoraOptions, Defender):
    """Acts at training: low-rank attention, and the multi-scale module at the linear before the classifier."""

    name = "mslr"
    parameter_efficient = True

    def for_model(self, model: Any, recipe: str) -> Mslr:
        """Return a copy with open options taken from the model file and the recipe; CellError without such a linear."""
        return filled(self, model, recipe)

    def wrap(self, victim: Any) -> None:
        """Insert LoRA and the multi-scale module into the victim in place."""
        from bench.victim.assembly import add_lora, add_multiscale

        add_lora(victim, self, self.knowledge.seed)
        add_multiscale(victim, self, self.knowledge.seed)
