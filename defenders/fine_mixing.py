"""Fine-mixing (Zhang et al., Findings of EMNLP 2022, arXiv 2210.09545): mix with the pre-trained weights, fine-tune.

Each entry of the backbone stays the backdoored victim's with probability rho, the reserve ratio, and else becomes the
pre-trained one; then the model is fine-tuned on a small clean set. At rho = 1 this is plain fine-tuning of the victim,
at rho = 0 fine-tuning from the pre-trained weights. The authors' code and settings are not known: everything besides
these two steps is an option with its reason (here and in bench/victim/repair_options.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bench.core.knowledge import Knowledge
from bench.victim.repair_options import MixingOptions
from defenders.base import Defender


@dataclass(frozen=True, kw_only=True)
class FineMixing(MixingOptions, Defender):
    """Acts on trained weights; needs the pre-trained ones, clean rows to fine-tune on, and others to choose rho.

    `mask`: `entries`, each entry drawn for itself, which is the plainest reading of a random choice of parameters;
    `tensor` and `model` draw an exact share of each tensor, or of all. A mask is a function of the cell's seed, so
    another seed mixes otherwise.
    """

    name = "fine-mixing"

    mask: Literal["entries", "tensor", "model"] = "entries"

    def repair(self, victim: Any, knowledge: Knowledge) -> Any:
        """Change the victim in place to the mixed and fine-tuned one, and return it; CellError where it cannot be."""
        from bench.victim.mixing import drawn, fine_mixed

        return fine_mixed(victim, knowledge, self, drawn(knowledge.seed), self.mask)
