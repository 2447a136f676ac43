"""Attention over unpadded tokens: each block is padded, attends, and is unpadded again."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.victim.joint.dropout import Streams
from bench.victim.joint.layout import Block, Layout


class Pad(torch.autograd.Function):
    """[tokens, width] -> [size, width] with zeros where no token lies; its gradient is a plain gather."""

    @staticmethod
    def forward(context: Any, values: Tensor, places: Tensor, size: int) -> Tensor:
        """Put token i at row `places[i]`."""
        context.save_for_backward(places)
        padded = values.new_zeros(size, values.shape[1])
        padded[places] = values
        return padded

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the rows of the gradient that are tokens."""
        (places,) = context.saved_tensors
        return gradient.index_select(0, places), None, None


class Unpad(torch.autograd.Function):
    """The inverse of `Pad`."""

    @staticmethod
    def forward(context: Any, padded: Tensor, places: Tensor) -> Tensor:
        """Return the rows that are tokens."""
        context.save_for_backward(places)
        context.size = padded.shape[0]
        return padded.index_select(0, places)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Put the gradient of token i at row `places[i]`, zeros elsewhere."""
        (places,) = context.saved_tensors
        padded = gradient.new_zeros(context.size, gradient.shape[1])
        padded[places] = gradient
        return padded, None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    heads: int,
    rate: float,
    streams: Streams,
    prefix: Tensor | None = None,
) -> Tensor:
    """Return the attended values [tokens, width]; every token sees its own row, and the prefix of its source.

    Args:
        query, key, value: [tokens, width].
        rate: of the dropout on attention probabilities.
        prefix: learned keys and values [sources, 2, heads, length, width of a head].
    """
    found = []
    for block in layout.blocks:
        parts = [_split(tensor[block.first : block.last], block, heads) for tensor in (query, key, value)]
        own = None if prefix is None else prefix[block.source]
        mixed = _attend_block(*parts, block, rate, streams, own)
        flat = mixed.transpose(1, 2).reshape(block.rows * block.longest, -1)
        found.append(flat if block.places is None else Unpad.apply(flat, block.places))
    return found[0] if len(found) == 1 else torch.cat(found)


def attend_first(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    heads: int,
    rate: float,
    streams: Streams,
    prefix: Tensor | None = None,
) -> Tensor:
    """Return what `attend` returns for the first token of each row alone, [rows, width]; `query` is [rows, width]."""
    found, row = [], 0
    for block in layout.blocks:
        first = query[row : row + block.rows].view(block.rows, 1, heads, -1).transpose(1, 2)
        parts = [_split(tensor[block.first : block.last], block, heads) for tensor in (key, value)]
        own = None if prefix is None else prefix[block.source]
        found.append(_attend_block(first, *parts, block, rate, streams, own).reshape(block.rows, -1))
        row += block.rows
    return found[0] if len(found) == 1 else torch.cat(found)


def _split(values: Tensor, block: Block, heads: int) -> Tensor:
    """Return [rows, heads, longest, width of a head]."""
    if block.places is not None:
        values = Pad.apply(values, block.places, block.rows * block.longest)
    return values.view(block.rows, block.longest, heads, -1).transpose(1, 2)


def _attend_block(
    query: Tensor, key: Tensor, value: Tensor, block: Block, rate: float, streams: Streams, prefix: Tensor | None
) -> Tensor:
    visible = block.real
    if prefix is not None:
        ahead = prefix.to(key.dtype)[:, None].expand(2, block.rows, *prefix.shape[1:])
        key, value = torch.cat([ahead[0], key], dim=2), torch.cat([ahead[1], value], dim=2)
        if visible is not None:
            visible = functional.pad(visible, (prefix.shape[2], 0), value=True)
    mask = None if visible is None else visible[:, None, None, :]
    if streams.generators is None or not rate:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    # A fused kernel cannot take a mask of ours: the draws of a member must not depend on its gang.
    scores = (query @ key.transpose(2, 3)).float() / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return streams.drop_block(scores.softmax(-1).to(value.dtype), block.source, rate, block.longest) @ value
