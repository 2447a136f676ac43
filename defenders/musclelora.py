"""MuScleLoRA (Wu et al., ACL 2024): multi-scale low-rank training with gradient alignment.

Low-rank attention and a multi-scale low-rank module before the classifier hold back the high frequencies where a
backdoor is learnt; the gradient is aligned with that of a few clean rows. In `released` the numbers follow the
published code: projection per tensor, a gate at reference loss 0.4, a frozen random head. In `paper` they follow
Eq. 7-8: one projection over all parameters, mu linear in the step, the head trained, the module an identity at first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.core.knowledge import Knowledge
from bench.victim.recipes import AlignmentOptions, LoraOptions, MultiScaleOptions, filled
from defenders.base import Defender


@dataclass(frozen=True, kw_only=True)
class MuScleLora(AlignmentOptions, MultiScaleOptions, LoraOptions, Defender):
    """Acts at training; needs `clean_samples` labelled clean rows."""

    name = "musclelora"
    parameter_efficient = True

    def for_model(self, model: Any, recipe: str) -> MuScleLora:
        """Return a copy with open options taken from the model file and the recipe; CellError without a penultimate."""
        return filled(self, model, recipe)

    def wrap(self, victim: Any) -> None:
        """Insert LoRA and the multi-scale module into the victim in place."""
        from bench.victim.assembly import add_lora, add_multiscale

        add_lora(victim, self, self.knowledge.seed)
        add_multiscale(victim, self, self.knowledge.seed)

    def hooks(self, knowledge: Knowledge) -> Sequence[Any]:
        """Return the aligning hook."""
        from bench.victim.alignment import GradientAlignment

        return (GradientAlignment(knowledge.clean, self, knowledge.seed),)
