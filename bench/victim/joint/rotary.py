"""Rotary positions (Su et al., arXiv 2104.09864) of unpadded tokens, by the angles of transformers' own module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Angles = tuple[Tensor, Tensor]  # cosines and sines [tokens, 1, width of a head]


def by_length(kind: str) -> bool:
    """Tell whether a kind of scaling has angles that depend on the longest text of a batch."""
    return "dynamic" in kind or kind == "longrope"


def angles(rotary: Any, like: Tensor, positions: Tensor, bounds: Sequence[tuple[int, int]], *kind: str) -> Angles:
    """Return the angles of positions [tokens], asked of transformers' module for each of the `bounds` alone.

    Args:
        rotary: (states, positions [1, tokens], and what `kind` holds) -> cosines and sines [1, tokens, width].
        like: has the type that the angles get.
    """
    found = [rotary(like, positions[None, first:last], *kind) for first, last in bounds]
    cosines, sines = (torch.cat(parts, dim=1)[0][:, None] for parts in zip(*found, strict=True))
    return cosines, sines


def rotated(split: Tensor, by: Angles) -> Tensor:
    """Return queries or keys [tokens, heads, width of a head], rotated."""
    left, right = split.chunk(2, dim=-1)
    return split * by[0] + torch.cat([-right, left], dim=-1) * by[1]
