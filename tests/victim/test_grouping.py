"""Groups of like lengths: less padding, the same loss and the same gradients."""

from __future__ import annotations

import itertools

import pytest
import torch

from bench.victim.batching import GROUP_COST, like_lengths
from tests.tiny import tiny_victim


def cost(groups: list[list[int]], lengths: list[int]) -> int:
    return sum(len(group) * max(lengths[row] for row in group) + GROUP_COST for group in groups)


def test_two_lengths_far_apart_are_two_groups_and_near_ones_are_one() -> None:
    # 8 x 10 + 8 x 50 + 2 x 64 = 608 tokens in two groups, 16 x 50 + 64 = 864 in one
    assert like_lengths([(10, i) for i in range(8)] + [(50, i) for i in range(8, 16)]) == [
        list(range(8)),
        list(range(8, 16)),
    ]
    # 4 x 20 + 64 = 144 in one, 2 x 15 + 2 x 20 + 2 x 64 = 198 in two
    assert like_lengths([(20, 0), (15, 1), (20, 2), (15, 3)]) == [[1, 3, 0, 2]]


def test_no_other_partition_of_seven_rows_is_cheaper() -> None:
    lengths = [3, 90, 41, 7, 120, 44, 200]
    found = like_lengths([(length, row) for row, length in enumerate(lengths)])
    assert sorted(itertools.chain(*found)) == list(range(7))
    order = sorted(range(7), key=lambda row: lengths[row])
    for cuts in itertools.product([False, True], repeat=6):
        groups = [[order[0]]]
        for row, cut in zip(order[1:], cuts, strict=True):
            groups.append([row]) if cut else groups[-1].append(row)
        assert cost(found, lengths) <= cost(groups, lengths)


def test_grouped_and_whole_batches_have_the_same_loss_and_gradients(tmp_path_factory: pytest.TempPathFactory) -> None:
    from bench.victim.run import Run

    victim = tiny_victim(tmp_path_factory, "bert")
    texts = ["good film " * n for n in (1, 1, 1, 2, 14, 14, 14, 13)] * 4
    data = victim.encode([(text, i % 2, 0) for i, text in enumerate(texts)])
    run = Run(victim, victim.trainable(), 1, 1, 1, 32)
    victim.eval()
    grouped, whole = data.grouped(range(32)), data.batch(range(32))
    assert len(grouped.parts) == 2 and not whole.parts
    gradients = []
    for batch in (grouped, whole):
        loss = run.loss(batch)
        gradients.append([loss.detach(), *torch.autograd.grad(loss, list(run.parameters.values()), allow_unused=True)])
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
