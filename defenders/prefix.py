"""Prefix tuning (Li and Liang, arXiv 2101.00190): only keys and values put before the text learn.

It leaves less room for a backdoor; a baseline of the MuScleLoRA paper. Acts before training (wrap); needs
no clean samples. Differs from the released code in the prompt encoder (see `bench.victim.prefix`), and
on decoders in that the prefix is used at all. In the recipe `released` the classification head of an encoder stays
frozen at its random start and that of a decoder trains, as in that code, where it is all that does; in `paper`,
which does not speak of it, it trains.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from bench.core.options import Count
from bench.core.seeding import derived_seed
from defenders.base import Defender


@dataclass(frozen=True, kw_only=True)
class Prefix(Defender):
    """Prefix tuning with projection; None stands for what the model file or the recipe says."""

    name = "prefix"
    parameter_efficient = True

    tokens: Count | None = None
    projection: Count = 512  # width of the hidden layer that makes the prefix
    train_head: bool | None = None

    def for_model(self, model: Any, recipe: str) -> Prefix:
        """Return this defense with the tokens of the model and the recipe's head."""
        trains = recipe == "paper" or model.family == "decoder"
        return dataclasses.replace(
            self,
            tokens=self.tokens or model.prefix_tokens,
            train_head=trains if self.train_head is None else self.train_head,
        )

    def wrap(self, victim: Any) -> None:
        """Change `victim` in place: give it a prefix and freeze everything else.

        Raises:
            CellError: an architecture in which some layer does not use the prefix.
        """
        from bench.victim.prefix import attach_prefix

        full = self.for_model(victim.spec, self.knowledge.recipe)
        seed = derived_seed(self.knowledge.seed, self.name)
        attach_prefix(victim, full.tokens, seed=seed, width=full.projection, train_head=full.train_head)
