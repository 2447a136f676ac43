"""Gaussian filtering of a function on points: its low part, without ever holding all pairs (paper, Eq. 12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Kernel = Literal["released", "paper"]
BLOCK_ROWS = 1024


class Points(Protocol):
    """n points in blocks; a block may leave out trailing coordinates that are zero for all its points."""

    blocks: Sequence[Sequence[int]]  # the numbers of the points in each block; every point is in one

    def block(self, place: int) -> Tensor:
        """Return the coordinates of a block's points, float64 [points, dimensions of this block]."""


@dataclass(frozen=True)
class GaussianFilter:
    """The kernel exp(-||e_i - e_j|| / (2 delta)) of the published code, or exp(-||e_i - e_j||^2 / (2 delta)) of Eq. 12.

    Either is divided by its sum over j, j = i included.
    """

    kernel: Kernel
    delta: float

    def weights(self, squared: Tensor) -> Tensor:
        """Return the kernel of squared distances, before it is divided by its sum."""
        distance = squared if self.kernel == "paper" else squared.sqrt()
        return distance.mul(-0.5 / self.delta).exp_()


@dataclass(frozen=True)
class Filtered:
    """What one filter leaves of the columns, and how it spreads its weight over the points."""

    low: Tensor  # [n, columns]
    self_weight: Tensor  # [n]: the share of a point in its own low part; 1 is the identity
    spread: Tensor  # [n]: effective number of points behind a low part, as a fraction of n; 1 is a plain mean


class TensorPoints:
    """The rows of a matrix [n, dimensions] as points."""

    def __init__(self, matrix: Tensor, block_rows: int = BLOCK_ROWS) -> None:
        self.matrix = matrix
        self.blocks = [range(i, min(i + block_rows, len(matrix))) for i in range(0, len(matrix), block_rows)]

    def block(self, place: int) -> Tensor:
        """Return the rows of a block."""
        rows = self.blocks[place]
        return self.matrix[rows.start : rows.stop].double()


def squared_distances(one: Tensor, other: Tensor) -> Tensor:
    """Return ||a - b||^2 [rows of one, rows of other]; the narrower matrix is taken to end in zeros."""
    shared = min(one.shape[1], other.shape[1])
    product = one[:, :shared] @ other[:, :shared].T
    return ((one**2).sum(1)[:, None] + (other**2).sum(1)[None, :] - 2 * product).clamp_(min=0)


def low_parts(points: Points, columns: Tensor, filters: Sequence[GaussianFilter]) -> list[Filtered]:
    """Return what each filter leaves of the columns [n, columns] of a function on n points.

    All filters share one pass over the pairs of blocks, each pair once; beside the columns it holds two blocks and
    their distances. The high part is what is left: columns - low.
    """
    columns = columns.double()
    sums = [torch.zeros_like(columns) for _ in filters]
    totals = [torch.zeros_like(columns[:, 0]) for _ in filters]
    squares = [torch.zeros_like(columns[:, 0]) for _ in filters]
    places = [torch.tensor(list(rows), device=columns.device) for rows in points.blocks]
    for first, ours in enumerate(places):
        one = points.block(first)
        for second in range(first, len(places)):
            theirs, same = places[second], second == first
            distances = squared_distances(one, one if same else points.block(second))
            if same:
                distances.fill_diagonal_(0.0)  # rounding would leave a point at some distance from itself
            for which, one_filter in enumerate(filters):
                weights = one_filter.weights(distances)
                sums[which][ours] += weights @ columns[theirs]
                totals[which][ours] += weights.sum(1)
                squares[which][ours] += (weights**2).sum(1)
                if not same:
                    sums[which][theirs] += weights.T @ columns[ours]
                    totals[which][theirs] += weights.sum(0)
                    squares[which][theirs] += (weights**2).sum(0)
    return [
        Filtered(total / weight[:, None], 1 / weight, weight**2 / square / len(columns))
        for total, weight, square in zip(sums, totals, squares, strict=True)
    ]


def pair_distances(points: Points) -> Tensor:
    """Return the distances of all pairs of different points, [n (n - 1) / 2] in no order; meant for some hundreds."""
    found = []
    for first in range(len(points.blocks)):
        one = points.block(first)
        for second in range(first, len(points.blocks)):
            distances = squared_distances(one, one if second == first else points.block(second)).sqrt()
            if second == first:
                pairs = torch.triu_indices(len(one), len(one), 1, device=one.device)
                distances = distances[pairs[0], pairs[1]]
            found.append(distances.reshape(-1))
    return torch.cat(found)
