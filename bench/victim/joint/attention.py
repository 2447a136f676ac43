"""Attention over unpadded tokens: each block is padded, attends, and is unpadded again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.victim.joint.dropout import Streams
from bench.victim.joint.layout import Block, Layout

WIDENED = frozenset({"cpu"})  # devices on which the fused kernel is given bf16 in fp32


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


@dataclass(frozen=True)
class Heads:
    """How the layers of an architecture attend."""

    queries: int
    keys: int | None = None  # key-value heads, each of which serves as many neighbouring queries; None: one for each
    rate: float = 0.0  # of the dropout on attention probabilities
    causal: bool = False  # a token sees itself, those before it, and all of the prefix
    window: int | None = None  # how many tokens to each side it sees besides the prefix; None: all. Not where causal


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    heads: Heads,
    streams: Streams,
    prefix: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Return the attended values [tokens, width]; every token sees its own row, and the prefix of its source.

    Args:
        query, key, value: [tokens, width]; the last two are narrower where queries share heads.
        prefix: learned keys and values [sources, 2, key-value heads, length, width of a head].
        scale: of the scores; None: one over the root of the width of a head.
    """
    found = []
    for block in layout.blocks:
        counts = (heads.queries, heads.keys or heads.queries, heads.keys or heads.queries)
        parts = [
            _split(tensor[block.first : block.last], block, count)
            for tensor, count in zip((query, key, value), counts, strict=True)
        ]
        if prefix is not None:
            parts[1:] = _after(prefix[block.source], *parts[1:])
        if heads.causal:
            mixed = _attend_causally(*parts, block, heads.rate, streams, scale)
        else:
            mixed = _attend_block(*parts, block, heads, streams, scale)
        flat = mixed.transpose(1, 2).reshape(block.rows * block.longest, -1)
        found.append(flat if block.places is None else Unpad.apply(flat, block.places))
    return found[0] if len(found) == 1 else torch.cat(found)


def attend_first(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    heads: Heads,
    streams: Streams,
    prefix: Tensor | None = None,
) -> Tensor:
    """Return what `attend` returns for the first token of each row alone, [rows, width]; `query` is [rows, width].

    For layers that see everything, and in which no two queries share keys.
    """
    found, row = [], 0
    for block in layout.blocks:
        first = query[row : row + block.rows].view(block.rows, 1, heads.queries, -1).transpose(1, 2)
        parts = [_split(tensor[block.first : block.last], block, heads.queries) for tensor in (key, value)]
        if prefix is not None:
            parts = _after(prefix[block.source], *parts)
        found.append(_attend_block(first, *parts, block, heads, streams, None).reshape(block.rows, -1))
        row += block.rows
    return found[0] if len(found) == 1 else torch.cat(found)


def _split(values: Tensor, block: Block, heads: int) -> Tensor:
    """Return [rows, heads, longest, width of a head]."""
    if block.places is not None:
        values = Pad.apply(values, block.places, block.rows * block.longest)
    return values.view(block.rows, block.longest, heads, -1).transpose(1, 2)


def _after(prefix: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values [rows, heads, length + longest, width of a head] with the prefix before each row."""
    ahead = prefix.to(key.dtype)[:, None].expand(2, key.shape[0], *prefix.shape[1:])
    return torch.cat([ahead[0], key], dim=2), torch.cat([ahead[1], value], dim=2)


def _attend_block(
    query: Tensor, key: Tensor, value: Tensor, block: Block, heads: Heads, streams: Streams, scale: float | None
) -> Tensor:
    visible, ahead = block.real, key.shape[2] - block.longest
    mask = None if visible is None else visible[:, None, None, :]
    if heads.window is not None and heads.window < block.longest - 1:
        mask = _near(mask, block.longest, heads.window, query.device)
    if mask is not None and ahead:
        mask = functional.pad(mask, (ahead, 0), value=True)
    if streams.generators is None or not heads.rate:
        return _fused(query, key, value, attn_mask=mask, scale=scale)
    return _attend_dropped(query, key, value, mask, block, heads.rate, streams, scale)


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return what PyTorch's fused kernel makes of the parts, whose type the result has.

    On a CPU its kernel for bf16 is no faster than the one for fp32, and with the backward pass takes 2 to 5 times as
    long up to 128 tokens: there bf16 is widened for the kernel.
    """
    kind = query.dtype
    if kind == torch.bfloat16 and query.device.type in WIDENED:
        query, key, value = query.float(), key.float(), value.float()
    mixed = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attn_mask, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa
    )
    return mixed.to(kind)


def _near(mask: Tensor | None, longest: int, window: int, device: torch.device) -> Tensor:
    """Return the mask [rows or 1, 1, longest, longest] of what is near; padding sees itself, as nothing else may be."""
    places = torch.arange(longest, device=device)
    apart = (places[:, None] - places[None, :]).abs()
    near = (apart <= window)[None, None]
    return near if mask is None else (mask & near) | (apart == 0)


def _attend_causally(
    query: Tensor, key: Tensor, value: Tensor, block: Block, rate: float, streams: Streams, scale: float | None
) -> Tensor:
    """Attend to what stands before; padding stands after every token, so no token ever sees it."""
    ahead, shared = key.shape[2] - block.longest, query.shape[1] // key.shape[1]
    dropping = streams.generators is not None and rate
    # Flash kernels let queries share heads; the one for fp32 on a GPU does not.
    if shared > 1 and (dropping or (query.is_cuda and query.dtype == torch.float32)):
        key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
        shared = 1
    if dropping:
        seen = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril(ahead)
        return _attend_dropped(query, key, value, seen, block, rate, streams, scale)
    # Kernels take a causal mask as a flag where it is square: the prefix gets queries whose results nobody reads.
    query = functional.pad(query, (0, 0, ahead, 0)) if ahead else query
    mixed = _fused(query, key, value, is_causal=True, scale=scale, enable_gqa=shared > 1)
    return mixed[:, :, ahead:]


def _attend_dropped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    block: Block,
    rate: float,
    streams: Streams,
    scale: float | None,
) -> Tensor:
    """Attend in plain steps: a fused kernel takes no dropout mask of ours, and a member's draws must be its own."""
    scores = (query @ key.transpose(2, 3)).float()
    scores = scores / math.sqrt(query.shape[-1]) if scale is None else scores * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return streams.drop_block(scores.softmax(-1).to(value.dtype), block.source, rate, block.longest) @ value
