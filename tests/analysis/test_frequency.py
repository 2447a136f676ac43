"""Ratios and errors on mappings whose parts are known, and the filters that are refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bench.analysis.filtering import GaussianFilter, TensorPoints, low_parts
from bench.analysis.frequency import chosen_delta, degeneracy, distance_quantiles, measures


def places() -> Tensor:
    """Twenty places far apart with two points at each: what differs between places is low, within a place high."""
    return torch.arange(20.0).repeat_interleave(2)[:, None] * 1000


def seen(outputs: Tensor, truth: Tensor):
    both = torch.stack([outputs, truth], 1).double()
    (found,) = low_parts(TensorPoints(places()), both.flatten(1), [GaussianFilter("released", 4.0)])
    low = found.low.view_as(both)
    return measures(both[:, :-1], both[:, -1], low[:, :-1], low[:, -1])


def one_hot(labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels.long(), 2).double()


BETWEEN = one_hot(torch.arange(20).repeat_interleave(2) % 2)
WITHIN = one_hot(torch.arange(40) % 2)


def test_a_low_mapping_has_no_high_part() -> None:
    found = seen(BETWEEN, BETWEEN)
    assert (found.low_ratio.item(), found.high_ratio.item(), found.low_error.item()) == pytest.approx((1, 0, 0))
    assert found.high_error is None  # 0 / 0


def test_a_high_mapping_keeps_its_mean_alone_as_low_part() -> None:
    # The low part of alternating one-hot rows is (1/2, 1/2), of length 1/sqrt 2; so is the rest.
    found = seen(WITHIN, WITHIN)
    assert found.low_ratio.item() == pytest.approx(math.sqrt(0.5))
    assert found.high_ratio.item() == pytest.approx(math.sqrt(0.5))
    assert (found.low_error.item(), found.high_error.item()) == pytest.approx((0, 0))


def test_errors_of_a_model_that_knows_one_part() -> None:
    # (1/2, 1/2) everywhere is the low part of WITHIN exactly, and none of its high part.
    found = seen(torch.full((40, 2), 0.5), WITHIN)
    assert (found.low_error.item(), found.high_error.item()) == pytest.approx((0, 1))
    # The opposite labels: the low part is right again, the high part has the wrong sign, twice its size away.
    found = seen(1 - WITHIN, WITHIN)
    assert (found.low_error.item(), found.high_error.item()) == pytest.approx((0, 2))


def test_a_ratio_is_one_of_means_over_rows() -> None:
    # Outputs differ between two halves of the places: means of lengths first, then their ratio.
    outputs = torch.where(torch.arange(40)[:, None] < 20, BETWEEN, 3 * BETWEEN)
    found = seen(outputs, BETWEEN)
    assert found.low_error.item() == pytest.approx((0 + 2) / 2)


def test_constant_labels_have_no_high_part() -> None:
    target = one_hot(torch.ones(40))
    found = seen(WITHIN, target)
    assert found.high_error is None and found.high_ratio.item() > 0.5


def test_degenerate_filters_are_named() -> None:
    points = TensorPoints(torch.randn(60, 3, generator=torch.Generator().manual_seed(1)))
    filters = [GaussianFilter("released", delta) for delta in (1e-3, 0.3, 1e3)]
    found = [degeneracy(one, slice(0, 60)) for one in low_parts(points, torch.ones(60, 1), filters)]
    assert found == ["identity", None, "constant"]


@pytest.mark.parametrize("kernel", ["released", "paper"])
def test_the_chosen_delta_makes_equally_far_neighbours_weigh_as_much_as_the_point_itself(kernel: str) -> None:
    distance, n = 77.0, 872
    one = GaussianFilter(kernel, chosen_delta(distance, n, kernel))
    weight = one.weights(torch.tensor(distance**2, dtype=torch.float64))
    assert (n * weight).item() == pytest.approx(1.0)
    # By hand: ln 872 = 6.7708, so delta = 77 / 13.5416 and 5929 / 13.5416.
    assert one.delta == pytest.approx({"released": 5.6862, "paper": 437.84}[kernel], rel=1e-4)


@pytest.mark.parametrize("kernel", ["released", "paper"])
@pytest.mark.parametrize("dimensions", [1, 10, 2000])
def test_the_chosen_delta_is_not_degenerate_in_many_dimensions(kernel: str, dimensions: int) -> None:
    points = TensorPoints(torch.randn(300, dimensions, generator=torch.Generator().manual_seed(2)))
    (distance,) = distance_quantiles(points, (0.5,))
    one = GaussianFilter(kernel, chosen_delta(distance, 300, kernel))
    (found,) = low_parts(points, torch.ones(300, 1), [one])
    assert degeneracy(found, slice(0, 300)) is None


def test_quantiles_of_distances() -> None:
    points = TensorPoints(torch.tensor([[0.0], [1.0], [3.0]]))  # distances 1, 2, 3
    assert distance_quantiles(points, (0.0, 0.5, 1.0)) == pytest.approx([1, 2, 3])


def test_points_that_are_all_one_give_a_delta_all_the_same() -> None:
    assert chosen_delta(0.0, 10, "paper") > 0
