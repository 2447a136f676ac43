"""Where every token of a joint pass lies: rows of several sources end to end, no padding but inside attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bench.victim.batching import Encoded, like_lengths

BLOCK_COST = 128  # padded tokens that one more attention block is worth on a CPU


class Source(NamedTuple):
    """Rows of one data set that one member reads in a pass."""

    member: int
    data: Encoded
    rows: Sequence[int]


@dataclass(frozen=True)
class Block:
    """Rows of one source that attend in one padded block [rows, longest]; their tokens are `first` to `last`.

    `places` are where those tokens lie in the block, flat; None where all rows are equally long and nothing is padded.
    """

    source: int
    first: int
    last: int
    rows: int
    longest: int
    places: Tensor | None
    real: Tensor | None  # bool [rows, longest]


@dataclass(frozen=True)
class Layout:
    """The tokens of a pass [tokens] and what they belong to; rows of a source stand in order of length."""

    ids: Tensor  # [tokens]
    positions: Tensor  # [tokens], from 0 in each row
    starts: Tensor  # [rows], the first token of each row
    ends: Tensor  # [rows], the last
    labels: Tensor  # [rows]
    order: tuple[tuple[int, ...], ...]  # of each source: its rows, as they stand here
    token_bounds: tuple[tuple[int, int], ...]  # of each source
    row_bounds: tuple[tuple[int, int], ...]
    blocks: tuple[Block, ...]


def lay_out(sources: Sequence[Source], device: torch.device, split: bool) -> Layout:
    """Return the layout of a pass.

    How a source is divided into blocks depends on that source alone, so that no random number that is drawn for a
    block can depend on the others.

    Args:
        split: one block per group of like lengths (less padding, for a CPU); else one per source (fewer launches).
    """
    ids, positions, starts, ends, labels, order = [], [], [], [], [], []
    token_bounds, row_bounds, blocks = [], [], []
    token, row = 0, 0
    for number, source in enumerate(sources):
        lengths = [(source.data.lengths[index], place) for place, index in enumerate(source.rows)]
        groups = like_lengths(lengths, BLOCK_COST) if split else [[place for _, place in sorted(lengths)]]
        mine = [source.rows[place] for group in groups for place in group]
        first_token, first_row = token, row
        for group in groups:
            sizes = [source.data.lengths[source.rows[place]] for place in group]
            blocks.append(_block(number, token, sizes, device))
            for size in sizes:
                starts.append(token)
                positions.append(torch.arange(size))
                token += size
                ends.append(token - 1)
        ids += [source.data.ids[index] for index in mine]
        labels.append(source.data.labels[mine])
        order.append(tuple(mine))
        row += len(mine)
        token_bounds.append((first_token, token))
        row_bounds.append((first_row, row))
    return Layout(
        ids=torch.cat(ids).to(device),
        positions=torch.cat(positions).to(device),
        starts=torch.tensor(starts).to(device),
        ends=torch.tensor(ends).to(device),
        labels=torch.cat(labels).to(device),
        order=tuple(order),
        token_bounds=tuple(token_bounds),
        row_bounds=tuple(row_bounds),
        blocks=tuple(blocks),
    )


def _block(source: int, first: int, sizes: Sequence[int], device: torch.device) -> Block:
    longest, last = max(sizes), first + sum(sizes)
    if min(sizes) == longest:
        return Block(source, first, last, len(sizes), longest, None, None)
    real = torch.arange(longest)[None, :] < torch.tensor(sizes)[:, None]
    places = real.reshape(-1).nonzero().reshape(-1)
    return Block(source, first, last, len(sizes), longest, places.to(device), real.to(device))
