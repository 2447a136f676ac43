"""Filtering in blocks: equal to all pairs at once, right on functions whose parts are known, small in memory."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.analysis.filtering import GaussianFilter, TensorPoints, low_parts, pair_distances

FILTERS = [GaussianFilter("released", 0.5), GaussianFilter("paper", 0.5), GaussianFilter("released", 40.0)]


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize("block_rows", [31, 64, 200, 999])
def test_blocks_give_what_all_pairs_at_once_give(block_rows: int) -> None:
    points, columns = normal(200, 5), normal(200, 3)
    gaps = points[:, None] - points[None]
    for one, found in zip(FILTERS, low_parts(TensorPoints(points, block_rows), columns, FILTERS), strict=True):
        distance = (gaps**2).sum(-1) if one.kernel == "paper" else (gaps**2).sum(-1).sqrt()
        kernel = torch.exp(-distance / (2 * one.delta))
        kernel = kernel / kernel.sum(1, keepdim=True)
        assert torch.allclose(found.low, kernel @ columns, rtol=0, atol=1e-6)
        assert torch.allclose(found.self_weight, kernel.diagonal(), rtol=1e-6)
        assert torch.allclose(found.spread, 1 / (kernel**2).sum(1) / 200, rtol=1e-6)


def test_two_points_by_hand() -> None:
    # At distance 2 with delta 1 the released kernel is 1 and exp(-1), the paper's 1 and exp(-2).
    found = low_parts(
        TensorPoints(torch.tensor([[0.0], [2.0]])),
        torch.tensor([[1.0], [0.0]]),
        [GaussianFilter("released", 1.0), GaussianFilter("paper", 1.0)],
    )
    for one, away in zip(found, (math.exp(-1), math.exp(-2)), strict=True):
        assert one.low.flatten().tolist() == pytest.approx([1 / (1 + away), away / (1 + away)])
        assert one.self_weight.tolist() == pytest.approx([1 / (1 + away)] * 2)
        assert one.spread.tolist() == pytest.approx([(1 + away) ** 2 / (1 + away**2) / 2] * 2)


def test_a_wave_keeps_the_share_that_its_frequency_says() -> None:
    # On a ring, a wave is an eigenfunction: its low part is itself times the transform of the kernel. For the squared
    # distance along a long line that is exp(-delta k^2 / 2), so a slow wave passes and a fast one does not.
    n, delta = 4000, 1.0
    place = torch.linspace(-200, 200, n, dtype=torch.float64)[:, None]
    frequencies = (0.1, 1.0, 3.0)
    waves = torch.cat([torch.cos(k * place) for k in frequencies], 1)
    (found,) = low_parts(TensorPoints(place), waves, [GaussianFilter("paper", delta)])
    inside = slice(n // 4, -n // 4)  # away from the ends of the line
    for which, k in enumerate(frequencies):
        kept = math.exp(-delta * k**2 / 2)
        assert torch.allclose(found.low[inside, which], kept * waves[inside, which], atol=1e-3), k
        high = waves[:, which] - found.low[:, which]
        assert torch.allclose(high[inside], (1 - kept) * waves[inside, which], atol=1e-3), k


def test_a_constant_is_all_low_and_alternation_within_clusters_all_high() -> None:
    places = torch.arange(20.0).repeat_interleave(2)[:, None] * 1000  # twenty places far apart, two points at each
    signs = torch.tensor([1.0, -1.0]).repeat(20)
    step = torch.arange(20.0).repeat_interleave(2)  # differs between places, not within
    (found,) = low_parts(
        TensorPoints(places), torch.stack([torch.full((40,), 7.0), signs, step], 1), [GaussianFilter("released", 4.0)]
    )
    assert torch.allclose(found.low[:, 0], torch.full((40,), 7.0, dtype=torch.float64))
    assert found.low[:, 1].abs().max() < 1e-12
    assert torch.allclose(found.low[:, 2], step.double())
    assert found.self_weight.tolist() == pytest.approx([0.5] * 40)
    assert found.spread.tolist() == pytest.approx([2 / 40] * 40)


def test_narrow_and_wide_deltas_end_in_identity_and_mean() -> None:
    points, columns = normal(50, 4), normal(50, 2)
    found = low_parts(TensorPoints(points), columns, [GaussianFilter("paper", delta) for delta in (1e-3, 1e6)])
    assert torch.allclose(found[0].low, columns) and found[0].self_weight.min() > 0.999
    assert torch.allclose(found[1].low, columns.mean(0).expand(50, 2), atol=1e-5) and found[1].spread.min() > 0.999


def test_distances_of_all_pairs() -> None:
    points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    for rows in (1, 2, 3):
        found = sorted(pair_distances(TensorPoints(points, rows)).tolist())
        assert found == pytest.approx([1.0, math.sqrt(18), 5.0])


MEASURED = """
import resource, sys
import torch
from bench.analysis.filtering import GaussianFilter, TensorPoints, low_parts
n = int(sys.argv[1])
points, columns = torch.randn(n, 16, generator=torch.Generator().manual_seed(0)), torch.ones(n, 42)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = low_parts(TensorPoints(points), columns, [GaussianFilter("released", 4.0)])[0]
assert torch.allclose(found.low, torch.ones(n, 42, dtype=torch.float64))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_twenty_thousand_points_need_megabytes_not_the_matrix_of_all_pairs() -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "20000"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # All pairs in float64 would be 3,052 MiB; blocks of 1,024 are 8 MiB each, the columns 6.4 MiB.
    assert float(done.stdout) < 200
