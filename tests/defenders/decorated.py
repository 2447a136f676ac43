"""Defenses whose methods are decorated as authors write them: named as `tests.defenders.decorated:Class`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tests.engine.acting import Cleaner, Cleanser, Flagger


@dataclass(frozen=True)
class Removes(Cleanser):
    """Remove training rows that hold a trigger word, without gradients."""

    name = "removes"

    @torch.no_grad()
    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[tuple]:
        """Return the rows without the words of BadNets."""
        return super().correct(model, clean_data, poison_data)


@dataclass(frozen=True)
class Rewrites(Cleaner):
    """Delete the trigger words from every text, without gradients."""

    name = "rewrites"

    @torch.no_grad()
    def correct(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[tuple]:
        """Return the texts without the words of BadNets."""
        return super().correct(model, clean_data, poison_data)


@dataclass(frozen=True)
class Flags(Flagger):
    """Flag texts that hold a trigger word, without gradients."""

    name = "flags"

    @torch.inference_mode()
    def detect(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[int]:
        """Flag a text that holds one of the words."""
        return super().detect(model, clean_data, poison_data)
