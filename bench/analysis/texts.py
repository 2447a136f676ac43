"""Texts as points: their input embeddings, token after token in one vector, made anew block by block."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bench.analysis.filtering import BLOCK_ROWS
from bench.victim.batching import Encoded
from bench.victim.victim import Victim, embedded

BLOCK_BYTES = 2**27  # of one block's float64 coordinates


class Embedding:
    """A copy of a victim's embedding block as it is now, without dropout: training it on changes nothing here."""

    def __init__(self, victim: Victim) -> None:
        self.block = copy.deepcopy(victim.embedding_block()).eval().requires_grad_(False)
        self.device = victim.device

    def of(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return input embeddings [batch, length, width]."""
        with torch.inference_mode():
            return embedded(self.block, inputs)


class TextPoints:
    """Tokenised texts as points, in blocks of like lengths.

    A point is the embeddings of its real tokens one after another, then zeros. The published code embeds padding too,
    up to the longest of a text's batch of 32, so that a text's place depended on which texts stood beside it.
    """

    def __init__(self, texts: Encoded, rows: Sequence[int], embedding: Embedding) -> None:
        """Take some rows of the texts; point i is rows[i]."""
        self.texts, self.rows, self.embedding = texts, list(rows), embedding
        with torch.inference_mode():
            self.width = self._embedded([self.rows[0]]).shape[-1]
        self.blocks = list(self._blocks())

    def block(self, place: int) -> Tensor:
        """Return the coordinates of a block's points, longest texts of all blocks last."""
        vectors = self._embedded([self.rows[point] for point in self.blocks[place]])
        return vectors.reshape(len(vectors), -1)

    def _embedded(self, rows: Sequence[int]) -> Tensor:
        inputs: dict[str, Any] = self.texts.batch(rows, self.embedding.device).inputs
        return self.embedding.of(inputs).double() * inputs["attention_mask"][..., None]

    def _blocks(self) -> Any:
        order = sorted(range(len(self.rows)), key=lambda point: self.texts.lengths[self.rows[point]])
        block: list[int] = []
        for point in order:
            length = self.texts.lengths[self.rows[point]]
            if block and (len(block) == BLOCK_ROWS or (len(block) + 1) * length * self.width * 8 > BLOCK_BYTES):
                yield block
                block = []
            block.append(point)
        yield block
