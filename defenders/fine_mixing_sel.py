"""Fine-mixing (Sel): what is kept of the victim is selected by how far it moved, not drawn.

That the paper has a variant that selects is a recollection, and nothing is known of its rule. Ours ranks the entries
by their distance from the pre-trained value; all else is fine-mixing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from bench.core.knowledge import Knowledge
from bench.victim.repair_options import MixingOptions
from defenders.base import Defender


@dataclass(frozen=True, kw_only=True)
class FineMixingSel(MixingOptions, Defender):
    """Acts on trained weights; needs the pre-trained ones, clean rows to fine-tune on, and others to choose rho.

    `keep`: `smallest`, the entries that moved least, so that what training on the poisoned data changed most is what
    is undone; `largest` keeps the strongest changes as what the task needs. `within`: the share rho is of each
    `tensor`, since tensors differ in how far they move and a ranking over the `model` would undo whole tensors.
    """

    name = "fine-mixing-sel"

    keep: Literal["smallest", "largest"] = "smallest"
    within: Literal["tensor", "model"] = "tensor"

    def repair(self, victim: Any, knowledge: Knowledge) -> Any:
        """Change the victim in place to the mixed and fine-tuned one, and return it; CellError where it cannot be."""
        from bench.victim.mixing import fine_mixed, moved

        score = moved(1 if self.keep == "smallest" else -1)
        return fine_mixed(victim, knowledge, self, score, self.within)
