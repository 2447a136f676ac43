"""Plug-ins that hand back the wrong kind of thing, as a first attempt does: named as `tests.engine.mistaken:Class`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from defenders.base import Defender


@dataclass(frozen=True)
class Shares(Defender):
    """Detect by how sure it is, where 0 or 1 is asked for."""

    name = "shares"

    def detect(self, model: Any = None, clean_data: Any = None, poison_data: Any = None) -> list[float]:
        """Return a share for each text."""
        return [0.7] * len(poison_data)
