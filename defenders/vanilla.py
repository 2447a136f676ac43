"""No defense: the whole model is fine-tuned on the data as they come (the paper's Vanilla)."""

from __future__ import annotations

from dataclasses import dataclass

from defenders.base import Defender


@dataclass(frozen=True, kw_only=True)
class Vanilla(Defender):
    """Acts at no stage: its trained victim is the one that every inference-time and repairing defense shares."""

    name = "vanilla"
