"""Fine-pruning (F): fine-pruning whose pruned weights stay frozen at zero while the model is fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.core.knowledge import Knowledge
from bench.victim.repair_options import PruningOptions
from defenders.base import Defender


@dataclass(frozen=True, kw_only=True)
class FinePruningF(PruningOptions, Defender):
    """Acts on trained weights; needs clean rows to fine-tune on and others to choose the ratio."""

    name = "fine-pruning-f"

    def repair(self, victim: Any, knowledge: Knowledge) -> Any:
        """Change the victim in place to the pruned and fine-tuned one, and return it; CellError where it cannot be."""
        from bench.victim.pruning import fine_pruned

        return fine_pruned(victim, knowledge, self, frozen=True)
