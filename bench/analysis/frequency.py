"""How much of a mapping is low and high frequency, and how far a model is from it in each part (paper, appendix A)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.analysis.filtering import Filtered, Kernel, Points, pair_distances

IDENTITY = 0.8  # mean self-weight above which a low part is little but the function itself
CONSTANT = 0.95  # mean spread above which a low part is little but the mean of the function
NEGLIGIBLE = 1e-6  # of the whole: a part of the true labels below it is rounding


@dataclass(frozen=True)
class Measures:
    """Ratios over the looks, each [looks]; `high_error` is None where the true mapping has no high part."""

    low_ratio: Tensor  # LFR, ||y_low|| / ||y||
    high_ratio: Tensor  # HFR
    low_error: Tensor  # e_low, ||y_low - t_low|| / ||t_low||
    high_error: Tensor | None  # e_high


def measures(outputs: Tensor, truth: Tensor, low_outputs: Tensor, low_truth: Tensor) -> Measures:
    """Return the measures of outputs y [n, looks, classes] against true labels t [n, classes], given their low parts.

    Every norm is over the classes, and a ratio is one of means over the n rows, as in the published code.
    """

    def size(part: Tensor) -> Tensor:
        return torch.linalg.vector_norm(part, dim=-1).mean(0)

    high_outputs, high_truth = outputs - low_outputs, truth - low_truth
    low_error = size(low_outputs - low_truth[:, None]) / size(low_truth)
    high_error = size(high_outputs - high_truth[:, None]) / size(high_truth)
    whole = size(outputs)
    absent = bool(size(high_truth) <= NEGLIGIBLE * size(truth))
    return Measures(size(low_outputs) / whole, size(high_outputs) / whole, low_error, None if absent else high_error)


def degeneracy(filtered: Filtered, rows: slice) -> str | None:
    """Return "identity" or "constant" where a filter says nothing of the mapping of these rows, else None."""
    if float(filtered.self_weight[rows].mean()) > IDENTITY:
        return "identity"
    return "constant" if float(filtered.spread[rows].mean()) > CONSTANT else None


def chosen_delta(distance: float, points: int, kernel: Kernel) -> float:
    """Return the delta at which as many neighbours as there are points, all at `distance`, weigh as one at 0.

    With `distance` a quantile of the pairwise distances this lies between the filters that keep every point to itself
    and those that average over all: exp(-d / (2 delta)) = 1 / points, with d squared for the kernel `paper`.
    """
    distance = max(distance, 1e-9)  # where most points are one and the same
    exponent = distance**2 if kernel == "paper" else distance
    return exponent / (2 * math.log(max(points, 2)))


def distance_quantiles(points: Points, fractions: tuple[float, ...]) -> list[float]:
    """Return quantiles of the distances of all pairs of points."""
    found = pair_distances(points).sort().values
    return [float(found[round(fraction * (len(found) - 1))]) for fraction in fractions]
