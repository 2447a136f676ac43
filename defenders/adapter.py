"""Adapter (Houlsby et al., arXiv 1902.00751): only small bottlenecks inside a frozen model learn.

It leaves less room for a backdoor; a baseline of the MuScleLoRA paper. Acts before training (wrap); needs
no clean samples. The classification head stays frozen at its random start in the recipe `released`
(OpenDelta freezes all but its own modules, the pooler too) and trains in `paper`, which does not speak of it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from bench.core.options import Count, Text
from bench.core.seeding import derived_seed
from defenders.base import Defender


@dataclass(frozen=True, kw_only=True)
class Adapter(Defender):
    """Bottleneck adapters; None stands for what the model file or the recipe says."""

    name = "adapter"
    parameter_efficient = True

    dimension: Count | None = None  # width of the bottleneck
    sites: tuple[Text, ...] | None = None  # suffixes of the modules whose output goes through an adapter
    train_head: bool | None = None

    def for_model(self, model: Any, recipe: str) -> Adapter:
        """Return this defense with dimension and sites of the model, and the recipe's head."""
        return dataclasses.replace(
            self,
            dimension=self.dimension or model.adapter_dim,
            sites=model.adapter_sites if self.sites is None else self.sites,
            train_head=(recipe == "paper") if self.train_head is None else self.train_head,
        )

    def wrap(self, victim: Any) -> None:
        """Change `victim` in place: insert the adapters and freeze everything else.

        Raises:
            CellError: a site that no module of the model matches.
        """
        from bench.victim.adapter import attach_adapter

        full = self.for_model(victim.spec, self.knowledge.recipe)
        seed = derived_seed(self.knowledge.seed, self.name)
        attach_adapter(victim, full.sites, full.dimension, seed=seed, train_head=full.train_head)
