"""LoRA: only low-rank updates of the attention train (Hu et al., arXiv 2106.09685; the paper's LoRA baseline)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.victim.recipes import LoraOptions, filled
from defenders.base import Defender


@dataclass(frozen=True, kw_only=True)
class Lora(LoraOptions, Defender):
    """Acts at training. In `released` the classification head stays at its random draw."""

    name = "lora"
    parameter_efficient = True

    def for_model(self, model: Any, recipe: str) -> Lora:
        """Return a copy with open options taken from the model file and the recipe."""
        return filled(self, model, recipe)

    def wrap(self, victim: Any) -> None:
        """Insert LoRA into the victim in place."""
        from bench.victim.assembly import add_lora

        add_lora(victim, self, self.knowledge.seed)
