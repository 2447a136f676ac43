"""What the defenses at inference share: their clean rows, their randomness, and a lower quantile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bench.core.errors import CellError
from bench.core.example import Example
from bench.core.knowledge import Knowledge
from defenders.base import Defender


def known(defense: Defender, classes: int = 2) -> Knowledge:
    """Return what the defense was bound to; in OpenBackdoor's pipeline nobody binds it, and its seed is 0."""
    bound = defense.__dict__.get("_knowledge")
    return bound if bound is not None else Knowledge(classes)


def calibration_rows(defense: Defender, clean_data: Mapping[str, Sequence[Example]], least: int) -> list[Example]:
    """Return the clean dev rows that the defense was given, or those that it was bound to.

    Raises:
        CellError: fewer than `least`.
    """
    rows = list(clean_data.get("dev") or known(defense).calibration)
    if len(rows) < least:
        raise CellError(
            f"Defense {defense.name!r} needs at least {least} clean dev rows to calibrate on, and got {len(rows)}.",
            "Take a data set with more dev rows.",
        )
    return rows


def order_statistic(values: np.ndarray, share: float) -> float:
    """Return the value of rank int(share * n), from 0, in ascending order: at most that many are lower."""
    return float(np.sort(values)[min(int(share * len(values)), len(values) - 1)])
