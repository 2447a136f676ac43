"""Dropout whose numbers belong to a source: its own generator, drawn at its own shapes, whoever else is in the pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from bench.victim.joint.layout import Layout

LEVELS = 1 << 16  # a rate is kept in steps of 1 / 65536: four decisions come out of one 64-bit number


def keep(shape: Sequence[int], rate: float, generator: torch.Generator, part: Any = ...) -> Tensor:
    """Return a float mask of `shape` on the generator's device: 0 with probability `rate`, else 1 / (1 - rate).

    The rate is rounded to a multiple of 1 / 65536 (0.1 becomes 0.100006), and the scale is that of the rounded rate,
    so the expectation is exact. Drawing 16 bits a decision takes a fifth of the time of torch's own dropout on a CPU.
    `part` is an index: that part of the mask alone is returned, the numbers being drawn for all of it.
    """
    count, dropped = math.prod(shape), round(rate * LEVELS)
    words = torch.empty((count + 3) // 4, dtype=torch.int64, device=generator.device)
    words.random_(-(2**63), None, generator=generator)
    kept = words.view(torch.int16)[:count].view(tuple(shape))[part] >= dropped - LEVELS // 2
    if dropped >= LEVELS:
        return torch.zeros_like(kept, dtype=torch.float32)
    return kept.float().mul_(LEVELS / (LEVELS - dropped))


class Streams:
    """The generators of the sources of one pass; None where nothing is dropped."""

    def __init__(self, generators: Sequence[torch.Generator] | None) -> None:
        self.generators = generators

    def drop(self, values: Tensor, bounds: Sequence[tuple[int, int]], rate: float) -> Tensor:
        """Return values [n, width] with each source's part dropped by its own generator; `bounds` are its rows."""
        if self.generators is None or not rate:
            return values
        drawn = [
            keep((last - first, *values.shape[1:]), rate, generator)
            for (first, last), generator in zip(bounds, self.generators, strict=True)
        ]
        return values * (drawn[0] if len(drawn) == 1 else torch.cat(drawn)).to(values.dtype)

    def drop_first(self, values: Tensor, layout: Layout, rate: float) -> Tensor:
        """Return values [rows, width] of the first tokens, dropped as `drop` would if all tokens' values were there."""
        if self.generators is None or not rate:
            return values
        drawn = []
        for number, generator in enumerate(self.generators):
            (first, last), (begin, end) = layout.token_bounds[number], layout.row_bounds[number]
            starts = layout.starts[begin:end] - first
            drawn.append(keep((last - first, *values.shape[1:]), rate, generator, starts))
        return values * (drawn[0] if len(drawn) == 1 else torch.cat(drawn)).to(values.dtype)

    def drop_block(self, values: Tensor, source: int, rate: float, queries: int | None = None) -> Tensor:
        """Return attention probabilities [rows, heads, queries, keys] of one source, dropped by its generator.

        Args:
            queries: how many there are, where `values` holds the first of them alone: the numbers of all are drawn.
        """
        if self.generators is None or not rate:
            return values
        shape = values.shape if queries is None else (*values.shape[:2], queries, values.shape[3])
        part = (slice(None), slice(None), slice(0, values.shape[2]))
        return values * keep(shape, rate, self.generators[source], part).to(values.dtype)

    def twice(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """Return what to compute in now, and what to compute the same again in later: it draws the same numbers."""
        return nullcontext(), _Again(self.generators or ())


class _Again:
    """Sets generators back to where they stood when it was made; leaves them, at its end, as they were before it."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.then = [(generator, generator.get_state()) for generator in generators]
        self.now: list[torch.Tensor] = []

    def __enter__(self) -> None:
        self.now = [generator.get_state() for generator, _ in self.then]
        for generator, state in self.then:
            generator.set_state(state)

    def __exit__(self, *_: object) -> None:
        for (generator, _), state in zip(self.then, self.now, strict=True):
            generator.set_state(state)
