"""Fine-pruning (Liu et al., RAID 2018, arXiv 1805.12185) for transformers, a baseline of the Fine-mixing paper.

Neurons of the feed-forward blocks that are least active on clean data are pruned: a backdoor is thought to sit in
neurons that clean inputs leave idle. Then the model is fine-tuned on the clean set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.core.knowledge import Knowledge
from bench.victim.repair_options import PruningOptions
from defenders.base import Defender


@dataclass(frozen=True, kw_only=True)
class FinePruning(PruningOptions, Defender):
    """Acts on trained weights; needs clean rows to fine-tune on and others to choose the ratio.

    What was pruned starts from zero and may be learnt again; in `fine-pruning-f` it may not.
    """

    name = "fine-pruning"

    def repair(self, victim: Any, knowledge: Knowledge) -> Any:
        """Change the victim in place to the pruned and fine-tuned one, and return it; CellError where it cannot be."""
        from bench.victim.pruning import fine_pruned

        return fine_pruned(victim, knowledge, self, frozen=False)
